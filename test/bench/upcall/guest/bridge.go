// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/test/bench/upcall/sample"
)

// method is the bridge's method that does nothing, but for waiting if it is told to.
const method = "test"

const (
	clusterFile = "/run/upcall/cluster.conf"
	fenceFile   = "/run/upcall/fence.conf"
)

// A bridged cluster is one whose fences o2fenced carries out, started and configured as always.
type bridged struct {
	*cluster
	daemon *exec.Cmd
}

// bridge makes a way of devices that take so long.
func (b *bench) bridge(delay time.Duration) func() (fencer, error) {
	return func() (fencer, error) {
		if err := writeConfig(delay); err != nil {
			return nil, err
		}
		return openBridge()
	}
}

func openBridge() (fencer, error) {
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return nil, err
	}
	joined, err := setup.Cluster(cfg.Clusters[0], "n0")
	if err != nil {
		return nil, err
	}
	d := exec.Command("/run/upcall/o2fenced", "-cluster-conf", clusterFile, "-fence-conf", fenceFile)
	d.Stderr = os.Stderr
	if err := d.Start(); err != nil {
		return nil, err
	}
	if err := awaitMethod(); err != nil {
		return nil, errors.Join(err, d.Process.Kill(), d.Wait())
	}
	c, err := join(joined, method)
	if err != nil {
		return nil, errors.Join(err, d.Process.Kill(), d.Wait())
	}
	return &bridged{c, d}, nil
}

func writeConfig(delay time.Duration) error {
	var clusterConf, fenceConf bytes.Buffer
	fmt.Fprintf(&clusterConf, "cluster:\n\tname = %s\n\tnode_count = %d\n", clusterName, uapi.NodesMax)
	fmt.Fprintf(&fenceConf, "cluster:\n\tname = %s\n\tthen = off\n", clusterName)
	for n := range uapi.NodesMax {
		fmt.Fprintf(&clusterConf, "\nnode:\n\tcluster = %s\n\tname = n%d\n\tnumber = %d\n\tip_address = 10.1.0.%d\n\tip_port = 7777\n",
			clusterName, n, n, n)
		fmt.Fprintf(&fenceConf, "\nfence:\n\tnode = n%d\n\tmethod = %s\n\ti_know_this_fences_nothing = yes\n\tdelay_ms = %d\n\tmethod = watchdog\n",
			n, method, delay.Milliseconds())
	}
	return errors.Join(
		os.WriteFile(clusterFile, clusterConf.Bytes(), 0o600), os.WriteFile(fenceFile, fenceConf.Bytes(), 0o600),
	)
}

func awaitMethod() error {
	client, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		methods, err := client.Methods(ctx)
		if err != nil {
			return err
		}
		if kernel.Carries(methods, method) {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("o2fenced does not bind its method")
		}
	}
}

func (b *bridged) fence(n int) (sample.Round, error) {
	before, err := b.faults()
	if err != nil {
		return sample.Round{}, err
	}
	r, err := b.cluster.fence(n)
	if err != nil {
		return r, err
	}
	after, err := b.faults()
	r.Faults = after - before
	return r, err
}

// faults are the page faults of all of the daemon's threads so far, fields 10 and 12 of its stat.
func (b *bridged) faults() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.daemon.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	minor, err1 := strconv.Atoi(fields[7])
	major, err2 := strconv.Atoi(fields[9])
	return minor + major, errors.Join(err1, err2)
}

func (b *bridged) close() error {
	err := b.cluster.close()
	return errors.Join(err, b.daemon.Process.Signal(syscall.SIGTERM), b.daemon.Wait())
}
