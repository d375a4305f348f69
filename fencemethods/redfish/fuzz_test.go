// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/o2fence/o2fence/fencemethods"
)

const fuzzedPath = "/redfish/v1/Systems/1"

// FuzzDecodeSystem looks for a document that is taken for Off, and that another reader of JSON, who
// minds the case of names, would not.
func FuzzDecodeSystem(f *testing.F) {
	for _, state := range []string{`"On"`, `"Off"`, `"PoweringOff"`, `null`, `"Off","PowerState":"On"`, `"Off","powerstate":"On"`, `["Off"]`} {
		f.Add([]byte(`{"@odata.id":"` + fuzzedPath + `/","@odata.type":"#ComputerSystem.v1_5_0.ComputerSystem","PowerState":` + state +
			`,"Actions":{"#ComputerSystem.Reset":{"target":"` + fuzzedPath + `/Actions/ComputerSystem.Reset","ResetType@Redfish.AllowableValues":["On","ForceOff"]}}}`))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := decodeSystem(b, fuzzedPath)
		if !ok || s.state() != fencemethods.Off {
			return
		}
		var other map[string]any
		if err := json.Unmarshal(b, &other); err != nil {
			t.Fatal(err)
		}
		for name, value := range other {
			if strings.EqualFold(name, "PowerState") && value != "Off" {
				t.Errorf("%s: Off, but %s is %v", b, name, value)
			}
		}
	})
}

// FuzzPathOf looks for something that a BMC could put into our request.
func FuzzPathOf(f *testing.F) {
	for _, uri := range []string{fuzzedPath, "https://192.0.2.1/redfish/v1/x?a#b", "//host/x", "/a b\r\nX: y", "%0d%0a", "/%0d%0a", "\\"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		path := pathOf(uri)
		if path != "" && (path[0] != '/' || strings.ContainsAny(path, " \r\n\t?#\x00") || len(path) > maxPath) {
			t.Errorf("%q gives %q", uri, path)
		}
	})
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("q\"u\\o\x00\x1f\né")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return // JSON has no way to say it
		}
		var back string
		if err := json.Unmarshal(appendString(nil, []byte(s)), &back); err != nil || back != s {
			t.Errorf("%q comes back as %q, %v", s, back, err)
		}
	})
}

// FuzzDecodeOthers is about what only Check reads: no path may come out that is none.
func FuzzDecodeOthers(f *testing.F) {
	f.Add([]byte(`{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}],"UserName":"u","Links":{"Role":{"@odata.id":"/r"}}}`))
	f.Add([]byte(`{"Parameters":[{"Name":"ResetType","AllowableValues":["ForceOff"]}],"AssignedPrivileges":["Login"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, path := range decodeMembers(b) {
			if !isPath(path) {
				t.Errorf("member %q", path)
			}
		}
		if role, ok := decodeAccount(b, "u"); ok && !isPath(role) {
			t.Errorf("role %q", role)
		}
		if path, ok := decodeSessions(b); ok && !isPath(path) {
			t.Errorf("sessions %q", path)
		}
		decodeActionInfo(b)
		decodeRole(b)
	})
}

func FuzzFingerprint(f *testing.F) {
	f.Add(strings.Repeat("aB:", 31) + "01")
	f.Fuzz(func(t *testing.T, s string) {
		if sum, err := fingerprint(s); err == nil && !strings.EqualFold(otherCertificate(sum).Error(), strings.ReplaceAll(s, ":", "")) {
			t.Errorf("%q is taken for %x", s, sum)
		}
	})
}
