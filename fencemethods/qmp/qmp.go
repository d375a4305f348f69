// SPDX-License-Identifier: GPL-2.0-only

// Package qmp fences a QEMU virtual machine through its monitor, for clusters of such machines.
//
// What proves that a virtual machine is off? Not that its monitor's socket is gone: it may be the
// wrong socket, or the host that is gone, or only the way there. Not that the machine is paused: it
// has its memory, and whoever continues it has a node that goes on writing. QEMU itself has to say
// that the guest will not go on. So the machine is stopped, which waits for its writes, and then
// reset, which takes away what its processors and devices were about. QEMU calls that "prelaunch":
// stopped, and yet to start from the beginning. It lasts, can be read by whoever comes later, over
// TCP as well as here, and "cont" is the way back.
//
// A machine that was migrated is not off because of what is left of it here: whoever asks QEMU for
// its status asks for the migration's too.
//
// QMP has no authentication. Who can reach the monitor can do anything to the guest.
package qmp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/operation"
	"github.com/o2fence/o2fence/fencemethods/stream"
)

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "qmp",
		Summary:   "stop and reset a QEMU virtual machine through its monitor",
		MemoryKiB: 1024,
		KernelKiB: stream.KernelKiB,
		New:       New,
		Params: []fencemethods.Param{
			{
				Name: "monitor", Required: true, Identity: true, Validate: validMonitor,
				Help: "where QEMU's monitor is: the absolute path of a Unix socket, or IP:PORT",
			},
			{
				Name: "uuid", Validate: validUUID,
				Help: "the machine's UUID, as given to QEMU by -uuid; another one at that monitor is left alone",
			},
			{
				Name: "retry_ms", Default: "1000", Validate: fencemethods.Between(100, 60000),
				Help: "milliseconds after which an unanswered question is asked again, on a new connection",
			},
		},
	}
}

// maxSocket is the longest path that the kernel takes for a Unix socket (unix(7)).
const maxSocket = 107

func validMonitor(s string) error {
	if filepath.IsAbs(s) {
		if len(s) > maxSocket {
			return fmt.Errorf("longer than the %d bytes that the path of a socket can have", maxSocket)
		}
		return nil
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil || addr.Port() == 0 || addr.Addr().Zone() != "" {
		return fmt.Errorf("%q is neither the absolute path of a socket nor IP:PORT, such as 192.0.2.1:4444 or [2001:db8::1]:4444; names are not looked up", s)
	}
	return nil
}

func validUUID(s string) error {
	if len(s) == 36 && strings.Trim(s, "0-") == "" {
		return fmt.Errorf("%q is that of every machine without -uuid", s)
	}
	if len(s) != 36 {
		return fmt.Errorf("%q is not a UUID, such as 123e4567-e89b-12d3-a456-426614174000", s)
	}
	for i, c := range []byte(strings.ToLower(s)) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdef", rune(c)) {
			return fmt.Errorf("%q is not a UUID, such as 123e4567-e89b-12d3-a456-426614174000", s)
		}
	}
	return nil
}

// A device is one virtual machine.
type device struct {
	socket   *stream.Socket
	uuid     string
	patience time.Duration

	operation.Operation
	status string // QEMU's own word for the state
	active bool   // a migration was under way when last looked
	before []byte // what QEMU said of a migration that was over while the machine ran here

	conn  *stream.Conn // nil when there is none
	in    *bufio.Reader
	out   []byte
	nonce [8]byte
	count uint64
	id    []byte // of the last question
}

// New makes the device; it sends nothing.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	d := &device{
		uuid:     strings.ToLower(v["uuid"]),
		patience: time.Duration(v.Int("retry_ms")) * time.Millisecond,
		in:       bufio.NewReaderSize(nil, maxLine),
		out:      make([]byte, 0, 512), id: make([]byte, 0, 64), before: make([]byte, 0, maxLine),
	}
	d.Operation = operation.Operation{Failures: &failures, HangUp: d.hangUp, Pause: firstPause, Poll: firstPoll}
	to, err := addressOf(v["monitor"])
	if err != nil {
		return nil, err
	}
	d.socket, err = stream.New(to)
	return d, err
}

func addressOf(monitor string) (stream.Address, error) {
	if filepath.IsAbs(monitor) {
		return stream.Unix(monitor), nil
	}
	addr, err := netip.ParseAddrPort(monitor)
	if err != nil {
		return stream.Address{}, err
	}
	return stream.TCP(addr), nil
}

// Off stops and resets the machine.
func (d *device) Off(ctx context.Context) error {
	_, err := d.operate(ctx, func() *failure { return d.drive(ctx, fencemethods.Off) }, fencemethods.Off)
	return err
}

// On starts it.
func (d *device) On(ctx context.Context) error {
	_, err := d.operate(ctx, func() *failure { return d.drive(ctx, fencemethods.On) }, fencemethods.On)
	return err
}

// Status reads whether it is on. One that is paused is: it has its memory.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	return d.operate(ctx, func() *failure { return d.read(ctx) }, fencemethods.Unknown)
}

// Check does what Status does: who can read a monitor can command it.
func (d *device) Check(ctx context.Context) error {
	_, err := d.Status(ctx)
	return err
}

// Close gives the socket back.
func (d *device) Close() error {
	d.hangUp()
	return d.socket.Close()
}

// operate is Run with the connection's end: the monitor serves one client at a time.
func (d *device) operate(ctx context.Context, do func() *failure, want fencemethods.State) (fencemethods.State, error) {
	d.before = d.before[:0]
	defer d.hangUp()
	return d.Run(ctx, want, do)
}

const (
	firstPause = 100 * time.Millisecond // after the first attempt that has failed
	firstPoll  = 5 * time.Millisecond
)

// drive brings the machine to want. One that is somewhere else is commanded nothing.
func (d *device) drive(ctx context.Context, want fencemethods.State) *failure {
	read := func() *failure {
		if f := d.read(ctx); f != nil {
			return f
		}
		if d.State == fencemethods.Unknown && !d.Over(ctx) {
			return failElsewhere
		}
		return nil
	}
	return d.Drive(ctx, want, read, func() *failure { return d.command(ctx, want) })
}

// read reads the state. The migration is asked for before the status, since a machine that runs here
// after its migration has ended was not taken away by it; and after the status, since one that is
// off here must not have been taken away until then.
func (d *device) read(ctx context.Context) *failure {
	earlier, f := d.ask(ctx, "query-migrate", "")
	if f != nil {
		return f
	}
	early := decodeMigration(earlier)
	answer, f := d.ask(ctx, "query-status", "")
	if f != nil {
		return f
	}
	status, ok := decodeStatus(answer)
	if !ok {
		return failGarbage
	}
	later, f := d.ask(ctx, "query-migrate", "")
	if f != nil {
		return f
	}
	late := decodeMigration(later)
	if early == migrationOver && status.Running {
		d.before = append(d.before[:0], earlier...)
	}
	d.status, d.Told = status.Status, true
	d.active = early == migrationActive || late == migrationActive
	switch {
	case status.on():
		d.State = fencemethods.On
	case status.off() && (late == migrationNone || late == migrationOver && bytes.Equal(later, d.before)):
		d.State = fencemethods.Off
	default:
		d.State = fencemethods.Unknown
	}
	return nil
}

// command gives the commands. That they were taken proves nothing yet.
func (d *device) command(ctx context.Context, want fencemethods.State) *failure {
	status := d.status
	if want == fencemethods.On {
		if status == statusShutdown { // which has to be reset before it can start
			if _, f := d.ask(ctx, "system_reset", ""); f != nil {
				return f
			}
		}
		_, f := d.ask(ctx, "cont", "")
		return f
	}
	if d.active {
		// So that it does not get away meanwhile. If it has, or nothing is to be canceled, that is
		// found out when the state is read.
		if _, f := d.ask(ctx, "migrate_cancel", ""); f != nil && f.Kind != fencemethods.ErrRefused {
			return f
		}
	}
	if _, f := d.ask(ctx, "stop", ""); f != nil {
		return f
	}
	// With -no-reboot a reset would end QEMU, and nobody could read whether it has. QEMU before 6.0
	// does not know the command.
	if _, f := d.ask(ctx, "set-action", `{"reboot":"reset"}`); f != nil && f.Kind != fencemethods.ErrRefused {
		return f
	}
	_, f := d.ask(ctx, "system_reset", "")
	return f
}
