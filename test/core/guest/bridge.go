// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// A word is one line between the suite and a bridge, either way: "bound" or "refused" for a start,
// "initiate" and "cancel", "answer" and "answered", and "refused" for an answer too.
type word struct {
	What    string
	Text    string
	Number  int // which initiate is meant
	Errno   syscall.Errno
	Method  string
	Params  string
	Timeout time.Duration
}

// serve is the bridge's process: "unflagged" and "unlocked" break a rule each, "unlocks" breaks one once
// it has bound its methods, "bequeath" leaves the socket to a child; the rest are methods.
func serve(args []string) error {
	breaks := func(rule string) bool { return slices.Contains(args, rule) }
	if !breaks("unflagged") {
		if err := memsafe.Enter(flagThread); err != nil {
			return err
		}
	}
	if !breaks("unlocked") {
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
			return err
		}
	}
	b, err := kernel.OpenBridge()
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	asked := make(chan kernel.Attempt, 100)
	go receive(b, out, asked)
	methods := slices.DeleteFunc(slices.Clone(args), func(a string) bool {
		return slices.Contains([]string{"unflagged", "unlocked", "unlocks", "bequeath"}, a)
	})
	if err := b.Bind(ctx, methods); err != nil {
		return out.Encode(word{What: "refused", Text: err.Error()})
	}
	if breaks("unlocks") {
		if err := unix.Munlockall(); err != nil {
			return err
		}
	}
	bound := word{What: "bound"}
	if breaks("bequeath") {
		if bound.Number, err = bequeath(); err != nil {
			return err
		}
	}
	if err := out.Encode(bound); err != nil {
		return err
	}
	return answerAll(b, out, asked)
}

// bequeath starts a child that inherits all that is open, and returns its process.
func bequeath() (int, error) {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	for _, e := range open {
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0) // the directory's own is closed again
		}
	}
	heir := exec.Command("/proc/self/exe", "heir")
	if err := heir.Start(); err != nil {
		return 0, err
	}
	return heir.Process.Pid, nil
}

func flagThread() error {
	c, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Memalloc(ctx)
}

func receive(b *kernel.Bridge, out *json.Encoder, asked chan<- kernel.Attempt) {
	for n := 0; ; {
		var in kernel.Initiate
		cmd, err := b.Receive(&in)
		if refusal, ok := errors.AsType[*kernel.Refusal](err); ok {
			_ = out.Encode(word{What: "refused", Errno: refusal.Errno})
			continue
		}
		if err != nil {
			return
		}
		w := word{What: "cancel", Number: n, Method: in.Method.String(), Params: string(in.Params()), Timeout: in.Timeout}
		if cmd == uapi.CmdInitiate {
			n++
			w.What, w.Number = "initiate", n
			asked <- in.Attempt
		}
		_ = out.Encode(w)
	}
}

// answerAll obeys the suite until it ends.
func answerAll(b *kernel.Bridge, out *json.Encoder, asked <-chan kernel.Attempt) error {
	var attempts []kernel.Attempt
	for in := json.NewDecoder(os.Stdin); ; {
		var w word
		if err := in.Decode(&w); err != nil {
			return nil // the suite has gone
		}
		for len(attempts) < w.Number {
			attempts = append(attempts, <-asked)
		}
		reply := word{What: "answered"}
		err := b.Fenced(&kernel.Answer{Attempt: attempts[w.Number-1], Errno: w.Errno, Errmsg: w.Text})
		if err != nil {
			reply.Text = err.Error()
		}
		if err := out.Encode(reply); err != nil {
			return err
		}
	}
}

// A bridge is the suite's end of that process.
type bridge struct {
	cmd   *exec.Cmd
	in    *json.Encoder
	words chan word
	heir  int // the process that inherits its socket, or 0
}

// bridge starts a bridge that carries methods, or else returns why the kernel refused it.
func (s *suite) bridge(args ...string) (*bridge, error) {
	cmd := exec.Command("/proc/self/exe", append([]string{"bridge"}, args...)...)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return nil, err
	}
	b := &bridge{cmd: cmd, in: json.NewEncoder(in), words: make(chan word, 1000)}
	go b.listen(out)
	s.bridges = append(s.bridges, b)
	w, ok := <-b.words
	if !ok {
		return nil, errors.New("the bridge has ended")
	}
	if w.What != "bound" {
		return nil, errors.New(w.Text)
	}
	b.heir = w.Number
	return b, nil
}

func (b *bridge) listen(out io.Reader) {
	defer close(b.words)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var w word
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			w = word{What: "nonsense", Text: lines.Text()}
		}
		b.words <- w
	}
}

// kill ends the process; it may have ended.
func (b *bridge) kill() {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
}

// next returns the bridge's next word, which must be of this kind.
func (b *bridge) next(what string) (word, error) {
	select {
	case w, ok := <-b.words:
		if !ok || w.What != what {
			return w, fmt.Errorf("the bridge says %+v, want %s", w, what)
		}
		return w, nil
	case <-time.After(patience):
		return word{}, fmt.Errorf("the bridge does not say %s", what)
	}
}

// refused has the bridge answer an initiate, and fails unless the kernel refuses that.
func (b *bridge) refused(to word, want syscall.Errno) error {
	if err := b.in.Encode(word{What: "answer", Number: to.Number}); err != nil {
		return err
	}
	said := map[string]syscall.Errno{}
	for range 2 { // the refusal and that it was sent, by two goroutines
		select {
		case w := <-b.words:
			said[w.What] = w.Errno
		case <-time.After(patience):
		}
	}
	if _, sent := said["answered"]; !sent || said["refused"] != want {
		return fmt.Errorf("the bridge says %v, want it refused with %w", said, want)
	}
	return nil
}

// answer has the bridge answer an initiate.
func (b *bridge) answer(to word, errno syscall.Errno, text string) error {
	if err := b.in.Encode(word{What: "answer", Number: to.Number, Errno: errno, Text: text}); err != nil {
		return err
	}
	w, err := b.next("answered")
	if err == nil && w.Text != "" {
		err = errors.New(w.Text)
	}
	return err
}
