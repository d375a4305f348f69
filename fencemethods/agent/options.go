// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
)

// An option is one of the agent's own parameters.
type option struct{ key, value string }

// reserved are parameters of agents that are not to be set, and what is to be done instead.
func reserved() map[string]string {
	const own, plug = "is set by o2fence", "use plug instead"
	const log = "would write secrets into a log"
	secret := func(param string) string { return "is a secret: name a file by " + param + " instead" }
	return map[string]string{
		"action": own, "option": own, "nodename": own, "delay": own, "plug": plug, "port": plug,
		"password": secret("password_file"), "passwd": secret("password_file"),
		"community": secret("community_file"), "snmp_priv_passwd": secret("privacy_password_file"),
		"verbose": log, "verbose_level": log, "debug": log, "debug_file": log, "quiet": own,
		"method": "is onoff: a cycle cannot be seen", "missing_as_off": "would call a machine off that nobody knows of",
	}
}

// splitOptions splits key=value pairs at spaces that are not within double quotes. A value that is
// refused is not shown: people put secrets there.
func splitOptions(text string) ([]option, error) {
	var all []option
	for text = strings.TrimLeft(text, " \t"); text != ""; text = strings.TrimLeft(text, " \t") {
		word, rest, err := cutWord(text)
		if err != nil {
			return nil, err
		}
		text = rest
		key, value, ok := strings.Cut(word, "=")
		if !ok || !isName(key) {
			return nil, fmt.Errorf("expected key=value for option %d, separated by spaces", len(all)+1)
		}
		if why := reserved()[strings.ReplaceAll(key, "-", "_")]; why != "" {
			return nil, fmt.Errorf("%s: %s", key, why)
		}
		for _, o := range all {
			if o.key == key {
				return nil, fmt.Errorf("%s: is there twice", key)
			}
		}
		all = append(all, option{key, value})
	}
	return all, nil
}

// isName is true of names of parameters. Agents take white space around one away, and lines that begin with
// a # for comments: what was looked at here would be something else there.
func isName(key string) bool {
	return key != "" && strings.Trim(strings.ToLower(key), "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// cutWord cuts the first word off, without its quotes.
func cutWord(text string) (word, rest string, err error) {
	quoted := false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\n' || c == 0:
			return "", "", errors.New("expected one line")
		case !quoted && (c == ' ' || c == '\t'):
			return strings.ReplaceAll(text[:i], `"`, ""), text[i:], nil
		}
	}
	if quoted {
		return "", "", errors.New(`expected a closing "`)
	}
	return strings.ReplaceAll(text, `"`, ""), "", nil
}

func validOptions(text string) error {
	if len(text) > sandbox.InputMax/4 {
		return fmt.Errorf("longer than %d bytes", sandbox.InputMax/4)
	}
	_, err := splitOptions(text)
	return err
}
