// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A moduleTree is /lib/modules/RELEASE.
type moduleTree struct {
	dir     string
	needs   map[string][]string // path → paths it needs, as modules.dep has them
	paths   map[string]string   // name → path
	builtin map[string]bool     // name
}

// readModuleTree reads what depmod left in dir.
func readModuleTree(dir string) (*moduleTree, error) {
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	t := &moduleTree{
		dir: dir, needs: make(map[string][]string), paths: make(map[string]string), builtin: make(map[string]bool),
	}
	for line := range strings.Lines(string(dep)) {
		path, needs, _ := strings.Cut(line, ":")
		t.needs[path] = strings.Fields(needs)
		t.paths[moduleName(path)] = path
	}
	for path := range strings.Lines(string(builtin)) {
		t.builtin[moduleName(strings.TrimSpace(path))] = true
	}
	return t, nil
}

// moduleName is the kernel's name of the module in a file: '-' and '_' are the same to it.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// loadOrder returns the paths of the named modules and all they need, each after what it needs.
func (t *moduleTree) loadOrder(names ...string) ([]string, error) {
	var order []string
	seen := make(map[string]bool)
	var visit func(path string)
	visit = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		for _, need := range t.needs[path] {
			visit(need)
		}
		order = append(order, path)
	}
	for _, name := range names {
		if t.builtin[moduleName(name)] {
			continue
		}
		path, ok := t.paths[moduleName(name)]
		if !ok {
			return nil, fmt.Errorf("%s: no module %s", t.dir, name)
		}
		visit(path)
	}
	return order, nil
}

// read returns the module's ELF image.
func (t *moduleTree) read(ctx context.Context, path string) ([]byte, error) {
	path = filepath.Join(t.dir, path)
	if strings.HasSuffix(path, ".xz") {
		return exec.CommandContext(ctx, "xz", "-dc", path).Output()
	}
	return os.ReadFile(path)
}
