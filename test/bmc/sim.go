// SPDX-License-Identifier: GPL-2.0-only

package bmc

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
)

// lanConf is ipmi_sim's main configuration. User 1 is the anonymous one, kept out.
const lanConf = `name "o2fence"
set_working_mc 0x20
  startlan 1
    addr %s %d
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user     none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin    none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
    %s
  endlan
  chassis_control "%s"
  user 1 false ""   "" user 10 none md2 md5 straight
  user 2 true  "%s" "%s" admin 10 none md2 md5 straight
`

// simEmu makes the one management controller that a BMC is.
const simEmu = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
`

// simHook is what ipmi_sim runs for every question about the power. It passes the question on, with
// bash alone: a process per question has to be cheap.
const simHook = `#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/%d || exit 1
printf '%s %%s\n' "$*" >&3
read -r status <&3 || exit 1
while read -r line <&3; do echo "$line"; done
exit "$status"
`

func startSim(b *BMC, addr netip.AddrPort) (*exec.Cmd, error) {
	hook, key, c := filepath.Join(b.dir, "hook"), "", b.config
	if c.KG != "" {
		key = fmt.Sprintf("bmc_key %q", c.KG)
	}
	files := []struct {
		name, text string
		mode       os.FileMode
	}{
		{"lan.conf", fmt.Sprintf(lanConf, addr.Addr(), addr.Port(), key, hook,
			c.User, c.Password), 0o600},
		{"bmc.emu", simEmu, 0o600},
		{"hook", fmt.Sprintf(simHook, b.power.port(), b.power.token), 0o700},
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(b.dir, f.name), []byte(f.text), f.mode); err != nil {
			return nil, err
		}
	}
	// What it remembers overrides its configuration, so it starts without a memory.
	state := filepath.Join(b.dir, "state")
	if err := os.RemoveAll(state); err != nil {
		return nil, err
	}
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, err
	}
	return exec.Command("ipmi_sim", "-c", "lan.conf", "-f", "bmc.emu", "-s", "state", "-n"), nil
}
