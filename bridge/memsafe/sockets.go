// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Marker lets an open socket of the calling process receive with memory of the reserve: a client of a
// kernel with o2fence's module. (R20)
type Marker interface {
	MarkSocket(ctx context.Context, fd int) error
}

// MarkSockets marks all sockets that the calling process has open. An answer cannot be lost for
// want of memory because a packet that was received into the reserve reaches these sockets, and
// is dropped for all others. One that is opened later has to be marked by itself.
func MarkSockets(ctx context.Context, m Marker) error {
	sockets, err := Sockets(os.Getpid())
	if err != nil {
		return fmt.Errorf("memsafe: %w", err)
	}
	for fd := range sockets {
		if err := m.MarkSocket(ctx, fd); err != nil {
			return fmt.Errorf("memsafe: socket %d: %w", fd, err)
		}
	}
	return nil
}

// Sockets are a process's open sockets: the inode, which names the socket, by file descriptor.
// The error is fs.ErrNotExist when there is no such process.
func Sockets(pid int) (map[int]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sockets := make(map[int]string)
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		inode, ok := strings.CutPrefix(link, "socket:")
		if !ok {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		sockets[fd] = inode
	}
	return sockets, nil
}
