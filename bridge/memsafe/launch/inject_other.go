// SPDX-License-Identifier: GPL-2.0-only

//go:build !amd64

package launch

import "errors"

// lockStopped is written for x86-64 only.
func lockStopped(int) error { return errors.ErrUnsupported }
