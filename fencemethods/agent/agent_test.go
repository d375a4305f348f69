// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
)

// An actor is a jail in which no program runs, but a function that answers as one.
type actor struct {
	act     func(action string) sandbox.Result
	actions []string
	stdin   string
}

func (a *actor) Run(ctx context.Context, stdin []byte) (sandbox.Result, error) {
	a.stdin = string(stdin)
	action := strings.TrimPrefix(strings.Split(a.stdin, "\n")[0], "action=")
	a.actions = append(a.actions, action)
	time.Sleep(time.Millisecond) // of a clock that only tests have
	return a.act(action), ctx.Err()
}

func (a *actor) Close() error { return nil }

func exit(code int, stdout, stderr string) sandbox.Result {
	return sandbox.Result{End: sandbox.Exited, Code: code, Stdout: []byte(stdout), Stderr: []byte(stderr)}
}

const statusLog = "2026-01-01 00:00:00,000 ERROR: "

// outlet behaves as the agents do: one outlet that obeys.
type outlet struct{ on bool }

func (o *outlet) act(action string) sandbox.Result {
	switch {
	case action == "status" && o.on:
		return exit(0, "Status: ON\n", "")
	case action == "status":
		return exit(2, "Status: OFF\n", "")
	case action == "list":
		return exit(0, "1,web1\n7,web7\n", "")
	}
	o.on = action == "on"
	return exit(0, "Success: Powered "+strings.ToUpper(action)+"\n", "")
}

func acting(act func(string) sandbox.Result, plug string) (*device, *actor) {
	a := &actor{act: act}
	return &device{jail: a, plug: plug, secrets: []fencemethods.Secret{fencemethods.Secret("hunter2")}}, a
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestOffIsReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{on: true}
		d, a := acting(o.act, "7")
		if err := d.Off(within(t, time.Minute)); err != nil || o.on {
			t.Errorf("%v, on: %v", err, o.on)
		}
		if want := []string{"status", "off", "status", "list"}; !slices.Equal(a.actions, want) {
			t.Errorf("ran %q, want %q", a.actions, want)
		}
		a.actions = nil
		if err := d.Off(within(t, time.Minute)); err != nil || slices.Contains(a.actions, "off") {
			t.Errorf("off already: %v, ran %q", err, a.actions)
		}
		if err := d.On(within(t, time.Minute)); err != nil || !o.on {
			t.Errorf("On: %v, on: %v", err, o.on)
		}
	})
}

// Each of these agents says that it has switched something off, and has not.
func TestAnAgentThatLiesIsNotBelieved(t *testing.T) {
	on := exit(0, "Status: ON\n", "")
	off := exit(2, "Status: OFF\n", "")
	fine := exit(0, "Success: Powered OFF\n", "")
	unsupported := exit(1, "", statusLog+"Failed: Unrecognised action 'list'\n\n"+statusLog+"Please use '-h' for usage\n\n")
	for _, c := range []struct {
		name   string
		plug   string
		status sandbox.Result
		list   sandbox.Result
		kind   error
	}{
		{"it is still on", "", on, off, fencemethods.ErrNotOff},
		{"no such plug", "9", off, exit(0, "1,\n7,\n", ""), fencemethods.ErrProtocol},
		{"no such device: it lists nothing", "7", off, exit(0, "", ""), fencemethods.ErrProtocol},
		{"it cannot list, and the plug never was on", "7", off, unsupported, fencemethods.ErrUnsupported},
		{"it cannot list now", "7", off, exit(1, "", "Connection timed out"), fencemethods.ErrUnreachable},
		{"the interpreter's exit code is that of off", "", exit(2, "", "python3: can't open file"), off, fencemethods.ErrRefused},
		{"it says off and exits as for on", "", exit(0, "Status: OFF\n", ""), off, fencemethods.ErrRefused},
		{"it says on and exits as for off", "", exit(2, "Status: ON\n", ""), off, fencemethods.ErrRefused},
		{"the status cannot be had", "", exit(1, "", statusLog+"Unable to connect/login to fencing device\n"), off, fencemethods.ErrUnreachable},
		{"it was killed", "", sandbox.Result{End: sandbox.Signaled, Code: 9, Stdout: []byte("Status: OFF\n")}, off, fencemethods.ErrProtocol},
		{"its time was over", "", sandbox.Result{End: sandbox.Deadline, Code: 2, Stdout: []byte("Status: OFF\n")}, off, fencemethods.ErrTimeout},
		{"it wanted too much memory", "", sandbox.Result{End: sandbox.Memory}, off, syscall.ENOMEM},
		{"it could not be run", "", sandbox.Result{End: sandbox.Broken, Stderr: []byte("exec format error")}, off, fencemethods.ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, a := acting(func(action string) sandbox.Result {
					switch action {
					case "status":
						return c.status
					case "list":
						return c.list
					}
					return fine
				}, c.plug)
				err := d.Off(within(t, time.Minute))
				e, ok := errors.AsType[*fencemethods.Error](err)
				if !ok || !errors.Is(err, c.kind) || e.Advice == "" {
					t.Errorf("%v, want %v and advice", err, c.kind)
				}
				if !slices.Contains(a.actions, "off") {
					t.Error("it was never told to go off")
				}
				if s, err := d.Status(within(t, time.Minute)); s == fencemethods.Off && err == nil {
					t.Error("Status says off")
				}
			})
		})
	}
}

func TestAnAgentThatCannotListIsBelievedOfAPlugThatWasOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{on: true}
		d, _ := acting(func(action string) sandbox.Result {
			if action == "list" {
				return exit(1, "", "Failed: Unrecognised action 'list'")
			}
			return o.act(action)
		}, "7")
		if err := d.Off(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
	})
}

func TestACommandThatHasFailedMayHaveWorked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &outlet{on: true}
		d, _ := acting(func(action string) sandbox.Result {
			r := o.act(action)
			if action == "off" {
				return exit(1, "", "Connection lost")
			}
			return r
		}, "")
		if err := d.Off(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
	})
}

func TestTheDeadlineIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := acting(func(string) sandbox.Result { return exit(1, "", "Connection timed out") }, "")
		began := time.Now()
		err := d.Off(within(t, 10*time.Second))
		if took := time.Since(began); took > 10*time.Second || took < 9*time.Second || !errors.Is(err, fencemethods.ErrUnreachable) {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestACallOffIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := acting(func(string) sandbox.Result { return exit(0, "Status: ON", "") }, "")
		ctx, cancel := context.WithCancel(within(t, time.Minute))
		time.AfterFunc(5*time.Second, cancel)
		began := time.Now()
		if err := d.Off(ctx); !errors.Is(err, context.Canceled) || time.Since(began) > 6*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestAnAgentsWordsAreShownWithoutSecrets(t *testing.T) {
	for said, want := range map[string]string{
		statusLog + "Failed: wrong thing\n\n" + statusLog + "Please use '-h' for usage\n\n": "status: Failed: wrong thing",
		"ipmitool -P hunter2: no\n": "status: ipmitool -P [redacted]: no",
		strings.Repeat("x", 500):    "xxx...",
		"a\x1b[31m\xff":             "status: a [31m?",
	} {
		d, _ := acting(func(string) sandbox.Result { return exit(1, "", said) }, "")
		_, err := d.Status(within(t, time.Minute))
		e, ok := errors.AsType[*fencemethods.Error](err)
		if !ok || !strings.Contains(e.Detail, want) || len(e.Detail) > detailMax || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q becomes %v", said, err)
		}
	}
}

func given(others map[string]string) map[string]string {
	p := map[string]string{"program": "/usr/sbin/fence_dummy"}
	maps.Copy(p, others)
	return p
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"program", "fence_ipmilan", "absolute path"},
		{"program", "/usr/sbin/fence_apc_snmp", "the method snmp instead"},
		{"program", "/opt/bin/fence_emerson", "not on for off"},
		{"program", "/bin/sh", "begins with fence_"},
		{"plug", "1,2", "without a comma"},
		{"options", "ip", "key=value"},
		{"options", "ip=1 ip=2", "ip: is there twice"},
		{"options", `ip="1`, `closing "`},
		{"options", "action=on", "set by o2fence"},
		{"options", "port=3", "use plug"},
		{"options", "password=hunter2", "password_file"},
		{"options", "snmp-priv-passwd=hunter2", "privacy_password_file"},
		{"options", "community=hunter2", "community_file"},
		{"options", "verbose=1", "secrets into a log"},
		{"options", "method=cycle", "cannot be seen"},
		{"options", "missing-as-off=1", "nobody knows of"},
		{"options", `" action"=status`, "option 1"},
		{"options", "#ip=192.0.2.1", "option 1"},
		{"password_file", "hunter2", "absolute path"},
		{"memory_max_mib", "1", "whole number from 16"},
		{"allow_unsafe", "no", "yes"},
		{"optoins", "ip=1", `did you mean "options"?`},
	} {
		_, err := Method().Parse(given(map[string]string{c.key: c.value}))
		if e, ok := errors.AsType[*fencemethods.ParamError](err); !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: gives a secret away", err)
		}
	}
}

func TestOptionsAreSplitAtSpacesOutsideOfQuotes(t *testing.T) {
	got, err := splitOptions(` ip=192.0.2.1   cmd_prompt="a = b" 	ssl=1`)
	want := []option{{"ip", "192.0.2.1"}, {"cmd_prompt", "a = b"}, {"ssl", "1"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSecretsReachTheAgentByItsStandardInputOnly(t *testing.T) {
	dir := t.TempDir()
	v := fencemethods.Values{}
	for _, name := range []string{"password_file", "community_file", "privacy_password_file"} {
		v[name] = filepath.Join(dir, name)
		if err := os.WriteFile(v[name], []byte("secret of "+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, a := acting((&outlet{on: true}).act, "")
	if err := d.readSecrets(v); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	const want = "action=status\npassword=secret of password_file\ncommunity=secret of community_file\n" +
		"snmp_priv_passwd=secret of privacy_password_file\n"
	if a.stdin != want {
		t.Errorf("standard input is %q", a.stdin)
	}
	if err := d.Close(); err != nil || strings.Contains(string([]byte(d.params)), "secret") {
		t.Errorf("after Close: %q, %v", []byte(d.params), err)
	}
}

func TestWithoutASandboxNothingIsRun(t *testing.T) {
	_, err := Method().Open(fencemethods.Target{Name: "web1"}, given(map[string]string{"socket": filepath.Join(t.TempDir(), "none")}))
	if err == nil || !strings.Contains(err.Error(), "start o2fence-sandbox.service") {
		t.Errorf("Open: %v", err)
	}
}

func TestItIsLabelledAsNotDeadlockProof(t *testing.T) {
	if m := Method(); !strings.Contains(m.Summary, "NOT DEADLOCK-PROOF") {
		t.Errorf("summary %q", m.Summary)
	}
}

func TestAnAgentComesAfterADeadlockProofMethod(t *testing.T) {
	ipmi, test, watchdog := Step{Method: "ipmi"}, Step{Method: "test"}, Step{Method: "watchdog"}
	own, meant := Step{Method: Name}, Step{Method: Name, Values: map[string]string{"allow_unsafe": "yes"}}
	for _, c := range []struct {
		steps []Step
		index int
	}{
		{nil, -1},
		{[]Step{ipmi, watchdog}, -1},
		{[]Step{ipmi, own, own}, -1},
		{[]Step{meant, watchdog}, -1},
		{[]Step{own, ipmi}, 0},
		{[]Step{test, own, ipmi}, 1},
		{[]Step{meant, own}, 1},
	} {
		index, err := CheckOrder(c.steps)
		if index != c.index || (err == nil) != (c.index < 0) || err != nil && !errors.Is(err, ErrOrder) {
			t.Errorf("%v: %d, %v; want %d", c.steps, index, err, c.index)
		}
	}
}
