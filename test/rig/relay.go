// SPDX-License-Identifier: GPL-2.0-only

package rig

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/o2fence/o2fence/test/vm"
)

// RelayReady is what a relay says when it takes orders.
const RelayReady = "takes orders"

// A Relay is o2fence-relay in a machine.
type Relay struct {
	*vm.Process
	out *output
}

// Said is what it has printed.
func (r *Relay) Said() string { return r.out.String() }

// InstallRelay gives a machine that is up, and is none of the cluster's, the configuration of a relay.
func (r *Rig) InstallRelay(ctx context.Context, m *vm.VM) error {
	return errors.Join(
		m.WriteFile(ctx, "/etc/ocfs2/cluster.conf", []byte(vm.ClusterConf(vm.ClusterName, r.Nodes)), 0o644),
		m.WriteFile(ctx, "/etc/ocfs2/fence.conf", []byte(r.own), 0o644),
		m.WriteFile(ctx, passwordFile, []byte(password+"\n"), 0o600),
		m.WriteFile(ctx, keyFile, []byte(key+"\n"), 0o600),
	)
}

// LoadCore loads the module o2fence alone, for PF_MEMALLOC.
func (r *Rig) LoadCore(ctx context.Context, m *vm.VM) error {
	release, err := m.Run(ctx, "uname", "-r")
	if err != nil {
		return err
	}
	_, err = m.Run(ctx, "insmod", filepath.Join(r.root, "build", "ko", strings.TrimSpace(release), "o2fence.ko"))
	return err
}

// StartRelay starts o2fence-relay and returns when it takes orders.
func (r *Rig) StartRelay(ctx context.Context, m *vm.VM) (*Relay, error) {
	relay := &Relay{out: &output{}}
	args := []string{r.Program("o2fence-relay"), "-listen", m.Address().String(), "-key-file", keyFile}
	var err error
	relay.Process, err = m.Start(ctx, vm.Command{Args: args, Stdout: relay.out, Stderr: relay.out})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- relay.Wait(ctx) }()
	err = poll(ctx, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended: %v", err)
		default:
		}
		return strings.Contains(relay.Said(), RelayReady), nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: o2fence-relay: %w\n%s", m.Name(), err, relay.Said())
	}
	return relay, nil
}
