// SPDX-License-Identifier: GPL-2.0-only

package bmc

import (
	_ "embed"
	"net/netip"
	"os/exec"
	"strings"
)

//go:embed fakebmc.py
var fakeBMC string

// startPyghmi uses Debian's own Python, which is the one that has Debian's pyghmi. What the script
// needs to know comes on its standard input: a password has no business on a command line.
func startPyghmi(b *BMC, addr netip.AddrPort) (*exec.Cmd, error) {
	cmd := exec.Command("/usr/bin/python3", "-c", fakeBMC)
	cmd.Stdin = strings.NewReader(b.settings(addr))
	return cmd, nil
}
