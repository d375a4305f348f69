// SPDX-License-Identifier: GPL-2.0-only

package snmp

const serveVar = "O2FENCE_TEST_SERVE_PDU"

func serve(string) {}
