// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"errors"
	"strings"
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"addrs", "node1", "names are not looked up"},
		{"addrs", "10.0.0.1,", "not an IP address"},
		{"addrs", "0.0.0.0", "no address of a node"},
		{"addrs", "fe80::1%eth0", "zone"},
		{"port", "0", "from 1 to 65535"},
		{"confirm_ms", "0", "from 100"},
		{"plain", "true", "yes, no"},
		{"key_file", "hunter2", "absolute path"},
		{"keyfile", "hunter2", `did you mean "key_file"?`},
	} {
		p := plainParams(7410)
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
	both := sealedParams(t, 7410)
	both["plain"] = "yes"
	short := sealedParams(t, 7410)
	short["key_file"] = fencetest.SecretFile(t, "hunter2")
	for text, p := range map[string]map[string]string{
		"either key_file": {"addrs": "127.0.0.1"}, "or plain = yes": both, "16 bytes": short,
	} {
		if _, err := Method().Open(fencemethods.Target{}, p); err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v; want %q", err, text)
		}
	}
}
