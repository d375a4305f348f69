// SPDX-License-Identifier: GPL-2.0-only

// Guest is everything in a test VM's initramfs but the kernel modules. As process 1 it makes the
// host's file system the guest's root, read-only below a tmpfs overlay, brings up the network and
// starts itself a second time as the agent, which carries out the host's requests (package wire).
// Then it stays and reaps orphans, or executes the init of the root file system.
//
// Link it statically (CGO_ENABLED=0): at first there is no other file.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	run := serve
	if os.Getpid() == 1 {
		run = boot
	}
	if err := run(); err != nil {
		// The end of process 1 panics the kernel, which ends the VM: the host cannot miss it.
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// options come from the kernel's command line, from what stands behind "--".
type options struct {
	hostname  string
	addresses []string // "eth0=10.77.0.10/24"
	init      string
}

func parseOptions() options {
	var o options
	flag.StringVar(&o.hostname, "hostname", "guest", "host name")
	flag.Func("addr", "`device=prefix` to bring up", func(s string) error {
		o.addresses = append(o.addresses, s)
		return nil
	})
	flag.StringVar(&o.init, "init", "", "program that becomes process 1; default: this one stays")
	flag.Parse()
	return o
}

func boot() error {
	o := parseOptions()
	if err := loadModules(); err != nil {
		return err
	}
	if err := enterRoot(); err != nil {
		return err
	}
	if err := setHostname(o.hostname); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := configureNetwork(o.addresses); err != nil {
		return err
	}
	agent, err := startAgent()
	if err != nil {
		return err
	}
	if o.init != "" {
		return unix.Exec(o.init, []string{o.init}, environment())
	}
	return reap(agent)
}

// setHostname sets it now, and for an init that sets it anew from the root file system.
func setHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return err
	}
	return os.WriteFile("/etc/hostname", []byte(name+"\n"), 0o644)
}

// environment is for all processes of the guest; the kernel's own idea of it is too poor.
func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "TERM=dumb", "LANG=C.UTF-8",
	}
}

func startAgent() (*os.Process, error) {
	// The link still leads to this program, whose path was left behind with the initramfs.
	agent, err := os.StartProcess("/proc/self/exe", []string{"guest-agent"}, &os.ProcAttr{
		Env:   environment(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	return agent, nil
}

// reap waits for orphans, as process 1 must, until the agent itself ends, which is an error.
func reap(agent *os.Process) error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case pid == agent.Pid:
			return fmt.Errorf("the agent ended: %s", describe(status))
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return strings.ToLower(s.Signal().String())
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}
