// SPDX-License-Identifier: GPL-2.0-only

package setup

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/fencemethods/relay"
)

const clusterConf = `cluster:
	name = web
	node_count = 2

node:
	cluster = web
	name = web1
	number = 1
	ip_address = 192.0.2.1
	ip_port = 7777

node:
	cluster = web
	name = web2
	number = 2
	ip_address = 192.0.2.2
	ip_port = 7777
`

const fenceConf = `fence:
	node = web1
	method = ipmi
	addr = 127.0.0.1
	user = fence
	password_file = PASSWORD
	method = watchdog

fence:
	node = web2
	then = off
	method = ipmi
	password_file = PASSWORD
	user = fence
	addr = 127.0.0.2
	port = 6230
	method = test
	i_know_this_fences_nothing = yes
	method = manual
`

// load reads the configuration above, with a password file that is there.
func load(t *testing.T) *config.Config {
	t.Helper()
	cfg, err := loadText(t, fenceConf)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// loadText does the same with another fence.conf; PASSWORD in it becomes the file.
func loadText(t *testing.T, fenceConf string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"password":     "hunter2\n",
		"cluster.conf": clusterConf,
		"fence.conf":   strings.ReplaceAll(fenceConf, "PASSWORD", filepath.Join(dir, "password")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(filepath.Join(dir, "cluster.conf"), filepath.Join(dir, "fence.conf"))
}

// A line that was copied costs the wrong node its life, or proves its death by another one's.
func TestTwoNodesAreNotSwitchedByTheSameThing(t *testing.T) {
	const pdu = "\tmethod = snmp\n\taddr = 192.0.2.21\n\tversion = 2c\n\tcommunity_file = PASSWORD\n\tmodel = apc-rpdu\n"
	for _, c := range []struct{ web1, web2, want string }{
		{
			pdu + "\toutlets = 3,4\n", pdu + "\toutlets = 4,5\n",
			"fence.conf:12: snmp with addr=192.0.2.21, outlets=4 fences node web1 already, on line 3: expected another machine for node web2",
		},
		{pdu + "\toutlets = 3,4\n", pdu + "\toutlets = 5\n", ""},
		{
			"\tmethod = kdump\n\tplain = yes\n\taddrs = 192.0.2.1,198.51.100.1\n", "\tmethod = kdump\n\tplain = yes\n\taddrs = 198.51.100.1\n",
			"fence.conf:9: kdump with addrs=198.51.100.1 fences node web1 already, on line 3",
		},
		{
			"\tmethod = ipmi\n\taddr = 192.0.2.11\n\tuser = u\n\tpassword_file = PASSWORD\n",
			"\tmethod = ipmi\n\taddr = 192.0.2.11\n\tport = 623\n\tuser = u\n\tpassword_file = PASSWORD\n",
			"fence.conf:10: ipmi with addr=192.0.2.11, port=623 fences node web1 already, on line 3",
		},
		{"\tlevel = all\n" + pdu + "\toutlets = 3,4\n" + pdu + "\toutlets = 2,3\n", "", "fence.conf:10: snmp with addr=192.0.2.21, outlets=3 is already in this level, on line 4"},
	} {
		text := "fence:\n\tnode = web1\n" + c.web1
		if c.web2 != "" {
			text += "\nfence:\n\tnode = web2\n" + c.web2
		}
		_, err := loadText(t, text)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v\nwant %s of\n%s", err, c.want, text)
		}
	}
}

func TestParametersThatDoNotFitTogetherArePointedAt(t *testing.T) {
	const noUser = `fence:
	node = web1
	method = snmp
	addr = 127.0.0.1
	version = 3
	model = apc-rpdu
	outlets = 1
`
	if _, err := loadText(t, noUser); err == nil || !strings.Contains(err.Error(), "fence.conf:3: user: missing") {
		t.Errorf("got %v", err)
	}
}

func TestAnAgentIsNotTheFirstMethodOfANode(t *testing.T) {
	const first = `fence:
	node = web1
	method = agent
	agent = fence_dummy
`
	if _, err := loadText(t, first); err == nil || !strings.Contains(err.Error(), "fence.conf:3: method agent: not deadlock-proof") {
		t.Errorf("got %v", err)
	}
}

func TestSchemaCoversTheCatalog(t *testing.T) {
	schema := Schema()
	for _, m := range catalog.Methods() {
		var names []string
		for i, p := range m.Params {
			names = append(names, p.Name)
			got := schema[m.Name].Params[i]
			if got.Name != p.Name || got.Required != p.Required || got.Secret != p.Secret || got.Identity != p.Identity || schema[m.Name].Blind != m.Blind ||
				(got.Validate == nil) != (p.Validate == nil) {
				t.Errorf("%s: %+v is %+v", m.Name, p, got)
			}
		}
		if len(schema[m.Name].Params) != len(names) {
			t.Errorf("%s: %d parameters, want %v", m.Name, len(schema[m.Name].Params), names)
		}
	}
}

// Real devices must not be named by two nodes: a copied line would cost the wrong node its life. An order
// to another machine names the node itself: a relay, a machine that bans, or an administrator, knows the
// rest. Those that nodes register with know a node by its number.
func TestEveryMethodThatSwitchesAMachineNamesIt(t *testing.T) {
	ordered := []string{"test", relay.Name, "ipban", "ask"}
	for name, m := range Schema() {
		if method, err := catalog.Methods().Find(name); err == nil && method.Registers {
			continue
		}
		if !slices.Contains(ordered, name) && !slices.ContainsFunc(m.Params, func(p config.Param) bool { return p.Identity }) {
			t.Errorf("method %s has no Identity parameter", name)
		}
	}
}

// The bridge compares what the kernel hands it with its own, byte by byte.
func TestJoinAndBridgeHaveTheSameParameters(t *testing.T) {
	cfg := load(t)
	joined, err := Cluster(cfg.Clusters[0], "web2.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if joined.ThisNode != 2 {
		t.Errorf("this is node %d", joined.ThisNode)
	}
	bridge, err := OpenBridge(cfg, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer bridge.Close()
	for i, n := range bridge.Nodes {
		var carried []kernel.Step
		for _, s := range joined.Nodes[i].Steps {
			if !IsKernel(s.Method) {
				carried = append(carried, s)
			}
		}
		if n.Cluster != joined.Name || n.Number != joined.Nodes[i].Number || len(carried) != len(n.Jobs) {
			t.Fatalf("%+v joins as %+v", n, joined.Nodes[i])
		}
		for j, job := range n.Jobs {
			if job.Method != carried[j].Method || string(job.Params) != string(carried[j].Params) || job.Device == nil {
				t.Errorf("%s %q joins as %s %q", job.Method, job.Params, carried[j].Method, carried[j].Params)
			}
			if strings.Contains(string(job.Params), "hunter2") {
				t.Error("the kernel gets the password")
			}
		}
	}
}

func TestTheBridgeCarriesEachMethodOnce(t *testing.T) {
	bridge, err := OpenBridge(load(t), func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer bridge.Close()
	if diff := cmp.Diff([]string{"ipmi", "test"}, bridge.Methods); diff != "" {
		t.Error(diff)
	}
	want := 0
	for _, name := range []string{"ipmi", "ipmi", "test"} { // one for each device
		m, err := catalog.Methods().Find(name)
		if err != nil {
			t.Fatal(err)
		}
		want += m.MemoryKiB
	}
	if bridge.HeapKiB != want {
		t.Errorf("%d KiB of heap for the devices, want %d", bridge.HeapKiB, want)
	}
	if !bridge.Nodes[0].ThenOn || bridge.Nodes[1].ThenOn {
		t.Error("then = off is for web2 alone")
	}
}

// One port is for all nodes.
func TestAllNodesOfKdumpAreListenedForAtOnePort(t *testing.T) {
	const listeners = `fence:
	node = web1
	method = kdump
	plain = yes
	port = PORT
	addrs = 192.0.2.1

fence:
	node = web2
	method = kdump
	plain = yes
	port = PORT
	addrs = 192.0.2.2
`
	free, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := loadText(t, strings.ReplaceAll(listeners, "PORT", strconv.Itoa(free.LocalAddr().(*net.UDPAddr).Port)))
	free.Close()
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := OpenBridge(cfg, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer bridge.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, n := range bridge.Nodes {
		if err := n.Jobs[0].Device.Check(ctx); err != nil {
			t.Errorf("node %d: %v", n.Number, err)
		}
	}
}

func TestASecretThatIsGoneIsNamed(t *testing.T) {
	cfg := load(t)
	file := cfg.Clusters[0].Nodes[0].Steps[0].Values["password_file"]
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBridge(cfg, func() {}); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "web1") {
		t.Errorf("%v: does not name the file and the node", err)
	}
}

func TestAHostThatIsNoNodeCannotJoin(t *testing.T) {
	_, err := Cluster(load(t).Clusters[0], "wbe1")
	if err == nil || !strings.Contains(err.Error(), `did you mean "web1"?`) {
		t.Errorf("%v", err)
	}
}

func TestMissingMethodsAreFoundForAllNodes(t *testing.T) {
	joined, err := Cluster(load(t).Clusters[0], "web1")
	if err != nil {
		t.Fatal(err)
	}
	registered := []kernel.Method{
		{Name: "watchdog", Module: "o2fence_methods"},
		{Name: "ipmi", Module: "o2fence"}, // of a bridge that is gone
		{Name: "test", Module: "o2fence", PortID: 7},
	}
	want := []MissingMethod{{"ipmi", []string{"web1", "web2"}}, {"manual", []string{"web2"}}}
	if diff := cmp.Diff(want, Missing(joined, registered)); diff != "" {
		t.Error(diff)
	}
}

func TestARequestHasEndedWithItsNotice(t *testing.T) {
	for state, want := range map[uapi.Event]bool{
		uapi.EventUnspec: false, uapi.EventStarted: false, uapi.EventInitiated: false, uapi.EventAttemptFailed: false,
		uapi.EventFenced: false, uapi.EventNotice: true, uapi.EventFailed: true, uapi.EventObsolete: true,
	} {
		if got := Ended(&kernel.Request{State: state}); got != want {
			t.Errorf("%v: ended %v, want %v", state, got, want)
		}
	}
}
