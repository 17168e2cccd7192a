package verifier

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// MaxCertificateBytes is the size beyond which nothing is read as a certificate; those in use have less than 2 KiB.
const MaxCertificateBytes = 16 << 10

var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidPolicies         = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}

	// understood lists the extensions that are acted upon here. crypto/x509 knows more, but knowing is not acting.
	understood = []asn1.ObjectIdentifier{oidKeyUsage, oidSubjectAltName, oidBasicConstraints, oidPolicies, oidExtKeyUsage}
)

// errCritical reports a critical extension outside understood.
var errCritical = errors.New("critical extension that is not understood")

// ParseCertificate reads one certificate: DER of at most [MaxCertificateBytes], version 3, with a serial number as
// RFC 5280 §4.1.2.2 wants it, no extension twice, and none critical that this package does not act upon.
func ParseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertificateBytes {
		return nil, fmt.Errorf("parse certificate: longer than %d octets", MaxCertificateBytes)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.New("parse certificate: not a certificate in DER") // the cause may quote contents
	}
	if cert.Version != 3 {
		return nil, fmt.Errorf("parse certificate: version %d", cert.Version)
	}
	if _, err := jpki.SerialFromBig(cert.SerialNumber); err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	var seen []asn1.ObjectIdentifier
	for _, e := range cert.Extensions {
		if slices.ContainsFunc(seen, e.Id.Equal) {
			return nil, fmt.Errorf("parse certificate: extension %s occurs twice", e.Id)
		}
		seen = append(seen, e.Id)
	}
	for _, e := range cert.Extensions {
		if e.Critical && !slices.ContainsFunc(understood, e.Id.Equal) {
			return nil, fmt.Errorf("parse certificate: %w: %s", errCritical, e.Id)
		}
	}
	return cert, nil
}

func extension(cert *x509.Certificate, oid asn1.ObjectIdentifier) ([]byte, bool) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, true
		}
	}
	return nil, false
}

// anchors finds the generation that issued a certificate. All generations of an authority share one name, so the name is
// never enough: the key identifier selects, the signature decides.
type anchors []*x509.Certificate

// maxAnchors bounds how many signatures one certificate can make us check.
const maxAnchors = 64

func newAnchors(certs []*x509.Certificate) (anchors, error) {
	if len(certs) == 0 || len(certs) > maxAnchors {
		return nil, fmt.Errorf("anchors: %d given, 1 to %d wanted", len(certs), maxAnchors)
	}
	var out anchors
	for i, c := range certs {
		switch {
		case c == nil:
			return nil, fmt.Errorf("anchor %d is nil", i)
		case !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0:
			return nil, fmt.Errorf("anchor %d (%s) is not a certification authority", i, c.Subject)
		case len(c.SubjectKeyId) == 0:
			return nil, fmt.Errorf("anchor %d (%s) has no subject key identifier", i, c.Subject)
		case len(c.UnhandledCriticalExtensions) > 0:
			return nil, fmt.Errorf("anchor %d (%s): %w", i, c.Subject, errCritical)
		case !bytes.Equal(c.RawSubject, c.RawIssuer):
			return nil, fmt.Errorf("anchor %d (%s) is not self-signed", i, c.Subject)
		}
		if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
			return nil, fmt.Errorf("anchor %d (%s) is not self-signed: %w", i, c.Subject, err)
		}
		if !slices.ContainsFunc(out, c.Equal) {
			out = append(out, c)
		}
	}
	return out, nil
}

var (
	errNoAnchor  = errors.New("no trust anchor has this authority key identifier and name")
	errForged    = errors.New("the trust anchor it names did not sign it")
	errAlgorithm = errors.New("certificate is signed with an algorithm that is not admitted")
)

// issuerOf returns the anchor whose key signed cert. The algorithms admitted are those of d at a time.
func (a anchors) issuerOf(cert *x509.Certificate, d *demand, at time.Time) (*x509.Certificate, error) {
	alg, unknown := primitive.CertificateAlgorithm(cert.Raw)
	err := errNoAnchor
	for _, c := range a {
		if len(cert.AuthorityKeyId) == 0 || !bytes.Equal(cert.AuthorityKeyId, c.SubjectKeyId) || !bytes.Equal(cert.RawIssuer, c.RawSubject) {
			continue
		}
		key, weak := keyOf(c)
		if weak == nil {
			weak = unknown
		}
		if weak == nil {
			weak = d.admits(key, alg, at)
		}
		if weak != nil {
			return nil, fmt.Errorf("%w: %w", errAlgorithm, weak)
		}
		if primitive.VerifyMessage(key, alg, cert.RawTBSCertificate, cert.Signature) == nil {
			return c, nil
		}
		err = errForged
	}
	return nil, err
}

// describe fills what can be said of a certificate before anything is established.
func describe(cert *x509.Certificate) *Signer {
	sum := sha256.Sum256(cert.Raw)
	serial, _ := jpki.SerialFromBig(cert.SerialNumber) // ParseCertificate checked it
	return &Signer{
		IssuerKeyID: hex.EncodeToString(cert.AuthorityKeyId), Serial: serial,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, SHA256: hex.EncodeToString(sum[:]),
	}
}

// readOIDs reads the value of extKeyUsage in dotted form.
func readOIDs(value []byte) ([]string, bool) {
	var oids []asn1.ObjectIdentifier
	rest, err := asn1.Unmarshal(value, &oids)
	out := make([]string, len(oids))
	for i, oid := range oids {
		out[i] = oid.String()
	}
	return out, err == nil && len(rest) == 0
}
