// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// Corosync's numbers are not those of OCFS2, which are 0 and 1.
const corosyncConf = `totem {
	version: 2
	cluster_name: o2fence
	token: 5000
	crypto_cipher: none
	crypto_hash: none
}
logging {
	to_stderr: no
	to_syslog: no
	to_logfile: yes
	logfile: /run/corosync.log
}
quorum {
	provider: corosync_votequorum
	two_node: 1
	wait_for_all: 0
}
nodelist {
	node {
		name: node0
		nodeid: 1
		ring0_addr: %s
	}
	node {
		name: node1
		nodeid: 2
		ring0_addr: %s
	}
}
`

const dlmConf = "enable_startup_fencing=0\npost_join_delay=1\n\nfence_all /usr/sbin/fence_o2fence\n"

// startDLM starts corosync and dlm_controld in a node, and returns when both nodes are there. udev
// would put dlm's devices where dlm_controld looks for them.
const startDLM = `
exec 2>>/run/start.log
set -x
modprobe dlm
mkdir -p /dev/misc
cp -a /dev/dlm-control /dev/dlm-monitor /dev/dlm_plock /dev/misc/
corosync
timeout 60 sh -c 'until corosync-quorumtool -s | grep -q "Quorate: *Yes"; do sleep 0.2; done'
setsid dlm_controld -D >/run/dlm.log 2>&1 </dev/null &
timeout 60 sh -c 'until dlm_tool status | grep -q "^node 1 " && dlm_tool status | grep -q "^node 2 "; do sleep 0.2; done'
`

func TestDLMControldFencesThroughO2fence(t *testing.T) {
	// Its own heartbeat would take a minute to find the node silent.
	p := startPair(t, rig.Config{Missed: 30, Cluster: "\tthen = off\n"}, "/usr/sbin/dlm_controld", "/usr/sbin/corosync")
	conf := fmt.Sprintf(corosyncConf, p.Nodes[0].Address(), p.Nodes[1].Address())
	check(t, p.All(func(m *vm.VM) error {
		return errors.Join(
			m.WriteFile(p.ctx, "/etc/corosync/corosync.conf", []byte(conf), 0o644),
			m.WriteFile(p.ctx, "/etc/dlm/dlm.conf", []byte(dlmConf), 0o644),
		)
	}))
	check(t, p.All(func(m *vm.VM) error {
		if _, err := m.Run(p.ctx, "sh", "-ec", startDLM); err != nil {
			logs, _ := m.Run(p.ctx, "sh", "-c", "tail -n 30 /run/*.log")
			return fmt.Errorf("%w\n%s", err, logs)
		}
		return nil
	}))
	check(t, p.Nodes[1].Pause(p.ctx))
	e, err := p.events.Await(p.ctx, "fenced", 1)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.run("sh", "-c", "cat /run/*.log"))
	}
	p.powered(vm.Off)
	s, err := p.Status(p.ctx, p.node)
	check(t, err)
	// The kernel knows the other nodes only.
	if last := s.Nodes[0].Last; last == nil || last.Method != "ipmi" || !strings.Contains(last.Reason, "dlm_controld") {
		t.Errorf("fenced by %s, because %+v", e.Method, last)
	}
	// It has to know by our exit code.
	p.run("sh", "-c", `until grep -q 'fence status 2 receive 0' /run/dlm.log; do sleep 0.2; done`)
}
