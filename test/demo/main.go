// SPDX-License-Identifier: GPL-2.0-only

// Demo shows what o2fence is for. Three machines share an OCFS2 file system; one of them hangs while
// it holds the lock that another one waits for. This is done twice, on stock OCFS2 and with o2fence,
// and what became of the waiting writer is put side by side: as a table, as build/demo/report.json
// and as a picture, build/demo/timeline.svg.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/test/vm"
)

func main() {
	missed := flag.Int("missed", 5, "heartbeats that a node may miss before it is fenced")
	dir := flag.String("dir", filepath.Join("build", "demo"), "where the results and logs go")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, *missed); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demoTime is more than both runs take on a slow machine; a run that hangs has to end too.
const demoTime = 15 * time.Minute

func run(ctx context.Context, dir string, missed int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoTime, errors.New("the demo takes too long"))
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	kernel, err := vm.PrepareKernel(ctx, filepath.Join("build", "vm"))
	if err != nil {
		return err
	}
	d := demo{dir: dir, kernel: kernel, missed: missed}
	stock, err := d.play(ctx, "stock", nil)
	if err != nil {
		return fmt.Errorf("stock OCFS2: %w", err)
	}
	fenced, err := d.play(ctx, "o2fence", d.protect)
	if err != nil {
		return fmt.Errorf("with o2fence: %w", err)
	}
	r, err := newReport(stock, fenced, kernel.Release, missed)
	if err != nil {
		return err
	}
	if err := r.write(dir, stock, fenced); err != nil {
		return err
	}
	r.print(os.Stdout, dir)
	return r.check()
}
