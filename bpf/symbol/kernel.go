// SPDX-License-Identifier: GPL-2.0-only

package symbol

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ErrHidden means that the kernel does not show its addresses: kernel.kptr_restrict, or no
// CAP_SYSLOG.
var ErrHidden = errors.New("the kernel hides its symbols' addresses: see kernel.kptr_restrict")

// A Kernel has the functions of the running kernel and its modules, as of when it was read.
type Kernel struct{ symbols []kernelSymbol }

type kernelSymbol struct {
	address      uint64
	name, module string
}

// ReadKernel reads /proc/kallsyms. The error is ErrHidden when there are names, but no addresses.
func ReadKernel() (*Kernel, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("symbol: %w", err)
	}
	defer f.Close()
	return ParseKernel(f)
}

// ParseKernel reads what has the form of /proc/kallsyms.
func ParseKernel(r io.Reader) (*Kernel, error) {
	k, err := parseKernel(r)
	if err != nil {
		return nil, fmt.Errorf("symbol: %w", err)
	}
	return k, nil
}

func parseKernel(r io.Reader) (*Kernel, error) {
	k := new(Kernel)
	hidden := true
	for lines := bufio.NewScanner(r); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return nil, err
			}
			break
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || !strings.Contains("tTwW", fields[1]) {
			continue
		}
		address, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil {
			return nil, err
		}
		hidden = hidden && address == 0
		s := kernelSymbol{address: address, name: fields[2]}
		if len(fields) > 3 {
			s.module = strings.Trim(fields[3], "[]")
		}
		k.symbols = append(k.symbols, s)
	}
	if hidden {
		return nil, ErrHidden
	}
	slices.SortStableFunc(k.symbols, func(a, b kernelSymbol) int { return cmp.Compare(a.address, b.address) })
	return k, nil
}

// Frame names an address on a kernel stack.
func (k *Kernel) Frame(address uint64) Frame {
	i, found := slices.BinarySearchFunc(k.symbols, address, func(s kernelSymbol, a uint64) int {
		return cmp.Compare(s.address, a)
	})
	if !found {
		i--
	}
	if i < 0 {
		return Frame{Func: fmt.Sprintf("<%#x>", address), Kernel: true}
	}
	return Frame{Func: k.symbols[i].name, Module: k.symbols[i].module, Kernel: true}
}
