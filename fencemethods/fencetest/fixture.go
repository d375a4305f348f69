// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
)

// Open opens the device of node1 by these parameters, for the duration of a test.
func Open(t testing.TB, m fencemethods.Method, params map[string]string) fencemethods.Device {
	t.Helper()
	d, err := m.Open(fencemethods.Target{Cluster: "c", Node: 1, Name: "node1"}, params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// SecretFile is a file that holds a secret, and the end of a line as editors leave it.
func SecretFile(t testing.TB, secret string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// ClosedPort is a port of 127.0.0.1, for "tcp4" or "udp4", that nothing listens on, and that nobody else
// gets while the test runs.
func ClosedPort(t testing.TB, network string) int {
	t.Helper()
	kind := syscall.SOCK_STREAM // which does not listen by itself
	if network == "udp4" {
		kind = syscall.SOCK_DGRAM
	}
	fd, err := syscall.Socket(syscall.AF_INET, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	loopback := [4]byte{127, 0, 0, 1}
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback})
	if err == nil && network == "udp4" { // one that is connected hears its peer alone
		err = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: loopback, Port: 9})
	}
	if err != nil {
		t.Fatal(err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return addr.(*syscall.SockaddrInet4).Port
}
