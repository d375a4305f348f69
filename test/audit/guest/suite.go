// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
)

// A suite is what tests share.
type suite struct {
	modules, programs, config string // directories
	client                    *kernel.Client
	bridge                    *bridge
	begun                     bool
	failed                    error     // of the beginning
	daemon                    *exec.Cmd // the real one
	configured                *config.Cluster
	heap                      *heap  // the daemon's
	host                      string // where it is asked to prepare a node
	note                      string // of a test, what else it has seen
	offences                  *report
}

type test struct {
	name string
	run  func(s *suite) error
}

// The exit codes of the program under test.
const (
	failed     = 1
	noTrace    = 3
	permission = 4
	bounded    = 10
	forbidden  = 11
	unknown    = 12
)

// tests run one after another: the module is loaded, and the bridge started, in between.
var tests = []test{
	{"without o2fence's tracepoint the error says so", withoutTracepoint},
	{"on a kernel without BTF the error says so", withoutBTF},
	{"without privileges the error says so", withoutPrivileges},
	{"a process that does not exist is an error", withoutProcess},
	{"a program that asks for nothing is none", nothing},
	{"a program that it starts is seen from its first instruction", started},
	{"a process that ends meanwhile makes the verdict unknown", endsMeanwhile},
	{"a bridge that keeps the rules is bounded", keepsTheRules},
	{"a process that ends while a fence is awaited makes the verdict unknown", endsBeforeTheFence},
	{"o2fenced asks for no page when it fences by ipmi", daemonKeepsTheRules(way{node: 1, fences: 10, code: bounded})},
	{"nothing is asked for when the kernel fences by watchdog", daemonKeepsTheRules(way{node: 2, fences: 10, code: 0})},
	// Within a minute of the first fence: then the bridge takes its ballast again, when it has nothing to do
	// itself, though the watchdog may have its turn.
	{"o2fenced asks for no page when nvme is refused", daemonKeepsTheRules(way{node: 12, fences: 5, code: bounded, disk: true, refused: "does not know reservations"})},
	{"o2fenced asks for no page when it fences by snmp", daemonKeepsTheRules(way{node: 3, fences: 10, code: bounded})},
	{"o2fenced asks for pages only to send by TCP when it fences by redfish", daemonKeepsTheRules(way{node: 4, fences: 5, code: bounded, pages: sendsByTCP})},
	{"o2fenced asks for no page when it fences by sbd", daemonKeepsTheRules(way{node: 5, fences: 2, code: bounded})},
	{"o2fenced asks for no page when it fences by ifmib", daemonKeepsTheRules(way{node: 6, fences: 5, code: bounded})},
	{"o2fenced asks for pages only to send by TCP when it fences by qmp", daemonKeepsTheRules(way{node: 7, fences: 5, code: bounded, pages: sendsByTCP})},
	{"o2fenced asks for no page when it fences by kdump", daemonKeepsTheRules(way{node: 8, fences: 5, code: bounded})},
	{"o2fenced asks for no page when it fences by ask", daemonKeepsTheRules(way{node: 9, fences: 3, code: bounded})},
	{"o2fenced asks for no page when it fences by ipban", daemonKeepsTheRules(way{node: 10, fences: 5, code: bounded})},
	{"o2fenced asks for no page when it fences by scsi", daemonKeepsTheRules(way{node: 11, fences: 5, code: bounded, disk: true, prepare: (*suite).register})},
	{"o2fenced asks for no page when it fences by all of two snmp", daemonKeepsTheRules(way{node: 13, fences: 2, code: bounded})},
	{"o2fenced asks for no page when kdump fences before ipmi", daemonKeepsTheRules(way{node: 14, fences: 2, code: bounded})},
	{"o2fenced asks for no page when ipmi fences before kdump", daemonKeepsTheRules(way{node: 15, fences: 5, code: bounded})},
	{"lost events make the verdict unknown", losesEvents},
	{"bridges that break the rules are forbidden", breakTheRules},
	{"memory that is allocated is reported with its line", offence("allocate", "mmap or brk", "")},
	{"a stack that grows is reported with its line", offence("stack", "mmap or brk", "")},
	{"a line in a log file is reported with its line", offence("log", "file access", "")},
	{"a program that is started is reported with its line", offence("start", "exec", "/bin/true")},
	{"a name that is resolved is reported with its line", offence("resolve", "file access", "/etc/resolv.conf")},
	{"the flame graph is an SVG with the lines to blame", flameGraph},
}

func (s *suite) close() {
	if s.bridge != nil {
		_ = s.bridge.cmd.Process.Kill()
	}
	if s.daemon != nil {
		_ = s.daemon.Process.Kill()
	}
}

// program is the one under test.
func (s *suite) program() string { return filepath.Join(s.programs, "o2fence-audit") }

func withoutTracepoint(s *suite) error {
	return s.refused(noTrace, "is the module o2fence loaded", exec.Command(s.program(), "--pid", "1"))
}

// withoutBTF hides the kernel's BTF from the program, in a mount namespace of its own.
func withoutBTF(s *suite) error {
	return s.refused(noTrace, "no BTF", exec.Command("unshare", "--mount", "sh", "-ec",
		`mount -t tmpfs none /sys/kernel/btf; exec "$@"`, "sh", s.program(), "--pid", "1", "--for", "1s"))
}

func withoutPrivileges(s *suite) error {
	// Where the program lies, others may not be allowed to look.
	program := "/tmp/o2fence-audit"
	text, err := os.ReadFile(s.program())
	if err := errors.Join(err, os.WriteFile(program, text, 0o755)); err != nil {
		return err
	}
	cmd := exec.Command(program, "--pid", "1", "--for", "1s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return s.refused(permission, "root", cmd)
}

func withoutProcess(s *suite) error {
	return s.refused(failed, "no process 4194303", exec.Command(s.program(), "--pid", "4194303", "--for", "1s"))
}

// idle locks nothing and is not flagged: it only sleeps.
func idle() {
	runtime.GOMAXPROCS(1) // or the runtime asks the kernel once a second whether it is still right
	for {
		_ = syscall.Nanosleep(&syscall.Timespec{Nsec: int64(10 * time.Millisecond)}, nil)
	}
}

func startIdle() (*exec.Cmd, error) {
	cmd := exec.Command("/proc/self/exe", "idle")
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // or it sends itself signals when the machine is busy
	return cmd, cmd.Start()
}

func nothing(s *suite) error {
	process, err := startIdle()
	if err != nil {
		return err
	}
	defer process.Wait()
	defer process.Process.Kill()
	a, err := s.begin("--pid", fmt.Sprint(process.Process.Pid), "--after", "500ms", "--for", "500ms")
	if err != nil {
		return err
	}
	_, err = a.end(0)
	return err
}

func endsMeanwhile(s *suite) error { return s.ends("--after", "1h", "--for", "1h") }

func endsBeforeTheFence(s *suite) error { return s.ends("--fences", "1") }

// ends has the process under audit end.
func (s *suite) ends(args ...string) error {
	process, err := startIdle()
	if err != nil {
		return err
	}
	a, err := s.begin(append([]string{"--pid", fmt.Sprint(process.Process.Pid)}, args...)...)
	err = errors.Join(err, process.Process.Kill())
	_ = process.Wait()
	if err != nil {
		return err
	}
	r, err := a.end(unknown)
	if err != nil {
		return err
	}
	if !strings.Contains(strings.Join(r.Reasons, " "), "ended before the audit did") {
		return fmt.Errorf("the reasons are %q", r.Reasons)
	}
	return nil
}

// started has a program read a file that nobody has read before: it has to wait for the host.
func started(s *suite) error {
	files, err := filepath.Glob("/boot/initrd.img-*")
	if err != nil || len(files) == 0 {
		return errors.Join(errors.New("there is no file to read"), err)
	}
	a, err := s.begin("--for", "1m", "--wait", "1us", "--", "sha256sum", files[0])
	if err != nil {
		return err
	}
	r, err := a.end(forbidden)
	if err != nil {
		return err
	}
	for _, want := range []string{"page fault", "mmap or brk", "file access", "long wait"} {
		if !slices.ContainsFunc(r.Sites, func(site site) bool {
			return site.Class == "forbidden" && site.Kind == want && site.Thread == "sha256sum"
		}) {
			return fmt.Errorf("no %s of it was seen", want)
		}
	}
	return nil
}

// open loads the modules and starts the bridge.
func (s *suite) open() (err error) {
	if s.bridge != nil {
		return nil
	}
	if err := loadModules(s.modules); err != nil {
		return err
	}
	if s.client, err = kernel.Dial(); err != nil {
		return err
	}
	if s.bridge, err = startBridge(); err != nil {
		return err
	}
	return join(s.client)
}

// fenced audits the bridge while it fences by some acts, one after another.
func (s *suite) fenced(code int, acts []string, args ...string) (*report, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	a, err := s.begin(append([]string{
		"--pid", fmt.Sprint(s.bridge.cmd.Process.Pid), "--fences", fmt.Sprint(len(acts)), "--within", "1m",
	}, args...)...)
	if err != nil {
		return nil, err
	}
	for _, act := range acts {
		if err := s.bridge.fence(s.client, act); err != nil {
			return nil, err
		}
	}
	return a.end(code)
}

func keepsTheRules(s *suite) error {
	r, err := s.fenced(bounded, []string{"clean"}, "--claim", "64")
	if err != nil {
		return err
	}
	process, kernelThread := false, false
	for _, site := range r.Sites {
		process = process || site.Class == "bounded" && !site.KernelThread && site.Memalloc
		kernelThread = kernelThread || site.Class == "bounded" && site.KernelThread
	}
	if r.TakenKiB == 0 || !process || !kernelThread {
		return fmt.Errorf("%d KiB; seen of the bridge %t, of the kernel's thread %t", r.TakenKiB, process, kernelThread)
	}
	return nil
}

func losesEvents(s *suite) error {
	r, err := s.fenced(unknown, []string{"clean"}, "--claim", "64", "--buffer", "4")
	if err != nil {
		return err
	}
	if r.Lost == 0 {
		return errors.New("none is said to be lost")
	}
	return nil
}

const picture = "/tmp/offenders.svg"

func breakTheRules(s *suite) (err error) {
	s.offences, err = s.fenced(forbidden, []string{"allocate", "stack", "log", "start", "resolve"}, "--svg", picture)
	if err == nil && s.offences.Lost > 0 {
		err = fmt.Errorf("%d events were lost", s.offences.Lost)
	}
	return err
}

// offence looks for an offence of a kind, with the text and the line that belong to it.
func offence(name, kind, text string) func(s *suite) error {
	return func(s *suite) error {
		line, err := lineOf(name)
		if err != nil {
			return err
		}
		if s.offences == nil {
			return errors.New("there is no report")
		}
		var others []string
		for _, site := range s.offences.Sites {
			if site.Class != "forbidden" || site.Kind != kind || site.Text != text {
				continue
			}
			if strings.HasSuffix(site.Blame, line) {
				return nil
			}
			others = append(others, site.Blame)
		}
		return fmt.Errorf("no %s %s by %s, but by: %s", kind, text, line, strings.Join(others, ", "))
	}
}

func flameGraph(*suite) error {
	text, err := os.ReadFile(picture)
	if err != nil {
		return err
	}
	for tokens := xml.NewDecoder(strings.NewReader(string(text))); ; {
		if _, err := tokens.Token(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	for _, offence := range []string{"allocate", "stack", "start"} {
		line, err := lineOf(offence)
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), line) {
			return fmt.Errorf("%s is not in it", line)
		}
	}
	return nil
}
