// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"
	"crypto"
	_ "crypto/md5"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"time"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
)

// minPassphrase is the shortest passphrase that RFC 3414, section 11.2, allows.
const minPassphrase = 8

// A protocol is an authentication or privacy protocol of version 3.
type protocol[P any] struct {
	name  string
	value P
	size  int // in bytes: of what the hash makes, or of what the cipher needs
}

// hashes are the authentication protocols (RFC 3414, RFC 7860).
func hashes() []protocol[gosnmp.SnmpV3AuthProtocol] {
	return []protocol[gosnmp.SnmpV3AuthProtocol]{
		{"sha512", gosnmp.SHA512, 64},
		{"sha384", gosnmp.SHA384, 48},
		{"sha256", gosnmp.SHA256, 32},
		{"sha224", gosnmp.SHA224, 28},
		{"sha", gosnmp.SHA, 20},
		{"md5", gosnmp.MD5, 16},
	}
}

// ciphers are the privacy protocols (RFC 3414, RFC 3826). Keys that are longer than the hash have
// to be stretched, which vendors do in two ways; there is none of that here.
func ciphers() []protocol[gosnmp.SnmpV3PrivProtocol] {
	return []protocol[gosnmp.SnmpV3PrivProtocol]{
		{"aes", gosnmp.AES, 16},
		{"aes192", gosnmp.AES192, 24},
		{"aes256", gosnmp.AES256, 32},
		{"des", gosnmp.DES, 16},
	}
}

func names[P any](protocols []protocol[P]) []string {
	var names []string
	for _, p := range protocols {
		names = append(names, p.name)
	}
	return names
}

func find[P any](protocols []protocol[P], name string) protocol[P] {
	for _, p := range protocols {
		if p.name == name {
			return p
		}
	}
	return protocol[P]{}
}

func verifyKeys(auth, priv string) *fencemethods.ParamError {
	if hash, cipher := find(hashes(), auth), find(ciphers(), priv); hash.size < cipher.size {
		return &fencemethods.ParamError{
			Key:  "priv",
			Text: fmt.Sprintf("%s needs a key of %d bytes, and auth = %s makes %d: expected auth = sha256 or more", priv, cipher.size, auth, hash.size),
		}
	}
	return nil
}

// A usm is the user of version 3 and what is known of the engine (RFC 3414).
type usm struct {
	hash       crypto.Hash
	auth, priv []byte // keys that are the same for all engines

	params *gosnmp.UsmSecurityParameters // with the keys for the engine
	plain  gosnmp.GoSNMP                 // decodes what is not signed
	read   time.Time                     // when the engine's clock was
	clock  uint32                        // what it showed, in seconds since the engine started

	understood bool // it has answered something encrypted since the operation began
}

// user reads the passphrases and makes keys of them here, once and for all. Gosnmp would do it when
// it meets the engine, which takes 200,000 allocations, and keep the passphrases for ever.
func (a *Agent) user(v fencemethods.Values) error {
	hash, cipher := find(hashes(), v["auth"]), find(ciphers(), v["priv"])
	u := &usm{hash: hash.value.HashType()}
	a.usm = u
	var err error
	if u.auth, err = readKey(u.hash, v["auth_file"]); err != nil {
		return err
	}
	if u.priv, err = readKey(u.hash, v["priv_file"]); err != nil {
		return err
	}
	u.params = &gosnmp.UsmSecurityParameters{
		UserName:               v["user"],
		AuthenticationProtocol: hash.value, SecretKey: make([]byte, u.hash.Size()),
		PrivacyProtocol: cipher.value, PrivacyKey: make([]byte, cipher.size),
	}
	u.plain = gosnmp.GoSNMP{
		Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel,
		SecurityParameters: &gosnmp.UsmSecurityParameters{},
	}
	a.snmp.SecurityModel, a.snmp.SecurityParameters = gosnmp.UserSecurityModel, u.params
	a.snmp.MsgFlags = gosnmp.AuthPriv | gosnmp.Reportable
	// For its side effect: the salt of the encryption begins at random, so that none comes twice.
	_, err = a.snmp.SnmpEncodePacket(gosnmp.GetRequest, nil, 0, 0)
	return err
}

func readKey(hash crypto.Hash, file string) ([]byte, error) {
	passphrase, err := fencemethods.ReadSecret(file)
	if err != nil {
		return nil, err
	}
	defer passphrase.Wipe()
	if len(passphrase) < minPassphrase {
		return nil, fmt.Errorf("%s: shorter than the %d bytes that SNMP demands", file, minPassphrase)
	}
	return stretch(hash, passphrase), nil
}

// stretch makes a key of a passphrase (RFC 3414, appendix A.2).
func stretch(hash crypto.Hash, passphrase []byte) []byte {
	const total = 1 << 20
	h, at := hash.New(), 0
	var block [64]byte
	for range total / len(block) {
		for i := range block {
			block[i] = passphrase[at]
			at = (at + 1) % len(passphrase)
		}
		h.Write(block[:])
	}
	clear(block[:])
	return h.Sum(nil)
}

// localize makes the key for one engine of it, of which a cipher may need less (RFC 3414, section 2.6).
func localize(hash crypto.Hash, into, key []byte, engine string) {
	h := hash.New()
	h.Write(key)
	h.Write([]byte(engine))
	h.Write(key)
	copy(into, h.Sum(nil))
}

func (u *usm) wipe() {
	clear(u.auth)
	clear(u.priv)
	if u.params != nil {
		clear(u.params.SecretKey)
		clear(u.params.PrivacyKey)
	}
}

// meet takes an engine's name and clock; the keys are made for that name.
func (u *usm) meet(engine string, boots, clock uint32) {
	if engine != u.params.AuthoritativeEngineID {
		u.params.AuthoritativeEngineID = engine
		localize(u.hash, u.params.SecretKey, u.auth, engine)
		localize(u.hash, u.params.PrivacyKey, u.priv, engine)
	}
	u.params.AuthoritativeEngineBoots = boots
	u.clock, u.read = clock, time.Now()
}

// tick brings the engine's clock up to date.
func (u *usm) tick() {
	u.params.AuthoritativeEngineTime = u.clock + uint32(time.Since(u.read)/time.Second)
}

// discover asks an engine for its name and clock, in a message without user or signature.
func (a *Agent) discover(ctx context.Context) *Failure {
	q := question{id: random(), discovery: true}
	probe := gosnmp.SnmpPacket{
		Version: gosnmp.Version3, MsgFlags: gosnmp.Reportable, SecurityModel: gosnmp.UserSecurityModel,
		SecurityParameters: &gosnmp.UsmSecurityParameters{},
		PDUType:            gosnmp.GetRequest, MsgID: q.id, RequestID: q.id,
	}
	var err error
	if q.packet, err = probe.MarshalMsg(); err != nil {
		return failOwn
	}
	answer, f := a.ask(ctx, q)
	if f != nil {
		return f
	}
	theirs := answer.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	a.snmp.ContextEngineID = theirs.AuthoritativeEngineID
	a.usm.meet(theirs.AuthoritativeEngineID, theirs.AuthoritativeEngineBoots, theirs.AuthoritativeEngineTime)
	return nil
}
