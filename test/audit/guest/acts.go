// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// acts are what the bridge's methods do before they answer. The line that is to be blamed for an
// offence ends with a comment of its name.
var acts = []struct {
	name string
	do   func()
}{
	{"clean", func() {}},
	{"allocate", allocate},
	{"stack", func() { grow(stackDepth) }},
	{"log", func() { logLine() }},
	{"start", start},
	{"resolve", resolve},
}

//go:embed acts.go
var source string

// lineOf is the line that is to be blamed.
func lineOf(offence string) (string, error) {
	number := 0
	for line := range strings.Lines(source) {
		number++
		if strings.HasSuffix(line, "// blame: "+offence+"\n") {
			return fmt.Sprintf("acts.go:%d", number), nil
		}
	}
	return "", fmt.Errorf("nothing in the source is to be blamed for %s", offence)
}

const (
	allocateBytes = 16 << 20
	frameBytes    = 64 << 10
	stackDepth    = 150
)

var logFile *os.File // opened before

//go:noinline
func allocate() {
	memory := make([]byte, allocateBytes) // blame: allocate
	runtime.KeepAlive(&memory)
}

//go:noinline
func grow(n int) byte { // blame: stack
	var frame [frameBytes]byte
	frame[n] = byte(n)
	if n == 0 {
		return frame[len(frame)-1]
	}
	return grow(n-1) + frame[n/2]
}

//go:noinline
func logLine() {
	fmt.Fprintln(logFile, "a node is fenced") // blame: log
}

//go:noinline
func start() {
	_ = exec.Command("/bin/true").Run() // blame: start
}

//go:noinline
func resolve() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, _ = net.DefaultResolver.LookupHost(ctx, "bmc.invalid") // blame: resolve
}
