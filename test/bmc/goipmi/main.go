// SPDX-License-Identifier: GPL-2.0-only

// Command goipmi is a BMC made of bougou/go-ipmi's server, for the tests of o2fence. It reads its
// settings from standard input and asks o2fence's power server about the machine behind it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/hal/mock"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	var addr, port, user, password, privilege, powerPort, token string
	if _, err := fmt.Scan(&addr, &port, &user, &password, &privilege, &powerPort, &token); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	machine := &chassis{Chassis: &mock.Chassis{}, addr: net.JoinHostPort("127.0.0.1", powerPort), token: token}
	b := bmc.New(bmc.DeviceInfo{IPMIVersion: 0x20}, [16]byte{1}, &machineHAL{mock.New(), machine})
	u, err := b.Users.Add(2, user)
	if err != nil {
		return err
	}
	u.SetPassword([]byte(password))
	u.Enabled = true
	u.ChannelAccess[1] = bmc.UserChannelAccess{MaxPrivilege: level(privilege), Enabled: true}
	conn, err := udp.Listen(net.JoinHostPort(addr, port))
	if err != nil {
		return err
	}
	return server.NewServer(b, conn).Serve(context.Background())
}

func level(privilege string) bmc.PrivilegeLevel {
	switch privilege {
	case "user":
		return bmc.PrivilegeLevelUser
	case "operator":
		return bmc.PrivilegeLevelOperator
	default:
		return bmc.PrivilegeLevelAdministrator
	}
}

// A machineHAL is go-ipmi's pretended hardware with a real chassis.
type machineHAL struct {
	*mock.HAL
	chassis *chassis
}

func (h *machineHAL) Chassis() hal.ChassisHAL { return h.chassis }

// A chassis asks the power server.
type chassis struct {
	*mock.Chassis
	addr, token string
}

func (c *chassis) PowerState(context.Context) (bool, error) {
	text, err := c.ask("get power")
	return strings.TrimSpace(text) == "power:1", err
}

func (c *chassis) SetPower(_ context.Context, on bool) error {
	question := "set power 0"
	if on {
		question = "set power 1"
	}
	_, err := c.ask(question)
	return err
}

func (c *chassis) ask(question string) (string, error) {
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s %s\n", c.token, question); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", err
	}
	status, text, _ := strings.Cut(string(answer), "\n")
	if status != "0" {
		return "", errors.New(text)
	}
	return text, nil
}
