// SPDX-License-Identifier: GPL-2.0-only

package o2cb

import (
	"os"
	"strconv"
	"strings"
)

// A Mount is a mounted OCFS2 file system.
type Mount struct {
	Point     string // the directory
	Source    string // what was mounted, such as "/dev/sda1"
	DevNumber string // "major:minor" of its block device
	Heartbeat string // "local", "global" or "none": the mount option heartbeat
}

// Mounts returns the OCFS2 file systems that this process sees mounted, in the kernel's order.
func (f FS) Mounts() ([]Mount, error) {
	text, err := os.ReadFile(f.path("proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	var mounts []Mount
	for line := range strings.Lines(string(text)) {
		if m, ok := parseMount(line); ok {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

// parseMount reads a line of mountinfo (proc(5)): the type of the file system comes after a lone
// hyphen, before which there are any number of optional fields.
func parseMount(line string) (Mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 6 || len(right) < 3 || right[0] != "ocfs2" {
		return Mount{}, false
	}
	m := Mount{Point: unescape(left[4]), Source: unescape(right[1]), DevNumber: left[2]}
	for option := range strings.SplitSeq(right[2], ",") {
		if mode, ok := strings.CutPrefix(option, "heartbeat="); ok {
			m.Heartbeat = mode
		}
	}
	return m, true
}

// unescape undoes what the kernel does to white space and backslashes: three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Regions returns those of all regions that a node's death is seen in for this mount: the one on its
// own device in local heartbeat mode, every one in global mode, and none when it has no heartbeat.
// The mount is protected when there are some and the kernel watches them.
func (m Mount) Regions(all []Region) []Region {
	var own []Region
	for _, r := range all {
		if m.Heartbeat == "global" || m.Heartbeat == "local" && r.DevNumber == m.DevNumber {
			own = append(own, r)
		}
	}
	return own
}
