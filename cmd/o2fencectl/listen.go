// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ask"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/fencemethods/remote"
)

const (
	look       = time.Second // how often it is looked whether a question is to be shown again, or over
	notifyTime = 30 * time.Second
)

// A receptionist runs the desk of an admin machine.
type receptionist struct {
	*tool
	addr     string
	keyFiles []string
	socket   string
	remind   time.Duration // how often an open question is shown again; 0: never
	notify   string        // a command of the shell; "" is none

	desk     *desk.Desk
	listener *desk.Listener
	shown    map[string]time.Time // when an open question was last shown, by its request
}

func (t *tool) listenCommand() *cobra.Command {
	r := &receptionist{tool: t, shown: map[string]time.Time{}}
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Be an admin machine: take what the method \"ask\" asks, and show it",
		Long: `Takes the questions of clusters whose fence.conf names this machine in the method "ask", prints them
until they are answered, and lets administrators see and answer them here: o2fencectl questions, confirm
and decline. The machine needs neither the modules nor a cluster. It runs as o2fence-listen.service.

--notify is given to the shell for each question, each time that it is printed again, and at its end,
with the text on standard input and O2FENCE_STATE, O2FENCE_REQUEST, O2FENCE_NODE, O2FENCE_CLUSTER and
O2FENCE_ASKED_BY in its environment: wall, or a program that sends a message.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.open(); err != nil {
				return err
			}
			return r.serve(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.addr, "listen", fmt.Sprintf("[::]:%d", ask.Port), "`ADDRESS:PORT` to listen on, UDP")
	flags.StringArrayVar(&r.keyFiles, "key-file", []string{"/etc/ocfs2/ask.key"}, "`FILE` with a key of those who may ask; again for another cluster's")
	flags.DurationVar(&r.remind, "remind", 30*time.Second, "how often an open question is printed again; 0 is never")
	flags.StringVar(&r.notify, "notify", "", "`COMMAND` that takes each question to people")
	return atDesk(cmd, &r.socket)
}

// open makes the socket that questions come in at.
func (r *receptionist) open() error {
	addr, err := netip.ParseAddrPort(r.addr)
	if err != nil {
		return usageError{fmt.Errorf("--listen %s: expected ADDRESS:PORT, as in 192.0.2.31:%d", r.addr, ask.Port)}
	}
	if r.remind < 0 || r.remind > 0 && r.remind < look {
		return usageError{fmt.Errorf("--remind %v: expected 0, or at least %v", r.remind, look)}
	}
	var keys []fencemethods.Secret
	for _, name := range r.keyFiles {
		key, err := remote.ReadKey(name)
		if err != nil {
			return usageError{err}
		}
		keys = append(keys, key)
	}
	r.desk = desk.New()
	r.listener, err = desk.NewListener(r.desk, addr, keys)
	return err
}

// serve goes on until ctx is done, or something has failed.
func (r *receptionist) serve(ctx context.Context) error {
	calls, err := desk.Listen(r.socket)
	if err != nil {
		return errors.Join(err, r.listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	failed := make(chan error, 2)
	for _, serve := range []func() error{
		func() error { return r.listener.Serve(ctx) },
		func() error { return r.desk.Serve(ctx, calls) },
	} {
		running.Go(func() { failed <- serve(); cancel() })
	}
	news := make(chan desk.Record)
	running.Go(func() { r.read(ctx, news) })
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		r.warn("%v", err)
	}
	r.warn("listening on %v", r.listener.Addr())
	err = r.show(ctx, news, &running)
	cancel()
	return errors.Join(err, <-failed, <-failed)
}

// read hands on the news.
func (r *receptionist) read(ctx context.Context, news chan<- desk.Record) {
	for ctx.Err() == nil {
		for _, record := range r.desk.News(ctx) {
			select {
			case news <- record:
			case <-ctx.Done():
			}
		}
	}
}

// show prints what comes, and what is open again and again.
func (r *receptionist) show(ctx context.Context, news <-chan desk.Record, running *sync.WaitGroup) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case record := <-news:
			r.listener.Tell(record)
			err = r.print(ctx, record, running)
		case now := <-tick.C:
			for _, record := range r.desk.Records() {
				if record.State == desk.Open && r.remind > 0 && now.Sub(r.shown[record.Request]) >= r.remind {
					err = errors.Join(err, r.print(ctx, record, running))
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

func (r *receptionist) print(ctx context.Context, record desk.Record, running *sync.WaitGroup) error {
	r.shown[record.Request] = time.Now()
	if record.State == desk.Over {
		delete(r.shown, record.Request)
	}
	text := announcement(record, time.Now())
	if r.notify != "" {
		running.Go(func() { r.tellPeople(ctx, record, text) })
	}
	if r.json {
		return r.printJSONLine(record)
	}
	_, err := fmt.Fprint(r.out, text)
	return err
}

// tellPeople runs the command of --notify. It may take its time, but not for ever.
func (r *receptionist) tellPeople(ctx context.Context, record desk.Record, text string) {
	ctx, cancel := context.WithTimeout(ctx, notifyTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", r.notify)
	cmd.Env = append(os.Environ(),
		"O2FENCE_STATE="+string(record.State), "O2FENCE_REQUEST="+record.Request, "O2FENCE_NODE="+record.Node,
		"O2FENCE_CLUSTER="+record.Cluster, "O2FENCE_ASKED_BY="+record.AskedBy)
	cmd.Stdin = strings.NewReader(text)
	cmd.Stderr = r.errs
	cmd.WaitDelay = look // for what it leaves behind
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		r.warn("--notify: %v", err)
	}
}

// announcement is a question, or what has become of it, for people.
func announcement(r desk.Record, now time.Time) string {
	head := fmt.Sprintf("%s  %s  node %s of cluster %s: ", clock(now), r.Request, r.Node, r.Cluster)
	switch {
	case r.State == desk.Over:
		return head + "over: " + r.End + "\n"
	case r.State != desk.Open && r.Taken:
		return head + "the answer of " + r.Who + " counts\n"
	case r.State != desk.Open:
		return fmt.Sprintf("%s%s by %s: %s\n", head, r.State, r.Who, r.Why)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s ASKS WHETHER IT IS OFF\n", head, r.AskedBy)
	fmt.Fprintf(&b, "\tbecause: %s\n", dash(r.Reason))
	fmt.Fprintf(&b, "\tnumber %d, incarnation %s, silent for %s, attempt %d, %s left\n",
		r.Number, dash(r.Incarnation), silence(r, now), r.Attempt, roughly(r.Until.Sub(now)))
	fmt.Fprintf(&b, "\tMake sure that it is off or cut off from the disks, and stays so: if it is alive, the file system\n")
	fmt.Fprintf(&b, "\twill be destroyed. Then, on this machine, one of\n")
	fmt.Fprintf(&b, "\t\to2fencectl confirm %s --request %s --reason \"how you know\"\n", r.Node, r.Request)
	fmt.Fprintf(&b, "\t\to2fencectl decline %s --request %s --reason \"why nobody can tell\"\n", r.Node, r.Request)
	return b.String()
}
