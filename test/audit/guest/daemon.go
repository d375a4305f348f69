// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// The real o2fenced, configured as an administrator would: each node is fenced by another method, as
// fence.conf says, which the host has written beside cluster.conf.
const (
	realCluster = "real"
	patience    = time.Minute
)

// openDaemon starts o2fenced and joins.
func (s *suite) openDaemon() error {
	if s.daemon != nil {
		return nil
	}
	if err := s.open(); err != nil {
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
	cluster, err := setup.Cluster(cfg.Clusters[0], "n0")
	if err != nil {
		return err
	}
	s.daemon = exec.Command(filepath.Join(s.programs, "o2fenced"), "-cluster-conf", clusterFile, "-fence-conf", fenceFile)
	s.daemon.Stderr = os.Stderr
	if err := s.daemon.Start(); err != nil {
		return err
	}
	if err := s.awaitMethod("ipmi"); err != nil {
		return err
	}
	return s.client.Join(ctx, cluster)
}

func (s *suite) awaitMethod(name string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		methods, err := s.client.Methods(ctx)
		if err != nil {
			return err
		}
		for _, m := range methods {
			if m.Name == name && m.Carried() {
				return nil
			}
		}
	}
	return errors.New("o2fenced does not bind its methods")
}

// A way is how a node is fenced, and what may be asked for meanwhile, all of it in PF_MEMALLOC mode.
type way struct {
	node   uint32
	fences int // at a time: what an answer meets on its way differs from one to the next
	code   int
	pages  bool // besides objects of slabs
}

// windows are tried. Where no page is needed, whoever comes when a slab is used up still brings it a new
// one, and that may be the bridge: in one of so many windows it has to be somebody else.
const windows = 3

// daemonKeepsTheRules audits o2fenced, and the kernel's threads, while a node is fenced.
func daemonKeepsTheRules(w way) func(s *suite) error {
	return func(s *suite) error {
		if err := s.openDaemon(); err != nil {
			return err
		}
		for window := range windows {
			page, err := s.auditFences(w, window*w.fences)
			if err == nil && page != nil && window == windows-1 {
				err = fmt.Errorf("%s by %s, %s", page.Kind, page.Thread, page.Blame)
			}
			if err != nil || page == nil {
				return err
			}
		}
		return nil
	}
}

// auditFences audits some fences, and returns a page allocation that must not be.
func (s *suite) auditFences(w way, from int) (page *site, err error) {
	a, err := s.begin("--pid", fmt.Sprint(s.daemon.Process.Pid), "--fences", fmt.Sprint(w.fences), "--within", "2m", "--claim", "256")
	if err != nil {
		return nil, err
	}
	for i := range w.fences {
		if err := s.fence(w.node, uint64(from+i+1)); err != nil {
			return nil, err
		}
	}
	r, err := a.end(w.code)
	if err != nil {
		return nil, err
	}
	for _, site := range r.Sites {
		switch {
		case site.Class == "aside", site.Kind == "slab allocation":
		case site.Kind != "page allocation":
			return nil, fmt.Errorf("%s by %s, %s", site.Kind, site.Thread, site.Blame)
		case !w.pages:
			page = &site
		}
	}
	return page, nil
}

// fence fences a node, by the first method of its list.
func (s *suite) fence(node uint32, incarnation uint64) error {
	if err := s.client.Fence(ctx, realCluster, node, kernel.Incarnation(incarnation), "it is a test"); err != nil {
		return err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		last, err := s.last(node)
		switch {
		case err != nil:
			return err
		case last == nil || last.Incarnation != kernel.Incarnation(incarnation) || !setup.Ended(last):
			continue
		case last.Attempt != 1 || last.State != uapi.EventNotice:
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
