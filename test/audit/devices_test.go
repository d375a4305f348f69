// SPDX-License-Identifier: GPL-2.0-only

package audit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/redfishd"
	"github.com/o2fence/o2fence/test/snmpd"
	"github.com/o2fence/o2fence/test/vm"
)

// A machine is on again once it was read as off, so that each fence has everything to do.
type machine struct {
	mu  sync.Mutex
	off bool
}

// On is the power; see bmc.Power.
func (m *machine) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	on := !m.off
	m.off = false
	return on, nil
}

// SetOn is the command.
func (m *machine) SetOn(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off = !on
	return nil
}

// Reset does nothing: nobody is to use it.
func (m *machine) Reset() error { return os.ErrInvalid }

// nodes are fenced by a method each; node 0 is the machine itself.
const nodes = 6

// configure starts the devices of nodes 1, 3 and 4, and writes how each node is fenced.
func configure(ctx context.Context, t *testing.T, dir string) {
	t.Helper()
	b, err := bmc.Start(ctx, t.TempDir(), bmc.Config{User: "fence", Password: password, Power: new(machine)})
	check(t, err)
	t.Cleanup(func() { b.Close() })
	s, err := snmpd.Start(ctx, t.TempDir(), strip(new(machine)))
	check(t, err)
	t.Cleanup(func() { s.Close() })
	r, err := redfishd.Start(redfishd.Config{User: "fence", Password: password, Power: new(machine)})
	check(t, err)
	t.Cleanup(func() { r.Close() })

	var cluster strings.Builder
	fmt.Fprintf(&cluster, "cluster:\n\tname = real\n\tnode_count = %d\n", nodes)
	for n := range nodes {
		fmt.Fprintf(&cluster, "\nnode:\n\tcluster = real\n\tname = n%d\n\tnumber = %[1]d\n\tip_address = 192.0.2.%[1]d\n\tip_port = 7777\n", n)
	}
	secret := filepath.Join(dir, "password")
	fence := fmt.Sprintf(fenceConf, vm.HostAddress, secret, b.Addr().Port(), s.Addr().Port(), r.Addr().Port(), r.Fingerprint(), redfishd.System)
	check(t, os.WriteFile(secret, []byte(password), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "cluster.conf"), []byte(cluster.String()), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "fence.conf"), []byte(fence), 0o600))
}

const fenceConf = `cluster:
	name = real
	then = off

fence:
	node = n1
	method = ipmi
	addr = %[1]s
	port = %[3]d
	user = fence
	password_file = %[2]s

fence:
	node = n2
	method = watchdog
	wait = 100

fence:
	node = n3
	method = snmp
	addr = %[1]s
	port = %[4]d
	version = 3
	user = fence
	auth = sha256
	auth_file = %[2]s
	priv = aes
	priv_file = %[2]s
	model = apc-rpdu
	outlets = 3

fence:
	node = n4
	method = redfish
	addr = %[1]s
	port = %[5]d
	certificate = %[6]s
	system = %[7]s
	user = fence
	password_file = %[2]s

fence:
	node = n5
	method = sbd
	disks = /dev/vdb
	slot = n5
`

// strip is an APC rPDU whose outlet 3 is the machine (PowerNet-MIB).
func strip(m *machine) snmpd.Config {
	const rPDU = ".1.3.6.1.4.1.318.1.1.12"
	return snmpd.Config{
		SysObjectID: ".1.3.6.1.4.1.318.1.3.4.5", Community: password,
		Users: []snmpd.User{{Name: "fence", Auth: "SHA-256", AuthPass: password, Priv: "AES", PrivPass: password}},
		Objects: []snmpd.Object{
			{Name: rPDU + ".3.5.1.1.4.3", Root: rPDU, Get: func() any {
				if on, _ := m.On(); on {
					return 1
				}
				return 2
			}},
			{Name: rPDU + ".3.3.1.1.4.3", Root: rPDU, Get: func() any { return 1 }, Set: func(v int) error {
				return m.SetOn(v == 1)
			}},
		},
	}
}
