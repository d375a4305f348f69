// SPDX-License-Identifier: GPL-2.0-only

// Package agent fences by any program of ClusterLabs' fence-agents (fence_*), for the devices that
// o2fence has no method of its own for.
//
// It is NOT DEADLOCK-PROOF: an agent is a script that is read from disk and started when it is
// wanted, and nobody can bound its memory. It runs in a jail that gives it memory of its own (R22.3,
// package sandbox); that makes a deadlock unlikely, not impossible. So it is for after a method that
// is deadlock-proof; see CheckOrder.
//
// Nor does it believe an agent's exit code. Agents have said "off" of outlets that do not exist: what
// is not "on" is off to them. A node counts as off when the agent, asked for the status afterwards,
// says so in words and by its exit code, and, where it is asked for a plug, when it lists that plug.
// Agents that say so of all that is not on are refused.
//
// The API is doc/FenceAgentAPI.md of ClusterLabs/fence-agents.
package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
)

// Name is the method's name.
const Name = "agent"

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:    Name,
		Summary: "run a program of fence-agents in a sandbox: NOT DEADLOCK-PROOF",
		// Its buffers, what it takes to connect once more, and to look at the clock while an agent runs.
		MemoryKiB: 384,
		New:       New,
		Params: []fencemethods.Param{
			{Name: "program", Required: true, Identity: true, Validate: validProgram, Help: "absolute path of the agent, such as /usr/sbin/fence_ipmilan"},
			{Name: "plug", Identity: true, Validate: validPlug, Help: "the agent's plug: outlet, port or machine; not for agents whose device is one machine's own"},
			{Name: "options", Identity: true, Private: true, Validate: validOptions, Help: "the agent's other parameters, key=value and separated by spaces; a value with spaces is in double quotes"},
			{Name: "password_file", Secret: true, Help: "file that holds the agent's parameter password"},
			{Name: "community_file", Secret: true, Help: "file that holds the agent's parameter community (SNMP)"},
			{Name: "privacy_password_file", Secret: true, Help: "file that holds the agent's parameter snmp_priv_passwd (SNMP v3)"},
			{Name: "memory_min_mib", Default: "48", Validate: fencemethods.Between(8, 4096), Help: "MiB of memory that are the agent's alone"},
			{Name: "memory_max_mib", Default: "256", Validate: fencemethods.Between(16, 65536), Help: "MiB of memory that it may have"},
			{Name: "processes", Default: "64", Validate: fencemethods.Between(16, 4096), Help: "processes and threads that it may have, with those of the sandbox itself"},
			{Name: "socket", Default: sandbox.Socket, Validate: validSocket, Help: "where o2fence-sandbox listens"},
			{
				Name: "allow_unsafe", Validate: fencemethods.OneOf("yes"),
				Help: "yes: use it although no deadlock-proof method comes before it",
			},
		},
	}
}

// A jail is a sandbox.Jail.
type jail interface {
	Run(ctx context.Context, stdin []byte) (sandbox.Result, error)
	Close() error
}

// A device is one node's agent with its parameters.
type device struct {
	jail    jail
	params  fencemethods.Secret // the agent's parameters, lines of key=value
	secrets []fencemethods.Secret
	plug    string
	input   []byte // the agent's standard input, of one run
}

// New makes the jail. It runs nothing in it.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	return newDevice(v, func() (jail, error) {
		return sandbox.Open(v["socket"], v["program"], sandbox.Limits{
			MinKiB: v.Int("memory_min_mib") << 10, MaxKiB: v.Int("memory_max_mib") << 10, Processes: v.Int("processes"),
		})
	})
}

func newDevice(v fencemethods.Values, open func() (jail, error)) (fencemethods.Device, error) {
	options, err := splitOptions(v["options"])
	if err != nil {
		return nil, err
	}
	d := &device{plug: v["plug"], input: make([]byte, 0, sandbox.InputMax)}
	for _, o := range options {
		d.params = append(d.params, o.key+"="+o.value+"\n"...)
	}
	if d.plug != "" {
		d.params = append(d.params, "plug="+d.plug+"\nport="+d.plug+"\n"...)
	}
	if err := d.readSecrets(v); err != nil {
		d.wipe()
		return nil, err
	}
	if d.jail, err = open(); err != nil {
		d.wipe()
		return nil, noSandbox(err)
	}
	return d, nil
}

// readSecrets adds the secrets to the parameters: an agent gets them on its standard input.
func (d *device) readSecrets(v fencemethods.Values) error {
	for _, s := range []struct{ param, key string }{
		{"password_file", "password"}, {"community_file", "community"}, {"privacy_password_file", "snmp_priv_passwd"},
	} {
		if v[s.param] == "" {
			continue
		}
		secret, err := fencemethods.ReadSecret(v[s.param])
		if err != nil {
			return err
		}
		d.secrets = append(d.secrets, secret)
		if strings.ContainsAny(string(secret), "\n\x00") {
			return errors.New(v[s.param] + ": an agent's parameter cannot have several lines")
		}
		line := append(append([]byte(s.key+"="), secret...), '\n')
		old := d.params
		d.params = append(d.params[:len(d.params):len(d.params)], line...)
		clear(line)
		old.Wipe()
	}
	return nil
}

func (d *device) wipe() {
	d.params.Wipe()
	for _, s := range d.secrets {
		s.Wipe()
	}
}

// Close ends the jail and wipes the secrets.
func (d *device) Close() error {
	d.wipe()
	return d.jail.Close()
}

// Status asks the agent. Off is a proven one.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	state, err := d.read(ctx)
	if state == fencemethods.Off && err == nil {
		err = d.proveOff(ctx, false)
	}
	return state, err
}

// Check asks for the status, and changes nothing.
func (d *device) Check(ctx context.Context) error {
	_, err := d.Status(ctx)
	return err
}

// Off has the agent switch the node off, and believes it when it is read as off.
func (d *device) Off(ctx context.Context) error { return d.drive(ctx, fencemethods.Off) }

// On has the agent switch the node on.
func (d *device) On(ctx context.Context) error { return d.drive(ctx, fencemethods.On) }

// Pauses between two rounds. An agent takes its time anyway.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Second
	nap        = 10 * time.Millisecond // how late a call-off may be noticed
)

// sameFailures is how often running the agent has to fail in the same way before that is its answer.
const sameFailures = 3

// drive reads the state first: a node that is off already is fenced at once, and gets no command.
func (d *device) drive(ctx context.Context, want fencemethods.State) error {
	var last, previous *fencemethods.Error
	wasOn, same := false, 0
	for wait := firstPause; ; wait = min(2*wait, lastPause) {
		state, err := d.read(ctx)
		if state == want && err == nil {
			if want == fencemethods.On {
				return nil
			}
			if err = d.proveOff(ctx, wasOn); err == nil {
				return nil
			}
		}
		wasOn = wasOn || state == fencemethods.On
		if err == nil {
			err = d.command(ctx, want)
		} else if isOver(ctx) == nil {
			// It may obey where it cannot tell.
			_ = d.command(ctx, want)
		}
		if last = asError(err); err == nil {
			last = stillThere(state)
		}
		if over := isOver(ctx); over != nil {
			return d.giveUp(over, last)
		}
		if same++; previous == nil || *previous != *last {
			same = 1
		}
		if previous = last; same >= sameFailures && final(last) {
			return last
		}
		if err := sleep(ctx, wait); err != nil {
			return d.giveUp(err, last)
		}
	}
}

// giveUp says what is known when time is up.
func (d *device) giveUp(over error, last *fencemethods.Error) error {
	if errors.Is(over, context.Canceled) || last == nil {
		return over
	}
	return last
}

// isOver tells whether there is time for another run of the agent.
func isOver(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case time.Until(deadline) < 2*firstPause:
		return context.DeadlineExceeded
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := isOver(ctx); err != nil {
			return err
		}
		time.Sleep(nap)
	}
	return nil
}

// The exit codes of the API.
const (
	exitOK  = 0
	exitOff = 2 // status: off
)

// read asks for the status. The exit code of "off" is also that of an interpreter that did not find
// its program, so that the words have to agree.
func (d *device) read(ctx context.Context) (fencemethods.State, error) {
	r, err := d.run(ctx, "status")
	if err != nil {
		return fencemethods.Unknown, err
	}
	said := strings.ToUpper(string(r.Stdout))
	switch {
	case r.End == sandbox.Exited && r.Code == exitOK && strings.Contains(said, "STATUS: ON"):
		return fencemethods.On, nil
	case r.End == sandbox.Exited && r.Code == exitOff && strings.Contains(said, "STATUS: OFF"):
		return fencemethods.Off, nil
	}
	return fencemethods.Unknown, d.failure("status", r)
}

// command gives a command. What the agent says of its success is worth nothing, what it says of its
// failure may be.
func (d *device) command(ctx context.Context, want fencemethods.State) error {
	r, err := d.run(ctx, want.String())
	if err != nil || r.End == sandbox.Exited && r.Code == exitOK {
		return err
	}
	return d.failure(want.String(), r)
}

// proveOff is for agents that take a plug. To many of them all that is not on is off, be it no plug
// at all; but they do not list what is not there. Those that cannot list are believed of a plug that
// was on.
func (d *device) proveOff(ctx context.Context, wasOn bool) error {
	if d.plug == "" {
		return nil
	}
	r, err := d.run(ctx, "list")
	switch {
	case err != nil:
		return err
	case r.End != sandbox.Exited || r.Code != exitOK:
		err := d.failure("list", r)
		if wasOn && errors.Is(err, fencemethods.ErrUnsupported) {
			return nil
		}
		return err
	case !lists(r.Stdout, d.plug):
		return failNoPlug
	}
	return nil
}

// lists tells whether a list, with lines of plug,alias, has a plug.
func lists(list []byte, plug string) bool {
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), ",")
		if strings.TrimSpace(name) == plug {
			return true
		}
	}
	return false
}

// run runs the agent for one action.
func (d *device) run(ctx context.Context, action string) (sandbox.Result, error) {
	d.input = append(append(d.input[:0], "action="+action+"\n"...), d.params...)
	r, err := d.jail.Run(ctx, d.input)
	clear(d.input)
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		return r, noSandbox(err)
	}
	return r, err
}

func validProgram(path string) error {
	if !filepath.IsAbs(path) || !strings.HasPrefix(filepath.Base(path), "fence_") {
		return errors.New("expected the absolute path of a program whose name begins with fence_")
	}
	if instead, ok := twoValued()[filepath.Base(path)]; ok {
		return fmt.Errorf("%s takes all that is not on for off, be it an error of the device: use %s instead", filepath.Base(path), instead)
	}
	return nil
}

// twoValued are the agents of fence-agents 4.12 whose status knows no third value, and what to use
// instead: even asked afterwards they say that a node is off which is not, as the conformance suite
// has shown of them.
func twoValued() map[string]string {
	const other = "another agent or method"
	return map[string]string{
		"fence_apc_snmp": "the method snmp", "fence_tripplite_snmp": "the method snmp", "fence_ifmib": "the method ifmib",
		"fence_cisco_mds": other, "fence_emerson": other, "fence_ibmblade": other, "fence_intelmodular": other, "fence_ipdu": other,
	}
}

func validSocket(path string) error {
	if !filepath.IsAbs(path) {
		return errors.New("expected an absolute path")
	}
	return nil
}

func validPlug(plug string) error {
	if strings.ContainsAny(plug, ",\n") {
		return errors.New("expected one plug, without a comma")
	}
	return nil
}
