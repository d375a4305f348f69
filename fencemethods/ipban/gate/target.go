// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/o2fence/o2fence/bridge/config"
)

// A target is what serves the disk.
type target interface {
	// working tells whether the target may still write something that the node has sent. An error
	// means that nobody knows.
	working(ctx context.Context, n *config.IPBanNode) (bool, error)
}

func targetOf(name string) target {
	if name == "tgt" {
		return tgt{"tgtadm"}
	}
	return other{}
}

// other is a target that cannot be asked. What it has taken it has written by the end of settle_ms:
// the administrator has said so.
type other struct{}

func (other) working(context.Context, *config.IPBanNode) (bool, error) { return false, nil }

// A tgt is Debian's tgt, asked by its own tool. It names a session (an I_T nexus), with the address that
// its connection came from, for as long as one command of it is not finished, also when the connection is
// gone: its iSCSI driver frees a session when the last task has given back its reference, and a task that
// is at the disk keeps one.
type tgt struct{ tool string }

// askTime is for a tgtd that hangs.
const askTime = 5 * time.Second

func (t tgt) working(ctx context.Context, n *config.IPBanNode) (bool, error) {
	sessions, err := t.sessions(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range sessions {
		// One without a known address may be anybody's.
		ours := len(s.addrs) == 0 || slices.ContainsFunc(s.addrs, func(a netip.Addr) bool {
			return !a.IsValid() || slices.Contains(n.Addresses, a)
		})
		if named := slices.Contains(n.Initiators, s.initiator); named && !ours {
			return false, fmt.Errorf("%s has come from %v, not one of its addresses", s.initiator, s.addrs)
		}
		if ours {
			return true, nil
		}
	}
	return false, nil
}

// A session is what tgt tells of one.
type session struct {
	initiator string
	addrs     []netip.Addr // of its connections; not valid when one is not known
}

func (t tgt) sessions(ctx context.Context) ([]session, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, t.tool, "--lld", "iscsi", "--mode", "target", "--op", "show").Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("tgtadm: %w", err)
	}
	return parseTargets(string(out))
}

var errTargets = errors.New("tgtadm: a list of targets that is not whole, or of a form that is not known")

// parseTargets reads the list of all targets. tgt 1.0.85 prints for each target, and for each session:
//
//	Target 1: iqn.2026-01.org.example:disk
//	    I_T nexus information:
//	        I_T nexus: 2
//	            Initiator: iqn.1993-08.org.debian:01:abc alias: web1
//	            Connection: 0
//	                IP Address: 198.51.100.1
//
//	    LUN information: ...
//	    ACL information: ...
//
// A target without all of its lists is an error: what was not read is not taken for none.
func parseTargets(text string) (all []session, err error) {
	listed, whole := false, true
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch word, _, _ := strings.Cut(key, " "); {
		case word == "Target" && strings.HasPrefix(line, word):
			if !whole {
				return nil, errTargets
			}
			listed, whole = false, false
		case key == "I_T nexus information:":
			listed = true
		case key == "ACL information:": // the last of a target's lists
			whole = listed
		case key == "I_T nexus":
			all = append(all, session{})
		case key == "Initiator" && len(all) > 0:
			all[len(all)-1].initiator, _, _ = strings.Cut(value, " alias: ")
		case key == "Connection" && len(all) > 0:
			all[len(all)-1].addrs = append(all[len(all)-1].addrs, netip.Addr{}) // not known yet
		case key == "IP Address" && len(all) > 0:
			addr, _ := netip.ParseAddr(value) // with an interface behind %, where it is link-local
			s := &all[len(all)-1]
			if n := len(s.addrs); n > 0 && !s.addrs[n-1].IsValid() {
				s.addrs = s.addrs[:n-1]
			}
			s.addrs = append(s.addrs, addr.Unmap().WithZone(""))
		}
	}
	if !whole || text != "" && !strings.HasPrefix(text, "Target ") {
		return nil, errTargets
	}
	return all, nil
}
