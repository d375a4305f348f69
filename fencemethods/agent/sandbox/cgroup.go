// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A tree is the server's control group, with one below it for each jail. (Documentation/admin-guide/
// cgroup-v2.rst)
type tree struct {
	path string

	mu     sync.Mutex
	groups map[string]int // guaranteed KiB, by name
	number int
}

const controllers = "+memory +pids"

// Available tells whether programs could be confined below the parent of this control group. The
// error is ErrNoCGroup and says what is missing.
func Available(cgroup string) error {
	parent := filepath.Dir(cgroup)
	var fs unix.Statfs_t
	if err := unix.Statfs(parent, &fs); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoCGroup, parent, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%w: %s is no cgroup v2 file system: mount one there, or boot with systemd.unified_cgroup_hierarchy=1", ErrNoCGroup, parent)
	}
	return offers(parent)
}

// newTree makes the group at path, and ends what an earlier server has left there.
func newTree(path string) (*tree, error) {
	if err := Available(path); err != nil {
		return nil, err
	}
	t := &tree{path: path, groups: map[string]int{}}
	if err := t.make(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCGroup, err)
	}
	return t, t.sweep()
}

func offers(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoCGroup, err)
	}
	for want := range strings.FieldsSeq(controllers) {
		if want = want[1:]; !slices.Contains(strings.Fields(string(have)), want) {
			return fmt.Errorf("%w: %s has no controller %q; cgroup v1 may have it", ErrNoCGroup, dir, want)
		}
	}
	return nil
}

func (t *tree) make(parent string) error {
	if err := write(parent, "cgroup.subtree_control", controllers); err != nil {
		return err
	}
	if err := os.Mkdir(t.path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := write(t.path, "cgroup.subtree_control", controllers); err != nil {
		return err
	}
	// Before Linux 5.14 there is none, and nothing can be killed as a whole.
	_, err := os.Stat(filepath.Join(t.path, "cgroup.kill"))
	return err
}

// sweep kills and removes all groups.
func (t *tree) sweep() error {
	entries, err := os.ReadDir(t.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			g := group{tree: t, path: filepath.Join(t.path, e.Name())}
			// What does not die is left where it is.
			_ = g.kill()
			_ = g.remove()
		}
	}
	return nil
}

// guarantee gives the group of all jails the memory that they were promised. Of what a group's
// ancestors are not guaranteed, it has nothing either.
func (t *tree) guarantee() error {
	sum := 0
	for _, kib := range t.groups {
		sum += kib
	}
	if err := write(t.path, "memory.min", strconv.Itoa(sum<<10)); err != nil {
		return err
	}
	for dir := filepath.Dir(t.path); ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "memory.min"))
		if errors.Is(err, os.ErrNotExist) {
			return nil // the root, which has all
		}
		if err != nil {
			return err
		}
		have, err := strconv.Atoi(string(bytes.TrimSpace(text)))
		if err == nil && have < sum<<10 {
			return fmt.Errorf("%s guarantees %d bytes of memory, and the jails below it need %d: raise its memory.min (MemoryMin= of its slice)", dir, have, sum<<10)
		}
	}
}

// A group is one jail's control group.
type group struct {
	tree *tree
	path string
	dir  *os.File
}

// add makes a group with these limits.
func (t *tree) add(l Limits) (*group, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.number++
	name := fmt.Sprintf("jail%d", t.number)
	g := &group{tree: t, path: filepath.Join(t.path, name)}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return nil, err
	}
	t.groups[name] = l.MinKiB
	err := cmp.Or(t.guarantee(), g.limit(l))
	if err == nil {
		g.dir, err = os.Open(g.path)
	}
	if err != nil {
		delete(t.groups, name)
		return nil, errors.Join(err, os.Remove(g.path), t.guarantee())
	}
	return g, nil
}

// limit sets the limits and looks whether they hold: the kernel rounds, but not to something else.
func (g *group) limit(l Limits) error {
	for file, value := range map[string]int{
		"memory.min": l.MinKiB << 10, "memory.max": l.MaxKiB << 10, "memory.swap.max": 0,
		"memory.oom.group": 1, "pids.max": l.Processes,
	} {
		if err := write(g.path, file, strconv.Itoa(value)); errors.Is(err, os.ErrNotExist) && file == "memory.swap.max" {
			continue // a kernel without swap
		} else if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(g.path, file))
		if err != nil {
			return err
		}
		if have := string(bytes.TrimSpace(text)); have != strconv.Itoa(value) {
			return fmt.Errorf("%s/%s is %s, not %d", g.path, file, have, value)
		}
	}
	return nil
}

// kill ends everything in the group, and waits until it is dead.
func (g *group) kill() error {
	if err := write(g.path, "cgroup.kill", "1"); err != nil {
		return err
	}
	events, err := os.Open(filepath.Join(g.path, "cgroup.events"))
	if err != nil {
		return err
	}
	defer events.Close()
	deadline := time.Now().Add(killTime)
	for {
		text := make([]byte, 256)
		n, err := events.ReadAt(text, 0)
		if n == 0 {
			return err
		}
		if bytes.Contains(text[:n], []byte("populated 0")) {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("%s: what was killed is stuck in the kernel", g.path)
		}
		poll := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// kills tells how often the kernel has killed in the group because of its limit.
func (g *group) kills() int {
	text, _ := os.ReadFile(filepath.Join(g.path, "memory.events"))
	for line := range strings.Lines(string(text)) {
		var n int
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	return 0
}

// remove gives the group back.
func (g *group) remove() error {
	if g.dir != nil {
		g.dir.Close()
	}
	g.tree.mu.Lock()
	defer g.tree.mu.Unlock()
	delete(g.tree.groups, filepath.Base(g.path))
	return errors.Join(os.Remove(g.path), g.tree.guarantee())
}

func write(dir, file, text string) error {
	// Not to be created: a file that is not there is a controller that is not.
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}
