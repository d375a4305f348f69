// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/test/pressure/wire"
)

// The cluster whose nodes are there to be fenced, and its configuration.
const (
	spareCluster = "spare"
	ownNode      = "node0"
	clusterFile  = "/run/pressure/cluster.conf"
	fenceFile    = "/run/pressure/fence.conf"
)

// A fencer fences one node and tells how long that took. A fence that has not ended in its time has
// failed.
type fencer interface {
	fence(n int, patience time.Duration) (time.Duration, error)
}

func openFencer(name string, client *kernel.Client) (fencer, error) {
	if name == wire.O2fence {
		return joinSpare(client)
	}
	return openDaemon(name)
}

// bridged is o2fence as it is: the kernel asks, o2fenced answers.
type bridged struct{ client *kernel.Client }

const bridgedNode = 1

func joinSpare(client *kernel.Client) (*bridged, error) {
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return nil, err
	}
	for _, c := range cfg.Clusters {
		if c.Name != spareCluster {
			continue
		}
		joined, err := setup.Cluster(c, ownNode)
		if err != nil {
			return nil, err
		}
		return &bridged{client}, client.Join(context.Background(), joined)
	}
	return nil, errors.New("no cluster " + spareCluster)
}

// The times are the kernel's own. To look for the end takes the processor's time, so it is not done
// all the time.
const lookEvery = 5 * time.Millisecond

func (b *bridged) fence(n int, patience time.Duration) (time.Duration, error) {
	ctx := context.Background()
	reason := strconv.Itoa(n)
	began := time.Now()
	if err := b.client.Fence(ctx, spareCluster, bridgedNode, 0, reason); err != nil {
		return time.Since(began), err
	}
	for time.Since(began) < patience {
		time.Sleep(lookEvery)
		last, err := b.last(ctx)
		if err != nil {
			return time.Since(began), err
		}
		if last == nil || last.Reason != reason || !setup.Ended(last) {
			continue
		}
		if last.State != uapi.EventNotice || last.Attempt != 1 || last.Method != "ipmi" {
			return time.Since(began), fmt.Errorf("%v by %s, attempt %d: %s", last.State, last.Method, last.Attempt, last.Errmsg)
		}
		return last.At[uapi.EventFenced].Sub(last.At[uapi.EventInitiated]), nil
	}
	return patience, os.ErrDeadlineExceeded
}

func (b *bridged) last(ctx context.Context) (*kernel.Request, error) {
	nodes, err := b.client.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		if node.Cluster == spareCluster && node.Number == bridgedNode {
			return node.Last, nil
		}
	}
	return nil, errors.New("the node is not joined")
}

// A daemon is another process that fences. It is asked, and answers, by a line on a FIFO: to that,
// neither end needs memory.
type daemon struct {
	in, out *os.File
	buf     []byte
	used    int
}

// fifo are a daemon's two, made by whoever comes first.
func fifo(name, which string) (*os.File, error) {
	path := "/run/pressure/" + name + "." + which
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0) // which does not wait for the other end
}

func openDaemon(name string) (*daemon, error) {
	in, err1 := fifo(name, "in")
	out, err2 := fifo(name, "out")
	return &daemon{in: in, out: out, buf: make([]byte, 4096)}, errors.Join(err1, err2)
}

func (d *daemon) fence(n int, patience time.Duration) (time.Duration, error) {
	serial := strconv.Itoa(n)
	began := time.Now()
	if _, err := fmt.Fprintf(d.in, "%s %d\n", serial, patience.Milliseconds()); err != nil {
		return time.Since(began), err
	}
	for {
		text, err := d.line(began.Add(patience))
		took := time.Since(began)
		if err != nil {
			return took, err
		}
		number, result, _ := bytes.Cut(text, []byte(" "))
		switch {
		case string(number) != serial: // it answers for one that was given up
		case string(result) == "ok":
			return took, nil
		default:
			return took, errors.New(string(result))
		}
	}
}

// line is the next line that a daemon has written.
func (d *daemon) line(until time.Time) ([]byte, error) {
	if err := d.out.SetReadDeadline(until); err != nil {
		return nil, err
	}
	for {
		if end := bytes.IndexByte(d.buf[:d.used], '\n'); end >= 0 {
			line := bytes.Clone(d.buf[:end])
			d.used = copy(d.buf, d.buf[end+1:d.used])
			return line, nil
		}
		n, err := d.out.Read(d.buf[d.used:])
		if err != nil {
			return nil, err
		}
		d.used += n
	}
}
