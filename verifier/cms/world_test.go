package cms_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

var (
	noon    = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)
	text    = []byte("I open an account.")
	rsaID   = newIdentity(mustRSA())
	rsaID2  = newIdentity(mustRSA())
	ecID    = newIdentity(mustEC(elliptic.P256()))
	ec384ID = newIdentity(mustEC(elliptic.P384()))
	edID    = newIdentity(mustEd())
)

func mustRSA() crypto.Signer { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k }
func mustEC(c elliptic.Curve) crypto.Signer {
	k, _ := ecdsa.GenerateKey(c, rand.Reader)
	return k
}
func mustEd() crypto.Signer { _, k, _ := ed25519.GenerateKey(rand.Reader); return k }

// An identity is a key with a self-signed certificate. All have the same name and serial number, so that only keys and
// references tell them apart.
type identity struct {
	key  crypto.Signer
	der  []byte
	cert *x509.Certificate
}

func newIdentity(key crypto.Signer) *identity {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "signer"}, NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	}
	id, _ := x509.MarshalPKIXPublicKey(key.Public())
	sum := sha256.Sum256(id)
	template.SubjectKeyId = sum[:20]
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &identity{key, der, cert}
}

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidTST        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
	oidType       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
	oidDigest     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
	oidTime       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 5}
	oidCounter    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 6}
	oidProtection = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 52}
	oidCertV1     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 12}
	oidCertV2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 47}
	oidSigStamp   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 14}
)

// tlv makes an element.
func tlv(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	out := []byte{tag}
	switch n := len(content); {
	case n < 0x80:
		out = append(out, byte(n))
	case n < 0x100:
		out = append(out, 0x81, byte(n))
	case n < 0x10000:
		out = append(out, 0x82, byte(n>>8), byte(n))
	default:
		out = append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, content...)
}

func oid(o asn1.ObjectIdentifier) []byte { b, _ := asn1.Marshal(o); return b }

func attribute(o asn1.ObjectIdentifier, values ...[]byte) []byte {
	return tlv(0x30, oid(o), tlv(0x31, values...))
}

func hashID(h crypto.Hash) []byte { b, _ := primitive.HashIdentifier(h); return b }

// A made is a CMS file made field by field, so that each can be wrong.
type made struct {
	by          *identity
	alg         primitive.Algorithm
	algID       []byte // if not alg's
	digestID    []byte // if not alg's
	contentType asn1.ObjectIdentifier
	content     []byte
	detached    bool
	octets      []byte // what stands for content in the file, if not an OCTET STRING of it
	attrs       [][]byte
	bare        bool // no signed attributes
	unsorted    bool // signed as they stand
	unsigned    func(value []byte) [][]byte
	certs       [][]byte
	crls        []byte
	byKeyID     bool
	value       func([]byte) []byte
	more        [][]byte // further SignerInfos
}

func newMade(by *identity) *made {
	alg := primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}
	switch by.key.(type) {
	case *ecdsa.PrivateKey:
		alg.Scheme = primitive.ECDSA
	case ed25519.PrivateKey:
		alg = primitive.Algorithm{Scheme: primitive.Ed25519}
	}
	m := &made{by: by, alg: alg, contentType: oidData, content: text, certs: [][]byte{by.der}}
	m.attrs = [][]byte{m.typeAttr(), m.digestAttr()}
	return m
}

func (m *made) hash() crypto.Hash {
	if m.alg.Hash == 0 {
		return crypto.SHA512
	}
	return m.alg.Hash
}

func (m *made) typeAttr() []byte { return attribute(oidType, oid(m.contentType)) }
func (m *made) digestAttr() []byte {
	return attribute(oidDigest, tlv(4, primitive.Digest(m.hash(), m.content)))
}

func (m *made) signerInfo(t testing.TB) []byte {
	t.Helper()
	input := m.content
	var attrs []byte
	if !m.bare {
		sorted := slices.Clone(m.attrs)
		slices.SortFunc(sorted, bytes.Compare)
		if m.unsorted {
			sorted = m.attrs
		}
		input, attrs = tlv(0x31, sorted...), tlv(0xa0, m.attrs...)
	}
	if m.alg.Scheme != primitive.Ed25519 {
		input = primitive.Digest(m.alg.Hash, input)
	}
	value, err := m.by.key.Sign(rand.Reader, input, m.alg.SignerOpts())
	if err != nil {
		t.Fatal(err)
	}
	if m.value != nil {
		value = m.value(value)
	}
	algID, digestID := m.algID, m.digestID
	if algID == nil {
		algID, _ = m.alg.Identifier()
	}
	if digestID == nil {
		digestID = hashID(m.hash())
	}
	serial, _ := asn1.Marshal(m.by.cert.SerialNumber)
	sid := tlv(0x30, m.by.cert.RawIssuer, serial)
	version := byte(1)
	if m.byKeyID {
		sid, version = tlv(0x80, m.by.cert.SubjectKeyId), 3
	}
	var unsigned []byte
	if m.unsigned != nil {
		unsigned = tlv(0xa1, m.unsigned(value)...)
	}
	return tlv(0x30, []byte{2, 1, version}, sid, digestID, attrs, algID, tlv(4, value), unsigned)
}

func (m *made) der(t testing.TB) []byte {
	t.Helper()
	var content []byte
	if !m.detached {
		if content = m.octets; content == nil {
			content = tlv(4, m.content)
		}
		content = tlv(0xa0, content)
	}
	var certs, crls []byte
	if m.certs != nil {
		certs = tlv(0xa0, m.certs...)
	}
	if m.crls != nil {
		crls = tlv(0xa1, m.crls)
	}
	infos := append([][]byte{m.signerInfo(t)}, m.more...)
	return tlv(0x30, oid(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}), tlv(0xa0, tlv(0x30, []byte{2, 1, 1},
		tlv(0x31, hashID(m.hash())), tlv(0x30, oid(m.contentType), content), certs, crls, tlv(0x31, infos...))))
}

// referenceV1 and referenceV2 are the values of signingCertificate and signingCertificateV2.
func referenceV1(cert []byte) []byte {
	sum := sha1.Sum(cert)
	return tlv(0x30, tlv(0x30, tlv(0x30, tlv(4, sum[:]))))
}

func referenceV2(h crypto.Hash, cert []byte, more ...[]byte) []byte {
	id := [][]byte{tlv(4, primitive.Digest(h, cert))}
	if h != crypto.SHA256 {
		id = append([][]byte{hashID(h)}, id...)
	}
	return tlv(0x30, tlv(0x30, tlv(0x30, append(id, more...)...)))
}

// one parses and verifies a file with one signature.
func one(t testing.TB, der []byte, in cms.Input) *cms.Signature {
	t.Helper()
	d, err := cms.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	sigs, err := d.Verify(in)
	if err != nil || len(sigs) != 1 {
		t.Fatalf("%d signatures, %v", len(sigs), err)
	}
	return sigs[0]
}
