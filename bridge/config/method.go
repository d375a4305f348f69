// SPDX-License-Identifier: GPL-2.0-only

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// The methods of the kernel module o2fence_methods (R13, R14).
const (
	Watchdog = "watchdog" // the node has reset itself by then
	Manual   = "manual"   // an administrator vouches for it
)

// Limits of one step on the wire (o2fence.h).
const (
	maxSteps   = 8
	maxMembers = 8        // of a level
	maxParams  = 1024     // bytes
	maxTimeout = 86400000 // ms, a day
)

// A Schema is what fence.conf may say of each method, by the method's name. The methods of the
// kernel, Watchdog and Manual, are known without it.
type Schema map[string]Method

// A Method is what the configuration must know of a method to check its parameters.
type Method struct {
	Params []Param
	Kernel bool // it runs in the kernel, so that a list may end with it

	// TimeoutMS is the time of one attempt when fence.conf does not say, in ms; 0 is the
	// timeout_ms of the cluster.
	TimeoutMS uint32

	// Check looks at parameters that passed one by one; nil has no objections. Its error may be a
	// *KeyError, to point at one of the lines.
	Check func(values map[string]string) error

	// Suits is Check with the settings of the node's cluster; nil has no objections.
	Suits func(c *Cluster, values map[string]string) error

	// Instead is the method that somebody means who gives this one its parameters; "" is none.
	Instead string

	// Order looks at a node's methods up to this one, which is the last of them, without those of its
	// own level; nil has no objections.
	Order func(steps []Step) error

	// Blind says that its device cannot be read: it waits for something. So it cannot be of those that
	// have all to be read as off in the end.
	Blind bool
}

// A Param is one parameter of a method.
type Param struct {
	Name     string
	Required bool
	Validate func(value string) error // its error says what was expected; nil takes anything

	// Secret says that the value names a file that holds a secret. It must be there, and for its
	// owner only; it is not read here.
	Secret bool

	// Identity says that the value, with those of the method's other Identity parameters, names the
	// one machine that is switched off. Two nodes of a cluster with the same would be a copied
	// line that is to cost the wrong node its life, so it is refused.
	Identity bool
	Default  string // what an absent one means; "" is none
	List     bool   // of several values, separated by commas, each names a machine

	// Private says that the value is not shown.
	Private bool
}

// A KeyError is a Check's error about one parameter.
type KeyError struct {
	Key string
	Err error
}

// Error returns "key: text".
func (e *KeyError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }

// Unwrap returns the text's error.
func (e *KeyError) Unwrap() error { return e.Err }

// withKernel returns the schema with the methods of the kernel in it.
func (s Schema) withKernel() Schema {
	all := Schema{}
	maps.Copy(all, s)
	all[Watchdog] = Method{
		Kernel: true,
		Params: []Param{
			{Name: "wait", Validate: between(1, maxTimeout-1)},
		},
		TimeoutMS: maxTimeout,
	}
	all[Manual] = Method{Kernel: true, TimeoutMS: maxTimeout, Instead: "ask"}
	return all
}

func (s Schema) names() []string { return slices.Sorted(maps.Keys(s)) }

func between(low, high uint32) func(string) error {
	return func(value string) error {
		_, err := span{low: low, high: high}.parse(value)
		return err
	}
}

// keys are what may be set of a method within a fence stanza. The watchdog has no timeout: it ends
// when the node must have ended itself, and a shorter time would only make it fail. Nor have the
// members of a level, which has one for all.
func (m Method) keys(name string, rule Rule) []string {
	var keys []string
	if name != Watchdog && rule == NoLevel {
		keys = append(keys, "timeout_ms")
	}
	if !m.Kernel {
		keys = append(keys, "retries", "backoff_ms")
	}
	if rule == Any {
		keys = append(keys, "after_ms")
	}
	for _, p := range m.Params {
		keys = append(keys, p.Name)
	}
	return keys
}

// timeout returns the time of an attempt when it is not set.
func (m Method) timeout(standard uint32) uint32 {
	if m.TimeoutMS != 0 {
		return m.TimeoutMS
	}
	return standard
}

func (p Param) check(value string) error {
	switch {
	case p.Secret:
		return checkSecret(value)
	case p.Validate != nil:
		return p.Validate(value)
	}
	return nil
}

// checkSecret never shows what it was given unless it is a path: people put the secret itself there.
func checkSecret(name string) error {
	if !filepath.IsAbs(name) {
		return errors.New("expected the absolute path of a file that holds the secret, not the secret")
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: expected a regular file: %w", name, fs.ErrInvalid)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o: expected 0600, for its owner only: %w", name, mode, fs.ErrPermission)
	}
	return nil
}

// digest returns the parameters as the kernel keeps them.
func digest(values map[string]string) []byte {
	var lines []byte
	for _, key := range slices.Sorted(maps.Keys(values)) {
		lines = append(lines, key+"="+values[key]+"\n"...)
	}
	return lines
}
