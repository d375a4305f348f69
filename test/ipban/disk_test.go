// SPDX-License-Identifier: GPL-2.0-only

package ipban

import (
	"os"
	"os/exec"
	"testing"
)

// makeDisk makes an empty image.
func makeDisk(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(diskSize)
}

// needs skips the test without the daemons that take part; the machines' files are the host's.
func needs(t *testing.T) {
	t.Helper()
	for _, program := range []string{"tgtd", "iscsid", "nft", "dmsetup", "mkfs.ext4"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("install tgt, open-iscsi, nftables, dmsetup and e2fsprogs: ", err)
		}
	}
}
