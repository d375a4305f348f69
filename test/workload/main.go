// SPDX-License-Identifier: GPL-2.0-only

// Workload is what runs on the nodes of the demo and of the cluster tests: processes on several
// nodes that append to one file, each under a lock of the whole cluster (flock on OCFS2).
//
//	workload FILE          append for ever, one line of output for each append
//	workload -hold FILE    the same, until SIGUSR1: then take the lock, say so on the console, and
//	                       write without ever giving it back
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Holding is what -hold writes to the console when it has the lock for good.
const holding = "workload: holding the lock\n"

// pause between two appends leaves the other nodes their turn.
const pause = 50 * time.Millisecond

func main() {
	hold := flag.Bool("hold", false, "on SIGUSR1, keep the lock for ever")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	hang := make(chan os.Signal, 1)
	if *hold {
		signal.Notify(hang, syscall.SIGUSR1)
	}
	if err := work(flag.Arg(0), hang); err != nil {
		log.Fatal(err)
	}
}

func work(name string, hang <-chan os.Signal) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if errors.Is(err, fs.ErrExist) {
		// OCFS2 says so when another node has just created it.
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for n := 1; ; n++ {
		if err := flock(f, syscall.LOCK_EX); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(f, "%d\n", n); err != nil {
			return err
		}
		select {
		case <-hang:
			return keep(f)
		default:
		}
		if err := flock(f, syscall.LOCK_UN); err != nil {
			return err
		}
		fmt.Println(n)
		time.Sleep(pause)
	}
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			return err
		}
	}
}

// keep writes under the lock until the machine is frozen or loses its power.
func keep(f *os.File) error {
	if err := os.WriteFile("/dev/console", []byte(holding), 0); err != nil {
		return err
	}
	for {
		if _, err := f.WriteString("still here\n"); err != nil {
			return err
		}
	}
}
