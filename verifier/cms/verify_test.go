package cms_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

// Every reason there is, each for a file that has nothing else wrong.
func TestIntegrity(t *testing.T) {
	md5 := []byte{0x30, 12, 6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5, 5, 0}
	issuerSerial := func(serial byte) []byte {
		return tlv(0x30, tlv(0x30, tlv(0xa4, rsaID.cert.RawIssuer)), []byte{2, 2, 0x12, serial})
	}
	rsaSHA256, _ := primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA256}.Identifier()
	rsaSHA512, _ := primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA512}.Identifier()
	protect := func(h crypto.Hash, alg []byte) []byte {
		return attribute(oidProtection, tlv(0x30, hashID(h), append([]byte{0xa1}, alg[1:]...)))
	}
	add := func(attrs ...[]byte) func(*made) { return func(m *made) { m.attrs = append(m.attrs, attrs...) } }
	unsigned := func(attrs ...[]byte) func(*made) {
		return func(m *made) { m.unsigned = func([]byte) [][]byte { return attrs } }
	}
	flip := func(v []byte) []byte { v[9] ^= 1; return v }

	for name, tc := range map[string]struct {
		change func(*made)
		in     cms.Input
		want   cms.Integrity
	}{
		"nothing wrong":            {func(*made) {}, cms.Input{}, cms.Intact},
		"over the content itself":  {func(m *made) { m.bare = true }, cms.Input{}, cms.Intact},
		"signer by key identifier": {func(m *made) { m.byKeyID = true }, cms.Input{}, cms.Intact},
		"attributes not sorted": {func(m *made) {
			m.attrs = [][]byte{m.digestAttr(), m.typeAttr()}
		}, cms.Input{}, cms.Intact},
		"attributes not sorted, signed so": {func(m *made) {
			m.attrs, m.unsorted = [][]byte{m.digestAttr(), m.typeAttr()}, true
		}, cms.Input{}, cms.SignatureWrong},
		"rsaEncryption as the algorithm": {func(m *made) {
			m.algID = []byte{0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0}
		}, cms.Input{}, cms.Intact},
		"content of PKCS #7": {func(m *made) {
			m.contentType, m.content = oidTST, tlv(2, []byte{1})
			m.octets = tlv(0x30, m.content)
			m.attrs = [][]byte{m.typeAttr(), m.digestAttr()}
		}, cms.Input{}, cms.Intact},
		"two certificates of one name": {func(m *made) { m.certs = [][]byte{rsaID2.der, ecID.der, rsaID.der} }, cms.Input{}, cms.Intact},
		"two certificates, referenced": {func(m *made) {
			m.certs = [][]byte{rsaID2.der, rsaID.der}
			m.attrs = append(m.attrs, attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der)))
		}, cms.Input{}, cms.Intact},
		"reference by SHA-1":           {add(attribute(oidCertV1, referenceV1(rsaID.der))), cms.Input{}, cms.Intact},
		"reference by SHA-512":         {add(attribute(oidCertV2, referenceV2(crypto.SHA512, rsaID.der))), cms.Input{}, cms.Intact},
		"reference with serial":        {add(attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der, issuerSerial(0x67)))), cms.Input{}, cms.Intact},
		"both references":              {add(attribute(oidCertV1, referenceV1(rsaID.der)), attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der))), cms.Input{}, cms.Intact},
		"algorithms protected":         {add(protect(crypto.SHA256, rsaSHA256)), cms.Input{}, cms.Intact},
		"detached":                     {func(m *made) { m.detached = true }, cms.Input{Content: bytes.NewReader(text)}, cms.Intact},
		"detached, by digest":          {func(m *made) { m.detached = true }, cms.Input{Digests: map[crypto.Hash][]byte{crypto.SHA256: primitive.Digest(crypto.SHA256, text)}}, cms.Intact},
		"certificate from outside":     {func(m *made) { m.certs = nil }, cms.Input{Certificates: [][]byte{nil, text, rsaID.der}}, cms.Intact},
		"detached, without attributes": {func(m *made) { m.detached, m.bare = true, true }, cms.Input{Content: bytes.NewReader(text)}, cms.Intact},

		"reference is no reference":       {add(attribute(oidCertV2, tlv(0x30))), cms.Input{}, cms.Malformed},
		"protection is no such":           {add(attribute(oidProtection, tlv(0x30))), cms.Input{}, cms.Malformed},
		"MD5":                             {func(m *made) { m.digestID = md5 }, cms.Input{}, cms.UnknownAlgorithm},
		"signature by MD5":                {func(m *made) { m.algID = []byte{0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4, 5, 0} }, cms.Input{}, cms.UnknownAlgorithm},
		"digest by another hash":          {func(m *made) { m.digestID = hashID(crypto.SHA512) }, cms.Input{}, cms.AlgorithmMismatch},
		"signature by another hash":       {func(m *made) { m.algID = rsaSHA512 }, cms.Input{}, cms.AlgorithmMismatch},
		"protection of another hash":      {add(protect(crypto.SHA512, rsaSHA256)), cms.Input{}, cms.AlgorithmMismatch},
		"protection of another algorithm": {add(protect(crypto.SHA256, rsaSHA512)), cms.Input{}, cms.AlgorithmMismatch},
		"key of another kind": {func(m *made) {
			m.certs = [][]byte{ecID.der}
		}, cms.Input{}, cms.AlgorithmMismatch},
		"no attributes at all": {func(m *made) { m.attrs = nil }, cms.Input{}, cms.AttributesMissing},
		"no message digest":    {func(m *made) { m.attrs = m.attrs[:1] }, cms.Input{}, cms.AttributesMissing},
		"no content type":      {func(m *made) { m.attrs = m.attrs[1:] }, cms.Input{}, cms.AttributesMissing},
		"digest is no digest":  {func(m *made) { m.attrs[1] = attribute(oidDigest, []byte{5, 0}) }, cms.Input{}, cms.AttributesMissing},
		"other content, bare":  {func(m *made) { m.contentType, m.bare = oidTST, true }, cms.Input{}, cms.AttributesMissing},
		"two digests":          {func(m *made) { m.attrs = append(m.attrs, m.digestAttr()) }, cms.Input{}, cms.AttributesAmbiguous},
		"a digest of two values": {func(m *made) {
			m.attrs[1] = attribute(oidDigest, tlv(4, make([]byte, 32)), tlv(4, primitive.Digest(crypto.SHA256, text)))
		}, cms.Input{}, cms.AttributesAmbiguous},
		"a digest without a value":    {func(m *made) { m.attrs[1] = attribute(oidDigest) }, cms.Input{}, cms.AttributesAmbiguous},
		"two references":              {add(attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der), referenceV2(crypto.SHA256, rsaID2.der))), cms.Input{}, cms.AttributesAmbiguous},
		"a digest that is not signed": {unsigned(attribute(oidDigest, tlv(4, make([]byte, 32)))), cms.Input{}, cms.AttributesAmbiguous},
		"content type of another": {func(m *made) {
			m.attrs = [][]byte{attribute(oidType, oid(oidTST)), m.digestAttr()}
		}, cms.Input{}, cms.ContentTypeMismatch},
		"no certificate":             {func(m *made) { m.certs = nil }, cms.Input{}, cms.NoCertificate},
		"another's certificate":      {func(m *made) { m.certs = [][]byte{rsaID2.der} }, cms.Input{}, cms.SignatureWrong},
		"reference to another":       {add(attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID2.der))), cms.Input{}, cms.CertificateMismatch},
		"old reference to another":   {add(attribute(oidCertV1, referenceV1(rsaID2.der))), cms.Input{}, cms.CertificateMismatch},
		"references to two":          {add(attribute(oidCertV1, referenceV1(rsaID2.der)), attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der))), cms.Input{}, cms.CertificateMismatch},
		"reference, another serial":  {add(attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der, issuerSerial(0x68)))), cms.Input{}, cms.CertificateMismatch},
		"value changed":              {func(m *made) { m.value = flip }, cms.Input{}, cms.SignatureWrong},
		"value changed, bare":        {func(m *made) { m.bare, m.value = true, flip }, cms.Input{}, cms.SignatureWrong},
		"no value":                   {func(m *made) { m.value = func([]byte) []byte { return nil } }, cms.Input{}, cms.SignatureWrong},
		"content changed":            {func(m *made) { m.octets = tlv(4, []byte("I open no account.")) }, cms.Input{}, cms.ContentMismatch},
		"content changed, bare":      {func(m *made) { m.bare, m.octets = true, tlv(4, []byte("I open no account.")) }, cms.Input{}, cms.SignatureWrong},
		"detached, other content":    {func(m *made) { m.detached = true }, cms.Input{Content: bytes.NewReader(text[1:])}, cms.ContentMismatch},
		"detached, empty content":    {func(m *made) { m.detached = true }, cms.Input{Content: bytes.NewReader(nil)}, cms.ContentMismatch},
		"detached, no content":       {func(m *made) { m.detached = true }, cms.Input{}, cms.ContentMissing},
		"detached, another's digest": {func(m *made) { m.detached = true }, cms.Input{Digests: map[crypto.Hash][]byte{crypto.SHA512: make([]byte, 64)}}, cms.ContentMissing},
		"detached, wrong digest":     {func(m *made) { m.detached = true }, cms.Input{Digests: map[crypto.Hash][]byte{crypto.SHA256: make([]byte, 32)}}, cms.ContentMismatch},
		"bare, by digest":            {func(m *made) { m.detached, m.bare = true, true }, cms.Input{Digests: map[crypto.Hash][]byte{crypto.SHA256: primitive.Digest(crypto.SHA256, text)}}, cms.ContentMissing},
	} {
		m := newMade(rsaID)
		tc.change(m)
		s := one(t, m.der(t), tc.in)
		if s.Integrity != tc.want || (s.Detail == "") != (s.Integrity == cms.Intact) {
			t.Errorf("%s: %s (%s), want %s", name, s.Integrity, s.Detail, tc.want)
		}
		if s.Integrity == cms.Intact && !bytes.Equal(s.Certificate, rsaID.der) {
			t.Errorf("%s: intact, but by another", name)
		}
	}
}

// A signature with attributes is stripped of them, and their DER offered as the content (the other way round it cannot be
// told; so bare content is never signed here).
func TestAttributesAsContent(t *testing.T) {
	for _, id := range []*identity{rsaID, ecID, edID} {
		for _, long := range []bool{false, true} {
			m := newMade(id)
			if long { // more than is kept of content that goes by
				m.attrs = append(m.attrs, attribute(oidSigStamp, tlv(4, make([]byte, 2<<20))))
			}
			var value []byte
			m.value = func(v []byte) []byte { value = v; return v }
			m.signerInfo(t)
			sorted := slices.Clone(m.attrs)
			slices.SortFunc(sorted, bytes.Compare)
			attrs := tlv(0x31, sorted...)
			forged := newMade(id)
			forged.bare, forged.content = true, attrs
			forged.value = func([]byte) []byte { return value }
			for _, detached := range []bool{false, true} {
				forged.detached = detached
				in := cms.Input{}
				if detached {
					in.Content = iotest.HalfReader(bytes.NewReader(attrs))
				}
				s := one(t, forged.der(t), in)
				if s.Integrity == cms.Intact {
					t.Fatalf("accepted a forgery (detached %t, long %t)", detached, long)
				}
				if s.Integrity != cms.AttributesAsContent {
					t.Errorf("detached %t, long %t: %s, %s", detached, long, s.Integrity, s.Detail)
				}
			}
		}
	}
}

// Content that merely looks like it begins so is fine.
func TestContentThatResemblesAttributes(t *testing.T) {
	for _, content := range [][]byte{{0x31}, {0x31, 0}, tlv(0x31, tlv(0x30, tlv(2, []byte{1}))), append(tlv(0x31, tlv(0x30, oid(oidType))), 0), []byte("1234567890")} {
		m := newMade(rsaID)
		m.content, m.bare = content, true
		if s := one(t, m.der(t), cms.Input{}); s.Integrity != cms.Intact {
			t.Errorf("%x: %s", content, s.Integrity)
		}
	}
}

func TestEveryKey(t *testing.T) {
	for _, id := range []*identity{rsaID, ecID, ec384ID, edID} {
		for _, bare := range []bool{false, true} {
			m := newMade(id)
			m.bare, m.detached = bare, true
			s := one(t, m.der(t), cms.Input{Content: iotest.OneByteReader(bytes.NewReader(text))})
			if s.Integrity != cms.Intact || s.Key == nil || s.Digest != m.hash() || s.Algorithm != m.alg {
				t.Errorf("%T, bare %t: %s %s, %v, %v", id.key, bare, s.Integrity, s.Detail, s.Key, s.Algorithm)
			}
		}
	}
	pss := newMade(rsaID)
	pss.alg = primitive.NewPSS(crypto.SHA512)
	pss.attrs = [][]byte{pss.typeAttr(), pss.digestAttr()}
	if s := one(t, pss.der(t), cms.Input{}); s.Integrity != cms.Intact || s.Algorithm != pss.alg {
		t.Errorf("PSS: %s %s", s.Integrity, s.Detail)
	}
}

func TestCounterSignatures(t *testing.T) {
	counter := func(id *identity, over []byte, change func(*made)) []byte {
		m := newMade(id)
		m.content = over
		m.attrs = [][]byte{m.digestAttr()}
		if change != nil {
			change(m)
		}
		return m.signerInfo(t)
	}
	m := newMade(rsaID)
	m.certs = append(m.certs, ecID.der, edID.der)
	m.unsigned = func(value []byte) [][]byte {
		return [][]byte{attribute(oidCounter,
			counter(ecID, value, func(c *made) { c.byKeyID = true }),
			counter(ecID, []byte("another value"), func(c *made) { c.byKeyID = true }),
			counter(ecID, value, func(c *made) { c.byKeyID, c.bare = true, true }),
			counter(ecID, value, func(c *made) { c.byKeyID, c.attrs = true, nil }),
			tlv(0x30),
			counter(ec384ID, value, func(c *made) { c.byKeyID = true }),
		)}
	}
	s := one(t, m.der(t), cms.Input{})
	want := []cms.Integrity{cms.Intact, cms.ContentMismatch, cms.Intact, cms.AttributesMissing, cms.Malformed, cms.NoCertificate}
	if s.Integrity != cms.Intact || len(s.CounterSignatures) != len(want) {
		t.Fatalf("%s %s, %d counter-signatures", s.Integrity, s.Detail, len(s.CounterSignatures))
	}
	for i, c := range s.CounterSignatures {
		if c.Integrity != want[i] {
			t.Errorf("counter-signature %d: %s %s, want %s", i, c.Integrity, c.Detail, want[i])
		}
	}
	// Counter-signatures of counter-signatures end somewhere.
	deep := counter(rsaID, text, nil)
	for range 8 {
		inner := deep
		deep = counter(rsaID, text, func(c *made) {
			c.unsigned = func([]byte) [][]byte { return [][]byte{attribute(oidCounter, inner)} }
		})
	}
	m.unsigned = func([]byte) [][]byte { return [][]byte{attribute(oidCounter, deep)} }
	s = one(t, m.der(t), cms.Input{})
	depth := 0
	for c := s; len(c.CounterSignatures) > 0; c = c.CounterSignatures[0] {
		depth++
	}
	if s.Integrity != cms.Intact || depth != 5 {
		t.Errorf("%s, %d deep", s.Integrity, depth)
	}
}

// What anybody can add without a key must not break the signature.
func TestUnsignedRubbish(t *testing.T) {
	m := newMade(rsaID)
	m.crls = append(tlv(0xa1, tlv(6, []byte{42, 3})), tlv(0x30)...)
	m.unsigned = func([]byte) [][]byte {
		return [][]byte{attribute(oidSigStamp, tlv(4, text)), attribute(oidCounter, tlv(5))}
	}
	s := one(t, m.der(t), cms.Input{})
	if s.Integrity != cms.Intact || len(s.TimeStamps) != 1 || s.TimeStamps[0].Integrity != cms.Malformed ||
		len(s.CounterSignatures) != 1 || s.CounterSignatures[0].Integrity != cms.Malformed || s.Level != cms.LevelCMS {
		t.Errorf("%+v", s)
	}
}

// A file in BER, with every length indefinite and every string in pieces, is the same file.
func TestBER(t *testing.T) {
	for _, id := range []*identity{rsaID, ecID} {
		m := newMade(id)
		m.content = bytes.Repeat(text, 100)
		m.attrs = [][]byte{m.typeAttr(), m.digestAttr()}
		m.crls = tlv(0x30, oid(oidTime))
		der := m.der(t)
		ber := toBER(der)
		again, used, err := cms.Definite(ber)
		if err != nil || used != len(ber) || !bytes.Equal(again, der) {
			t.Fatalf("%d octets of BER become %d of DER, not %d: %v", used, len(again), len(der), err)
		}
		if s := one(t, ber, cms.Input{}); s.Integrity != cms.Intact {
			t.Errorf("%s %s", s.Integrity, s.Detail)
		}
		if d, err := cms.ParsePadded(append(ber, 0, 0, 0)); err != nil || !bytes.Equal(d.Content, m.content) {
			t.Errorf("padded: %v", err)
		}
		for n := range ber {
			if _, err := cms.Parse(ber[:n]); err == nil {
				t.Fatalf("%d octets of %d are a file already", n, len(ber))
			}
		}
	}
	for name, raw := range map[string][]byte{
		"too deep":             append(bytes.Repeat([]byte{0x30, 0x80}, 60), make([]byte, 120)...),
		"end without a start":  {0x30, 2, 0, 0},
		"primitive, no end":    {4, 0x80, 0, 0},
		"pieces of other kind": {0x24, 3, 2, 1, 1},
		"bits in pieces":       {0x23, 4, 3, 2, 0, 1},
		"length of length":     {0x30, 0x85, 0, 0, 0, 0, 0},
		"too short":            {0x30, 5, 2, 1},
	} {
		if der, _, err := cms.Definite(raw); err == nil {
			t.Errorf("%s: became %x", name, der)
		}
	}
}

// toBER writes DER with indefinite lengths and OCTET STRINGs in pieces.
func toBER(der []byte) []byte {
	var out []byte
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return der
		}
		der = rest
		switch {
		case v.IsCompound:
			out = append(append(append(out, v.FullBytes[0], 0x80), toBER(v.Bytes)...), 0, 0)
		case v.Tag == 4 && v.Class == 0 && len(v.Bytes) > 1:
			half := len(v.Bytes) / 2
			out = append(append(out, 0x24, 0x80), tlv(0x24, tlv(4, v.Bytes[:half]))...)
			out = append(append(out, tlv(4, v.Bytes[half:])...), 0, 0)
		default:
			out = append(out, v.FullBytes...)
		}
	}
	return out
}

// Detached content goes by: what is kept of it does not grow with it.
func TestLongContent(t *testing.T) {
	const size = 64 << 20
	zeros := func() io.Reader { return io.LimitReader(zeroReader{}, size) }
	der, err := cms.Sign(zeros(), cms.SignConfig{Certificate: rsaID.der, Signer: rsaID.key, Rand: rand.Reader, SigningTime: noon})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := one(t, der, cms.Input{Content: zeros()})
	runtime.ReadMemStats(&after)
	if s.Integrity != cms.Intact {
		t.Errorf("%s %s", s.Integrity, s.Detail)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > size/4 {
		t.Errorf("%d octets of memory for %d of content", spent, size)
	}
	if s := one(t, der, cms.Input{Content: io.LimitReader(zeroReader{}, size-1)}); s.Integrity != cms.ContentMismatch {
		t.Errorf("one octet less: %s", s.Integrity)
	}
	m := newMade(edID) // which takes a message only as a whole
	m.bare, m.detached, m.content = true, true, make([]byte, 2<<20)
	if s := one(t, m.der(t), cms.Input{Content: bytes.NewReader(m.content)}); s.Integrity != cms.UnknownAlgorithm {
		t.Errorf("long bare content by Ed25519: %s", s.Integrity)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestSeveralSigners(t *testing.T) {
	m := newMade(rsaID)
	second, third := newMade(ecID), newMade(edID)
	second.byKeyID, third.byKeyID = true, true
	third.content = []byte("something else")
	third.attrs = [][]byte{third.typeAttr(), third.digestAttr()}
	m.detached, m.certs = true, [][]byte{ecID.der, rsaID.der, edID.der}
	m.more = [][]byte{second.signerInfo(t), third.signerInfo(t)}
	d, err := cms.Parse(m.der(t))
	if err != nil || d.Signers() != 3 || !d.Detached || d.ContentType() != "1.2.840.113549.1.7.1" {
		t.Fatalf("%v, %v", d, err)
	}
	var others sync.WaitGroup // a parsed file may be verified by many at once
	for range 4 {
		others.Go(func() { _, _ = d.Verify(cms.Input{Content: bytes.NewReader(text[1:])}) })
	}
	sigs, err := d.Verify(cms.Input{Content: bytes.NewReader(text)})
	others.Wait()
	if err != nil || len(sigs) != 3 {
		t.Fatal(err)
	}
	for i, want := range []cms.Integrity{cms.Intact, cms.Intact, cms.ContentMismatch} {
		if sigs[i].Integrity != want {
			t.Errorf("signature %d: %s %s, want %s", i, sigs[i].Integrity, sigs[i].Detail, want)
		}
	}
}

func TestInputErrors(t *testing.T) {
	m := newMade(rsaID)
	d, _ := cms.Parse(m.der(t))
	if _, err := d.Verify(cms.Input{Content: bytes.NewReader(text)}); !errors.Is(err, jpki.Malformed) {
		t.Errorf("content for attached content: %v", err)
	}
	m.detached = true
	d, _ = cms.Parse(m.der(t))
	if _, err := d.Verify(cms.Input{Content: iotest.ErrReader(io.ErrUnexpectedEOF)}); !errors.Is(err, jpki.Unavailable) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("content that cannot be read: %v", err)
	}
}

// Whatever octet changes: the signature is refused, or all it says is what it said.
func TestEveryOctet(t *testing.T) {
	der, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{Certificate: rsaID.der, Signer: rsaID.key, Rand: rand.Reader, SigningTime: noon, MIMEType: "text/plain", Attached: true})
	if err != nil {
		t.Fatal(err)
	}
	// Only the version and the set of digest algorithms, which nothing depends on, may change unnoticed.
	digests := bytes.Index(der, hashID(crypto.SHA256)) + len(hashID(crypto.SHA256))
	header := digests - len(hashID(crypto.SHA256)) - 5
	for i := range der {
		for _, bits := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(der)
			changed[i] ^= bits
			d, err := cms.Parse(changed)
			if err != nil {
				continue
			}
			sigs, err := d.Verify(cms.Input{})
			if err != nil {
				continue
			}
			for _, s := range sigs {
				if s.Integrity != cms.Intact {
					continue
				}
				if i < header || i >= digests {
					t.Errorf("octet %d of %d changed by %#x: nobody noticed", i, len(der), bits)
				}
				if !bytes.Equal(d.Content, text) || !bytes.Equal(s.Certificate, rsaID.der) || !s.SigningTime.Equal(noon) || s.MIMEType != "text/plain" || s.Level != cms.LevelB {
					t.Fatalf("octet %d changed by %#x: intact, and says something else", i, bits)
				}
			}
		}
	}
}

func TestLimits(t *testing.T) {
	certs := func(n int) (out [][]byte) {
		for i := range n {
			out = append(out, tlv(0x30, big.NewInt(int64(i)+1).Bytes()))
		}
		return out
	}
	for name, change := range map[string]func(*made){
		"certificates": func(m *made) { m.certs = certs(cms.MaxCertificates + 1) },
		"attributes": func(m *made) {
			for range cms.MaxAttributes {
				m.attrs = append(m.attrs, attribute(oidTime, tlv(5)))
			}
		},
		"values": func(m *made) { m.attrs = append(m.attrs, attribute(oidTime, certs(cms.MaxAttributes+1)...)) },
		"signers": func(m *made) {
			for range cms.MaxSigners {
				m.more = append(m.more, newMade(rsaID).signerInfo(t))
			}
		},
		"revocations": func(m *made) { m.crls = bytes.Repeat(tlv(0x30), cms.MaxRevocations+1) },
	} {
		m := newMade(rsaID)
		change(m)
		if _, err := cms.Parse(m.der(t)); !errors.Is(err, jpki.Malformed) {
			t.Errorf("too many %s: %v", name, err)
		}
	}
	if _, err := cms.Parse(make([]byte, cms.MaxBytes+1)); !errors.Is(err, jpki.TooLarge) {
		t.Errorf("too long: %v", err)
	}
	m := newMade(rsaID)
	padded := append(m.der(t), make([]byte, 100)...)
	if _, err := cms.Parse(padded); !errors.Is(err, jpki.Malformed) {
		t.Errorf("padded: %v", err)
	}
	if _, err := cms.ParsePadded(padded); err != nil {
		t.Errorf("padded: %v", err)
	}
	if _, err := cms.ParsePadded(append(padded, 1)); !errors.Is(err, jpki.Malformed) {
		t.Errorf("padded with something else: %v", err)
	}
}
