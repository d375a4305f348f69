// SPDX-License-Identifier: GPL-2.0-only

// Package boot tests that o2fence comes up by itself where it has to, after o2cb and before the first
// OCFS2 mount: in machines that start with Debian's own init, once systemd and once sysvinit, after
// make install and what its last words tell an administrator to do.
package boot

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/test/vm"
)

func TestSystemdProtectsTheClusterBeforeTheFirstMount(t *testing.T) {
	m := boot(t, nil, `
		unpack
		# Of all services only those of ocfs2-tools and of systemd itself: others take their time.
		# That of ocfs2 is not among them: Debian starts it at the same time as the mount of fstab, and
		# each of them may find the other's mount in its way.
		rm -rf /etc/systemd/system/*.wants
		find /etc/rc?.d -type l ! -name '*o2cb' -delete
		for unit in getty.target dbus.socket dbus.service systemd-hwdb-update systemd-logind systemd-tmpfiles-setup; do
			systemctl --root=/ --quiet mask "$unit"
		done
		SYSTEMD_OFFLINE=1 systemctl enable remote-fs.target o2fenced.service o2fence.service
		rm -f /.dockerenv # the host may be a container, this machine is none
		echo 00000000000000000000000000000001 > /etc/machine-id # without one this is a first boot, which asks
		exec /lib/systemd/systemd`,
		// There is no desktop to wait for, and nobody who logs in.
		"systemd.unit=multi-user.target systemd.show_status=true")
	defer m.explain("journalctl", "-o", "short-monotonic", "-u", "o2*", "-u", "ocfs2*")
	m.awaitProtection()
	for _, order := range [][2]string{
		{"o2cb.service", "o2fenced.service"},
		{"o2fenced.service", "o2fence.service"},
		{"o2fence.service", "ocfs2.mount"},
	} {
		up := m.entered(order[0], "ActiveEnterTimestampMonotonic")
		if begun := m.entered(order[1], "InactiveExitTimestampMonotonic"); begun < up {
			t.Errorf("%s began at %d µs, %s was up at %d µs", order[1], begun, order[0], up)
		}
	}

	joined := m.entered("o2fence.service", "ActiveEnterTimestampMonotonic")
	m.survivesRestart("systemctl restart o2fenced.service")
	if m.entered("o2fence.service", "ActiveEnterTimestampMonotonic") != joined {
		t.Error("the restart of o2fenced has restarted o2fence")
	}
	m.leaves("systemctl stop ocfs2.mount", "systemctl stop o2fence.service")
	m.run("systemctl stop o2cb.service")
	m.unloaded()

	m.run("systemctl start o2cb.service o2fence.service")
	m.run("systemctl start ocfs2.mount")
	m.awaitProtection()
	from := m.Console().Len()
	check(t, m.Shutdown(m.ctx))
	m.printed(from, `Unmounted .*ocfs2\.mount`, `Stopped .*o2fence\.service`, `Stopped .*o2fenced\.service`, `Stopped .*o2cb\.service`)
}

func TestSysvinitProtectsTheClusterBeforeTheFirstMount(t *testing.T) {
	// These cannot be installed beside systemd.
	packages := []string{"sysvinit-core", "sysv-rc", "initscripts", "insserv", "startpar"}
	m := boot(t, packages, `
		# Of all init scripts only those of the packages, and of ocfs2-tools.
		find /etc/rc?.d -type l -delete
		find /etc/init.d -type f ! -name o2cb ! -name ocfs2 -delete
		unpack
		grep -v getty /usr/share/sysvinit/inittab > /etc/inittab
		insserv --default $(cd /etc/init.d && grep -l "BEGIN INIT INFO" * | grep -v o2fenced)
		update-rc.d o2fenced defaults
		mount -t tmpfs tmpfs /tmp # the host's is cleaned file by file
		exec /sbin/init`, "")
	m.awaitProtection()
	// Each is begun at the end of what it stands for, but for the last: a mount begins with its heartbeat.
	order := []string{"o2hbmonitor", "o2fenced", "o2fencectl", "o2hb-"}
	for i, process := range order[1:] {
		if m.born(process) < m.born(order[i]) {
			t.Errorf("%s was started before %s", process, order[i])
		}
	}

	m.survivesRestart("/etc/init.d/o2fenced restart")
	m.leaves("/etc/init.d/ocfs2 stop", "/etc/init.d/o2fenced stop")
	if _, err := m.try("pidof o2fenced o2fencectl"); err == nil {
		t.Error("a daemon is still running")
	}
	m.run("/etc/init.d/o2cb stop")
	m.unloaded()
}

// survivesRestart restarts the bridge. It binds its method again, and what was protected still is.
func (m *machine) survivesRestart(restart string) {
	m.t.Helper()
	before := m.bridge()
	m.run(restart)
	if after := m.bridge(); after == before {
		m.t.Errorf("after %q the method is still bound by %d", restart, before)
	}
	if s := m.status(); !s.protected() {
		m.t.Errorf("after %q: %+v", restart, s)
	}
}

// leaves stops o2fence, which must not happen while the file system is mounted.
func (m *machine) leaves(unmount, stop string) {
	m.t.Helper()
	m.run(unmount)
	if s := m.status(); len(s.Clusters) != 1 || len(s.Mounts) != 0 {
		m.t.Errorf("after %q: %+v", unmount, s)
	}
	m.run(stop)
	if s := m.status(); len(s.Clusters) != 0 {
		m.t.Errorf("after %q: %+v", stop, s)
	}
}

// unloaded checks that o2cb could unload its cluster stack: o2fence was not in its way.
func (m *machine) unloaded() {
	m.t.Helper()
	modules := "\n" + m.run("cat /proc/modules")
	for _, module := range []string{"o2fence_o2cb ", "ocfs2_stack_o2cb "} {
		if strings.Contains(modules, "\n"+module) {
			m.t.Errorf("after o2cb's stop there is still %s\n%s", module, modules)
		}
	}
}

// printed checks that the console has a line for each pattern, in that order.
func (m *machine) printed(from int, patterns ...string) {
	m.t.Helper()
	lines := m.Console().Lines(from)
	for _, pattern := range patterns {
		expression := regexp.MustCompile(pattern)
		i := slices.IndexFunc(lines, func(l vm.Line) bool { return expression.MatchString(l.Text) })
		if i < 0 {
			m.t.Errorf("%q was not printed, or too early", pattern)
			continue
		}
		lines = lines[i+1:]
	}
}

// born returns when the process whose name begins like that was started, in ticks of the machine's
// uptime: field 22 of proc(5)'s stat.
func (m *machine) born(process string) int64 {
	m.t.Helper()
	text := m.run(`cat /proc/[0-9]*/stat 2>/dev/null | awk '$2 ~ /^\(` + process + `/ { print $22 }'`)
	at, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		m.t.Fatalf("%s: started at %q", process, text)
	}
	return at
}

// entered returns when a systemd unit was in a state, in microseconds of the machine's uptime.
func (m *machine) entered(unit, state string) int64 {
	m.t.Helper()
	text := m.run(fmt.Sprintf("systemctl show --value -p %s %s", state, unit))
	at, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || at == 0 {
		m.t.Fatalf("%s: %s is %q", unit, state, text)
	}
	return at
}
