// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ifmib"
	"github.com/o2fence/o2fence/fencemethods/ipmi"
	"github.com/o2fence/o2fence/fencemethods/snmp"
	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/snmpd"
)

// A row is a method, and the simulator on which it is measured.
type row struct {
	name   string
	device string
	bar    float64 // how many times faster than the agent it shall be; 0: no matter
	limit  float64 // how many ms it may take at most; 0: no matter
	runs   int     // how often it is measured at most; 0: no matter
	start  func(ctx context.Context, dir string, m *machine) (*pair, error)
}

// rows are all that is measured. A further method is a further row.
func rows() []row {
	return []row{
		{"ipmi", "ipmi_sim, cipher suite 3", 5, 0, 0, startIPMI},
		{"snmp", "snmpd as an APC rPDU, version 2c", 5, 0, 0, startPDU},
		{"snmp-v3", "snmpd as an APC rPDU, version 3, SHA and AES", 5, 0, 0, startPDUVersion3},
		{"ifmib", "snmpd as a switch, version 2c", 5, 0, 0, startSwitch},
		// Both wait for msgwait, so that there is nothing to be faster at.
		{"sbd", fmt.Sprintf("a loop device, msgwait %d s", msgwait), 0, msgwait*1000 + 100, 5, startSBD},
	}
}

const (
	user     = "fence"
	password = "s3cretPassw0rd"
)

func startIPMI(ctx context.Context, dir string, m *machine) (*pair, error) {
	b, err := bmc.Start(ctx, dir, bmc.Config{User: user, Password: password, Power: m})
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(int(b.Addr().Port()))
	return open(ipmi.Method(), dir, b.Close, map[string]string{
		"addr": "127.0.0.1", "port": port, "user": user, "password_file": password, "cipher": "3",
	}, agent{program: "fence_ipmilan", params: map[string]string{
		"ip": "127.0.0.1", "ipport": port, "username": user, "password": password, "lanplus": "1", "cipher": "3",
	}})
}

const (
	rPDUState   = ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.4.3"
	rPDUCommand = ".1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.3"
	rPDURoot    = ".1.3.6.1.4.1.318.1.1.12"
)

// rPDU is a power strip whose outlet 3 feeds the machine.
func rPDU(m *machine) snmpd.Config {
	return snmpd.Config{
		SysObjectID: ".1.3.6.1.4.1.318.1.3.4.5", Community: password,
		Users: []snmpd.User{{Name: user, Auth: "SHA", AuthPass: password, Priv: "AES", PrivPass: password}},
		Objects: []snmpd.Object{
			{Name: rPDUState, Root: rPDURoot, Get: m.number},
			{Name: rPDUCommand, Root: rPDURoot, Get: m.number, Set: m.order},
		},
	}
}

func startPDU(ctx context.Context, dir string, m *machine) (*pair, error) {
	a, err := snmpd.Start(ctx, dir, rPDU(m))
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(int(a.Addr().Port()))
	return open(snmp.Method(), dir, a.Close, map[string]string{
		"addr": "127.0.0.1", "port": port, "version": "2c", "community_file": password,
		"model": "apc-rpdu", "outlets": "3",
	}, agent{program: "fence_apc_snmp", params: map[string]string{
		"ip": "127.0.0.1", "ipport": port, "snmp_version": "2c", "community": password, "plug": "3",
	}})
}

func startPDUVersion3(ctx context.Context, dir string, m *machine) (*pair, error) {
	a, err := snmpd.Start(ctx, dir, rPDU(m))
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(int(a.Addr().Port()))
	return open(snmp.Method(), dir, a.Close, map[string]string{
		"addr": "127.0.0.1", "port": port, "version": "3", "user": user,
		"auth": "sha", "auth_file": password, "priv": "aes", "priv_file": password,
		"model": "apc-rpdu", "outlets": "3",
	}, agent{program: "fence_apc_snmp", params: map[string]string{
		"ip": "127.0.0.1", "ipport": port, "snmp_version": "3", "username": user, "password": password,
		"snmp_sec_level": "authPriv", "snmp_auth_prot": "SHA", "snmp_priv_prot": "AES", "snmp_priv_passwd": password,
		"plug": "3",
	}})
}

// startSwitch does not use snmpd's own IF-MIB: that is seconds behind what it tells of, which is not
// what is measured here.
func startSwitch(ctx context.Context, dir string, m *machine) (*pair, error) {
	const ifTable, ifXTable = ".1.3.6.1.2.1.2", ".1.3.6.1.2.1.31"
	name := func() any { return "port7" }
	a, err := snmpd.Start(ctx, dir, snmpd.Config{
		Community: password,
		Without:   []string{"ifTable", "ifXTable", "interfaces", "interface"},
		Objects: []snmpd.Object{
			{Name: ifTable + ".2.1.2.7", Root: ifTable, Get: name},
			{Name: ifTable + ".2.1.7.7", Root: ifTable, Get: m.number, Set: m.order},
			{Name: ifTable + ".2.1.8.7", Root: ifTable, Get: m.number},
			{Name: ifXTable + ".1.1.1.1.7", Root: ifXTable, Get: name},
		},
	})
	if err != nil {
		return nil, err
	}
	port := strconv.Itoa(int(a.Addr().Port()))
	return open(ifmib.Method(), dir, a.Close, map[string]string{
		"addr": "127.0.0.1", "port": port, "version": "2c", "community_file": password, "interface": "port7",
	}, agent{program: "fence_ifmib", params: map[string]string{
		"ip": "127.0.0.1", "ipport": port, "snmp_version": "2c", "community": password,
		"plug": "7", // by number, which is what it is fastest with
	}})
}

// open opens a method's device. Parameters that name a file give what is to be in it.
func open(method fencemethods.Method, dir string, closeServer func() error, params map[string]string, theirs agent) (*pair, error) {
	for _, p := range method.Params {
		if secret, ok := params[p.Name]; ok && p.Secret {
			file := filepath.Join(dir, p.Name)
			if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
				return nil, closed(err, closeServer)
			}
			params[p.Name] = file
		}
	}
	d, err := method.Open(fencemethods.Target{Name: "node1"}, params)
	if err != nil {
		return nil, closed(err, closeServer)
	}
	return &pair{d, theirs, closeServer}, nil
}
