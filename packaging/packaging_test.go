// SPDX-License-Identifier: GPL-2.0-only

// Package packaging_test checks what is installed beside the programs with the tools that read it.
package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stack is what o2cb.service and ocfs2.service look like to a unit that is ordered against them.
var stack = map[string]map[string]string{
	"units made from Debian 12's init scripts": {
		"o2cb.service": "[Unit]\nBefore=multi-user.target graphical.target\nAfter=network-online.target\nWants=network-online.target\n" +
			"[Service]\nType=forking\nKillMode=process\nRemainAfterExit=yes\nExecStart=/bin/true start\n",
		"ocfs2.service": "[Unit]\nBefore=multi-user.target\nAfter=network-online.target o2cb.service\nWants=network-online.target\n" +
			"[Service]\nType=forking\nKillMode=process\nRemainAfterExit=yes\nExecStart=/bin/true start\n",
	},
	"native units": {
		"o2cb.service": "[Unit]\nRequires=network.service\nAfter=network.service\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true enable\n",
		"network.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
		"ocfs2.service": "[Unit]\nRequires=o2cb.service\nAfter=o2cb.service\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true start\n",
	},
}

// fstab is what systemd-fstab-generator makes of a line with _netdev and x-systemd.requires=o2cb.service.
// Being after remote-fs-pre.target is what systemd itself adds.
const fstab = "[Unit]\nAfter=o2cb.service\nRequires=o2cb.service\nBefore=remote-fs.target\n" +
	"[Mount]\nWhat=/dev/vda\nWhere=/srv\nType=ocfs2\nOptions=_netdev,x-systemd.requires=o2cb.service\n"

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// verify lets systemd load the units beside those they are ordered against, compute the transaction
// that starts all of them together, and returns what it does not like. One drop-in file is added.
func verify(t *testing.T, others map[string]string, dropIn, text string) (string, error) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd here: ", err)
	}
	dir := t.TempDir()
	for unit, text := range others {
		write(t, filepath.Join(dir, unit), text)
	}
	write(t, filepath.Join(dir, "srv.mount"), fstab)
	write(t, filepath.Join(dir, "boot.target"), "[Unit]\nWants=o2cb.service ocfs2.service srv.mount remote-fs.target\n")
	if dropIn != "" {
		write(t, filepath.Join(dir, dropIn+".d", "test.conf"), text)
	}
	for _, unit := range []string{"o2fence.service", "o2fenced.service", "o2fence-sandbox.service", "o2fence-relay.service", "o2fence-listen.service", "o2fence-unfence.service"} {
		install(t, unit, dir)
	}
	cmd := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "boot.target"), filepath.Join(dir, "o2fence.service"))
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// install enables a unit as its WantedBy says, with programs that are there.
func install(t *testing.T, unit, dir string) {
	t.Helper()
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	program := regexp.MustCompile(`(/usr)?/sbin/(o2fenced|o2fencectl|o2fence-relay|o2fence-sandbox|o2fence-ipban|modprobe)`)
	write(t, filepath.Join(dir, unit), program.ReplaceAllString(string(text), "/bin/true"))
	wanted := regexp.MustCompile(`WantedBy=(\S+)`).FindStringSubmatch(string(text))
	if wanted == nil {
		return // another unit of ours wants it
	}
	wants := filepath.Join(dir, wanted[1]+".wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../"+unit, filepath.Join(wants, unit)); err != nil {
		t.Fatal(err)
	}
}

func TestUnitsAreRight(t *testing.T) {
	for name, others := range stack {
		t.Run(name, func(t *testing.T) {
			out, err := verify(t, others, "", "")
			if err != nil || strings.Contains(out, "o2fence") || strings.Contains(out, "cycle") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestClusterIsJoinedBetweenO2cbAndTheFirstMount asks for the opposite order, which has to be an
// ordering cycle.
func TestClusterIsJoinedBetweenO2cbAndTheFirstMount(t *testing.T) {
	for name, others := range stack {
		for _, order := range [][2]string{
			{"o2fence-unfence.service", "o2cb.service"},
			{"o2cb.service", "o2fenced.service"},
			{"o2fence-sandbox.service", "o2fenced.service"},
			{"o2fenced.service", "o2fence.service"},
			{"o2fence.service", "ocfs2.service"},
			{"o2fence.service", "srv.mount"},
		} {
			t.Run(name+": "+order[0]+" before "+order[1], func(t *testing.T) {
				out, _ := verify(t, others, order[0], "[Unit]\nAfter="+order[1]+"\n")
				if !strings.Contains(out, "ordering cycle") {
					t.Error("the opposite order is possible")
				}
			})
		}
	}
}

// A storage server's target, as its service is made from Debian 12's init script or comes with it, and the
// packet filter that is flushed when it starts.
var storage = map[string]string{
	"tgt.service":      "[Unit]\nAfter=network.target\n[Service]\nExecStart=/bin/true\n",
	"nftables.service": "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target shutdown.target\n[Service]\nType=oneshot\nExecStart=/bin/true\n",
	"boot.target":      "[Unit]\nWants=tgt.service nftables.service o2fence-ipban.service o2fence-ipban-restore.service\n",
}

// verifyStorage is verify for a storage server's units.
func verifyStorage(t *testing.T, dropIn, text string) (string, error) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd here: ", err)
	}
	dir := t.TempDir()
	for unit, text := range storage {
		write(t, filepath.Join(dir, unit), text)
	}
	if dropIn != "" {
		write(t, filepath.Join(dir, dropIn+".d", "test.conf"), text)
	}
	for _, unit := range []string{"o2fence-ipban.service", "o2fence-ipban-restore.service"} {
		install(t, unit, dir)
	}
	cmd := exec.Command(analyze, "verify", "--man=no", filepath.Join(dir, "boot.target"))
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestNodesAreBannedBeforeTheTargetServes(t *testing.T) {
	out, err := verifyStorage(t, "", "")
	if err != nil || strings.Contains(out, "o2fence") || strings.Contains(out, "cycle") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, order := range [][2]string{
		{"nftables.service", "o2fence-ipban-restore.service"},
		{"o2fence-ipban-restore.service", "tgt.service"},
		{"o2fence-ipban-restore.service", "o2fence-ipban.service"},
	} {
		out, _ := verifyStorage(t, order[0], "[Unit]\nAfter="+order[1]+"\n")
		if !strings.Contains(out, "ordering cycle") {
			t.Errorf("%s need not come before %s", order[0], order[1])
		}
	}
}

func TestInitScriptIsRight(t *testing.T) {
	if out, err := exec.Command("sh", "-n", "o2fenced.init").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("no shellcheck here: ", err)
	}
	if out, err := exec.Command(shellcheck, "--exclude=SC1091", "o2fenced.init").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
