// SPDX-License-Identifier: GPL-2.0-only

package bmc

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildGoIPMI builds the server of StartGoIPMI into dir and returns its name. It is a module of its
// own, so that what it needs stays out of o2fence's; the working directory has to be inside
// o2fence's.
func BuildGoIPMI(ctx context.Context, dir string) (string, error) {
	source, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/o2fence/o2fence/test/bmc").Output()
	if err != nil {
		return "", fmt.Errorf("bmc: go list: %w", err)
	}
	program := filepath.Join(dir, "goipmi")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(strings.TrimSpace(string(source)), "goipmi")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("bmc: go build: %w\n%s", err, out)
	}
	return program, nil
}

func startGoIPMI(b *BMC, addr netip.AddrPort, program string) (*exec.Cmd, error) {
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(b.settings(addr))
	return cmd, nil
}

// settings is what the servers that have no configuration file read from their standard input.
func (b *BMC) settings(addr netip.AddrPort) string {
	c := b.config
	return fmt.Sprintf("%s %d %s %s %s %d %s\n", addr.Addr(), addr.Port(),
		c.User, c.Password, cmp.Or(c.Privilege, "admin"), b.power.port(), b.power.token)
}
