// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods/nearest"
)

// The actions, as callers name them.
const (
	actionOff        = "off"
	actionOn         = "on"
	actionReboot     = "reboot"
	actionStatus     = "status"
	actionMonitor    = "monitor"
	actionList       = "list"
	actionListStatus = "list-status"
	actionMetadata   = "metadata"
	actionValidate   = "validate-all"

	actionHelp    = "help" // options that take the place of an action
	actionVersion = "version"
)

func actions() []string {
	return []string{
		actionOff, actionOn, actionReboot, actionStatus, actionMonitor, actionList, actionListStatus,
		actionMetadata, actionValidate,
	}
}

// stdinBytes is more than any caller sends: dlm_controld at most 4096.
const stdinBytes = 64 << 10

// A kind is the type of a parameter in the metadata's words.
type kind string

const (
	kindBoolean kind = "boolean"
	kindString  kind = "string"
	kindSecond  kind = "second"
	kindInteger kind = "integer"
)

// A param is a parameter, on standard input by its name and on the command line by its options.
type param struct {
	name, short string
	kind        kind
	standard    string // its value when none is given
	help        string
	required    bool
	obsolete    string // the name that has taken its place
	hidden      bool   // of the command line only
}

func (p param) option() string { return strings.ReplaceAll(p.name, "_", "-") }

func params() []param {
	return []param{
		{name: "action", short: "o", kind: kindString, standard: actionReboot, required: true, help: "Fencing action; off when dlm_controld calls"},
		{name: "plug", short: "n", kind: kindString, required: true, help: "Node to be fenced, by its name in /etc/ocfs2/cluster.conf"},
		{name: "port", kind: kindString, obsolete: "plug", help: "Node to be fenced, by its name in /etc/ocfs2/cluster.conf"},
		{name: "nodename", short: "N", kind: kindString, help: "Node to be fenced, where neither plug nor port is given"},
		{name: "cluster", short: "C", kind: kindString, help: "OCFS2 cluster, when there are several"},
		{name: "node", kind: kindInteger, help: "Corosync's number of the node, from dlm_controld; found in corosync.conf by name or address"},
		{name: "fail_time", kind: kindInteger, help: "When the node failed, in seconds since 1970, from dlm_controld: a fence since then is as good as a new one"},
		{name: "power_timeout", kind: kindSecond, standard: "0", help: "Seconds to wait for the proof that the node is fenced; 0: until the kernel has tried all methods"},
		{name: "delay", kind: kindSecond, standard: "0", help: "Seconds to wait before fencing"},
		{name: "cluster_conf", kind: kindString, standard: config.ClusterFile, help: "Nodes of the OCFS2 cluster"},
		{name: "fence_conf", kind: kindString, standard: config.FenceFile, help: "How each node is fenced"},
		{name: "corosync_conf", kind: kindString, standard: corosyncFile, help: "Where dlm_controld's node numbers are looked up"},
		{name: "drbd", kind: kindBoolean, hidden: true, help: "Be DRBD's fence-peer handler: the node is named by the environment, the exit codes are DRBD's"},
		{name: "version", short: "V", kind: kindBoolean, help: "Display version information and exit"},
		{name: "help", short: "h", kind: kindBoolean, help: "Display help and exit"},
	}
}

// Options are what a call asks for.
type options struct {
	action                           string
	plug, cluster                    string
	clusterFile, fenceFile, coroSync string
	nodeID                           string // dlm_controld's
	failTime                         time.Time
	timeout, delay                   time.Duration
	drbd                             bool
}

// options reads the command line, or, when that is empty, standard input.
func (a *Agent) options() (*options, error) {
	values := map[string]string{}
	var err error
	if len(a.Args) > 0 {
		err = readArgs(a.Args, values)
	} else {
		err = a.readStdin(values)
	}
	if err != nil {
		return nil, err
	}
	return digest(values)
}

func readArgs(args []string, values map[string]string) error {
	flags := pflag.NewFlagSet("fence_o2fence", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	for _, p := range params() {
		set := func(value string) error { values[p.name] = value; return nil }
		switch {
		case p.obsolete != "":
		case p.kind == kindBoolean:
			flags.BoolFuncP(p.option(), p.short, p.help, func(string) error { return set("1") })
		default:
			flags.FuncP(p.option(), p.short, p.help, set)
		}
	}
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w; see: fence_o2fence --help", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see: fence_o2fence --help", flags.Arg(0))
	}
	return nil
}

// readStdin follows the API: a line is key=value, the last one counts, what is unknown is passed
// over with a warning. It may be another agent's password, so that its value is not shown.
func (a *Agent) readStdin(values map[string]string) error {
	known := map[string]bool{}
	for _, p := range params() {
		known[p.name] = !p.hidden
	}
	lines := bufio.NewScanner(io.LimitReader(a.Stdin, stdinBytes))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		switch key = strings.ReplaceAll(key, "-", "_"); {
		case !ok:
			return errors.New("standard input: expected lines of key=value")
		case known[key]:
			values[key] = value
		default:
			a.warn("unknown parameter %q is passed over", key)
		}
	}
	return lines.Err()
}

// digest checks the values.
func digest(values map[string]string) (*options, error) {
	value := func(names ...string) string {
		for _, name := range names {
			if values[name] != "" {
				return values[name]
			}
		}
		return ""
	}
	or := func(name string) string {
		for _, p := range params() {
			if p.name == name && values[name] == "" {
				return p.standard
			}
		}
		return values[name]
	}
	o := options{
		plug: value("plug", "port", "nodename"), cluster: value("cluster"), nodeID: value("node"),
		clusterFile: or("cluster_conf"), fenceFile: or("fence_conf"), coroSync: or("corosync_conf"),
		drbd: yes(values["drbd"]),
	}
	var errs [4]error
	o.action, errs[0] = o.parseAction(values)
	o.timeout, errs[1] = seconds("power_timeout", or("power_timeout"))
	o.delay, errs[2] = seconds("delay", or("delay"))
	o.failTime, errs[3] = failTime(value("fail_time"))
	return &o, errors.Join(errs[:]...)
}

// parseAction finds the action. dlm_controld names none when it fences, and "on" when it unfences.
func (o *options) parseAction(values map[string]string) (string, error) {
	action := strings.ToLower(values["action"])
	switch {
	case yes(values["help"]):
		return actionHelp, nil
	case yes(values["version"]):
		return actionVersion, nil
	case action == "" && o.nodeID != "":
		return actionOff, nil
	case action == "":
		return actionReboot, nil
	case action == "meta-data":
		return actionMetadata, nil
	}
	for _, known := range actions() {
		if action == known {
			return action, nil
		}
	}
	// Pacemaker looks for these two words.
	err := fmt.Errorf("unsupported action %q: expected one of %s", action, strings.Join(actions(), ", "))
	if near := nearest.Nearest(action, actions()); near != "" {
		err = fmt.Errorf("unsupported action %q: did you mean %q?", action, near)
	}
	return "", err
}

func yes(value string) bool {
	switch strings.ToLower(value) {
	case "1", "yes", "on", "true":
		return true
	}
	return false
}

// seconds may have a fraction, or a unit of its own, as Pacemaker writes them.
func seconds(name, value string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.TrimSuffix(value, "s") + "s")
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s: expected a number of seconds from 0 up, found %q", name, value)
	}
	return d, nil
}

func failTime(value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}, fmt.Errorf("fail_time: expected seconds since 1970, found %q", value)
	}
	return time.Unix(n, 0), nil
}

// named tells whether a node is named at all.
func (o *options) named() bool { return o.plug != "" || o.nodeID != "" }

// target finds the node that is meant.
func (o *options) target(c *config.Cluster) (*config.Node, error) {
	switch {
	case o.plug != "":
		return c.Node(o.plug)
	case o.nodeID != "":
		return nodeOfCorosync(c, o.coroSync, o.nodeID)
	}
	return nil, errors.New("no node is named: expected plug, nodename, or node from dlm_controld")
}

// help prints the options.
func (a *Agent) help() error {
	text := "Usage: fence_o2fence [options]\nWithout options it reads lines of key=value from standard input.\n\nOptions:\n"
	for _, p := range params() {
		if p.obsolete == "" {
			text += fmt.Sprintf("  %-32s %s\n", getopt(p), p.help)
		}
	}
	text += "\nActions: " + strings.Join(actions(), ", ") + "\n"
	_, err := io.WriteString(a.Stdout, text)
	return err
}
