// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ipban/gate"
)

const checkTime = 30 * time.Second // for one node; only a tgtd that hangs takes long

// A report is what is known of a node.
type report struct {
	Cluster   string       `json:"cluster"`
	Number    uint32       `json:"node"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"` // as configured
	State     string       `json:"state"`     // "banned", "allowed" or "unknown"
	Why       string       `json:"why,omitempty"`
}

func (g *opened) status(ctx context.Context, out io.Writer, asJSON bool) error {
	reports := []report{} // none is [] in JSON
	certain := true
	for _, n := range g.Nodes() {
		r := g.report(ctx, n)
		certain = certain && r.State != "unknown"
		reports = append(reports, r)
	}
	strangers, err := g.Strangers()
	if err != nil {
		return err
	}
	for _, s := range strangers {
		certain = false
		reports = append(reports, report{
			Cluster: s.Cluster, Number: uint32(s.Node), Name: s.Name, Addresses: []netip.Addr{}, State: "unknown",
			Why: "banned, and not in the configuration: release it when its ban is not wanted any more",
		})
	}
	if err := show(out, reports, asJSON); err != nil {
		return err
	}
	if !certain {
		return errBad
	}
	return nil
}

// report looks until what takes its time, such as settle_ms, is over for this process too.
func (g *opened) report(ctx context.Context, n *gate.Node) report {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(g.config.SettleMS)*time.Millisecond+time.Second)
	defer cancel()
	r := report{Cluster: n.Cluster, Number: n.Number, Name: n.Name, Addresses: n.Addresses}
	for {
		state, err := n.Status(ctx)
		switch {
		case state == fencemethods.Off:
			r.State = "banned"
		case state == fencemethods.On:
			r.State = "allowed"
		case errors.Is(err, fencemethods.ErrTimeout) && ctx.Err() == nil:
			time.Sleep(50 * time.Millisecond)
			continue
		default:
			r.State, r.Why = "unknown", err.Error()
		}
		return r
	}
}

func show(out io.Writer, reports []report, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(reports)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLUSTER\tNODE\tNAME\tSTATE\tWHY")
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", r.Cluster, r.Number, r.Name, r.State, r.Why)
	}
	return w.Flush()
}

// check tells of every node that could not be banned.
func (g *opened) check(ctx context.Context, out io.Writer) error {
	bad := false
	for _, n := range g.Nodes() {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, checkTime)
			defer cancel()
			return n.Check(ctx)
		}()
		if err != nil {
			bad = true
			fmt.Fprintf(out, "%s/%s: %v\n", n.Cluster, n.Name, err)
			continue
		}
		fmt.Fprintf(out, "%s/%s: ok\n", n.Cluster, n.Name)
	}
	if bad {
		return errBad
	}
	return nil
}
