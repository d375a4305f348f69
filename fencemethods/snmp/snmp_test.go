// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

func TestOffIsProvenByVersion1(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Start: start("apc-rpdu", byCommunity("1")), Many: 3})
}

func TestOffIsProvenByVersion2c(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Start: start("apc-rpdu", byCommunity("2c")), Many: 20})
}

// Of all models this one is told apart by the least: off is 0, on is 1.
func TestOffIsProvenOfAnEaton(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{Method: Method(), Start: start("eaton-managed", byCommunity("2c")), Many: 3})
}

func TestOffIsProvenByVersion3(t *testing.T) {
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Start: start("apc-rpdu", byUser("sha", "SHA", "aes", "AES")), Many: 20,
	})
}
