// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

func TestOffIsProvenByVersion2c(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Start: start(false), Many: 10})
}

func TestOffIsProvenByVersion3(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Start: start(true), Many: 3})
}
