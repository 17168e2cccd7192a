package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// under makes a new authority on the same database, with another profile or other issuers.
func (w *world) under(p *ca.Profile, issuers []ca.Issuer, log io.Writer) {
	w.t.Helper()
	a, err := ca.New(ca.Config{Store: w.db, Profile: p, Issuers: issuers, StatusURL: "http://status.example", Now: func() time.Time { return w.now }, Rand: rand.Reader, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.a = a
}

// countingSigner counts what its key is asked to sign.
type countingSigner struct {
	crypto.Signer
	n *atomic.Int32
}

func (s countingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.n.Add(1)
	return s.Signer.Sign(r, digest, o)
}

// A profile that asks for what RFC 5280 advises against: the certificate is refused before the key has seen it, the number is
// burnt, the log names the lint and nobody's data.
func TestWhatALintRefusesIsNeverSigned(t *testing.T) {
	text := must(os.ReadFile("profiles/sandbox.yaml"))
	wrong := must(ca.ParseProfile([]byte(strings.ReplaceAll(string(text), "issuerAltName, ", "issuerAltName!, "))))
	onBoth(t, func(w *world) {
		var signed atomic.Int32
		issuers := slices.Clone(w.issuers)
		for i := range issuers {
			issuers[i].Signer = countingSigner{issuers[i].Signer, &signed}
		}
		var log bytes.Buffer
		w.under(wrong, issuers, &log)
		req := w.request("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		_, err := w.a.Issue(w.t.Context(), counter, req)
		if !errors.Is(err, jpki.Internal) || signed.Load() != 0 {
			w.t.Errorf("the key signed %d times: %v", signed.Load(), err)
		}
		burnt := must(w.db.StatusChanges(w.t.Context(), 0, 10))
		if len(burnt) != 2 || w.state(burnt[0].ID) != "revoked unspecified" || w.state(burnt[1].ID) != "revoked unspecified" {
			w.t.Errorf("status log: %v", burnt)
		}
		if text := log.String(); !strings.Contains(text, "lint=w_ext_ian_critical") || !strings.Contains(text, burnt[0].ID.String()) || strings.Contains(text, "砂場") {
			w.t.Errorf("logged: %s", text)
		}
		w.restart(w.issuers)
		if _, err := w.a.Issue(w.t.Context(), counter, req); err != nil {
			w.t.Errorf("the same request under a sound profile: %v", err)
		}
	})
}

// Minted certificates pass the same gate.
func TestMintedCertificatesAreLinted(t *testing.T) {
	text := must(os.ReadFile("profiles/sandbox.yaml"))
	w := newWorldWithoutStore(t)
	c := store.Certificate{Kind: jpki.CardSign, Partition: "99101", NotBefore: w.now, NotAfter: w.now.AddDate(5, 0, 0)}
	spki := must(x509.MarshalPKIXPublicKey(&key(t, 0).PublicKey))
	for profile, want := range map[string]bool{string(text): true, strings.ReplaceAll(string(text), "issuerAltName, ", "issuerAltName!, "): false} {
		m := must(ca.NewMinter(must(ca.ParseProfile([]byte(profile))), w.issuers, "http://status.example", rand.Reader))
		got, err := m.Mint(c, *attributes(jpki.NewBirthDate(1980, 2, 17)), spki)
		if (err == nil) != want || want && !got.NotAfter.Equal(time.Date(2031, 4, 1, 23, 59, 59, 0, jpki.JST)) {
			t.Errorf("minted, ends %v: %v", got.NotAfter, err)
		}
	}
}

func newWorldWithoutStore(t *testing.T) *world {
	w := &world{t: t, now: time.Date(2026, 4, 1, 9, 0, 0, 0, jpki.JST)}
	for i, name := range jpki.CAs {
		cert := must(ca.SelfSigned(ca.Sandbox(), name, signers()[i], must(jpki.NewSerial(rand.Reader)), w.now.AddDate(0, -1, 0)))
		w.issuers = append(w.issuers, ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: 1}, Certificate: cert, Signer: signers()[i]})
	}
	return w
}

// The register keeps a name as it is, the certificate carries it as it can.
func TestNamesOutsideTheRepertoire(t *testing.T) {
	onBoth(t, func(w *world) {
		given := attributes(jpki.NewBirthDate(1980, 2, 17))
		given.Name, given.NameSubstitutes = "𠮷髙　花\U000E0100子", "000010"
		if _, err := w.event(jpki.Event{Holder: "h2", Type: jpki.Registered, Municipality: "99101", Attributes: given}); err != nil {
			w.t.Fatal(err)
		}
		issued := must(w.a.Issue(w.t.Context(), counter, w.request("h2", "card-2", jpki.CardSign)))
		text := openssl(w.t, issued[0].Certificate, "x509", "-inform", "DER", "-noout", "-ext", "subjectAltName", "-nameopt", "utf8")
		for _, want := range []string{"8.5.5.1::〓〓　花子", "8.5.5.2::11010", "8.5.5.6::000000000000000"} {
			if !strings.Contains(text, want) {
				w.t.Errorf("no %s in\n%s", want, text)
			}
		}
		err := w.db.View(w.t.Context(), func(tx *store.Tx) error {
			h, err := tx.Holder("h2")
			if h.Attributes.Name != given.Name {
				w.t.Error("the register's name was changed")
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	})
}

// What cannot be carried is said before a number is spent, in the caller's words.
func TestNamesThatNoCertificateCanCarry(t *testing.T) {
	onBoth(t, func(w *world) {
		given := attributes(jpki.NewBirthDate(1980, 2, 17))
		given.Address = strings.Repeat("長", jpki.MaxAddressLength)
		if _, err := w.event(jpki.Event{Holder: "h2", Type: jpki.Registered, Municipality: "99101", Attributes: given}); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.a.Issue(w.t.Context(), counter, w.request("h2", "card-2", jpki.CardSign)); !errors.Is(err, jpki.NotEligible) {
			w.t.Errorf("a long address: %v", err)
		}
		if log := must(w.db.StatusChanges(w.t.Context(), 0, 10)); len(log) != 0 {
			w.t.Errorf("%d numbers were spent", len(log))
		}
		if _, err := w.a.Issue(w.t.Context(), counter, w.request("h2", "card-2", jpki.CardAuth)); err != nil {
			w.t.Errorf("an authentication certificate carries no address: %v", err)
		}
	})
}

// next makes a P-384 generation of a CA, not recorded.
func (w *world) next(name jpki.CA, generation int) ca.Issuer {
	w.t.Helper()
	k := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	cert, err := ca.SelfSigned(ca.Sandbox(), name, k, must(jpki.NewSerial(rand.Reader)), w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	return ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: generation}, Certificate: cert, Signer: k}
}

var system = jpki.Actor{Role: jpki.System, ID: "ceremony"}

// A second generation under the same name: it issues from its activation on, with its own algorithm, and the first one's
// certificates stay what they are.
func TestGenerationsUnderOneName(t *testing.T) {
	onBoth(t, func(w *world) {
		first := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		repeated := w.request("h1", "phone-1", jpki.PhoneSign)
		repeated.Parent = &first[0].ID
		before := must(w.a.Issue(w.t.Context(), counter, repeated))

		second := w.next(jpki.SignCA, 2)
		for what, try := range map[string]struct {
			do   func() error
			want jpki.Problem
		}{
			"activated before it was added": {func() error { return w.a.Activate(w.t.Context(), system, second) }, jpki.NotFound},
			"added by a counter":            {func() error { return w.a.AddGeneration(w.t.Context(), counter, second) }, jpki.Forbidden},
			"activated by a counter":        {func() error { return w.a.Activate(w.t.Context(), counter, second) }, jpki.Forbidden},
			"a number left out":             {func() error { return w.a.AddGeneration(w.t.Context(), system, w.next(jpki.SignCA, 3)) }, jpki.Conflict},
			"a number twice":                {func() error { return w.a.AddGeneration(w.t.Context(), system, w.next(jpki.SignCA, 1)) }, jpki.Conflict},
			"a key twice": {func() error {
				again := w.issuers[0]
				again.ID.Generation = 2
				return w.a.AddGeneration(w.t.Context(), system, again)
			}, jpki.Conflict},
		} {
			if err := try.do(); jpki.ProblemOf(err) != try.want {
				w.t.Errorf("%s: %v, want %s", what, err, try.want)
			}
		}
		if err := w.a.AddGeneration(w.t.Context(), system, second); err != nil {
			w.t.Fatal(err)
		}
		w.register("h2", "99101", jpki.NewBirthDate(1980, 2, 17))
		if got := w.issue("h2", "card-2", jpki.CardAuth, jpki.CardSign); got[1].ID.Issuer.Generation != 1 {
			w.t.Errorf("%s was issued by a generation that is not active", got[1].ID)
		}
		if err := w.a.Activate(w.t.Context(), system, second); err != nil {
			w.t.Fatal(err)
		}
		if err := w.a.Activate(w.t.Context(), system, second); err != nil {
			w.t.Errorf("activated again: %v", err)
		}
		other := w.next(jpki.SignCA, 2)
		if err := w.a.Activate(w.t.Context(), system, other); !errors.Is(err, jpki.Conflict) {
			w.t.Errorf("activated with another certificate: %v", err)
		}
		w.register("h3", "99101", jpki.NewBirthDate(1980, 2, 17))
		next := w.issue("h3", "card-3", jpki.CardSign, jpki.CardAuth)
		if next[0].ID.Issuer != second.ID || next[1].ID.Issuer.Generation != 1 || !bytes.Equal(next[0].Issuer, second.Certificate.Raw) {
			w.t.Errorf("issued %s and %s after the activation", next[0].ID, next[1].ID)
		}
		cert := must(x509.ParseCertificate(next[0].Certificate))
		if cert.SignatureAlgorithm != x509.ECDSAWithSHA384 || !bytes.Equal(cert.RawIssuer, w.issuers[0].Certificate.RawSubject) || bytes.Equal(cert.AuthorityKeyId, w.issuers[0].Certificate.SubjectKeyId) {
			w.t.Errorf("signed with %v under %s", cert.SignatureAlgorithm, cert.Issuer)
		}
		again, err := w.a.Issue(w.t.Context(), counter, repeated)
		if err != nil || again[0].ID != before[0].ID || !bytes.Equal(again[0].Issuer, w.issuers[0].Certificate.Raw) {
			w.t.Errorf("a request of before, repeated: %v %v", again, err)
		}
		w.opensslVerifies([]*x509.Certificate{w.issuers[0].Certificate, second.Certificate}, map[*x509.Certificate]bool{must(x509.ParseCertificate(first[0].Certificate)): true, cert: true})
		w.opensslVerifies([]*x509.Certificate{w.issuers[0].Certificate}, map[*x509.Certificate]bool{must(x509.ParseCertificate(first[0].Certificate)): true, cert: false})
		// The old generation's certificates are still the authority's to end.
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil {
			w.t.Error(err)
		}
		w.expect(map[jpki.CertID]string{first[0].ID: "suspended certificateHold", next[0].ID: "good"})
		err = w.db.View(w.t.Context(), func(tx *store.Tx) error {
			active := map[jpki.CA][]int{}
			for _, g := range must(tx.Generations()) {
				if g.Active {
					active[g.Issuer.CA] = append(active[g.Issuer.CA], g.Issuer.Generation)
				}
			}
			if !slices.Equal(active[jpki.SignCA], []int{2}) || !slices.Equal(active[jpki.AuthCA], []int{1}) {
				w.t.Errorf("active: %v", active)
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		// The database itself admits no second active generation.
		err = w.db.Update(w.t.Context(), func(tx *store.Tx) error {
			return tx.AddGeneration(store.Generation{Issuer: jpki.IssuerID{CA: jpki.SignCA, Generation: 3}, Certificate: []byte{1}, Active: true}, w.now)
		})
		if !errors.Is(err, jpki.Conflict) {
			w.t.Errorf("a second active generation: %v", err)
		}
		// Back to the first: the newer key may turn out to be unusable.
		if err := w.a.Activate(w.t.Context(), system, w.issuers[0]); err != nil {
			w.t.Fatal(err)
		}
		w.register("h4", "99101", jpki.NewBirthDate(1980, 2, 17))
		if got := w.issue("h4", "card-4", jpki.CardSign)[0].ID.Issuer.Generation; got != 1 {
			w.t.Errorf("generation %d issues", got)
		}
	})
}

// opensslVerifies asks OpenSSL which certificates these anchors vouch for.
func (w *world) opensslVerifies(anchors []*x509.Certificate, want map[*x509.Certificate]bool) {
	w.t.Helper()
	var trusted bytes.Buffer
	for _, a := range anchors {
		_ = pem.Encode(&trusted, &pem.Block{Type: "CERTIFICATE", Bytes: a.Raw})
	}
	dir := w.t.TempDir()
	file := filepath.Join(dir, "anchors.pem")
	if err := os.WriteFile(file, trusted.Bytes(), 0o600); err != nil {
		w.t.Fatal(err)
	}
	for c, ok := range want {
		name := filepath.Join(dir, c.SerialNumber.String()+".pem")
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
			w.t.Fatal(err)
		}
		out, err := opensslRun("verify", "-attime", timestamp(w.now.Add(time.Hour)), "-CAfile", file, name)
		if (err == nil) != ok {
			w.t.Errorf("openssl verify, %d anchors: %v, want verified %v\n%s", len(anchors), err, ok, out)
		}
	}
}

// pausingSigner says when it is asked and waits until it may answer.
type pausingSigner struct {
	crypto.Signer
	asked, go_ chan struct{}
}

func (s pausingSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.asked <- struct{}{}
	<-s.go_
	return s.Signer.Sign(r, digest, o)
}

// An issuance that is under way when the generation changes ends with the one it began with.
func TestAnIssuanceKeepsItsGeneration(t *testing.T) {
	onBoth(t, func(w *world) {
		slow := pausingSigner{w.issuers[0].Signer, make(chan struct{}), make(chan struct{})}
		issuers := slices.Clone(w.issuers)
		issuers[0].Signer = slow
		w.restart(issuers)
		second := w.next(jpki.SignCA, 2)
		if err := w.a.AddGeneration(w.t.Context(), system, second); err != nil {
			w.t.Fatal(err)
		}
		var wg sync.WaitGroup
		var got []ca.Issued
		var failed error
		req := w.request("h1", "card-1", jpki.CardSign)
		wg.Go(func() { got, failed = w.a.Issue(w.t.Context(), counter, req) })
		<-slow.asked
		err := w.a.Activate(w.t.Context(), system, second)
		close(slow.go_)
		wg.Wait()
		if err != nil || failed != nil || got[0].ID.Issuer.Generation != 1 || !bytes.Equal(got[0].Issuer, w.issuers[0].Certificate.Raw) {
			w.t.Fatalf("%v %v %v", got, err, failed)
		}
		w.register("h2", "99101", jpki.NewBirthDate(1980, 2, 17))
		if next := w.issue("h2", "card-2", jpki.CardSign); next[0].ID.Issuer != second.ID {
			w.t.Errorf("the next issuance is by %s", next[0].ID.Issuer)
		}
	})
}

// The next generation's rules end to end: P-384 on both sides, ten years, renewal in the last one.
func TestTheNextGenerationsRules(t *testing.T) {
	onBoth(t, func(w *world) {
		var issuers []ca.Issuer
		p := ca.SandboxNext()
		for _, name := range jpki.CAs {
			k := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
			i := ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: 2}, Certificate: must(ca.SelfSigned(p, name, k, must(jpki.NewSerial(rand.Reader)), w.now)), Signer: k}
			if err := errors.Join(w.a.AddGeneration(w.t.Context(), system, i), w.a.Activate(w.t.Context(), system, i)); err != nil {
				w.t.Fatal(err)
			}
			issuers = append(issuers, i)
		}
		w.under(p, issuers, io.Discard)
		ask := func(kinds ...jpki.Kind) ca.IssueRequest {
			r := ca.IssueRequest{IdempotencyKey: w.name(), Holder: "h1", Token: "card-1"}
			for _, k := range kinds {
				r.Requests = append(r.Requests, ca.KeyRequest{Kind: k, Request: csr(w.t, must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)))})
			}
			return r
		}
		if _, err := w.a.Issue(w.t.Context(), counter, w.request("h1", "card-1", jpki.CardAuth)); !errors.Is(err, jpki.WeakKey) {
			w.t.Errorf("an RSA key: %v", err)
		}
		small := ask(jpki.CardAuth)
		small.Requests[0].Request = csr(w.t, must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
		if _, err := w.a.Issue(w.t.Context(), counter, small); !errors.Is(err, jpki.WeakKey) {
			w.t.Errorf("a P-256 key: %v", err)
		}
		got := must(w.a.Issue(w.t.Context(), counter, ask(jpki.CardSign, jpki.CardAuth)))
		if want := time.Date(2036, 2, 17, 23, 59, 59, 0, jpki.JST); !got[0].NotAfter.Equal(want) || !got[1].NotAfter.Equal(want) {
			w.t.Errorf("end %v and %v, want %v", got[0].NotAfter, got[1].NotAfter, want)
		}
		sign := must(x509.ParseCertificate(got[0].Certificate))
		w.opensslVerifies([]*x509.Certificate{issuers[0].Certificate}, map[*x509.Certificate]bool{sign: true})
		if sign.SignatureAlgorithm != x509.ECDSAWithSHA384 || sign.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P384() {
			w.t.Errorf("%v over %v", sign.SignatureAlgorithm, sign.PublicKeyAlgorithm)
		}
		w.now = time.Date(2035, 2, 16, 23, 59, 59, 0, jpki.JST)
		if _, err := w.a.Renew(w.t.Context(), counter, ask(jpki.CardAuth)); !errors.Is(err, jpki.NotRenewable) {
			w.t.Errorf("a second before the window: %v", err)
		}
		w.now = w.now.Add(time.Second)
		renewed, err := w.a.Renew(w.t.Context(), counter, ask(jpki.CardAuth))
		if err != nil || !renewed[0].NotAfter.Equal(got[0].NotAfter) {
			w.t.Errorf("renewed: %v %v: the card's end caps it", renewed, err)
		}
	})
}
