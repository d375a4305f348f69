// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A tgtd without sessions. One with some is asked in test/ipban: it takes an initiator.
func TestDebiansTgtIsAsked(t *testing.T) {
	if _, err := exec.LookPath("tgtd"); err != nil {
		t.Skip("needs Debian's tgt: ", err)
	}
	x := newFixture(t)
	t.Setenv("TGT_IPC_SOCKET", filepath.Join(t.TempDir(), "tgtd"))
	daemon := x.here.Command("tgtd", "-f", "--iscsi", "portal=127.0.0.1:3260")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = daemon.Process.Kill(); _ = daemon.Wait() })
	x.config.Target = "tgt"
	x.start()
	for end := time.Now().Add(patience); x.node(0).Check(x.within(patience)) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(x.node(0).Check(x.within(patience)))
		}
	}
	x.mustOff(0)
	_ = daemon.Process.Kill()
	_ = daemon.Wait()
	if state, err := x.node(0).Status(x.within(patience)); err == nil {
		t.Errorf("without a tgtd that tells what it has to write: %v", state)
	}
}
