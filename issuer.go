package jpki

import (
	"fmt"
	"strconv"
	"strings"
)

// A CA is one of the two certification authorities.
type CA string

// The two authorities: each has one distinguished name and, over time, several keys.
const (
	SignCA CA = "sign" // 署名用認証局: issues signature certificates
	AuthCA CA = "auth" // 利用者証明用認証局: issues authentication certificates
)

// CAs lists both authorities in the order in which tables show them.
var CAs = []CA{SignCA, AuthCA}

// An IssuerID names one key of one authority: a generation. All generations of a CA share its name, so an
// issuer is never looked up by distinguished name, only by key identifier and signature. It is comparable.
type IssuerID struct {
	CA         CA
	Generation int // 1, 2, …
}

// ParseIssuerID reads the form that String writes, as in "sign-1".
func ParseIssuerID(s string) (IssuerID, error) {
	ca, gen, ok := strings.Cut(s, "-")
	n, err := strconv.Atoi(gen)
	id := IssuerID{CA(ca), n}
	if !ok || err != nil || n < 1 || (id.CA != SignCA && id.CA != AuthCA) || id.String() != s {
		return IssuerID{}, fmt.Errorf("issuer %q is not of the form sign-1 or auth-1", clip(s))
	}
	return id, nil
}

// String returns "sign-1", "auth-2" and so on.
func (i IssuerID) String() string { return string(i.CA) + "-" + strconv.Itoa(i.Generation) }

// MarshalText is String, for JSON.
func (i IssuerID) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText is [ParseIssuerID], for JSON.
func (i *IssuerID) UnmarshalText(b []byte) (err error) {
	*i, err = ParseIssuerID(string(b))
	return err
}

// A CertID names one certificate: who issued it and under which number (発行の番号). It is comparable.
type CertID struct {
	Issuer IssuerID
	Serial Serial
}

// ParseCertID reads the form that String writes, as in "sign-1/52A0…".
func ParseCertID(s string) (CertID, error) {
	iss, ser, ok := strings.Cut(s, "/")
	if !ok {
		return CertID{}, fmt.Errorf("certificate %q is not of the form issuer/serial", clip(s))
	}
	issuer, err := ParseIssuerID(iss)
	if err != nil {
		return CertID{}, err
	}
	serial, err := ParseSerial(ser)
	if err != nil {
		return CertID{}, err
	}
	return CertID{issuer, serial}, nil
}

// String returns issuer and serial joined by a slash.
func (c CertID) String() string { return c.Issuer.String() + "/" + c.Serial.String() }

// MarshalText is String, for JSON.
func (c CertID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is [ParseCertID], for JSON.
func (c *CertID) UnmarshalText(b []byte) (err error) { *c, err = ParseCertID(string(b)); return err }

// A KeyID is the SHA-1 of a subjectPublicKey bit string (RFC 5280 §4.2.1.2 method 1): what subjectKeyIdentifier,
// authorityKeyIdentifier and a SHA-1 OCSP issuerKeyHash hold.
type KeyID [20]byte

// clip bounds foreign text before it goes into an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
