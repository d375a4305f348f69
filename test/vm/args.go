// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/o2fence/o2fence/test/guest/wire"
)

// machineArgs are QEMU's arguments for all but the network. fds are numbers in QEMU.
func machineArgs(c Config, monitorPath string, monitorFD, agentFD int) []string {
	accel, cpu := "tcg,thread=multi", "max"
	if os.Getenv("O2FENCE_KVM") == "1" {
		accel, cpu = "kvm", "host"
	}
	if c.Counted {
		accel, cpu = "tcg,thread=single", "max"
	}
	args := []string{
		"-name", escape(c.Name), "-nodefaults", "-no-user-config", "-display", "none",
		// A guest that resets or panics ends QEMU: a reboot is a decision of the test's.
		"-no-reboot",
		"-machine", "pc", "-accel", accel, "-cpu", cpu,
		"-smp", fmt.Sprint(c.CPUs), "-m", fmt.Sprint(c.Memory),
		"-kernel", c.Kernel.Image, "-initrd", c.Kernel.Initramfs, "-append", commandLine(c),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD), "-mon", "chardev=monitor,mode=control",
		"-qmp", "unix:" + escape(monitorPath) + ",server=on,wait=off",
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", agentFD),
		"-device", "virtserialport,chardev=agent,name=" + wire.PortName,
		"-fsdev", "local,id=root,security_model=none,readonly=on,multidevs=remap,path=" + escape(c.Root),
		"-device", "virtio-9p-pci,fsdev=root,mount_tag=" + wire.RootTag,
	}
	if c.Counted {
		args = append(args, "-icount", "shift=0")
	}
	for i, disk := range c.Disks {
		args = append(args, diskArgs(i, disk)...)
	}
	return args
}

// commandLine is the kernel's. What is behind "--" is for the guest program.
func commandLine(c Config) string {
	words := []string{
		"console=ttyS0", "oops=panic", "panic=-1", "net.ifnames=0",
		// On a busy host the timer's interrupts come too late for the kernel, which panics: it counts
		// them for as long as a loop takes.
		"no_timer_check",
		// Together they halve the time to boot under emulation: no interpreted ACPI code for PCI's
		// interrupts, no self-tests of ciphers.
		"mitigations=off", "pci=noacpi", "cryptomgr.notests",
		// Without ACPI the kernel does not know that QEMU's I/O APIC has all of its page. It put the
		// registers of the i6300esb there, and the watchdog never heard of its time.
		"reserve=0xfec00000,0x1000",
		// Warnings are printed from the start, the rest from when the agent is up: a serial line is slow.
		"loglevel=5",
		// Several machines on a few emulated CPUs stall now and then, without any fault of the kernel.
		"watchdog_thresh=30", "rcupdate.rcu_cpu_stall_timeout=60",
	}
	if c.Append != "" {
		words = append(words, c.Append)
	}
	words = append(words, "--", "-hostname="+c.Name)
	device := 0
	if c.Switch != nil {
		words = append(words, "-addr=eth0="+c.Address.String())
		device++
	}
	words = append(words, fmt.Sprintf("-addr=eth%d=10.0.2.15/24", device))
	if c.Init != "" {
		words = append(words, "-init="+c.Init)
	}
	return strings.Join(words, " ")
}

// diskArgs attach a raw image that other QEMUs may have attached too. They all see one another's
// writes at once, for they share the host's page cache. A guest's flush need not reach the platter:
// the host's own crash is not what is tested.
func diskArgs(i int, image string) []string {
	return []string{
		"-blockdev", fmt.Sprintf("driver=file,node-name=file%d,locking=off,cache.no-flush=on,filename=%s", i, escape(image)),
		"-blockdev", fmt.Sprintf("driver=raw,node-name=disk%d,cache.no-flush=on,file=file%d", i, i),
		"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,share-rw=on", i),
	}
}

func switchArgs(address netip.Prefix, fd int) []string {
	ip := address.Addr().As4()
	return []string{
		"-netdev", fmt.Sprintf("dgram,id=switch,local.type=fd,local.str=%d", fd),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=switch,romfile=,mac=52:54:00:%02x:%02x:%02x", ip[1], ip[2], ip[3]),
	}
}

// hostNetworkArgs lead to the host's loopback, through QEMU's own user-mode network.
func hostNetworkArgs() []string {
	return []string{"-netdev", "user,id=host,ipv6=off", "-device", "virtio-net-pci,netdev=host,romfile="}
}

// escape protects commas in a value of a QEMU option.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }
