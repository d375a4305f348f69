// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"bufio"
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
		ours := !s.addr.IsValid() || slices.Contains(n.Addresses, s.addr)
		if named := slices.Contains(n.Initiators, s.initiator); named && !ours {
			return false, fmt.Errorf("%s has come from %v, not one of its addresses", s.initiator, s.addr)
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
	addr      netip.Addr // not valid when it is not known
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
	return parseTargets(string(out)), nil
}

// parseTargets reads the list of all targets. tgt 1.0.85 prints for each session:
//
//	I_T nexus: 2
//	    Initiator: iqn.1993-08.org.debian:01:abc alias: web1
//	    Connection: 0
//	        IP Address: 198.51.100.1
func parseTargets(text string) []session {
	var all []session
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), ": ")
		switch key {
		case "I_T nexus":
			all = append(all, session{})
		case "Initiator":
			if len(all) > 0 {
				all[len(all)-1].initiator, _, _ = strings.Cut(value, " alias: ")
			}
		case "IP Address":
			if len(all) > 0 {
				addr, _ := netip.ParseAddr(value) // with an interface behind %, where it is link-local
				all[len(all)-1].addr = addr.Unmap().WithZone("")
			}
		}
	}
	return all
}
