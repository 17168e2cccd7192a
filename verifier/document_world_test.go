package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/path"
)

// An archive is a world of documents: a signer under the signature authority, a time-stamping authority, lists of both. Files
// and tokens are put together octet by octet here: nothing of the product judges itself.
type archive struct {
	*world
	signer leaf
	stamps *authority // issues tsa
	tsa    leaf

	middles int
	last    *authority // that middle made
}

var contract = []byte("The undersigned opens an account.")

func newArchive(t *testing.T) *archive {
	t.Helper()
	w := newWorld(t)
	a := &archive{world: w, signer: w.signCert(t), stamps: newAuthority(t, "stamps", ecKey(elliptic.P256()), t0)}
	a.tsa = a.authorityCert(t, a.stamps)
	return a
}

// authorityCert makes a time-stamping authority's certificate.
func (a *archive) authorityCert(t *testing.T, by *authority, change ...func(*x509.Certificate)) leaf {
	t.Helper()
	return a.issue(t, by, ecKey(elliptic.P256()), func(c *x509.Certificate) {
		c.NotAfter = t0.AddDate(6, 0, 0)
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtraExtensions = []pkix.Extension{{Id: oid("2.5.29.37"), Critical: true, Value: must(asn1.Marshal([]asn1.ObjectIdentifier{oid("1.3.6.1.5.5.7.3.8")}))}}
		for _, f := range change {
			f(c)
		}
	})
}

// list makes a CRL as of a time, current for a day.
func list(t *testing.T, by *authority, at time.Time, entries ...x509.RevocationListEntry) []byte {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(at.Unix()), ThisUpdate: at, NextUpdate: at.Add(24 * time.Hour), RevokedCertificateEntries: entries,
	}, by.cert, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (l leaf) revoked(at time.Time, reason int, extensions ...pkix.Extension) x509.RevocationListEntry {
	return x509.RevocationListEntry{SerialNumber: must(x509.ParseCertificate(l.der)).SerialNumber, RevocationTime: at, ReasonCode: reason, ExtraExtensions: extensions}
}

func invalidSince(at time.Time) pkix.Extension {
	return pkix.Extension{Id: oid("2.5.29.24"), Value: must(asn1.MarshalWithParams(at, "generalized"))}
}

func pool(lists ...[]byte) verifier.RevocationSource {
	var crls []*path.CRL
	for _, der := range lists {
		crls = append(crls, must(path.ParseCRL(der)))
	}
	return verifier.StoredSource("pool", crls, nil)
}

// tlv is one element of DER.
func tlv(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	n := len(content)
	switch {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, content...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, content...)
	case n < 0x10000:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content...)
	}
	return append([]byte{tag, 0x83, byte(n >> 16), byte(n >> 8), byte(n)}, content...)
}

func attribute(id string, values ...[]byte) []byte {
	return tlv(0x30, must(asn1.Marshal(oid(id))), tlv(0x31, values...))
}

// A file describes a CMS file.
type file struct {
	by       leaf
	of       string // content type; data if empty
	content  []byte
	detached bool
	bare     bool   // without a signed reference to the certificate
	sha1     bool   // as the hash function
	noCert   bool   // without the signer's certificate
	policy   string // signature policy
	hashed   []byte // OtherHashAlgAndValue of that policy; of nothing by SHA-256 if empty
	attrs    [][]byte
	stamp    func(value []byte) [][]byte // unsigned attributes
	certs    [][]byte
	crls     [][]byte
	spoil    func(value []byte)
}

func (f file) der(t *testing.T) []byte {
	t.Helper()
	if f.of == "" {
		f.of = "1.2.840.113549.1.7.1"
	}
	hash, hashID := crypto.SHA256, "2.16.840.1.101.3.4.2.1"
	if f.sha1 {
		hash, hashID = crypto.SHA1, "1.3.14.3.2.26"
	}
	digest := func(data []byte) []byte {
		h := hash.New()
		h.Write(data)
		return h.Sum(nil)
	}
	cert := must(x509.ParseCertificate(f.by.der))
	certSum := sha256.Sum256(f.by.der)
	attrs := append(slices.Clone(f.attrs), attribute("1.2.840.113549.1.9.3", must(asn1.Marshal(oid(f.of)))), attribute("1.2.840.113549.1.9.4", tlv(4, digest(f.content))))
	if !f.bare {
		attrs = append(attrs, attribute("1.2.840.113549.1.9.16.2.47", tlv(0x30, tlv(0x30, tlv(0x30, tlv(4, certSum[:]))))))
	}
	if f.policy != "" {
		if f.hashed == nil {
			f.hashed = tlv(0x30, tlv(0x30, must(asn1.Marshal(oid(hashID)))), tlv(4, digest(nil)))
		}
		attrs = append(attrs, attribute("1.2.840.113549.1.9.16.2.15", tlv(0x30, must(asn1.Marshal(oid(f.policy))), f.hashed)))
	}
	slices.SortFunc(attrs, bytes.Compare)
	value := must(f.by.key.Sign(rand.Reader, digest(tlv(0x31, attrs...)), hash))
	if f.spoil != nil {
		f.spoil(value)
	}
	algID := tlv(0x30, must(asn1.Marshal(oid("1.2.840.113549.1.1.1"))), []byte{5, 0})
	if cert.PublicKeyAlgorithm == x509.ECDSA {
		algID = tlv(0x30, must(asn1.Marshal(oid("1.2.840.10045.4.3.2"))))
	}
	var unsigned, content, crls []byte
	if f.stamp != nil {
		unsigned = tlv(0xa1, f.stamp(value)...)
	}
	if !f.detached {
		content = tlv(0xa0, tlv(4, f.content))
	}
	if f.crls != nil {
		crls = tlv(0xa1, f.crls...)
	}
	certs := slices.Clone(f.certs)
	if !f.noCert {
		certs = append(certs, f.by.der)
	}
	info := tlv(0x30, []byte{2, 1, 1}, tlv(0x30, cert.RawIssuer, must(asn1.Marshal(cert.SerialNumber))), tlv(0x30, must(asn1.Marshal(oid(hashID)))),
		tlv(0xa0, attrs...), algID, tlv(4, value), unsigned)
	return tlv(0x30, must(asn1.Marshal(oid("1.2.840.113549.1.7.2"))), tlv(0xa0, tlv(0x30, []byte{2, 1, 3}, tlv(0x31, tlv(0x30, must(asn1.Marshal(oid(hashID))))),
		tlv(0x30, must(asn1.Marshal(oid(f.of))), content), tlv(0xa0, certs...), crls, tlv(0x31, info))))
}

// token makes a time-stamp token over data.
func token(t *testing.T, by leaf, at time.Time, data []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(data)
	info := tlv(0x30, []byte{2, 1, 1}, must(asn1.Marshal(oid("2.999.3"))),
		tlv(0x30, tlv(0x30, must(asn1.Marshal(oid("2.16.840.1.101.3.4.2.1")))), tlv(4, sum[:])), []byte{2, 1, 7}, tlv(0x18, []byte(at.UTC().Format("20060102150405Z"))))
	return file{by: by, of: "1.2.840.113549.1.9.16.1.4", content: info}.der(t)
}

// stamped adds a signature time-stamp.
func stamped(t *testing.T, by leaf, at time.Time) func([]byte) [][]byte {
	return func(value []byte) [][]byte {
		return [][]byte{attribute("1.2.840.113549.1.9.16.2.14", token(t, by, at, value))}
	}
}

// contentStamp is a signed attribute: the content was there at a time, and so the signature was not.
func contentStamp(t *testing.T, by leaf, at time.Time) [][]byte {
	t.Helper()
	return [][]byte{attribute("1.2.840.113549.1.9.16.2.20", token(t, by, at, contract))}
}

// documents returns a verifier of documents for the sandbox's signature policy, or as changed.
func (a *archive) documents(t *testing.T, change ...func(*verifier.DocumentConfig)) *verifier.Verifier {
	t.Helper()
	cfg := &verifier.DocumentConfig{
		Policy: must(verifier.FindDocumentPolicy("sandbox-signature-2026")), Anchors: []*x509.Certificate{a.sign[0].cert, a.sign[1].cert, a.auth[1].cert},
		TimeStampAnchors: []*x509.Certificate{a.stamps.cert},
	}
	for _, c := range change {
		c(cfg)
	}
	v, err := verifier.New(verifier.Config{Documents: cfg, Now: func() time.Time { return a.now }, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// brings is a Detached that has one thing under every name.
func brings(data []byte) func(string) io.Reader {
	return func(string) io.Reader { return bytes.NewReader(data) }
}

var _ = sha1.New // crypto.SHA1 must be available

// middle returns an authority between the signature authority and a signer, under which there may be no other.
func (a *archive) middle(t *testing.T) *authority { return a.middleOf(t, a.sign[1]) }

func (a *archive) middleOf(t *testing.T, by *authority) *authority {
	t.Helper()
	key := ecKey(elliptic.P256())
	l := a.issue(t, by, key, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "between"}
		c.Subject.SerialNumber = string(rune('A' + a.middles))
		c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero, c.KeyUsage = true, true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.ExtraExtensions = []pkix.Extension{policiesExtension(cardSign)}
	})
	a.middles++
	a.last = &authority{key, must(x509.ParseCertificate(l.der))}
	return a.last
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
