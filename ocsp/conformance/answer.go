package conformance

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6960 §4.2.1 fixes SHA-1 for the responder's key hash
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// An answer is an OCSPResponse as encoding/asn1 reads it.
type answer struct {
	status     string
	byName     []byte // exactly one of the two, if successful
	byKey      []byte
	producedAt time.Time
	singles    []single
	nonce      []byte // the contents of the OCTET STRING in the extension, nil if there is none
	algorithm  x509.SignatureAlgorithm
	signed     []byte
	signature  []byte
	certs      []*x509.Certificate
}

// A single is what an answer says of one certificate.
type single struct {
	hash       asn1.ObjectIdentifier
	name, key  []byte
	serial     *big.Int
	says       string // good, revoked or unknown
	reason     int
	revokedAt  time.Time
	thisUpdate time.Time
	nextUpdate time.Time // zero if absent
}

// statusNames are those of RFC 6960 §4.2.1; 4 is not used.
var statusNames = map[asn1.Enumerated]string{0: "successful", 1: "malformedRequest", 2: "internalError", 3: "tryLater", 5: "sigRequired", 6: "unauthorized"}

type (
	responseASN1 struct {
		Status asn1.Enumerated
		Bytes  bytesASN1 `asn1:"explicit,tag:0,optional"`
	}
	bytesASN1 struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	basicASN1 struct {
		Data      dataASN1
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
		Certs     []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	dataASN1 struct {
		Raw        asn1.RawContent
		Version    int `asn1:"explicit,tag:0,default:0,optional"`
		Responder  asn1.RawValue
		ProducedAt time.Time `asn1:"generalized"`
		Singles    []singleASN1
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	singleASN1 struct {
		CertID     certIDASN1
		Good       asn1.Flag        `asn1:"tag:0,optional"`
		Revoked    revokedASN1      `asn1:"tag:1,optional"`
		Unknown    asn1.Flag        `asn1:"tag:2,optional"`
		ThisUpdate time.Time        `asn1:"generalized"`
		NextUpdate time.Time        `asn1:"generalized,explicit,tag:0,optional"`
		Extensions []pkix.Extension `asn1:"explicit,tag:1,optional"`
	}
	certIDASN1 struct {
		Hash      pkix.AlgorithmIdentifier
		Name, Key []byte
		Serial    *big.Int
	}
	revokedASN1 struct {
		At     time.Time       `asn1:"generalized"`
		Reason asn1.Enumerated `asn1:"explicit,tag:0,optional"`
	}
)

var (
	oidBasic    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
	oidNonce    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
	oidNoCheck  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}
	oidSHA1RSA  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	maxAnswer   = 4 << 20
	maxEmbedded = 16
)

// signatureAlgorithms are those that can be checked. SHA-1 is among them only to be told apart from a bad signature.
var signatureAlgorithms = []struct {
	oid       asn1.ObjectIdentifier
	algorithm x509.SignatureAlgorithm
}{
	{oidSHA1RSA, x509.SHA1WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.SHA384WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.SHA512WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, x509.ECDSAWithSHA1},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, x509.ECDSAWithSHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSAWithSHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSAWithSHA512},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, x509.PureEd25519},
}

// readAnswer reads an OCSPResponse.
func readAnswer(der []byte) (*answer, error) {
	if len(der) > maxAnswer {
		return nil, fmt.Errorf("response is longer than %d octets", maxAnswer)
	}
	var r responseASN1
	if rest, err := asn1.Unmarshal(der, &r); err != nil {
		return nil, fmt.Errorf("not an OCSPResponse: %w", err)
	} else if len(rest) > 0 {
		return nil, errors.New("octets behind the OCSPResponse")
	}
	a := &answer{status: statusNames[r.Status]}
	switch {
	case a.status == "":
		return nil, fmt.Errorf("response status %d does not exist", r.Status)
	case a.status != "successful":
		return a, nil
	case !r.Bytes.Type.Equal(oidBasic):
		return nil, errors.New("response type is not id-pkix-ocsp-basic")
	}
	var basic basicASN1
	if rest, err := asn1.Unmarshal(r.Bytes.Response, &basic); err != nil {
		return nil, fmt.Errorf("not a BasicOCSPResponse: %w", err)
	} else if len(rest) > 0 {
		return nil, errors.New("octets behind the BasicOCSPResponse")
	}
	a.producedAt, a.signed, a.signature = basic.Data.ProducedAt, basic.Data.Raw, basic.Signature.RightAlign()
	for _, s := range signatureAlgorithms {
		if s.oid.Equal(basic.Algorithm.Algorithm) {
			a.algorithm = s.algorithm
		}
	}
	if err := a.readResponder(basic.Data.Responder); err != nil {
		return nil, err
	}
	if len(basic.Certs) > maxEmbedded {
		return nil, errors.New("too many certificates")
	}
	for _, raw := range basic.Certs {
		c, err := x509.ParseCertificate(raw.FullBytes)
		if err != nil {
			return nil, fmt.Errorf("embedded certificate: %w", err)
		}
		a.certs = append(a.certs, c)
	}
	for _, e := range basic.Data.Extensions {
		if e.Id.Equal(oidNonce) {
			if rest, err := asn1.Unmarshal(e.Value, &a.nonce); err != nil || len(rest) > 0 {
				return nil, errors.New("nonce is not an OCTET STRING in the extension's (RFC 9654 §2.1)")
			}
		}
	}
	if len(basic.Data.Singles) == 0 {
		return nil, errors.New("successful without an answer")
	}
	for _, s := range basic.Data.Singles {
		one, err := s.read()
		if err != nil {
			return nil, err
		}
		a.singles = append(a.singles, one)
	}
	return a, nil
}

// readResponder reads the CHOICE of name and key hash, both tagged explicitly.
func (a *answer) readResponder(v asn1.RawValue) error {
	if v.Class != asn1.ClassContextSpecific || !v.IsCompound {
		return errors.New("responder ID is neither by name nor by key")
	}
	switch v.Tag {
	case 1:
		a.byName = v.Bytes
		return nil
	case 2:
		if rest, err := asn1.Unmarshal(v.Bytes, &a.byKey); err != nil || len(rest) > 0 || len(a.byKey) != sha1.Size {
			return errors.New("responder's key hash is not of 20 octets")
		}
		return nil
	}
	return errors.New("responder ID is neither by name nor by key")
}

func (s singleASN1) read() (single, error) {
	out := single{
		hash: s.CertID.Hash.Algorithm, name: s.CertID.Name, key: s.CertID.Key, serial: s.CertID.Serial,
		reason: int(s.Revoked.Reason), revokedAt: s.Revoked.At, thisUpdate: s.ThisUpdate, nextUpdate: s.NextUpdate,
	}
	n := 0
	for says, is := range map[string]bool{"good": bool(s.Good), "revoked": !s.Revoked.At.IsZero(), "unknown": bool(s.Unknown)} {
		if is {
			out.says = says
			n++
		}
	}
	if n != 1 {
		return out, errors.New("an answer is not exactly one of good, revoked and unknown")
	}
	return out, nil
}

// names reports whether the responder ID is that of a certificate.
func (a *answer) names(c *x509.Certificate) bool {
	if a.byName != nil {
		return bytes.Equal(a.byName, c.RawSubject)
	}
	key, err := keyBits(c)
	sum := sha1.Sum(key) //nolint:gosec // see the import
	return err == nil && bytes.Equal(sum[:], a.byKey)
}

// signer returns the certificate whose key signed the answer: the issuer's or an embedded one.
func (a *answer) signer(issuer *x509.Certificate) (*x509.Certificate, error) {
	if a.algorithm == x509.UnknownSignatureAlgorithm {
		return nil, errors.New("signature algorithm is not known")
	}
	candidates := append([]*x509.Certificate{issuer}, a.certs...)
	i := slices.IndexFunc(candidates, a.names)
	if i < 0 {
		return nil, errors.New("no certificate is that of the responder ID")
	}
	for _, c := range candidates[i:] {
		if a.names(c) && c.CheckSignature(a.algorithm, a.signed, a.signature) == nil {
			return c, nil
		}
	}
	return nil, errors.New("the signature does not verify")
}
