// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
)

// A state is who is banned.
type state struct {
	Version int   `json:"version"`
	Banned  []ban `json:"banned"`
}

// A ban is one node, with the addresses that it had.
type ban struct {
	Cluster   string       `json:"cluster"`
	Node      uint8        `json:"node"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

const stateVersion = 1

func (b ban) is(t fencemethods.Target) bool {
	return b.Cluster == t.Cluster && b.Node == t.Node && b.Name == t.Name
}

func (b ban) target() fencemethods.Target {
	return fencemethods.Target{Cluster: b.Cluster, Node: b.Node, Name: b.Name}
}

func (s state) has(t fencemethods.Target) bool {
	return slices.ContainsFunc(s.Banned, func(b ban) bool { return b.is(t) })
}

func (s state) without(t fencemethods.Target) state {
	s.Banned = slices.DeleteFunc(slices.Clone(s.Banned), func(b ban) bool { return b.is(t) })
	return s
}

// with bans a node, and keeps the addresses that it was banned with before.
func (s state) with(n *Node) state {
	b := ban{n.Target.Cluster, n.Target.Node, n.Target.Name, slices.Clone(n.Addresses)}
	for _, old := range s.Banned {
		if old.is(n.Target) {
			for _, a := range old.Addresses {
				if !slices.Contains(b.Addresses, a) {
					b.Addresses = append(b.Addresses, a)
				}
			}
		}
	}
	s = s.without(n.Target)
	s.Banned = append(s.Banned, b)
	return s
}

// keeps tells whether a node would be banned with all of its addresses after a restart.
func (s state) keeps(n *Node) bool {
	for _, b := range s.Banned {
		if b.is(n.Target) && contains(b.Addresses, n.Addresses) {
			return true
		}
	}
	return false
}

func contains(all, some []netip.Addr) bool {
	return !slices.ContainsFunc(some, func(a netip.Addr) bool { return !slices.Contains(all, a) })
}

// A store is the file that has the state.
type store struct{ name string }

// read returns an empty state when there is no file. One that cannot be understood is an error: nobody
// knows then who is banned.
func (s store) read() (state, error) {
	text, err := os.ReadFile(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	var in state
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || d.More() || in.Version != stateVersion {
		return state{}, fmt.Errorf("%s: not a list of banned nodes, version %d; restore it, or remove it when no node is banned: %w",
			s.name, stateVersion, errors.Join(err, errors.New("not understood")))
	}
	return in, nil
}

// write has the state on the disk when it returns without an error.
func (s store) write(out state) error {
	out.Version = stateVersion
	if out.Banned == nil {
		out.Banned = []ban{}
	}
	text, err := json.MarshalIndent(out, "", "\t")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.name), ".ipban-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.name); err != nil {
		return err
	}
	return s.syncDir()
}

func (s store) syncDir() error {
	d, err := os.Open(filepath.Dir(s.name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock keeps other processes from changing filter and state until the function that it returns is called.
func (s store) lock() (func(), error) {
	d, err := os.Open(filepath.Dir(s.name))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", d.Name(), err)
	}
	return func() { d.Close() }, nil
}
