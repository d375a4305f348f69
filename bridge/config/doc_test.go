// SPDX-License-Identifier: GPL-2.0-only

package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

// realMethods are the methods that the documents speak of.
func realMethods() config.Schema {
	schema := config.Schema{}
	for _, m := range catalog.Methods() {
		var params []config.Param
		for _, p := range m.Params {
			params = append(params, config.Param{Name: p.Name, Required: p.Required, Secret: p.Secret, Validate: p.Validate})
		}
		schema[m.Name] = config.Method{Params: params}
	}
	return schema
}

// document reads docs/configuration.md, and its code blocks by their first lines.
func document(t *testing.T) (text string, blocks map[string]string) {
	t.Helper()
	file, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks = map[string]string{}
	for _, block := range regexp.MustCompile("(?s)```[a-z]+\n(.*?)```\n").FindAllStringSubmatch(string(file), -1) {
		first, _, _ := strings.Cut(block[1], "\n")
		blocks[first] = block[1]
	}
	return string(file), blocks
}

// withSecrets has the secrets of /etc/ocfs2 in a folder of the test.
func withSecrets(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range regexp.MustCompile(`/etc/ocfs2/\w+\.(?:password|key)`).FindAllString(text, -1) {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte("secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return strings.ReplaceAll(text, "/etc/ocfs2/", dir+"/")
}

// A block that begins with a method's name is about that method, one that begins with a level's rule
// about levels.
func TestExamplesOfMethodsAreAccepted(t *testing.T) {
	_, blocks := document(t)
	cluster := config.File{Name: config.ClusterFile, Text: blocks["# /etc/ocfs2/cluster.conf"]}
	if blocks["# level all"] == "" || blocks["# level any"] == "" {
		t.Error("no examples of levels")
	}
	for block, fence := range blocks {
		name := strings.TrimPrefix(block, "# ")
		switch _, known := realMethods()[name]; {
		case name == "level all":
			name = "snmp+snmp"
		case name == "level any":
			name = "kdump|redfish"
		case !known:
			continue
		}
		c, err := config.Parse(cluster, config.File{Name: config.FenceFile, Text: withSecrets(t, fence)}, realMethods())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if n, err := c.Clusters[0].Node("web1"); err != nil || n.Steps[0].Method != name {
			t.Errorf("web1 is %+v, %v", n, err)
		}
	}
}

func TestExamplesAreAccepted(t *testing.T) {
	_, blocks := document(t)
	packaged, err := os.ReadFile("../../packaging/fence.conf")
	if err != nil {
		t.Fatal(err)
	}
	cluster := config.File{Name: config.ClusterFile, Text: blocks["# /etc/ocfs2/cluster.conf"]}
	for name, fence := range map[string]string{
		"the documentation's": blocks["# /etc/ocfs2/fence.conf"],
		"the package's":       string(packaged),
		"the minimal one":     config.Minimal,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse(cluster, config.File{Name: config.FenceFile, Text: withSecrets(t, fence)}, realMethods())
			if err != nil {
				t.Fatal(err)
			}
			if n, err := c.Clusters[0].Node("web2"); err != nil || n.Steps[0].Method != "ipmi" {
				t.Errorf("web2 is %+v, %v", n, err)
			}
		})
	}
}

func TestDocumentedMistakesGiveTheDocumentedErrors(t *testing.T) {
	_, blocks := document(t)
	cluster := config.File{Name: config.ClusterFile, Text: blocks["# /etc/ocfs2/cluster.conf"]}
	fence := config.File{Name: config.FenceFile, Text: withSecrets(t, blocks["# wrong"])}
	_, err := config.Parse(cluster, fence, realMethods())
	if err == nil {
		t.Fatal("accepted")
	}
	got := err.Error() + "\n"
	first, _, _ := strings.Cut(got, "\n")
	if diff := cmp.Diff(blocks[first], got); diff != "" {
		t.Errorf("-documented +got:\n%s", diff)
	}
}

// TestDocumentedRangesAreTheRanges tries both ends of every range in the tables, what is beyond, and
// whether the default is what not setting the key means.
func TestDocumentedRangesAreTheRanges(t *testing.T) {
	text, _ := document(t)
	row := regexp.MustCompile("(?m)^\\|(?: `watchdog`)? ?\\|? `(\\w+)` \\| (\\d+)\\.\\.(\\d+) \\| (\\d*)")
	rows := row.FindAllStringSubmatch(text, -1)
	if len(rows) != 13 {
		t.Fatalf("found %d ranges", len(rows))
	}
	unset, err := set("missed", 5)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		key := row[1]
		low, _ := strconv.Atoi(row[2])
		high, _ := strconv.Atoi(row[3])
		for value, right := range map[int]bool{low - 1: false, low: true, high: true, high + 1: false} {
			if _, err := set(key, value); (err == nil) != right {
				t.Errorf("%s = %d: %v", key, value, err)
			}
		}
		if standard, err := strconv.Atoi(row[4]); err == nil {
			c, _ := set(key, standard)
			if diff := cmp.Diff(unset.Clusters, c.Clusters, addrPorts); diff != "" {
				t.Errorf("%s = %d is not the default:\n%s", key, standard, diff)
			}
		}
	}
}

// set parses a fence.conf that sets one key.
func set(key string, value int) (*config.Config, error) {
	cluster, err := os.ReadFile("testdata/cluster.conf")
	if err != nil {
		return nil, err
	}
	const level, test = "\tlevel = any\n\ttimeout_ms = 86400000\n", "\tmethod = test\n"
	settings, node := "cluster:\n\tname = mycluster\n", "fence:\n\tnode = web1\n"
	line := fmt.Sprintf("\t%s = %d\n", key, value)
	switch list := "\tmethod = watchdog\n"; key {
	case "wait":
		node += test + list + line
	case "retries":
		node += test + line + list
	case "backoff_ms":
		node += test + "\tretries = 1\n" + line + list
	case "after_ms":
		node += level + test + test + line + "\tlevel = one\n" + list
	case "delay_ms", "delay_random_ms":
		node += line + test + list
	default:
		settings += line
		node += test + list
	}
	return config.Parse(config.File{Text: string(cluster)}, config.File{Text: settings + node}, methods())
}
