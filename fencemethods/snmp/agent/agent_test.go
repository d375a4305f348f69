// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"crypto"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	testEngine = "\x80\x00\x1f\x88\x80engine"
	testUser   = "fence"
	testSecret = "s3cretSecret"
	testID     = 0x1234567
	testName   = ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.4.3"
)

func newAgent(t testing.TB, version string) *Agent {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(testSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(fencemethods.Values{
		"addr": "127.0.0.1", "port": "9", "version": version, "community_file": file, "retry_ms": "50",
		"user": testUser, "auth": "sha", "auth_file": file, "priv": "aes", "priv_file": file,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if a.usm != nil {
		a.usm.meet(testEngine, 1, 100)
		a.usm.tick()
	}
	return a
}

// asked is the question that messages of these tests answer.
func asked() question {
	return question{
		id: testID, kind: gosnmp.GetRequest, level: gosnmp.AuthPriv,
		vars: []gosnmp.SnmpPDU{{Name: testName, Type: gosnmp.Null}},
	}
}

// answerOf is the right answer to asked, for the test to spoil.
func answerOf(a *Agent) *gosnmp.SnmpPacket {
	m := a.snmp.MkSnmpPacket(gosnmp.GetResponse, []gosnmp.SnmpPDU{{Name: testName, Type: gosnmp.Integer, Value: 2}}, 0, 0)
	m.RequestID, m.MsgID = testID, testID
	m.MsgFlags &^= gosnmp.Reportable
	return m
}

func marshal(t testing.TB, a *Agent, m *gosnmp.SnmpPacket) []byte {
	t.Helper()
	if a.usm != nil {
		if err := a.usm.params.InitPacket(m); err != nil {
			t.Fatal(err)
		}
	}
	p, err := m.MarshalMsg()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func usmOf(m *gosnmp.SnmpPacket) *gosnmp.UsmSecurityParameters {
	return m.SecurityParameters.(*gosnmp.UsmSecurityParameters)
}

func TestOnlyTheAnswerToTheQuestionCounts(t *testing.T) {
	another := []gosnmp.SnmpPDU{{Name: testName + "0", Type: gosnmp.Integer, Value: 2}}
	for _, c := range []struct {
		name    string
		version string // "" is all
		spoil   func(*gosnmp.SnmpPacket)
	}{
		{"another number", "", func(m *gosnmp.SnmpPacket) { m.RequestID, m.MsgID = testID+1, testID+1 }},
		{"request-id 0", "", func(m *gosnmp.SnmpPacket) { m.RequestID = 0 }},
		{"another request-id", "", func(m *gosnmp.SnmpPacket) { m.RequestID++ }},
		{"another msgID", "3", func(m *gosnmp.SnmpPacket) { m.MsgID++ }},
		{"another version", "1", func(m *gosnmp.SnmpPacket) { m.Version = gosnmp.Version2c }},
		{"another version", "2c", func(m *gosnmp.SnmpPacket) { m.Version = gosnmp.Version1 }},
		{"another version", "3", func(m *gosnmp.SnmpPacket) { m.Version = gosnmp.Version2c }},
		{"a question", "", func(m *gosnmp.SnmpPacket) { m.PDUType = gosnmp.GetRequest }},
		{"a trap", "", func(m *gosnmp.SnmpPacket) { m.PDUType = gosnmp.SNMPv2Trap }},
		{"another object", "", func(m *gosnmp.SnmpPacket) { m.Variables = another }},
		{"one object more", "", func(m *gosnmp.SnmpPacket) { m.Variables = append(m.Variables, another...) }},
		{"no object", "", func(m *gosnmp.SnmpPacket) { m.Variables = nil }},
		{"not encrypted", "3", func(m *gosnmp.SnmpPacket) { m.MsgFlags = gosnmp.AuthNoPriv }},
		{"not signed", "3", func(m *gosnmp.SnmpPacket) { m.MsgFlags = gosnmp.NoAuthNoPriv }},
		{"another security model", "3", func(m *gosnmp.SnmpPacket) { m.SecurityModel = 2 }},
		{"another user", "3", func(m *gosnmp.SnmpPacket) { usmOf(m).UserName = "guest" }},
		{"signed with another key", "3", func(m *gosnmp.SnmpPacket) { usmOf(m).SecretKey = make([]byte, 20) }},
		{"encrypted with another key", "3", func(m *gosnmp.SnmpPacket) { usmOf(m).PrivacyKey = make([]byte, 16) }},
	} {
		for _, version := range []string{"1", "2c", "3"} {
			if c.version != "" && c.version != version {
				continue
			}
			a := newAgent(t, version)
			if got, f := a.answer(marshal(t, a, answerOf(a)), asked()); got == nil || f != nil {
				t.Fatalf("version %s: the right answer is refused: %v", version, f)
			}
			m := answerOf(a)
			c.spoil(m)
			if got, _ := a.answer(marshal(t, a, m), asked()); got != nil {
				t.Errorf("version %s, %s: accepted: %v", version, c.name, got.Variables)
			}
		}
	}
}

// Gosnmp looks for the user's key for whatever engine a message names; without a passphrase it takes
// the empty one, with which anybody can sign.
func TestASignatureForAnotherEngineDoesNotCount(t *testing.T) {
	a, q := newAgent(t, "3"), asked()
	a.usm.params.PrivacyProtocol, q.level = gosnmp.DES, gosnmp.AuthNoPriv
	m := answerOf(a)
	m.MsgFlags = gosnmp.AuthNoPriv
	if got, f := a.answer(marshal(t, a, m), q); got == nil || f != nil {
		t.Fatalf("the right answer is refused: %v", f)
	}
	usmOf(m).AuthoritativeEngineID, usmOf(m).SecretKey = testEngine+"2", nil
	if got, _ := a.answer(marshal(t, a, m), q); got != nil {
		t.Errorf("accepted: %v", got.Variables)
	}
}

func TestAReportIsAFailureAndNeverAnAnswer(t *testing.T) {
	for name, want := range map[string]*Failure{
		reportUser: failUser, reportDigest: failDigest, reportDecryption: failDecryption, reportLevel: failLevel,
		reportClock: failClock, reportEngine: failClock, testName: failReport,
	} {
		for _, flags := range []gosnmp.SnmpV3MsgFlags{gosnmp.NoAuthNoPriv, gosnmp.AuthNoPriv} {
			a := newAgent(t, "3")
			m := answerOf(a)
			m.PDUType, m.MsgFlags, m.RequestID = gosnmp.Report, flags, 0
			m.Variables = []gosnmp.SnmpPDU{{Name: name, Type: gosnmp.Counter32, Value: uint32(1)}}
			if _, f := a.answer(marshal(t, a, m), asked()); f != want {
				t.Errorf("%s with flags %v: %v, want %v", name, flags, f, want)
			}
		}
	}
}

// RFC 3414, appendices A.3.1 and A.3.2.
func TestKeysAreThoseOfTheRFC(t *testing.T) {
	engine := "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02"
	for hash, want := range map[crypto.Hash]string{
		crypto.MD5:  "526f5eed9fcce26f8964c2930787d82b",
		crypto.SHA1: "6695febc9288e36282235fc7151f128497b38f3f",
	} {
		key := make([]byte, hash.Size())
		localize(hash, key, stretch(hash, []byte("maplesyrup")), engine)
		if got := hex.EncodeToString(key); got != want {
			t.Errorf("%v: %s, want %s", hash, got, want)
		}
	}
}

func TestSecretsAreWipedWhenTheAgentIsClosed(t *testing.T) {
	for _, version := range []string{"1", "2c", "3"} {
		a := newAgent(t, version)
		kept := [][]byte{a.secret}
		if a.usm != nil {
			kept = [][]byte{a.usm.auth, a.usm.priv, a.usm.params.SecretKey, a.usm.params.PrivacyKey}
		}
		a.Close()
		for i, secret := range kept {
			if len(secret) == 0 || string(secret) != string(make([]byte, len(secret))) {
				t.Errorf("version %s: secret %d is still there", version, i)
			}
		}
		if a.snmp.Community == testSecret {
			t.Errorf("version %s: the community is still there", version)
		}
	}
}
