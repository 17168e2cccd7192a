package verifier_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// A world is two authorities with two generations each, an OCSP responder for all of them, and a relying party. The
// certificates are made with crypto/x509 and the OCSP answers by the code below: nothing of the product judges itself.
type world struct {
	now      time.Time
	sign     [2]*authority // generations under one name
	auth     [2]*authority
	ocsp     *responder
	policies []verifier.Policy
}

var t0 = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ecKey(c elliptic.Curve) *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(c, rand.Reader)) }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: t0, policies: verifier.SandboxPolicies()}
	for i := range 2 {
		w.sign[i] = newAuthority(t, "sign", ecKey(elliptic.P256()), t0)
		w.auth[i] = newAuthority(t, "auth", ecKey(elliptic.P256()), t0)
	}
	w.ocsp = newResponder(t, w)
	return w
}

// checker asks the world's responder, to which certificates point by themselves.
func (w *world) checker(t *testing.T, change ...func(*verifier.OCSPConfig)) *verifier.OCSP {
	t.Helper()
	cfg := verifier.OCSPConfig{Allowed: []string{w.ocsp.server.URL}, Now: func() time.Time { return w.now }, Rand: rand.Reader}
	for _, c := range change {
		c(&cfg)
	}
	o, err := verifier.NewOCSP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (w *world) config(t *testing.T) verifier.Config {
	t.Helper()
	clock := func() time.Time { return w.now }
	challenges, err := verifier.NewChallenges(verifier.ChallengesConfig{Now: clock, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return verifier.Config{
		Anchors:  []*x509.Certificate{w.sign[0].cert, w.sign[1].cert, w.auth[0].cert, w.auth[1].cert},
		Policies: w.policies, Revocation: w.checker(t), Challenges: challenges, Now: clock, Rand: rand.Reader,
	}
}

func (w *world) verifier(t *testing.T, change ...func(*verifier.Config)) *verifier.Verifier {
	t.Helper()
	cfg := w.config(t)
	for _, c := range change {
		c(&cfg)
	}
	v, err := verifier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// An authority is one generation.
type authority struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newAuthority(t testing.TB, usage string, key crypto.Signer, now time.Time) *authority {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"TEST"}, OrganizationalUnit: []string{usage}},
		NotBefore: now.AddDate(-3, 0, 0), NotAfter: now.AddDate(7, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, must(x509.ParseCertificate(der))}
}

// A leaf is a certificate with its key.
type leaf struct {
	key crypto.Signer
	der []byte
}

var taro = jpki.Attributes{
	Name: "試験　太郎", NameSubstitutes: "00010", Sex: jpki.Male, BirthDate: "319800217",
	Address: "砂箱県青葉市一丁目２番３号", AddressSubstitutes: "0000000000000",
}

func oid(s string) asn1.ObjectIdentifier {
	var out asn1.ObjectIdentifier
	n := 0
	for _, c := range s + "." {
		if c == '.' {
			out, n = append(out, n), 0
			continue
		}
		n = n*10 + int(c-'0')
	}
	return out
}

func policiesExtension(ids ...string) pkix.Extension {
	type info struct{ ID asn1.ObjectIdentifier }
	var list []info
	for _, id := range ids {
		list = append(list, info{oid(id)})
	}
	return pkix.Extension{Id: oid("2.5.29.32"), Critical: true, Value: must(asn1.Marshal(list))}
}

// altNames writes the attributes as a card has them. An empty text is left out.
func altNames(a jpki.Attributes) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, f := range []struct {
			n    int
			text string
		}{{1, a.Name}, {4, string(a.BirthDate)}, {3, string(a.Sex)}, {5, a.Address}, {2, a.NameSubstitutes}, {6, a.AddressSubstitutes}} {
			if f.text != "" {
				addOtherName(b, append(oid("1.2.392.200149.8.5.5"), f.n), cbasn1.UTF8String, f.text)
			}
		}
	})
	return b.BytesOrPanic()
}

func addOtherName(b *cryptobyte.Builder, id asn1.ObjectIdentifier, tag cbasn1.Tag, text string) {
	b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
		})
	})
}

func altNameExtension(value []byte) pkix.Extension {
	return pkix.Extension{Id: oid("2.5.29.17"), Value: value}
}

const (
	cardSign  = "2.999.8.5.1.1.20"
	phoneSign = "2.999.8.5.1.1.40"
	cardAuth  = "2.999.8.5.1.3.30"
)

// signCert makes a card's signature certificate unless change says otherwise.
func (w *world) signCert(t *testing.T, change ...func(*x509.Certificate)) leaf {
	t.Helper()
	return w.issue(t, w.sign[1], rsaKey(), func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
		c.ExtraExtensions = []pkix.Extension{policiesExtension(cardSign), altNameExtension(altNames(taro))}
		for _, f := range change {
			f(c)
		}
	})
}

// authCert makes a card's authentication certificate unless change says otherwise.
func (w *world) authCert(t *testing.T, change ...func(*x509.Certificate)) leaf {
	t.Helper()
	return w.issue(t, w.auth[1], rsaKey(), func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.ExtraExtensions = []pkix.Extension{policiesExtension(cardAuth)}
		for _, f := range change {
			f(c)
		}
	})
}

func (w *world) issue(t *testing.T, a *authority, key crypto.Signer, change func(*x509.Certificate)) leaf {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))), Subject: pkix.Name{Country: []string{"JP"}, CommonName: "HOLDER1"},
		NotBefore: t0.AddDate(0, -6, 0), NotAfter: t0.AddDate(4, 0, 0), OCSPServer: []string{w.ocsp.server.URL + "/ocsp"},
	}
	change(tmpl)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return leaf{key, der}
}

func (l leaf) sign(t *testing.T, hash crypto.Hash, data []byte) (digest, signature []byte) {
	t.Helper()
	h := hash.New()
	h.Write(data)
	digest = h.Sum(nil)
	signature, err := l.key.Sign(rand.Reader, digest, hash)
	if err != nil {
		t.Fatal(err)
	}
	return digest, signature
}

func (l leaf) input(t *testing.T) verifier.SignatureInput {
	t.Helper()
	digest, signature := l.sign(t, crypto.SHA256, []byte("account application"))
	return verifier.SignatureInput{Certificate: l.der, Digest: digest, Hash: crypto.SHA256, Signature: signature}
}

func (l leaf) serial() string { return must(x509.ParseCertificate(l.der)).SerialNumber.String() }

// A responder answers for every authority of its world. Its fields may be changed between requests.
type responder struct {
	w      *world
	server *httptest.Server
	asked  int // requests that arrived

	statuses map[string]status // by decimal serial; absent is good
	before   http.HandlerFunc  // if set, answers instead
	tweak    func(*answer)     // if set, spoils an answer before it is signed
	signer   func(issuer *authority) (crypto.Signer, *x509.Certificate)
}

type status struct {
	unknown bool
	reason  jpki.Reason
	at      time.Time

	invalidSince time.Time // an extension of the answer, if set
}

// An answer is what goes into a BasicOCSPResponse.
type answer struct {
	serial                             *big.Int
	nameHash, keyHash                  []byte
	status                             *status // nil is good
	thisUpdate, nextUpdate, producedAt time.Time
	nonce                              []byte
	certs                              [][]byte
	outer                              int // OCSPResponseStatus
}

func newResponder(t *testing.T, w *world) *responder {
	t.Helper()
	r := &responder{w: w, statuses: map[string]status{}}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

// delegate makes a responder certificate of an authority.
func delegate(t *testing.T, a *authority, change ...func(*x509.Certificate)) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	key := ecKey(elliptic.P256())
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "responder"}, NotBefore: t0.Add(-time.Hour), NotAfter: t0.AddDate(0, 1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: oid("1.3.6.1.5.5.7.48.1.5"), Value: []byte{5, 0}}},
	}
	for _, c := range change {
		c(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return key, must(x509.ParseCertificate(der))
}

func (r *responder) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	r.asked++
	if r.before != nil {
		r.before(rw, req)
		return
	}
	body, _ := io.ReadAll(req.Body)
	q, ok := readQuestion(body)
	if !ok || req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/ocsp-request" {
		http.Error(rw, "no OCSP request", http.StatusBadRequest)
		return
	}
	issuer := r.issuer(q.keyHash)
	now := r.w.now
	a := &answer{
		serial: q.serial, nameHash: q.nameHash, keyHash: q.keyHash, nonce: q.nonce,
		thisUpdate: now.Add(-10 * time.Minute), nextUpdate: now.Add(50 * time.Minute), producedAt: now,
	}
	if s, found := r.statuses[q.serial.String()]; found {
		a.status = &s
	}
	key, cert := issuer.key, issuer.cert
	if r.signer != nil {
		key, cert = r.signer(issuer)
		a.certs = [][]byte{cert.Raw}
	}
	if r.tweak != nil {
		r.tweak(a)
	}
	rw.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = rw.Write(a.marshal(key, cert))
}

func (r *responder) issuer(keyHash []byte) *authority {
	for _, a := range slices.Concat(r.w.sign[:], r.w.auth[:]) {
		if sum := sha256.Sum256(keyBits(a.cert)); bytes.Equal(sum[:], keyHash) {
			return a
		}
	}
	return r.w.sign[1]
}

func keyBits(c *x509.Certificate) []byte {
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	must(asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info))
	return info.Key.Bytes
}

type question struct {
	serial            *big.Int
	nameHash, keyHash []byte
	nonce             []byte
}

// readQuestion reads a request with one CertID and a nonce.
func readQuestion(der []byte) (q question, ok bool) {
	type certID struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
	var req struct {
		TBS struct {
			List       []struct{ ID certID }
			Extensions []pkix.Extension `asn1:"explicit,tag:2,optional"`
		}
	}
	rest, err := asn1.Unmarshal(der, &req)
	if err != nil || len(rest) > 0 || len(req.TBS.List) != 1 || len(req.TBS.Extensions) != 1 {
		return q, false
	}
	if _, err := asn1.Unmarshal(req.TBS.Extensions[0].Value, &q.nonce); err != nil {
		return q, false
	}
	id := req.TBS.List[0].ID
	q.serial, q.nameHash, q.keyHash = id.Serial, id.NameHash, id.KeyHash
	return q, true
}

func (a *answer) marshal(key crypto.Signer, cert *x509.Certificate) []byte {
	explicit := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	if a.outer != 0 {
		return []byte{0x30, 3, 0x0a, 1, byte(a.outer)}
	}
	var tbs cryptobyte.Builder
	tbs.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		id := sha1.Sum(keyBits(cert))
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(id[:]) })
		b.AddASN1GeneralizedTime(a.producedAt)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid("2.16.840.1.101.3.4.2.1")); b.AddASN1NULL() })
					b.AddASN1OctetString(a.nameHash)
					b.AddASN1OctetString(a.keyHash)
					b.AddASN1BigInt(a.serial)
				})
				switch {
				case a.status == nil:
					b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(*cryptobyte.Builder) {})
				case a.status.unknown:
					b.AddASN1(cbasn1.Tag(2).ContextSpecific(), func(*cryptobyte.Builder) {})
				default:
					b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
						b.AddASN1GeneralizedTime(a.status.at)
						b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(a.status.reason)) })
					})
				}
				b.AddASN1GeneralizedTime(a.thisUpdate)
				if !a.nextUpdate.IsZero() {
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(a.nextUpdate) })
				}
				if a.status != nil && !a.status.invalidSince.IsZero() {
					x := invalidSince(a.status.invalidSince)
					b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { b.AddBytes(must(asn1.Marshal([]pkix.Extension{x}))) })
				}
			})
		})
		if a.nonce != nil {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oid("1.3.6.1.5.5.7.48.1.2"))
						b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(a.nonce) })
					})
				})
			})
		}
	})
	data := tbs.BytesOrPanic()
	sum := sha256.Sum256(data)
	sig := must(key.Sign(rand.Reader, sum[:], crypto.SHA256))
	var basic cryptobyte.Builder
	basic.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(data)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid("1.2.840.10045.4.3.2")) })
		b.AddASN1BitString(sig)
		if a.certs != nil {
			b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, c := range a.certs {
						b.AddBytes(c)
					}
				})
			})
		}
	})
	var out cryptobyte.Builder
	out.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0)
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid("1.3.6.1.5.5.7.48.1.1"))
				b.AddASN1OctetString(basic.BytesOrPanic())
			})
		})
	})
	return out.BytesOrPanic()
}
