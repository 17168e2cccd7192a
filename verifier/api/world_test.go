package api_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"path/filepath"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/store"
)

const (
	bank    jpki.CorporateNumber = "5835678256246"
	telecom jpki.CorporateNumber = "8700110005901"
)

// openStore makes a store with two tenants that have every scope.
func (b *bench) openStore() {
	b.t.Helper()
	b.file = filepath.Join(b.t.TempDir(), "verifier.db")
	var err error
	if b.store, err = store.Create(b.t.Context(), store.Config{Database: "sqlite:" + b.file, MasterKey: bytes.Repeat([]byte{1}, 32)}); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = b.store.Close() })
	for _, p := range []struct {
		id          jpki.CorporateNumber
		name, token string
	}{{bank, "bank", bankToken}, {telecom, "telecom", telecomToken}} {
		if err := b.store.AddTenant(b.t.Context(), store.Tenant{ID: p.id, Name: p.name, RetentionDays: store.RetentionDays}, t0); err != nil {
			b.t.Fatal(err)
		}
		b.token(p.id, p.token, time.Time{}, store.Scopes()...)
	}
}

// token gives a tenant a bearer token.
func (b *bench) token(tenant jpki.CorporateNumber, secret string, expires time.Time, scopes ...store.Scope) store.Token {
	b.t.Helper()
	t, err := b.store.AddCredential(b.t.Context(), tenant, store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(secret))}, scopes, expires, t0)
	if err != nil {
		b.t.Fatal(err)
	}
	return t
}

// documentConfig has a list of the anchor's on which nobody stands.
func (b *bench) documentConfig() *verifier.DocumentConfig {
	der := must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: t0.Add(-time.Hour), NextUpdate: t0.Add(24 * time.Hour)}, b.anchor, b.key))
	return &verifier.DocumentConfig{
		Policy: must(verifier.FindDocumentPolicy("sandbox-signature-2026")), Anchors: []*x509.Certificate{b.anchor},
		Sources: []verifier.RevocationSource{verifier.StoredSource("list", []*path.CRL{must(path.ParseCRL(der))}, nil)},
	}
}

var application = []byte("The undersigned opens an account.")

// document makes a CMS document signed with a signature certificate, with its content or apart from it.
func (b *bench) document(attached bool) []byte {
	key, cert := b.issue(signOID)
	return must(cms.Sign(bytes.NewReader(application), cms.SignConfig{Certificate: cert, Signer: key, Rand: rand.Reader, SigningTime: t0, Attached: attached}))
}
