// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// configureNetwork brings up the loopback and each "device=prefix".
func configureNetwork(addresses []string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer unix.Close(s)
	// The kernel gives the loopback its address by itself.
	if err := setUp(s, "lo"); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	for _, a := range addresses {
		device, prefix, _ := strings.Cut(a, "=")
		if err := setAddress(s, device, prefix); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	return nil
}

// setAddress gives a device its address by the old ioctls: one address each needs no netlink.
func setAddress(s int, device, prefix string) error {
	p, err := netip.ParsePrefix(prefix)
	if err != nil {
		return err
	}
	mask := ^uint32(0) << (32 - p.Bits())
	for _, set := range []struct {
		request uint
		value   [4]byte
	}{
		{unix.SIOCSIFADDR, p.Addr().As4()},
		{unix.SIOCSIFNETMASK, [4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}},
	} {
		r, err := unix.NewIfreq(device)
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(set.value[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, set.request, r); err != nil {
			return err
		}
	}
	return setUp(s, device)
}

func setUp(s int, device string) error {
	r, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}
