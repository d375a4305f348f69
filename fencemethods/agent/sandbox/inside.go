// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlFD is where the process inside a jail talks to the server.
const controlFD = 3

// What the process inside says of the program, each in a packet: a word, and then a number or text.
const (
	saidReady  = "ready"
	saidExit   = "exit"
	saidSignal = "signal"
	saidBroken = "broken"
)

// Inside is the process in a jail, the first one of its namespaces: it furnishes them, waits for the
// program's standard input, runs the program, and says how it has ended. It ends with the server.
func Inside(program string) {
	// Capabilities and the like are a thread's own.
	runtime.LockOSThread()
	control := os.NewFile(controlFD, "control")
	unix.CloseOnExec(controlFD)
	if err := furnish(); err != nil {
		say(control, saidBroken, err)
		return
	}
	say(control, saidReady, 0)
	in := make([]byte, InputMax+1)
	n, err := control.Read(in)
	if err != nil || n == 0 {
		return // the server is gone
	}
	go func() {
		// Whatever comes next, it is the end.
		_, _ = control.Read(make([]byte, 1))
		os.Exit(0)
	}()
	run(control, program, in[:n-1]) // a packet cannot be empty: the last byte is not the program's
}

func say(control io.Writer, what string, arg any) { _, _ = fmt.Fprintf(control, "%s %v", what, arg) }

func run(control io.Writer, program string, stdin []byte) {
	cmd := exec.Command(program)
	cmd.Dir, cmd.Env = "/", environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), os.Stdout, os.Stderr
	// A session of its own: an agent that wants a terminal makes itself one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Run()
	clear(stdin)
	exit, ran := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		say(control, saidExit, 0)
	case !ran && cmd.ProcessState == nil:
		say(control, saidBroken, err)
	case !ran: // it did not read its standard input
		say(control, saidExit, cmd.ProcessState.ExitCode())
	case exit.ExitCode() < 0:
		say(control, saidSignal, int(exit.Sys().(syscall.WaitStatus).Signal()))
	default:
		say(control, saidExit, exit.ExitCode())
	}
}

// environment is all that an agent gets: nothing of the server's own.
func environment() []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/", "TERM=dumb",
		"MIBS=", // net-snmp's tools would look for files that name what the agents have as numbers
	}
}

// furnish changes the namespaces, which are copies of the server's, into a jail.
func furnish() error {
	steps := []struct {
		what string
		do   func() error
	}{
		{"private mounts", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"/proc", mount("proc", "/proc", "")},
		{"oom_score_adj", killable},
		{"read-only mounts", readOnly},
		{"/tmp", mount("tmpfs", "/tmp", "size=16m,mode=1777")},
		{"/var/tmp", mount("tmpfs", "/var/tmp", "size=16m,mode=1777")},
		{"/dev/shm", mount("tmpfs", "/dev/shm", "size=16m,mode=1777")},
		{"/dev/pts", terminals},
		{"core files", func() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }},
		{"privileges", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
		{"capabilities", dropCapabilities},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func mount(fstype, target, data string) func() error {
	return func() error {
		return unix.Mount(fstype, target, fstype, unix.MS_NOSUID|unix.MS_NODEV, data)
	}
}

// terminals are the jail's own, for programs that make themselves one. /dev/ptmx finds them by its
// place beside them.
func terminals() error {
	return unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
}

// readOnly is for all file systems there are: what an agent writes could be a disk that waits for
// the fence. Linux 5.12 and newer.
func readOnly() error {
	return unix.MountSetattr(-1, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// killable makes an agent the last one to be killed when the machine is short of memory, but not
// immune, for the limit of its own group.
func killable() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0) }

// dropCapabilities leaves what talking to a device takes. Without CAP_SYS_ADMIN no mount can be
// undone and no other control group be entered.
func dropCapabilities() error {
	keep := map[uintptr]bool{
		unix.CAP_NET_BIND_SERVICE: true, unix.CAP_NET_RAW: true, unix.CAP_DAC_READ_SEARCH: true,
		unix.CAP_SETUID: true, unix.CAP_SETGID: true, unix.CAP_KILL: true,
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if keep[c] {
			continue
		}
		// A kernel that is older does not know the last ones.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return nil
}
