package client_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"iter"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/client"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/store"
)

var t0 = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

const token = "bank-token-for-tests"

// A bank is a client in front of a real API, through a network on which a test can make answers break off.
type bank struct {
	*client.Client
	anchor *x509.Certificate
	key    *ecdsa.PrivateKey
	lost   atomic.Int32 // how many answers do not arrive
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (b *bank) Check(context.Context, *x509.Certificate, *x509.Certificate, time.Time) (verifier.Revocation, error) {
	return verifier.Revocation{State: jpki.Good, Source: "test", ThisUpdate: t0, CheckedAt: t0, Evidence: []byte{1}, Format: "text/plain"}, nil
}

func newBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"TEST"}}, NotBefore: t0.AddDate(-1, 0, 0), NotAfter: t0.AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	b.anchor = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, b.key.Public(), b.key))))
	list := must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: t0.Add(-time.Hour), NextUpdate: t0.Add(24 * time.Hour)}, b.anchor, b.key))
	now := func() time.Time { return t0 }
	challenges := must(verifier.NewChallenges(verifier.ChallengesConfig{Now: now, Rand: rand.Reader}))
	v := must(verifier.New(verifier.Config{
		Anchors: []*x509.Certificate{b.anchor}, Policies: verifier.SandboxPolicies(), Revocation: b, Challenges: challenges, Now: now, Rand: rand.Reader,
		Documents: &verifier.DocumentConfig{
			Policy: must(verifier.FindDocumentPolicy("sandbox-signature-2026")), Anchors: []*x509.Certificate{b.anchor},
			Sources: []verifier.RevocationSource{verifier.StoredSource("list", []*path.CRL{must(path.ParseCRL(list))}, nil)},
		},
	}))
	s := must(store.Create(t.Context(), store.Config{Database: "sqlite:" + filepath.Join(t.TempDir(), "v.db"), MasterKey: make([]byte, 32)}))
	t.Cleanup(func() { _ = s.Close() })
	if err := s.AddTenant(t.Context(), store.Tenant{ID: "5835678256246", Name: "bank", RetentionDays: 30}, t0); err != nil {
		t.Fatal(err)
	}
	_ = must(s.AddCredential(t.Context(), "5835678256246", store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(token))}, store.Scopes(), time.Time{}, t0))
	a := must(api.New(api.Config{Verifier: v, Challenges: challenges, Store: s, Now: now}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.lost.Add(-1) < 0 {
			a.ServeHTTP(w, r)
			return
		}
		a.ServeHTTP(httptest.NewRecorder(), r) // it is done, and nobody hears of it
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(server.Close)
	b.Client = must(client.New(client.Config{URL: server.URL + "/", Token: token}))
	return b
}

// issue makes a certificate of the sandbox's, for signing with the four attributes or for log-ins without.
func (b *bank) issue(sign bool) (*ecdsa.PrivateKey, []byte) {
	type info struct{ ID asn1.ObjectIdentifier }
	type otherName struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"utf8,explicit,tag:0"`
	}
	policy := asn1.ObjectIdentifier{2, 999, 8, 5, 1, 3, 30}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "holder"}, NotBefore: t0.AddDate(0, -1, 0), NotAfter: t0.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature}
	if sign {
		policy = asn1.ObjectIdentifier{2, 999, 8, 5, 1, 1, 20}
		var names []asn1.RawValue
		for _, a := range []struct {
			n    int
			text string
		}{{1, "試験　太郎"}, {4, "319800217"}, {3, "1"}, {5, "砂箱県青葉市一丁目"}} {
			names = append(names, asn1.RawValue{FullBytes: must(asn1.MarshalWithParams(otherName{asn1.ObjectIdentifier{1, 2, 392, 200149, 8, 5, 5, a.n}, a.text}, "tag:0"))})
		}
		tmpl.KeyUsage |= x509.KeyUsageContentCommitment
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must(asn1.Marshal(names))})
	}
	tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Critical: true, Value: must(asn1.Marshal([]info{{policy}}))})
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return key, must(x509.CreateCertificate(rand.Reader, tmpl, b.anchor, key.Public(), b.key))
}

func (b *bank) signed() client.SignatureRequest {
	key, cert := b.issue(true)
	digest := sha256.Sum256([]byte("account application"))
	return client.SignatureRequest{Certificate: cert, Digest: digest[:], Hash: "sha256", Signature: must(key.Sign(rand.Reader, digest[:], crypto.SHA256)), Keep: client.Keep{User: "u"}}
}

func TestVerdicts(t *testing.T) {
	b, ctx := newBank(t), t.Context()
	v, err := b.VerifySignature(ctx, b.signed())
	if err != nil || !v.OK() || v.Attributes == nil || v.Attributes.Name != "試験　太郎" || v.Signer.Kind != jpki.CardSign || v.Revocation.State != "good" || len(v.Raw) == 0 {
		t.Fatalf("%v %+v", err, v)
	}
	e, err := b.Evidence(ctx, v.ID)
	if err != nil || e.Kind != "signature" || !e.Result.OK() || e.Result.Attributes != nil || e.AttributesStored {
		t.Errorf("%v %+v", err, e)
	}
	bad := b.signed()
	bad.Digest[0]++
	if v, err := b.VerifySignature(ctx, bad); err != nil || v.OK() || v.Message.JA == "" {
		t.Errorf("%v %+v", err, v)
	}

	key, cert := b.issue(true)
	doc := must(cms.Sign(bytes.NewReader([]byte("x")), cms.SignConfig{Certificate: cert, Signer: key, Rand: rand.Reader, SigningTime: t0}))
	yes := true
	d, err := b.VerifyDocument(ctx, client.DocumentRequest{Document: doc, Detached: []byte("x"), Existed: &t0, Keep: client.Keep{User: "u", StoreAttributes: &yes}})
	if err != nil || !d.OK() || d.Format != "cms" || len(d.Signatures) != 1 || d.Signatures[0].Attributes == nil {
		t.Fatalf("%v %+v", err, d)
	}
	if again, err := b.Reevaluate(ctx, d.ID, "rfc5280"); err != nil || !again.OK() || again.Policy.Name != "rfc5280" {
		t.Errorf("%v %+v", err, again)
	}

	s, err := b.Status(ctx, client.StatusRequest{Certificate: cert, Purpose: "signature_verification"})
	if err != nil || !s.OK() || s.CheckPurpose != "signature_verification" || !s.SourceUpdatedAt.Equal(t0) {
		t.Errorf("%v %+v", err, s)
	}

	session := client.Session{Audience: "https://bank.example", Binding: "s"}
	ch, err := b.Challenge(ctx, session)
	if err != nil {
		t.Fatal(err)
	}
	authKey, authCert := b.issue(false)
	sum := sha256.Sum256(ch.Message)
	in := client.LoginRequest{ChallengeID: ch.ID, Certificate: authCert, Signature: must(authKey.Sign(rand.Reader, sum[:], crypto.SHA256)), Session: session}
	if l, err := b.Login(ctx, in); err != nil || !l.OK() {
		t.Errorf("%v %+v", err, l)
	}
	if _, err := b.Login(ctx, in); !errors.Is(err, jpki.ChallengeInvalid) {
		t.Errorf("a second time: %v", err)
	}

	if err := b.DeleteEvidence(ctx, d.ID); err != nil {
		t.Error(err)
	}
	if _, err := b.Evidence(ctx, d.ID); !errors.Is(err, jpki.NotFound) {
		t.Error(err)
	}
	if n, err := b.DeleteEvidenceOfUser(ctx, "u"); err != nil || n != 2 {
		t.Errorf("%d %v", n, err)
	}
}

// TestLostAnswer: an answer that does not arrive is asked for again, and nothing is done twice.
func TestLostAnswer(t *testing.T) {
	b, ctx := newBank(t), t.Context()
	b.lost.Store(2)
	if v, err := b.VerifySignature(ctx, b.signed()); err != nil || !v.OK() {
		t.Fatalf("%v %+v", err, v)
	}
	if n, err := b.DeleteEvidenceOfUser(ctx, "u"); err != nil || n != 1 {
		t.Errorf("%d pieces of evidence, %v", n, err)
	}
	b.lost.Store(1000) // net/http repeats what has an idempotency key, too
	if _, err := b.VerifySignature(ctx, b.signed()); !errors.Is(err, jpki.Unavailable) {
		t.Error(err)
	}
}

func TestBatches(t *testing.T) {
	b, ctx := newBank(t), t.Context()
	good := b.signed()
	bad := good
	bad.Hash = "sha1"
	var lines iter.Seq[client.Line[client.SignatureRequest]] = func(yield func(client.Line[client.SignatureRequest]) bool) {
		for i := range 100 {
			ask := good
			if i%10 == 0 {
				ask = bad
			}
			if !yield(client.Line[client.SignatureRequest]{Ref: "r" + strconv.Itoa(i), Ask: ask}) {
				return
			}
		}
	}
	n := 0
	for l, err := range b.VerifyBatch(ctx, lines) {
		if err != nil || l.Line != n+1 || l.Ref != "r"+strconv.Itoa(n) || (l.Err() != nil) != (n%10 == 0) || l.Err() == nil && !l.Result.OK() {
			t.Fatalf("%d: %v %+v", n, err, l)
		}
		n++
	}
	if n != 100 {
		t.Errorf("%d answers", n)
	}
	for _, err := range b.VerifyBatch(ctx, lines) {
		if err != nil {
			t.Error(err)
		}
		break // goes away
	}
	statuses := func(yield func(client.Line[client.StatusRequest]) bool) {
		yield(client.Line[client.StatusRequest]{Ask: client.StatusRequest{Certificate: good.Certificate}})
	}
	for l, err := range b.StatusBatch(ctx, statuses) {
		if err != nil || !l.Result.OK() || l.Result.CheckPurpose != "liveness_check" {
			t.Errorf("%v %+v", err, l)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := newBank(t)
	for _, url := range []string{"", "verifier", "ftp://x", "http://"} {
		if _, err := client.New(client.Config{URL: url}); err == nil {
			t.Errorf("%q is admitted", url)
		}
	}
	stranger := must(client.New(client.Config{URL: "http://127.0.0.1:1", Token: token}))
	if _, err := stranger.Challenge(t.Context(), client.Session{}); !errors.Is(err, jpki.Unavailable) {
		t.Error(err)
	}
	if _, err := b.Challenge(t.Context(), client.Session{Binding: "123456789018"}); !errors.Is(err, jpki.MyNumberPresent) {
		t.Error(err)
	}
	for _, err := range stranger.VerifyBatch(t.Context(), func(func(client.Line[client.SignatureRequest]) bool) {}) {
		if !errors.Is(err, jpki.Unavailable) {
			t.Error(err)
		}
	}
}
