// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
)

// A computerSystem is the part of a ComputerSystem (DSP0268) that matters for its power.
type computerSystem struct {
	ID         string `json:"@odata.id"`
	Type       string `json:"@odata.type"`
	PowerState power
	Actions    struct {
		Reset reset `json:"#ComputerSystem.Reset"`
	}
}

// A power is a PowerState. Package json takes the last of several, and does not mind their case: a
// document that has two of them says nothing.
type power struct {
	value string
	given bool
}

// UnmarshalJSON takes a string, or null for what the BMC cannot tell.
func (p *power) UnmarshalJSON(b []byte) error {
	if p.given {
		return errors.New("two power states")
	}
	p.given = true
	return json.Unmarshal(b, &p.value)
}

// decodeSystem decodes the ComputerSystem that was asked for. Another resource is no answer, be it
// that of another node.
func decodeSystem(b []byte, path string) (computerSystem, bool) {
	var s computerSystem
	if json.Unmarshal(b, &s) != nil {
		return computerSystem{}, false
	}
	same := strings.TrimRight(s.ID, "/") == strings.TrimRight(path, "/")
	return s, same && strings.HasPrefix(s.Type, "#ComputerSystem.")
}

// state tells what the PowerState means. What is on its way is neither, and a paused system has
// its memory.
func (s *computerSystem) state() fencemethods.State {
	switch s.PowerState.value {
	case "Off":
		return fencemethods.Off
	case "On", "Paused":
		return fencemethods.On
	default: // PoweringOff, PoweringOn, null, absent, or of another age
		return fencemethods.Unknown
	}
}

// A reset is how a resource says what its action takes (DSP0266, "Actions property").
type reset struct {
	Target  string   `json:"target"`
	Allowed []string `json:"ResetType@Redfish.AllowableValues"`
	Info    string   `json:"@Redfish.ActionInfo"`
}

// The bodies that bring the power to what is wanted.
const (
	forceOff = `{"ResetType":"ForceOff"}`
	powerOn  = `{"ResetType":"On"}`
	forceOn  = `{"ResetType":"ForceOn"}`
)

// word returns what to post. A BMC that says what it takes, and does not take ForceOff, is not asked
// to shut down instead: a node that hangs would not.
func (r reset) word(want fencemethods.State) (string, *failure) {
	silent := len(r.Allowed) == 0 // it may say so elsewhere, or not at all
	switch {
	case r.Target == "":
		return "", failNoReset
	case want == fencemethods.Off && (silent || slices.Contains(r.Allowed, "ForceOff")):
		return forceOff, nil
	case want == fencemethods.Off:
		return "", failNoForceOff
	case silent || slices.Contains(r.Allowed, "On"):
		return powerOn, nil
	case slices.Contains(r.Allowed, "ForceOn"):
		return forceOn, nil
	}
	return "", failNoOn
}

// decodeActionInfo returns the values that an ActionInfo allows for ResetType.
func decodeActionInfo(b []byte) []string {
	var info struct {
		Parameters []struct {
			Name            string
			AllowableValues []string
		}
	}
	if json.Unmarshal(b, &info) != nil {
		return nil
	}
	for _, p := range info.Parameters {
		if p.Name == "ResetType" {
			return p.AllowableValues
		}
	}
	return nil
}

// decodeMembers returns the paths of a collection's members.
func decodeMembers(b []byte) []string {
	var collection struct{ Members []link }
	if json.Unmarshal(b, &collection) != nil {
		return nil
	}
	var paths []string
	for _, m := range collection.Members {
		if isPath(m.ID) {
			paths = append(paths, m.ID)
		}
	}
	return paths
}

// decodeSessions returns where the service's root says that sessions are opened.
func decodeSessions(b []byte) (path string, ok bool) {
	var root struct{ Links struct{ Sessions link } }
	if json.Unmarshal(b, &root) != nil {
		return "", false
	}
	return root.Links.Sessions.ID, isPath(root.Links.Sessions.ID)
}

type link struct {
	ID string `json:"@odata.id"`
}
