// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/test/ktap"
)

// The real o2fenced, configured as an administrator would: each node is fenced by another method, as
// fence.conf says, which the host has written beside cluster.conf.
const (
	realCluster = "real"
	self        = "node0" // the machine's name, which is that of its node, too
	patience    = time.Minute
)

// secondWay is one to the host, where that is another one.
const secondWay = "ip addr add 10.0.3.15/24 dev eth2; ip link set eth2 up"

// openDaemon starts o2fenced and joins, once.
func (s *suite) openDaemon() error {
	if !s.begun {
		s.begun, s.failed = true, s.startDaemon()
	}
	return s.failed
}

func (s *suite) startDaemon() error {
	if err := s.open(); err != nil {
		return err
	}
	if err := errors.Join(shell(secondWay), s.makeDisks()); err != nil {
		return err
	}
	clusterFile, fenceFile := filepath.Join(s.config, "cluster.conf"), filepath.Join(s.config, "fence.conf")
	if out, err := exec.Command("sh", "-ec", "sbd -d /dev/vdb -1 1 -4 5 create; sbd -d /dev/vdb allocate n5").CombinedOutput(); err != nil {
		return fmt.Errorf("sbd: %w\n%s", err, out)
	}
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return err
	}
	s.configured = cfg.Clusters[0]
	cluster, err := setup.Cluster(s.configured, self)
	if err != nil {
		return err
	}
	program := filepath.Join(s.programs, "o2fenced")
	s.daemon = exec.Command(program, "-cluster-conf", clusterFile, "-fence-conf", fenceFile)
	s.daemon.Stderr = os.Stderr
	if err := s.daemon.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.daemon.Wait() }()
	for _, n := range cluster.Nodes {
		for _, step := range n.Steps {
			if err := s.awaitMethod(step.Method, ended); err != nil {
				return err
			}
		}
	}
	if s.heap, err = openHeap(s.daemon.Process.Pid, program); err != nil {
		return err
	}
	host, err := os.ReadFile(filepath.Join(s.config, "host"))
	if err != nil {
		return err
	}
	s.host = string(host)
	return s.client.Join(ctx, cluster)
}

func (s *suite) awaitMethod(name string, ended <-chan error) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("o2fenced has ended: %v", err)
		default:
		}
		methods, err := s.client.Methods(ctx)
		if err != nil {
			return err
		}
		if kernel.Carries(methods, name) {
			return nil
		}
	}
	return errors.New("o2fenced does not bind its methods")
}

// A way is how a node is fenced, and what may be asked for meanwhile, all of it in PF_MEMALLOC mode.
type way struct {
	node   uint32
	fences int // at a time: what an answer meets on its way differs from one to the next
	code   int
	disk   bool   // a thread waits for it in the kernel, however long it takes
	pages  string // a function of the kernel's that may ask for them, besides objects of slabs; "": none

	prepare func(s *suite, node uint32) error // what has to be done here before each fence
	refused string                            // what the device says, where it is one that cannot fence
}

// sendsByTCP copies what is to be sent into pages, which a connection takes anew and gives back at its end.
// They come from the reserve, and no more is sent than what the other side has taken and SO_SNDBUF. Of what
// these devices speak nothing can be had without TCP.
const sendsByTCP = "tcp_sendmsg_locked"

const (
	// windows are tried. Where no page is needed, whoever comes when a slab is used up still brings it a new
	// one, and that may be the bridge: in one of so many windows it has to be somebody else.
	windows = 3
	// lossy windows do not count: an interrupt that comes while an event is recorded hides its own, and with
	// several devices that answer at once they do.
	lossy = 10
)

// daemonKeepsTheRules audits o2fenced, and the kernel's threads, while a node is fenced.
func daemonKeepsTheRules(w way) func(s *suite) error {
	return func(s *suite) error {
		err := s.openDaemon()
		if err != nil {
			return err
		}
		for window, lost := 0, 0; window < windows && lost < lossy; {
			err = s.auditFences(w, (window+lost)*w.fences)
			switch {
			case errors.Is(err, errLost):
				lost++
			case errors.Is(err, errSlab):
				window++
			default:
				return err
			}
		}
		return err
	}
}

// errSlab is for a page allocation that brought a slab a new page.
var errSlab = errors.New("for a slab")

// auditFences audits some fences.
func (s *suite) auditFences(w way, from int) error {
	heapKiB, kernelKiB, err := s.declared(w.node)
	if err != nil {
		return err
	}
	attempts := w.fences
	if w.refused != "" {
		attempts *= 2 // the next method has its turn
	}
	args := []string{"--pid", fmt.Sprint(s.daemon.Process.Pid), "--fences", fmt.Sprint(attempts), "--within", "2m", "--claim", fmt.Sprint(kernelKiB)}
	if w.disk {
		args = append(args, "--wait", fmt.Sprint(patience)) // for memory it would wait in direct reclaim, which is seen
	}
	a, err := s.begin(args...)
	if err != nil {
		return err
	}
	most, measured := 0, 0
	for i := range w.fences {
		err := s.prepare(w)
		kib, known := 0, false
		if err == nil {
			kib, known, err = s.heap.measure(func() error { return s.fence(w, uint64(from+i+1)) })
		}
		if err != nil {
			_ = a.cmd.Process.Kill()
			return err
		}
		if known {
			measured++
			most = max(most, kib)
		}
	}
	r, err := a.end(w.code)
	if err != nil {
		return err
	}
	s.note = fmt.Sprintf("%d of %d KiB of the reserve, %d of %d KiB of heap for a fence (%d of %d measured)", r.TakenKiB, kernelKiB, most, heapKiB, measured, w.fences)
	if most > heapKiB || measured == 0 {
		return fmt.Errorf("a fence took %d KiB of heap, %d are declared", most, heapKiB)
	}
	for _, site := range r.Sites {
		switch {
		case site.Class == "aside", site.Kind == "slab allocation":
		case site.Kind != "page allocation":
			return fmt.Errorf("%s by %s, %s", site.Kind, site.Thread, site.Blame)
		case w.pages != "" && site.within(w.pages):
		case site.within("___slab_alloc"):
			err = fmt.Errorf("%s by %s, %s: %w", site.Kind, site.Thread, site.Blame, errSlab)
		default:
			return fmt.Errorf("%s by %s, %s: %v", site.Kind, site.Thread, site.Blame, site.Stack)
		}
	}
	return err
}

// declared is what the methods of a node's list declare: of Go's heap, and of the reserve.
func (s *suite) declared(node uint32) (heapKiB, kernelKiB int, err error) {
	for _, n := range s.configured.Nodes {
		if uint32(n.Number) != node {
			continue
		}
		for _, d := range n.Devices() {
			if setup.IsKernel(d.Method) {
				continue
			}
			m, err := catalog.Methods().Find(d.Method)
			if err != nil {
				return 0, 0, err
			}
			heapKiB += m.MemoryKiB
			kernelKiB += m.ReserveKiB()
		}
	}
	return heapKiB, kernelKiB, nil
}

// prepare has a node's device be as it has to be before a fence, by the host and here.
func (s *suite) prepare(w way) error {
	answer, err := http.Get(s.host + fmt.Sprint(w.node))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return err
	case answer.StatusCode == http.StatusNotImplemented:
		return ktap.Skip(text)
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("the host: %s", text)
	case w.prepare != nil:
		return w.prepare(s, w.node)
	}
	return nil
}

// fence fences a node, by the first method of its list unless that is refused.
func (s *suite) fence(w way, incarnation uint64) error {
	if w.refused != "" {
		l, err := kernel.Listen()
		if err != nil {
			return err
		}
		defer l.Close()
		if err := s.order(w, incarnation); err != nil {
			return err
		}
		return errors.Join(refused(l, w), s.finishes(w.node, incarnation, 2))
	}
	return errors.Join(s.order(w, incarnation), s.finishes(w.node, incarnation, 1))
}

func (s *suite) order(w way, incarnation uint64) error {
	return s.client.Fence(ctx, realCluster, w.node, kernel.Incarnation(incarnation), "it is a test")
}

// refused waits for the end of the first attempt.
func refused(l *kernel.Listener, w way) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for e, err := range l.Events(ctx) {
		switch {
		case err != nil:
			return err
		case e.Event == uapi.EventAttemptFailed && strings.Contains(e.Request.Errmsg, w.refused):
			return nil
		case e.Event == uapi.EventAttemptFailed, e.Event == uapi.EventFenced:
			return fmt.Errorf("node %d: %v, %s", w.node, e.Event, e.Request.Errmsg)
		}
	}
	return nil
}

// finishes waits until a node is fenced, by the attempt of that number.
func (s *suite) finishes(node uint32, incarnation uint64, attempt uint32) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		last, err := s.last(node)
		switch {
		case err != nil:
			return err
		case last == nil || last.Incarnation != kernel.Incarnation(incarnation) || last.Attempt <= attempt && !setup.Ended(last):
			continue
		case last.Attempt != attempt || last.State != uapi.EventNotice:
			return fmt.Errorf("node %d: %v by %s, attempt %d: %s", node, last.State, last.Method, last.Attempt, last.Errmsg)
		}
		return nil
	}
	return fmt.Errorf("the fence of node %d does not end", node)
}

// last is the last request for a node.
func (s *suite) last(node uint32) (*kernel.Request, error) {
	nodes, err := s.client.Nodes(ctx)
	for _, n := range nodes {
		if n.Cluster == realCluster && n.Number == node {
			return n.Last, nil
		}
	}
	return nil, errors.Join(err, fmt.Errorf("node %d has not joined", node))
}
