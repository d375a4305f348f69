// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"testing"

	"github.com/gosnmp/gosnmp"
)

func FuzzNumber(f *testing.F) {
	for _, version := range []string{"1", "2c", "3"} {
		a := newAgent(f, version)
		f.Add(marshal(f, a, answerOf(a)))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, version := range []byte{0, 1, version3} {
			if id, ok := number(p, version); ok && id > 1<<31-1 {
				t.Errorf("%x has the number %d", p, id)
			}
		}
	})
}

// FuzzAnswer looks for a message without a signature that is taken for the answer to a question
// that it does not answer.
func FuzzAnswer(f *testing.F) {
	agents := []*Agent{newAgent(f, "1"), newAgent(f, "2c")}
	for _, a := range agents {
		f.Add(marshal(f, a, answerOf(a)))
		failed := answerOf(a)
		failed.Error, failed.ErrorIndex = gosnmp.NoSuchName, 1
		f.Add(marshal(f, a, failed))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, a := range agents {
			m, _ := a.answer(p, asked())
			if m == nil {
				continue
			}
			if m.RequestID != testID || m.PDUType != gosnmp.GetResponse {
				t.Errorf("%x is taken for an answer", p)
			}
			if m.Error == gosnmp.NoError && (len(m.Variables) != 1 || m.Variables[0].Name != testName) {
				t.Errorf("%x is taken for an answer about %v", p, m.Variables)
			}
		}
	})
}

// FuzzSigned looks for a message that is taken without the key that signs it.
func FuzzSigned(f *testing.F) {
	a := newAgent(f, "3")
	for _, flags := range []gosnmp.SnmpV3MsgFlags{gosnmp.NoAuthNoPriv, gosnmp.AuthNoPriv, gosnmp.AuthPriv} {
		m := answerOf(a)
		m.MsgFlags = flags
		f.Add(marshal(f, a, m))
		m.PDUType = gosnmp.Report
		f.Add(marshal(f, a, m))
	}
	a.usm.params.SecretKey[0] ^= 1
	discovery := question{id: testID, discovery: true}
	f.Fuzz(func(t *testing.T, p []byte) {
		if m, _ := a.answer(p, asked()); m != nil && m.PDUType != gosnmp.Report {
			t.Errorf("%x: accepted", p)
		}
		if m, _ := a.answer(p, discovery); m != nil && m.PDUType != gosnmp.Report {
			t.Errorf("%x: an engine that is not discovered by a report", p)
		}
	})
}
