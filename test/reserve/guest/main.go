// SPDX-License-Identifier: GPL-2.0-only

// Guest is what the tests of reservations run in their machines: an operation of a method, as the
// bridge would call it, and a writer that asks nobody.
//
//	guest METHOD OPERATION FROM NODE [KEY=VALUE...]
//	guest write DEVICE
//	guest read DEVICE
//
// An operation prints what Status says, or nothing; its error ends it with 1. The writer counts up in
// the first sector of the device until a write fails, and prints the last number that was taken, and
// the error.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/catalog"
	"github.com/o2fence/o2fence/test/vm"
)

// limit is what an operation has, unless LIMIT_MS says otherwise.
const limit = 30 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "write":
		return write(args[1])
	case len(args) == 2 && args[0] == "read":
		return read(args[1])
	case len(args) < 4:
		return errors.New("usage: guest METHOD OPERATION FROM NODE [KEY=VALUE...]")
	}
	return operate(args[0], args[1], args[2], args[3], args[4:])
}

func operate(method, operation, from, node string, given []string) error {
	m, err := catalog.Methods().Find(method)
	if err != nil {
		return err
	}
	us, err1 := strconv.ParseUint(from, 10, 8)
	victim, err2 := strconv.ParseUint(node, 10, 8)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	params := map[string]string{}
	for _, g := range given {
		key, value, _ := strings.Cut(g, "=")
		params[key] = value
	}
	d, err := m.Open(fencemethods.Target{Cluster: vm.ClusterName, Node: uint8(victim), Name: "node" + node, Member: true, From: uint8(us)}, params)
	if err != nil {
		return err
	}
	defer d.Close()
	within := limit
	if ms, err := strconv.Atoi(os.Getenv("LIMIT_MS")); err == nil {
		within = time.Duration(ms) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return call(ctx, d, operation)
}

func call(ctx context.Context, d fencemethods.Device, operation string) error {
	switch operation {
	case "off":
		return d.Off(ctx)
	case "on":
		return d.On(ctx)
	case "check":
		return d.Check(ctx)
	case "status":
		state, err := d.Status(ctx)
		fmt.Println(state)
		return err
	}
	return fmt.Errorf("no operation %q", operation)
}

const sector = 4096

func open(device string) (fd int, buf []byte, err error) {
	if fd, err = unix.Open(device, unix.O_RDWR|unix.O_DIRECT|unix.O_SYNC, 0); err != nil {
		return 0, nil, err
	}
	buf, err = unix.Mmap(-1, 0, sector, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	return fd, buf, err
}

func write(device string) error {
	fd, buf, err := open(device)
	if err != nil {
		return err
	}
	for n := uint64(1); ; n++ {
		binary.LittleEndian.PutUint64(buf, n)
		if _, err := unix.Pwrite(fd, buf, 0); err != nil {
			fmt.Println(n-1, unix.ErrnoName(err.(unix.Errno)))
			return nil
		}
	}
}

func read(device string) error {
	fd, buf, err := open(device)
	if err != nil {
		return err
	}
	if _, err := unix.Pread(fd, buf, 0); err != nil {
		return err
	}
	fmt.Println(binary.LittleEndian.Uint64(buf))
	return nil
}
