// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/nearest"
)

// A fenceFile is a fence.conf while it is being read.
type fenceFile struct {
	*problems
	clusters []*Cluster
	methods  Schema
	timeouts map[*Cluster]uint32   // timeout_ms: of a step that sets none
	thens    map[*Cluster]string   // then: of a node that sets none
	untils   map[*Cluster]string   // until: likewise
	lines    map[any]int           // where a cluster (*Cluster) or a node (*Node) was configured
	machines map[machine]machineOf // who is switched off by what
}

// A machine is the cluster, method and Identity parameters that switch one machine off.
type machine struct {
	cluster *Cluster
	method  string
	params  string
}

type machineOf struct {
	node string
	line int
}

// parseFences reads a fence.conf into clusters.
func parseFences(p *problems, text string, clusters []*Cluster, methods Schema) {
	f := fenceFile{
		problems: p,
		clusters: clusters,
		methods:  methods.withKernel(),
		timeouts: map[*Cluster]uint32{},
		thens:    map[*Cluster]string{},
		untils:   map[*Cluster]string{},
		lines:    map[any]int{},
		machines: map[machine]machineOf{},
	}
	stanzas := scan(p, text, fenceSyntax)
	f.kinds(stanzas, "cluster", "fence")
	for _, s := range stanzas {
		if s.kind == "cluster" {
			f.cluster(s)
		}
	}
	for _, c := range clusters {
		if f.lines[c] == 0 {
			f.settings(c, f.fields("", 0, nil))
		}
	}
	for _, s := range stanzas {
		if s.kind == "fence" {
			f.fence(s)
		}
	}
	f.finish()
}

func (f *fenceFile) cluster(s stanza) {
	in := f.fields("a cluster stanza", s.line, s.entries, "name", "missed", "period_ms", "gate_ms",
		"fence_delay_ms", "timeout_ms", "then", "then_delay_ms", "until", "threshold")
	c := in.cluster("name", f.clusters)
	if c == nil {
		c = &Cluster{} // its settings are checked all the same
	} else if f.twice(c, s.line, "cluster "+c.Name) {
		return
	}
	f.settings(c, in)
}

// settings sets what holds for the whole cluster. The ranges are those of the wire.
func (f *fenceFile) settings(c *Cluster, in fields) {
	c.Missed = in.number("missed", span{2, 1000, 5})
	c.PeriodMS = in.number("period_ms", span{100, 60000, 2000})
	c.GateMS = in.number("gate_ms", span{0, 60000, 15000})
	c.FenceDelayMS = in.number("fence_delay_ms", span{0, 600000, 5000})
	c.ThenDelayMS = in.number("then_delay_ms", span{0, 600000, 10000})
	f.timeouts[c] = in.number("timeout_ms", span{100, maxTimeout, 20000})
	f.thens[c] = in.word("then", "on", "on", "off")
	f.untils[c] = in.word("until", untilTimeout, untilTimeout, Watchdog)
	c.Threshold = in.number("threshold", span{2, 10000, 31})
}

// fence reads how one node is fenced.
func (f *fenceFile) fence(s stanza) {
	head, levels := cutLevels(s.entries)
	in := f.fields("a fence stanza before its first method", s.line, head,
		"node", "cluster", "then", "delay_ms", "delay_random_ms", "until", "level", "method")
	c, n := f.target(in)
	if n.Number != nowhere && f.twice(n, s.line, "node "+n.Name) {
		return
	}
	n.ThenOn = in.word("then", f.thens[c], "on", "off") == "on"
	for _, l := range levels {
		f.level(c, n, l)
	}
	f.last(n, s.line)
	f.delay(n, in)
	f.until(c, n, in)
}

// nowhere is the number of a node that is not there; methods are checked all the same.
const nowhere = 255

// target returns the node that a fence stanza is for. A stanza need not name the only cluster.
func (f *fenceFile) target(in fields) (*Cluster, *Node) {
	c, n := &Cluster{}, &Node{Number: nowhere}
	if _, ok := in.byKey["cluster"]; !ok && len(f.clusters) == 1 {
		c = f.clusters[0]
	} else if named := in.cluster("cluster", f.clusters); named != nil {
		c = named
	}
	n.Name = in.name("node")
	if found := c.node(n.Name); found != nil {
		n = found
	} else if n.Name != "" && c.Name != "" {
		f.add(in.byKey["node"].line, "cluster %s has no node %q: %s", c.Name, n.Name, expected(n.Name, c.nodeNames()))
	}
	return c, n
}

// step reads a method, the first of the entries, and its parameters. rule is that of the level it is
// in; siblings are the members before it.
func (f *fenceFile) step(c *Cluster, n *Node, entries []entry, rule Rule, siblings []Step) (Step, bool) {
	name, line := entries[0].value, entries[0].line
	m, ok := f.methods[name]
	if !ok {
		f.add(line, "unknown method %q: %s", name, expected(name, f.methods.names()))
		return Step{}, false
	}
	in := f.fieldsOr(f.instead(m), "method "+name, line, entries[1:], m.keys(name, rule)...)
	timeout := in.number("timeout_ms", span{100, maxTimeout, m.timeout(f.timeouts[c])})
	values := in.values(c, m)
	step := Step{Method: name, TimeoutMS: timeout, Values: values}
	in.usage(&step)
	step.Params = append(digest(values), step.usage()...)
	f.fits(step, line)
	f.identify(c, n, m, step, line, siblings)
	f.doubt(n, m, step, line)
	if m.Order != nil {
		if err := m.Order(append(n.Devices(), step)); err != nil {
			f.add(line, "%v", err)
		}
	}
	return step, true
}

// instead names the method whose parameter somebody gives to m.
func (f *fenceFile) instead(m Method) func(key string) string {
	return func(key string) string {
		var keys []string
		for _, p := range f.methods[m.Instead].Params {
			keys = append(keys, p.Name)
		}
		if nearest.Nearest(key, keys) == "" {
			return ""
		}
		return fmt.Sprintf("; did you mean method = %s?", m.Instead)
	}
}

// fits refuses what the kernel would not take.
func (f *fenceFile) fits(s Step, line int) {
	if len(s.Params) > maxParams {
		f.add(line, "expected at most %d bytes of parameters, found %d", maxParams, len(s.Params))
	}
	if len(s.Method) > maxName {
		f.add(line, "expected at most %d bytes of method names together, found %d", maxName, len(s.Method))
	}
}

// values checks the parameters of a method, for a node of c.
func (f fields) values(c *Cluster, m Method) map[string]string {
	values := map[string]string{}
	before := len(f.errors)
	for _, p := range m.Params {
		e, ok := f.byKey[p.Name]
		switch {
		case ok:
			values[p.Name] = e.value
			if err := p.check(e.value); err != nil {
				f.add(e.line, "%s: %w", p.Name, err)
			}
		case p.Required:
			f.need(p.Name)
		}
	}
	if m.Check != nil && len(f.errors) == before {
		f.check(m.Check(values))
	}
	if m.Suits != nil && len(f.errors) == before && c.Name != "" {
		f.check(m.Suits(c, values))
	}
	return values
}

// check reports a Check's error at the line of the key that it is about.
func (f fields) check(err error) {
	if err == nil {
		return
	}
	line := f.line
	if key, ok := errors.AsType[*KeyError](err); ok {
		line = cmp.Or(f.byKey[key.Key].line, line)
	}
	f.add(line, "%w", err)
}

// identify refuses two nodes that are switched off by the same thing, and a level that has it twice. One
// refusal of a step is enough.
func (f *fenceFile) identify(c *Cluster, n *Node, m Method, step Step, line int, siblings []Step) {
	refused := false
	for _, id := range m.identities(step) {
		key := machine{c, step.Method, id.key}
		other, taken := f.machines[key]
		twin := func(s Step) bool {
			return s.Method == step.Method && slices.ContainsFunc(m.identities(s), func(its identity) bool { return its.key == id.key })
		}
		switch {
		case refused:
		case taken && other.node != n.Name:
			refused = true
			f.add(line, "%s with %s fences node %s already, on line %d: expected another machine for node %s",
				step.Method, id.shown, other.node, other.line, n.Name)
		case slices.ContainsFunc(siblings, twin):
			refused = true
			f.add(line, "%s with %s is already in this level, on line %d", step.Method, id.shown, other.line)
		}
		f.machines[key] = machineOf{n.Name, line}
	}
}

// An identity is what names a machine that a step switches off: the Identity parameters.
type identity struct{ key, shown string }

// identities are those of a step: one for each value of a list, none without any such parameter.
func (m Method) identities(step Step) []identity {
	names, list := map[string]string{}, ""
	given := false
	for _, p := range m.Params {
		value, ok := step.Values[p.Name]
		if !p.Identity || !ok && p.Default == "" {
			continue
		}
		names[p.Name] = cmp.Or(value, p.Default)
		given = given || ok
		if p.List {
			list = p.Name
		}
	}
	if !given {
		return nil
	}
	var all []identity
	for value := range strings.SplitSeq(names[list], ",") {
		if list != "" {
			names[list] = value
		}
		all = append(all, identity{string(digest(names)), m.show(names, step)})
	}
	return all
}

// show leaves out what was not set.
func (m Method) show(names map[string]string, step Step) string {
	shown := maps.Clone(names)
	for _, p := range m.Params {
		if _, ok := step.Values[p.Name]; !ok {
			delete(shown, p.Name)
		} else if _, ok := shown[p.Name]; ok && p.Private {
			shown[p.Name] = "..."
		}
	}
	return strings.ReplaceAll(strings.TrimSpace(string(digest(shown))), "\n", ", ")
}

// doubt warns of steps that are right but hardly meant.
func (f *fenceFile) doubt(n *Node, m Method, step Step, line int) {
	for _, earlier := range n.Steps {
		if earlier.Method == Watchdog && !m.Kernel {
			f.warn(line, "node %s: %s comes after %s, which hardly ever fails", n.Name, step.Method, Watchdog)
		}
	}
	// The default of stock OCFS2: (31 - 1) heartbeats of 2 s.
	const selfFencing = 60000
	wait, err := span{high: selfFencing - 1}.parse(step.Values["wait"])
	if step.Method == Watchdog && err == nil {
		f.warn(line, "node %s: a wait of %d ms is shorter than the %d ms after which OCFS2 usually resets a node: it may still write",
			n.Name, wait, selfFencing)
	}
}

// last makes the list end in the kernel, so that a fence ends whatever user space does (R13).
func (f *fenceFile) last(n *Node, line int) {
	kernel := len(n.Steps) > 0 && isKernel(n.Steps[len(n.Steps)-1])
	if !kernel {
		f.warn(line, "node %s: the list does not end in a method of the kernel, %s is added to it", n.Name, Watchdog)
		n.Steps = append(n.Steps, watchdogStep())
	}
	if len(n.Steps) > maxSteps {
		f.add(line, "node %s: expected at most %d methods and levels with the last one in the kernel, found %d", n.Name, maxSteps, len(n.Steps))
	}
}

// finish gives the nodes that have no stanza what stock OCFS2 does (R13).
func (f *fenceFile) finish() {
	for _, c := range f.clusters {
		for i := range c.Nodes {
			if n := &c.Nodes[i]; f.lines[n] == 0 {
				f.warn(1, "node %s of cluster %s has no fence stanza: %s is its only method", n.Name, c.Name, Watchdog)
				n.ThenOn = f.thens[c] == "on"
				n.Steps = []Step{watchdogStep()}
			}
		}
	}
}

func watchdogStep() Step { return Step{Method: Watchdog, TimeoutMS: maxTimeout} }

// twice remembers where a cluster or node is configured, and refuses it the second time.
func (f *fenceFile) twice(it any, line int, name string) bool {
	if first := f.lines[it]; first != 0 {
		f.add(line, "%s is already configured on line %d", name, first)
		return true
	}
	f.lines[it] = line
	return false
}
