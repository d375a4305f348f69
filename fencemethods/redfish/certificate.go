// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// maxPEM is the longest file of CA certificates in bytes.
const maxPEM = 1 << 20

func validCertificate(s string) error {
	if filepath.IsAbs(s) {
		return nil
	}
	if _, err := fingerprint(s); err != nil {
		return fmt.Errorf("%q is neither a SHA-256 fingerprint, 64 hexadecimal digits with or without colons, nor an absolute path", s)
	}
	return nil
}

func validName(s string) error {
	if s == "" || len(s) > 253 || strings.ContainsAny(s, " \t/:@") {
		return fmt.Errorf("%q is not a host name", s)
	}
	return nil
}

// fingerprint takes what openssl and browsers print: with colons or without, in either case.
func fingerprint(s string) (sum [sha256.Size]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err == nil && len(b) != len(sum) {
		err = errors.New("wrong length")
	}
	copy(sum[:], b)
	return sum, err
}

// An otherCertificate is a BMC that shows another certificate than the one that is pinned.
type otherCertificate [sha256.Size]byte

// Error names it, so that an administrator can compare.
func (c otherCertificate) Error() string { return hex.EncodeToString(c[:]) }

// tlsConfig returns how to recognize the BMC: by its one certificate or by the CA's.
func tlsConfig(certificate, name string, addr netip.Addr) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: addr.String()}
	if filepath.IsAbs(certificate) {
		roots, err := readCA(certificate)
		if err != nil {
			return nil, err
		}
		config.RootCAs = roots
		if name != "" {
			config.ServerName = name
		}
		return config, nil
	}
	pin, err := fingerprint(certificate)
	if err != nil {
		return nil, err
	}
	// VerifyConnection takes the place of what is skipped: it is called for each connection, and
	// TLS has by then proven that the other end has the certificate's key.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		if sum := sha256.Sum256(state.PeerCertificates[0].Raw); sum != pin {
			return otherCertificate(sum)
		}
		return nil
	}
	return config, nil
}

func readCA(name string) (*x509.CertPool, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", name, maxPEM)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: holds no certificate in PEM form", name)
	}
	return roots, nil
}
