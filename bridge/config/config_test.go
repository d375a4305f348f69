// SPDX-License-Identifier: GPL-2.0-only

package config_test

import (
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/o2fence/o2fence/bridge/config"
)

var update = flag.Bool("update", false, "write the golden files")

// methods stands for the table of all methods, with a secret that need not exist.
func methods() config.Schema {
	address := func(value string) error {
		if _, err := netip.ParseAddr(value); err != nil {
			return errors.New("expected an IP address")
		}
		return nil
	}
	return config.Schema{
		"ipmi": {Params: []config.Param{
			{Name: "addr", Required: true, Validate: address, Identity: true},
			{Name: "user", Required: true},
			{Name: "password_file"},
		}},
		"psu": {Params: []config.Param{
			{Name: "addr", Required: true, Validate: address, Identity: true},
			{Name: "outlet", Required: true, Identity: true},
		}},
		"test":   {},
		"listen": {Blind: true},
		"ask":    {Params: []config.Param{{Name: "addrs", Required: true}, {Name: "key_file", Required: true}}},
	}
}

var addrPorts = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func read(t *testing.T, name string) config.File {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return config.File{Name: filepath.Base(name), Text: string(text)}
}

// parse parses a fence.conf for the three nodes of testdata/cluster.conf.
func parse(t *testing.T, fence string) *config.Config {
	t.Helper()
	c, err := config.Parse(read(t, "cluster.conf"), config.File{Name: "fence.conf", Text: fence}, methods())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func texts(warnings []*config.Error) []string {
	var all []string
	for _, w := range warnings {
		all = append(all, w.Error())
	}
	return all
}

// TestEveryRefusalSaysWhatWasExpected compares all errors of a file with its golden file: the place
// of each, in order, and a text that helps.
func TestEveryRefusalSaysWhatWasExpected(t *testing.T) {
	names, err := filepath.Glob("testdata/refused/*.conf")
	if err != nil || len(names) == 0 {
		t.Fatal("no files to refuse", err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".conf")
		t.Run(base, func(t *testing.T) {
			cluster, fence := read(t, "cluster.conf"), config.File{Name: "fence.conf"}
			if strings.HasPrefix(base, "cluster") {
				cluster = read(t, "refused/"+base+".conf")
			} else {
				fence = read(t, "refused/"+base+".conf")
			}
			_, err := config.Parse(cluster, fence, methods())
			if err == nil {
				t.Fatal("accepted")
			}
			compareGolden(t, strings.TrimSuffix(name, ".conf")+".golden", err.Error()+"\n")
		})
	}
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestFenceConfIsDigestedForTheKernel(t *testing.T) {
	c := parse(t, `
fence:
	node = web2        # the cluster's name is not needed when there is but one
	then = off
	method = ipmi
	user = fence
	addr = 10.0.1.2
	timeout_ms = 7000
	method = psu
	outlet = 3
	addr = 10.0.1.9
	method = watchdog
	wait = 70000

cluster:
	name = mycluster
	missed = 3
	period_ms = 1000
	gate_ms = 0
	fence_delay_ms = 1
	timeout_ms = 9000
	then_delay_ms = 2

fence:
	node = web1
	cluster = mycluster
	method = manual
fence:
	node = web3
	method = manual
	timeout_ms = 600000
	method = watchdog
	wait = 65000
`)
	want := &config.Config{Clusters: []*config.Cluster{{
		Name:   "mycluster",
		Missed: 3, PeriodMS: 1000, GateMS: 0, FenceDelayMS: 1, ThenDelayMS: 2, Threshold: 31,
		Nodes: []config.Node{
			{Name: "web1", Number: 1, Addr: netip.MustParseAddrPort("10.0.0.1:7777"), ThenOn: true, Steps: []config.Step{
				{Method: "manual", TimeoutMS: 86400000},
			}},
			{Name: "web2", Number: 2, Addr: netip.MustParseAddrPort("10.0.0.2:7777"), Steps: []config.Step{
				{Method: "ipmi", TimeoutMS: 7000, Params: []byte("addr=10.0.1.2\nuser=fence\n")},
				{Method: "psu", TimeoutMS: 9000, Params: []byte("addr=10.0.1.9\noutlet=3\n")},
				{Method: "watchdog", TimeoutMS: 86400000, Params: []byte("wait=70000\n")},
			}},
			{Name: "web3", Number: 3, Addr: netip.MustParseAddrPort("10.0.0.3:7777"), ThenOn: true, Steps: []config.Step{
				{Method: "manual", TimeoutMS: 600000},
				{Method: "watchdog", TimeoutMS: 86400000, Params: []byte("wait=65000\n")},
			}},
		},
	}}}
	ignore := cmpopts.IgnoreFields(config.Step{}, "Values")
	if diff := cmp.Diff(want, c, ignore, addrPorts); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := c.Clusters[0].Nodes[1].Steps[0].Values["user"]; got != "fence" {
		t.Errorf("the value of user is %q", got)
	}
}

// TestWithoutStanzasNodesAreFencedAsStockOCFS2Does is R13: the watchdog, and the defaults.
func TestWithoutStanzasNodesAreFencedAsStockOCFS2Does(t *testing.T) {
	c := parse(t, "")
	cluster := c.Clusters[0]
	if cluster.Missed != 5 || cluster.PeriodMS != 2000 || cluster.GateMS != 15000 ||
		cluster.FenceDelayMS != 5000 || cluster.ThenDelayMS != 10000 {
		t.Errorf("defaults: %+v", cluster)
	}
	want := []config.Step{{Method: config.Watchdog, TimeoutMS: 86400000}}
	for _, n := range cluster.Nodes {
		if diff := cmp.Diff(want, n.Steps); diff != "" || !n.ThenOn {
			t.Errorf("%s: then on is %v, steps -want +got:\n%s", n.Name, n.ThenOn, diff)
		}
	}
	if len(c.Warnings) != 3 {
		t.Errorf("warnings: %q", texts(c.Warnings))
	}
}

func TestWarnings(t *testing.T) {
	for name, test := range map[string]struct{ fence, want string }{
		"a list that ends in user space is completed": {
			"method = test",
			"fence.conf:1: node web1: the list does not end in a method of the kernel, watchdog is added to it",
		},
		"methods after the watchdog are hardly tried": {
			"method = watchdog\n\tmethod = test\n\tmethod = manual",
			"fence.conf:4: node web1: test comes after watchdog, which hardly ever fails",
		},
		"a wait below OCFS2's own is not safe": {
			"method = watchdog\n\twait = 59999",
			"fence.conf:3: node web1: a wait of 59999 ms is shorter than the 60000 ms after which OCFS2 usually resets a node: it may still write",
		},
	} {
		t.Run(name, func(t *testing.T) {
			others := "\n\nfence:\n\tnode = web2\n\tmethod = manual\n\nfence:\n\tnode = web3\n\tmethod = manual\n"
			c := parse(t, "fence:\n\tnode = web1\n\t"+test.fence+others)
			if diff := cmp.Diff([]string{test.want}, texts(c.Warnings)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			steps := c.Clusters[0].Nodes[0].Steps
			if last := steps[len(steps)-1].Method; last != config.Watchdog && last != config.Manual {
				t.Errorf("the last method is %s", last)
			}
		})
	}
}

func TestWrongNodeCountIsAWarning(t *testing.T) {
	cluster := read(t, "cluster.conf")
	cluster.Text = strings.Replace(cluster.Text, "node_count = 3", "node_count = 2", 1)
	c, err := config.Parse(cluster, config.File{Name: "fence.conf"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "cluster.conf:4: node_count = 2, but cluster mycluster has 3 node stanzas"
	if got := c.Warnings[0].Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSeveralClustersAreKeptApart(t *testing.T) {
	cluster := read(t, "cluster.conf")
	cluster.Text += strings.ReplaceAll(cluster.Text, "mycluster", "other")
	c, err := config.Parse(cluster, config.File{Name: "fence.conf", Text: `
cluster:
	name = other
	missed = 9
	then = off

fence:
	node = web1
	cluster = other
	method = psu
	addr = 10.0.1.9
	outlet = 1

fence:
	node = web1
	cluster = mycluster
	method = psu
	addr = 10.0.1.9
	outlet = 1
`}, methods())
	if err != nil {
		t.Fatal(err)
	}
	mine, other := c.Clusters[0], c.Clusters[1]
	if mine.Missed != 5 || other.Missed != 9 || !mine.Nodes[0].ThenOn || other.Nodes[0].ThenOn {
		t.Errorf("mycluster %+v, other %+v", mine, other)
	}
	if _, err := c.Cluster(""); err == nil {
		t.Error("one of two clusters was chosen without being named")
	}
}

func TestSecretFileIsForItsOwnerOnly(t *testing.T) {
	schema := config.Schema{"bmc": {Params: []config.Param{{Name: "password_file", Secret: true}}}}
	dir := t.TempDir()
	secret := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("x"), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		value string
		want  error
	}{
		"0600":            {secret("private", 0o600), nil},
		"0400":            {secret("readonly", 0o400), nil},
		"group-readable":  {secret("group", 0o640), fs.ErrPermission},
		"world-readable":  {secret("world", 0o604), fs.ErrPermission},
		"group-writable":  {secret("writable", 0o620), fs.ErrPermission},
		"missing":         {filepath.Join(dir, "missing"), fs.ErrNotExist},
		"not a file":      {dir, fs.ErrInvalid},
		"not a path: pw1": {"pw1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			fence := config.File{Name: "fence.conf", Text: "fence:\n\tnode = web1\n\tmethod = bmc\n\tpassword_file = " + test.value + "\n"}
			_, err := config.Parse(read(t, "cluster.conf"), fence, schema)
			switch {
			case test.value == "pw1" && (err == nil || strings.Contains(err.Error(), "pw1")):
				t.Errorf("the secret itself gives %v", err)
			case test.value != "pw1" && !errors.Is(err, test.want):
				t.Errorf("got %v, want %v", err, test.want)
			case test.want != nil && !strings.HasPrefix(err.Error(), "fence.conf:4: password_file: "):
				t.Errorf("the place is missing: %v", err)
			}
		})
	}
}

func TestParametersTooLongForTheKernelAreRefused(t *testing.T) {
	fence := config.File{Name: "fence.conf", Text: "fence:\n\tnode = web1\n\tmethod = ipmi\n\taddr = 10.0.1.1\n\tuser = " + strings.Repeat("u", 1010) + "\n"}
	_, err := config.Parse(read(t, "cluster.conf"), fence, methods())
	if err == nil || err.Error() != "fence.conf:3: expected at most 1024 bytes of parameters, found 1030" {
		t.Errorf("got %v", err)
	}
}

func TestMistypedNamesGetTheNearestOne(t *testing.T) {
	c := parse(t, "")
	_, errCluster := c.Cluster("mycluser")
	_, errNode := c.Clusters[0].Node("wbe2")
	for want, err := range map[string]error{
		`unknown cluster "mycluser": expected mycluster; did you mean "mycluster"?`:                    errCluster,
		`cluster mycluster has no node "wbe2": expected one of web1, web2, web3; did you mean "web2"?`: errNode,
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestNodeOfHostFollowsO2cb: o2cb takes "localhost" for "localhost.localdomain", and no more.
func TestNodeOfHostFollowsO2cb(t *testing.T) {
	c := parse(t, "").Clusters[0]
	for host, want := range map[string]string{
		"web2": "web2", "WEB2.example.com": "web2", "web22": "", "web": "", "www.web2": "",
	} {
		n, err := c.NodeOfHost(host)
		if want == "" && err == nil || want != "" && (err != nil || n.Name != want) {
			t.Errorf("%s is %v, %v, want %q", host, n, err, want)
		}
	}
}

func TestFileThatCannotBeReadIsTold(t *testing.T) {
	_, err := config.Load("testdata/cluster.conf", "testdata/missing.conf", nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "testdata/missing.conf") {
		t.Errorf("got %v", err)
	}
}
