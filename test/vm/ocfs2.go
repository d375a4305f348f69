// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// FormatOCFS2 makes a sparse image of size bytes and on it an OCFS2 file system of the o2cb stack
// for the cluster, with local heartbeat and a slot for each of nodes.
func FormatOCFS2(ctx context.Context, image string, size int64, cluster string, nodes int) error {
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(image, size); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, systemTool("mkfs.ocfs2"), "-x", "-q", "-F", "-b", "4096", "-C", "4096",
		"-N", fmt.Sprint(nodes), "-J", "size=4M", "--cluster-stack=o2cb", "--cluster-name="+cluster, image)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, text)
	}
	return nil
}

// systemTool finds a program that is not in an ordinary user's PATH.
func systemTool(name string) string {
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := os.Stat(dir + name); err == nil {
			return dir + name
		}
	}
	return name
}

// ClusterConf returns the cluster.conf of the cluster that the machines are, numbered as they stand.
// ocfs2-tools reads the format by its tabs and its blank lines.
func ClusterConf(cluster string, machines []*VM) string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster:\n\tname = %s\n\theartbeat_mode = local\n\tnode_count = %d\n\n", cluster, len(machines))
	for i, m := range machines {
		fmt.Fprintf(&b, "node:\n\tcluster = %s\n\tnumber = %d\n\tip_port = 7777\n\tip_address = %s\n\tname = %s\n\n",
			cluster, i, m.Address(), m.Name())
	}
	return b.String()
}
