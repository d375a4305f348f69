// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/redfishd"
)

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func soon(t *testing.T) context.Context { return within(t, 20*time.Second) }

// machineOn returns a machine that is on.
func machineOn(t *testing.T) *fencetest.Machine {
	t.Helper()
	m := new(fencetest.Machine)
	if err := m.SetOn(true); err != nil {
		t.Fatal(err)
	}
	return m
}

// Redfishtool and sushy are clients of other authors: the server is no fake of our own imagination.
func TestOtherClientsAgreeOnThePower(t *testing.T) {
	for name, program := range map[string]func(t *testing.T, s *redfishd.Server) *exec.Cmd{
		"redfishtool": func(t *testing.T, s *redfishd.Server) *exec.Cmd {
			return exec.CommandContext(t.Context(), "redfishtool", "-r", s.Addr().String(), "-S", "Always",
				"-u", testUser, "-p", testPassword, "Systems", "-1", "get")
		},
		"sushy": func(t *testing.T, s *redfishd.Server) *exec.Cmd {
			return exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "-c", `
import sys, sushy
s = sushy.Sushy('https://' + sys.argv[1], username=sys.argv[2], password=sys.argv[3], verify=True)
print('"PowerState": "%s"' % s.get_system(sys.argv[4]).power_state.value)`,
				s.Addr().String(), testUser, testPassword, redfishd.System)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startBMC(t, machineOn(t), redfishd.Habits{})
			d := open(t, s, nil)
			for _, step := range []struct {
				do   func(context.Context) error
				want string
			}{{d.On, `"PowerState": "On"`}, {d.Off, `"PowerState": "Off"`}} {
				if err := step.do(soon(t)); err != nil {
					t.Fatal(err)
				}
				cmd := program(t, s)
				cmd.Env = append(os.Environ(), "REQUESTS_CA_BUNDLE="+fencetest.SecretFile(t, string(s.CA())))
				out, err := cmd.CombinedOutput()
				if errors.Is(err, exec.ErrNotFound) || strings.Contains(string(out), "No module named") {
					t.Skip(err, string(out))
				}
				if err != nil || !strings.Contains(string(out), step.want) {
					t.Errorf("%v: %s; want %s", err, out, step.want)
				}
			}
		})
	}
}

func TestTheCommandIsForceOffAndNothingElse(t *testing.T) {
	s := startBMC(t, machineOn(t), redfishd.Habits{})
	if err := open(t, s, nil).Off(soon(t)); err != nil {
		t.Fatal(err)
	}
	if resets := s.Seen().Resets; !slices.Equal(resets, []string{"ForceOff"}) {
		t.Errorf("resets %q", resets)
	}
}

// However a BMC words its success, it is none before the power is read as off. And whatever it says
// of the power, it gets the command, unless what it says is not to be understood.
func TestAnAcknowledgementIsNotOff(t *testing.T) {
	for _, c := range []struct {
		state     string
		commanded bool
	}{
		{`"On"`, true},
		{`"PoweringOff"`, true},
		{`"PoweringOn"`, true},
		{`"Paused"`, true},
		{`"off"`, true},
		{`"Offline"`, true},
		{`""`, true},
		{`null`, true},
		{`{}`, false},
		{`0`, false},
		{`"On","PowerState":"Off"`, false},
		{`"On","powerstate":"Off"`, false},
		{`"Off","POWERSTATE":"On"`, false},
	} {
		for _, status := range []int{http.StatusOK, http.StatusAccepted, http.StatusNoContent} {
			t.Run(fmt.Sprint(status, c.state), func(t *testing.T) {
				t.Parallel()
				s := startBMC(t, machineOn(t), redfishd.Habits{Acknowledge: status, State: c.state})
				if err := open(t, s, nil).Off(within(t, time.Second)); err == nil {
					t.Error("FALSE SUCCESS")
				}
				if resets := s.Seen().Resets; (len(resets) != 0) != c.commanded {
					t.Errorf("resets %q", resets)
				}
			})
		}
	}
}

// What is left of an answer is not taken for the next one.
func TestABMCThatAnswersTwiceIsAskedAnew(t *testing.T) {
	m := machineOn(t)
	s := startBMC(t, m, redfishd.Habits{Twice: true})
	if err := open(t, s, nil).Off(soon(t)); err != nil {
		t.Fatal(err)
	}
	if on, _ := m.On(); on {
		t.Error("FALSE SUCCESS: the machine is on")
	}
	if seen := s.Seen(); seen.Connections != seen.Requests {
		t.Errorf("%d requests on %d connections", seen.Requests, seen.Connections)
	}
}

// The target of the action is the BMC's to say, what is sent is ours.
func TestATargetCannotAlterTheRequest(t *testing.T) {
	for target, kind := range map[string]error{
		"": fencemethods.ErrUnsupported, "x": fencemethods.ErrUnsupported, "mailto:x": fencemethods.ErrUnsupported,
		"/a\r\nX: y": fencemethods.ErrUnsupported, "/" + strings.Repeat("x", maxPath): fencemethods.ErrUnsupported,
		// Of these a path can be made, which the BMC does not have.
		"//host/x": fencemethods.ErrRefused, "/a b": fencemethods.ErrRefused, "/a?b": fencemethods.ErrRefused, "/a#b": fencemethods.ErrRefused,
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			s := startBMC(t, machineOn(t), redfishd.Habits{Target: &target})
			if err := open(t, s, nil).Off(soon(t)); !errors.Is(err, kind) {
				t.Errorf("%v: want %v", err, kind)
			}
		})
	}
	if got := pathOf("https://bmc.example.com:443/redfish/v1/x"); got != "/redfish/v1/x" {
		t.Errorf("path of a whole URL: %q", got)
	}
}

func TestPoweringOffIsWaitedFor(t *testing.T) {
	m := machineOn(t)
	s := startBMC(t, m, redfishd.Habits{State: `"PoweringOff"`})
	time.AfterFunc(300*time.Millisecond, func() { s.SetHabits(redfishd.Habits{}) })
	if err := open(t, s, nil).Off(soon(t)); err != nil {
		t.Fatal(err)
	}
	if on, _ := m.On(); on {
		t.Error("FALSE SUCCESS: the machine is on")
	}
}

// Some decline to switch off what has gone off meanwhile.
func TestADeclinedCommandDoesNotMatterWhenThePowerIsOff(t *testing.T) {
	m := machineOn(t)
	s := startBMC(t, m, redfishd.Habits{State: `"PoweringOff"`, Decline: http.StatusConflict})
	time.AfterFunc(100*time.Millisecond, func() {
		_ = m.SetOn(false)
		s.SetHabits(redfishd.Habits{Decline: http.StatusConflict})
	})
	if err := open(t, s, nil).Off(soon(t)); err != nil {
		t.Error(err)
	}
}

// Whoever has the BMC's address, but not its key, does not learn the password.
func TestAStrangerGetsNoCredentials(t *testing.T) {
	genuine, stranger := startBMC(t, machineOn(t), redfishd.Habits{}), startBMC(t, machineOn(t), redfishd.Habits{})
	var wg sync.WaitGroup
	for name, others := range map[string]map[string]string{
		"basic, pinned":  {"certificate": genuine.Fingerprint()},
		"basic, CA":      {"certificate": fencetest.SecretFile(t, string(genuine.CA()))},
		"session":        {"certificate": genuine.Fingerprint(), "auth": "session"},
		"name, wrong CA": {"certificate": fencetest.SecretFile(t, string(genuine.CA())), "certificate_name": redfishd.Name},
		"wrong name":     {"certificate": fencetest.SecretFile(t, string(stranger.CA())), "certificate_name": "other.example.com"},
	} {
		d, ctx := open(t, stranger, others), soon(t)
		wg.Go(func() {
			for _, do := range []func(context.Context) error{d.Check, d.Off, d.On} {
				if err := do(ctx); !errors.Is(err, fencemethods.ErrAuth) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	if seen := stranger.Seen(); seen.Requests != 0 || seen.Connections == 0 {
		t.Errorf("the stranger got %+v", seen)
	}
}

func TestTheOtherCertificateIsNamed(t *testing.T) {
	s := startBMC(t, machineOn(t), redfishd.Habits{})
	err := open(t, s, map[string]string{"certificate": strings.Repeat("ab", 32)}).Check(soon(t))
	if err == nil || !strings.Contains(err.Error(), s.Fingerprint()) {
		t.Errorf("%v: want its fingerprint %s", err, s.Fingerprint())
	}
}

func TestACAMayHaveIssuedTheCertificate(t *testing.T) {
	s := startBMC(t, machineOn(t), redfishd.Habits{})
	for _, name := range []string{"", redfishd.Name} {
		others := map[string]string{"certificate": fencetest.SecretFile(t, string(s.CA()))}
		if name != "" {
			others["certificate_name"] = name
		}
		if err := open(t, s, others).Check(soon(t)); err != nil {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestSessionsAreGivenBack(t *testing.T) {
	s := startBMC(t, machineOn(t), redfishd.Habits{Sessions: 1})
	d := open(t, s, map[string]string{"auth": "session"})
	for range 3 {
		if err := d.Check(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n, seen := s.OpenSessions(), s.Seen(); n != 0 || seen.Logins != 3 {
		t.Errorf("%d sessions left of %d", n, seen.Logins)
	}
}

func TestCheckSaysWhatWouldBeInTheWay(t *testing.T) {
	for _, c := range []struct {
		name   string
		habits redfishd.Habits
		others map[string]string
		kind   error
		text   string
	}{
		{"all is well", redfishd.Habits{}, nil, nil, ""},
		{"values in an ActionInfo", redfishd.Habits{Info: true}, nil, nil, ""},
		{"sessions elsewhere", redfishd.Habits{NoBasic: true, OldSessions: true}, map[string]string{"auth": "session"}, nil, ""},
		{"off already", redfishd.Habits{State: `"Off"`}, nil, nil, ""},
		{"long document", redfishd.Habits{Length: 40000}, nil, nil, ""},
		{"no ForceOff", redfishd.Habits{Values: []string{"On", "GracefulShutdown"}}, nil, fencemethods.ErrUnsupported, "does not offer ForceOff"},
		{"no ForceOff in the ActionInfo", redfishd.Habits{Info: true, Values: []string{"On"}}, nil, fencemethods.ErrUnsupported, "does not offer ForceOff"},
		{"no word on ForceOff", redfishd.Habits{Mum: true}, nil, fencemethods.ErrUnsupported, "does not say"},
		{"user who may only read", redfishd.Habits{Role: "ReadOnly"}, nil, fencemethods.ErrAuth, "role Operator"},
		{"other system answers", redfishd.Habits{Foreign: true}, nil, fencemethods.ErrProtocol, "not the ComputerSystem"},
		{"too long a document", redfishd.Habits{Length: maxBody}, nil, fencemethods.ErrProtocol, "longer than"},
		{"no such system", redfishd.Habits{}, map[string]string{"system": "/redfish/v1/Systems/1"}, fencemethods.ErrRefused, "there are " + redfishd.System},
		{"not a system", redfishd.Habits{}, map[string]string{"system": "/redfish/v1/SessionService"}, fencemethods.ErrProtocol, "check system"},
		{"no basic authentication", redfishd.Habits{NoBasic: true}, nil, fencemethods.ErrAuth, "password_file"},
		{"no session left", redfishd.Habits{Sessions: -1}, map[string]string{"auth": "session"}, fencemethods.ErrBusy, "sessions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startBMC(t, machineOn(t), c.habits)
			err := open(t, s, c.others).Check(within(t, 3*time.Second))
			if !errors.Is(err, c.kind) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v; want %v and %q", err, c.kind, c.text)
			}
			if len(s.Seen().Resets) != 0 {
				t.Error("check reset the system")
			}
		})
	}
}

// Never GracefulShutdown instead: the node hangs.
func TestOffIsRefusedWithoutForceOff(t *testing.T) {
	for name, c := range map[string]struct {
		habits redfishd.Habits
		kind   error
	}{
		"not offered": {redfishd.Habits{Values: []string{"On", "GracefulShutdown"}}, fencemethods.ErrUnsupported},
		"not allowed": {redfishd.Habits{Role: "ReadOnly"}, fencemethods.ErrAuth},
		"declined":    {redfishd.Habits{Decline: http.StatusConflict}, fencemethods.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startBMC(t, machineOn(t), c.habits)
			if err := open(t, s, nil).Off(soon(t)); !errors.Is(err, c.kind) {
				t.Errorf("%v: want %v", err, c.kind)
			}
			for _, reset := range s.Seen().Resets {
				if reset != "ForceOff" {
					t.Errorf("reset %q", reset)
				}
			}
		})
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	s := startBMC(t, machineOn(t), redfishd.Habits{})
	for _, c := range []struct{ key, value, text string }{
		{"addr", "bmc1.example.com", "names are not looked up"},
		{"addr", "fe80::1%eth0", "zone"},
		{"port", "0", "whole number from 1 to 65535"},
		{"system", "1", "such as /redfish/v1/Systems/1"},
		{"system", "/redfish/v1/Systems/1 HTTP/1.0\r\nX: y", "such as /redfish/v1/Systems/1"},
		{"certificate", "none", "SHA-256 fingerprint"},
		{"certificate", "abcd", "SHA-256 fingerprint"},
		{"certificate_name", "https://bmc", "host name"},
		{"certificate_name", redfishd.Name, "needs no name"},
		{"user", "a:b", "colon"},
		{"auth", "none", "basic, session"},
		{"retry_ms", "0", "whole number from 100 to 60000"},
		{"password_file", "hunter2", "absolute path"},
		{"password", "hunter2", `did you mean "password_file"?`},
	} {
		p := params(t, s)
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: gives a secret away", err)
		}
	}
}

func TestThereIsNoWayWithoutACertificate(t *testing.T) {
	s := startBMC(t, machineOn(t), redfishd.Habits{})
	for name, others := range map[string]map[string]string{
		"CA's file missing":        {"certificate": "/nonexistent"},
		"CA's file holds none":     {"certificate": fencetest.SecretFile(t, "no PEM")},
		"CA's file is a directory": {"certificate": t.TempDir()},
	} {
		p := params(t, s)
		for key, value := range others {
			p[key] = value
		}
		if _, err := Method().Open(fencemethods.Target{}, p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	p := params(t, s)
	delete(p, "certificate")
	if _, err := Method().Parse(p); err == nil {
		t.Error("no certificate: no error")
	}
}
