// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

// The schema is fence-agents' own, as Debian installs it with the agents.
func TestTheMetadataIsValid(t *testing.T) {
	const schema = "/usr/share/cluster/relaxng/metadata.rng"
	if _, err := os.Stat(schema); err != nil {
		t.Skip("package fence-agents is not installed:", err)
	}
	c := newCall()
	c.want(t, "action=metadata\n", ExitOK)
	for text, valid := range map[string]bool{
		c.out.String(): true,
		strings.Replace(c.out.String(), `type="second"`, `type="minute"`, 1): false,
	} {
		cmd := exec.CommandContext(t.Context(), "xmllint", "--noout", "--relaxng", schema, "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); (err == nil) != valid {
			t.Errorf("valid: %v, want %v\n%s", err == nil, valid, out)
		}
	}
}

func TestTheCommandLineSaysTheSameAsStandardInput(t *testing.T) {
	for _, args := range [][]string{
		{"-o", "OFF", "-n", "web2"},
		{"--action=off", "--plug", "web2", "--power-timeout=30"},
		{"-o", "off", "-N", "web2", "-C", "web"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			if code := c.agent("plug=web1\n", args...).Run(t.Context()); code != ExitOK || c.kernel.last[2] == nil {
				t.Errorf("%q: exit code %d\n%s", args, code, c.errs.String())
			}
		})
	}
}

// doc/FenceAgentAPI.md: comments, the last of two lines, unknown names.
func TestStandardInputIsReadAsTheAPISays(t *testing.T) {
	for _, stdin := range []string{
		"# a comment\n\naction=on\naction=off\nplug=web2\n",
		"action=off\nport=web2\n",
		"action=off\nnodename=web2\n",
		"action=off\nnodename=elsewhere\nplug=web2\n",
		"action=off\npower-timeout=30\nplug=web2\npasswd=hunter2\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.want(t, stdin, ExitOK)
			if c.kernel.last[2] == nil {
				t.Errorf("%q: web2 was not fenced", stdin)
			}
			if strings.Contains(c.errs.String(), "hunter2") {
				t.Errorf("a stranger's secret is shown: %s", c.errs.String())
			}
		})
	}
}

func TestAWrongCallFencesNobody(t *testing.T) {
	for stdin, text := range map[string]string{
		"action=of\nplug=web2\n":                   `unsupported action "of": did you mean "off"?`,
		"action=off\n":                             "no node is named",
		"action=off\nplug=web3\n":                  `no node "web3"`,
		"action=off\nplug=web2\ncluster=x\n":       `unknown cluster "x"`,
		"action=off\nplug=web2\npower_timeout=x\n": "power_timeout: expected a number of seconds",
		"action=off\nplug=web2\ndelay=-1\n":        "delay: expected a number of seconds",
		"plug=web2\nnode=2\nfail_time=yesterday\n": "fail_time: expected seconds since 1970",
		"off web2\n":                               "expected lines of key=value",
		"action=off\nnode=9\n":                     "plug= in the connect line",
	} {
		c := newCall()
		c.want(t, stdin, ExitFailed, text)
		if c.kernel.lastID != 0 {
			t.Errorf("%q: somebody was fenced", stdin)
		}
	}
	for _, args := range [][]string{{"-o", "off", "web2"}, {"--atcion=off"}} {
		c := newCall()
		if code := c.agent("", args...).Run(t.Context()); code != ExitFailed || c.kernel.lastID != 0 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

func TestStatusIsWhatIsKnown(t *testing.T) {
	on, off, unknown := fencemethods.On, fencemethods.Off, fencemethods.Unknown
	for _, c := range []struct {
		name         string
		state        fencemethods.State
		err          error
		live, silent []uint32
		code         int
		text         string
	}{
		{"read as on", on, nil, nil, nil, ExitOK, "Status: ON"},
		{"read as off", off, nil, nil, nil, ExitOff, "Status: OFF"},
		{"alive, whatever the device says", off, nil, []uint32{2}, nil, ExitOK, "Status: ON"},
		{"silent", off, nil, []uint32{2}, []uint32{2}, ExitOff, "Status: OFF"},
		{"unreadable, but alive", on, errSilent, []uint32{2}, nil, ExitOK, "Status: ON"},
		{"unreadable", on, errSilent, nil, nil, ExitFailed, "unknown"},
		{"the device cannot tell", unknown, nil, nil, nil, ExitFailed, "unknown"},
	} {
		call := newCall()
		call.device.state, call.device.err = c.state, c.err
		call.kernel.region.Live, call.kernel.region.Silent = c.live, c.silent
		t.Log(c.name)
		call.want(t, "action=status\nplug=web2\n", c.code, c.text)
	}
}

// A node with two power supplies is not off while nobody knows of one of them.
func TestStatusOfSeveralDevicesIsWhatTheyProveTogether(t *testing.T) {
	const one = "\tmethod = switch\n\tmethod = switch\n"
	const all, anyOf = "\tlevel = all\n" + one, "\tlevel = any\n" + one
	on, off := &powerSwitch{state: fencemethods.On}, &powerSwitch{state: fencemethods.Off}
	gone, cannotTell := &powerSwitch{err: errSilent}, &powerSwitch{}
	for _, c := range []struct {
		methods string
		devices []*powerSwitch
		code    int
		text    string
	}{
		{all, []*powerSwitch{off, off}, ExitOff, "Status: OFF"},
		{all, []*powerSwitch{off, on}, ExitOK, "Status: ON"},
		{all, []*powerSwitch{off, gone}, ExitFailed, errSilent.Error()},
		{all, []*powerSwitch{cannotTell, off}, ExitFailed, "unknown"},
		{anyOf, []*powerSwitch{off, gone}, ExitOff, "Status: OFF"},
		{anyOf, []*powerSwitch{cannotTell, on}, ExitOK, "Status: ON"},
		{one, []*powerSwitch{gone, off}, ExitOff, "Status: OFF"},
		{one, []*powerSwitch{off, on}, ExitOK, "Status: ON"},
		{all + one, []*powerSwitch{off, gone, off, off}, ExitOff, "Status: OFF"},
	} {
		call, opened := newCall(), 0
		a := call.agent("action=status\nplug=web2\n")
		a.Load = func(string, string) (*config.Config, error) {
			conf := config.File{Text: "fence:\n\tnode = web2\n" + strings.Replace(c.methods, all+one, all+"\tlevel = one\n"+one, 1)}
			return config.Parse(config.File{Text: clusterConf}, conf, config.Schema{"switch": {}})
		}
		a.Open = func(*config.Cluster, config.Node, config.Step) (fencemethods.Device, error) {
			opened++
			return c.devices[opened-1], nil
		}
		code := a.Run(t.Context())
		if text := call.out.String() + call.errs.String(); code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%q of %v: exit code %d, want %d\n%s", c.methods, c.devices, code, c.code, text)
		}
	}
}

func TestOnSwitchesOnWhatIsOff(t *testing.T) {
	c := newCall()
	c.device.state = fencemethods.Off
	c.want(t, "action=on\nplug=web2\n", ExitOK, "Success: Powered ON")
	if c.device.state != fencemethods.On {
		t.Error("it is still off")
	}
	c.want(t, "action=on\nplug=web2\n", ExitOK, "Success: Already ON")
	c.device.err = errSilent
	c.want(t, "action=on\nplug=web2\n", ExitFailed, "no answer")
}

func TestANodeThatIsBeingFencedIsNotSwitchedOn(t *testing.T) {
	c := newCall()
	c.device.state = fencemethods.Off
	c.kernel.other(2, uapi.EventFenced)
	c.want(t, "action=on\nplug=web2\n", ExitFailed, "being fenced")
	c.kernel.end(2, uapi.EventNotice)
	c.kernel.region.Silent = []uint32{2}
	c.want(t, "action=on\nplug=web2\n", ExitFailed, "silent")
	if c.device.state != fencemethods.Off {
		t.Error("it is on")
	}
}

func TestRebootPowersOnUnlessO2fencedDoes(t *testing.T) {
	for node, want := range map[string]fencemethods.State{"web1": fencemethods.Off, "web2": fencemethods.On} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			var noticed time.Time
			c.kernel.started = func(k *fakeKernel, node uint32) {
				c.device.state = fencemethods.Off
				k.end(node, uapi.EventFenced)
				time.Sleep(time.Minute)
				noticed = time.Now()
				k.end(node, uapi.EventNotice)
			}
			c.want(t, "plug="+node+"\npower_timeout=30\n", ExitOK, "is fenced by switch")
			ended := time.Now()
			if c.device.state != want {
				t.Errorf("node %s is %v, want %v", node, c.device.state, want)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			// then_delay_ms: no other fencer shall meet it coming back.
			if waited := ended.Sub(noticed); want == fencemethods.On && waited < 10*time.Second {
				t.Errorf("powered on %v after the notice", waited)
			}
		})
	}
}

func TestARebootThatDoesNotComeBackIsAFenceAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.device.err = errSilent
		c.want(t, "action=reboot\nplug=web2\n", ExitOK, "fenced, but not powered on again")
	})
}

func TestARebootThatIsNotProvenIsNoReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.device.state = fencemethods.Off
		c.kernel.started = func(k *fakeKernel, node uint32) { k.end(node, uapi.EventFailed) }
		c.want(t, "action=reboot\nplug=web2\n", ExitFailed)
		if c.device.state != fencemethods.Off {
			t.Error("it was powered on")
		}
	})
}

func TestTheListIsOfThoseThatCanBeFencedFromHere(t *testing.T) {
	c := newCall()
	c.want(t, "action=list\n", ExitOK)
	if got := c.out.String(); got != "web1,\nweb2,\n" {
		t.Errorf("list is %q", got)
	}
	c.device.err = errSilent
	c.kernel.region.Live = []uint32{2}
	c.want(t, "action=list-status\n", ExitOK)
	if got := c.out.String(); got != "web1,,UNKNOWN\nweb2,,ON\n" {
		t.Errorf("list-status is %q", got)
	}
}

func TestMonitorFailsWhenNobodyCouldFence(t *testing.T) {
	c := newCall()
	c.want(t, "action=monitor\n", ExitOK)
	c.kernel.methods[0].PortID = 0
	c.want(t, "action=monitor\n", ExitFailed, "nobody carries method switch")
	c.kernel.methods = []kernel.Method{{Name: "switch", Module: "another", PortID: 0}}
	c.want(t, "action=monitor\n", ExitFailed, "nobody carries method watchdog")
}

func TestValidateAllLooksAtTheConfiguration(t *testing.T) {
	c := newCall()
	c.want(t, "action=validate-all\n", ExitOK)
	c.want(t, "action=validate-all\nplug=web2\n", ExitOK)
	c.want(t, "action=validate-all\nplug=web7\n", ExitFailed, "web7")
}

const corosyncConf = `totem {
	version: 2
	interface {
		nodeid: 9
	}
}
nodelist {
	node {
		# nodeid: 7
		nodeid: 1
		name: web0.example.com
		ring0_addr: 192.0.2.10
	}
	node {
		nodeid: 2
		name: pcmk-b
		ring0_addr: 198.51.100.2
		ring1_addr: 192.0.2.11
	}
	node {
		nodeid: 3
		ring0_addr: web2
	}
	node {
		nodeid: 4
		name: web1
		ring0_addr: 192.0.2.12
	}
	node {
		nodeid: 5
		ring0_addr: 203.0.113.5
	}
}
`

// The numbers of corosync and of OCFS2 are not the same: to take one for the other would be to
// fence the wrong node.
func TestDLMControldsNodeIsFoundByNameOrAddress(t *testing.T) {
	file := filepath.Join(t.TempDir(), "corosync.conf")
	if err := os.WriteFile(file, []byte(corosyncConf), 0o644); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]uint32{"2": 1, "3": 2} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.want(t, "node="+id+"\ncorosync_conf="+file+"\n", ExitOK)
			if len(c.kernel.last) != 1 || c.kernel.last[want] == nil {
				t.Errorf("corosync's %s: fenced %v, want %d", id, c.kernel.last, want)
			}
		})
	}
	for id, text := range map[string]string{
		"1": "the one this runs on", "4": "both", "5": "neither its name nor an address", "7": "no node with nodeid 7",
		"9": "no node with nodeid 9",
	} {
		c := newCall()
		c.want(t, "node="+id+"\ncorosync_conf="+file+"\n", ExitFailed, text)
		if c.kernel.lastID != 0 {
			t.Errorf("corosync's %s: fenced %v", id, c.kernel.last)
		}
	}
}

func TestDRBDsPeerIsFenced(t *testing.T) {
	for _, env := range []map[string]string{
		{"DRBD_PEER_NODE_ID": "1", "DRBD_NODE_ID_0": "web0", "DRBD_NODE_ID_1": "web2.example.com", "DRBD_PEER": "web1"},
		{"DRBD_PEER": "web2"},
		{"DRBD_PEERS": "web2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.env = env
			if code := c.agent("", "--drbd").Run(t.Context()); code != ExitFenced || c.kernel.last[2] == nil {
				t.Errorf("%v: exit code %d\n%s", env, code, c.errs.String())
			}
		})
	}
}

// Of all exit codes but those that DRBD knows it makes: stay frozen.
func TestDRBDStaysFrozenUnlessThePeerIsFenced(t *testing.T) {
	for _, env := range []map[string]string{
		nil,
		{"DRBD_PEER": "elsewhere"},
		{"DRBD_PEERS": "web1 web2"},
		{"DRBD_PEER_NODE_ID": "1"},
		{"DRBD_PEER": "web2"}, // which cannot be proven
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.env = env
			c.kernel.started = func(k *fakeKernel, node uint32) { k.end(node, uapi.EventFailed) }
			if code := c.agent("", "--drbd").Run(t.Context()); code != ExitNotFenced {
				t.Errorf("%v: exit code %d", env, code)
			}
		})
	}
}
