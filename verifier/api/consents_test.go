package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/store"
)

const (
	keysPath = "/.well-known/consent-receipt-keys"
	user     = "abcdefghijklmnopqrstuvwxyz234567"
	newPlace = "砂箱県港市海岸通九丁目"
)

// An office answers in the authority's place. What it would say of a request is the test's to set.
type office struct {
	t       *testing.T
	mu      sync.Mutex
	refuses error // of every question
	given   map[string]client.Consent
	keys    []string // of fetches
	uses    map[string]client.CertificateUse
	told    int  // uses, each time they were
	deaf    bool // takes what it is told, and its answers get lost
	picky   string
}

func (o *office) NewConsentText(_ context.Context, t client.ConsentTerms) (client.ConsentText, error) {
	return client.ConsentText{ConsentTerms: t, Version: "v1", Reference: strings.Repeat("a", 26), IssuedAt: t0, Text: "Consent to " + t.Description + ".\n"}, o.refuses
}

func (o *office) GiveConsent(_ context.Context, t client.ConsentText, signature []byte) (client.Consent, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuses != nil {
		return client.Consent{}, o.refuses
	}
	text, document := sha256.Sum256([]byte("Consent to "+t.Description+".\n")), sha256.Sum256(signature)
	year := t0.AddDate(1, 0, 0)
	c := client.Consent{
		ID: "c" + t.Reference, ConsentTerms: t.ConsentTerms, TenantName: "砂箱銀行", Operator: "verifier-1", User: user, Version: t.Version, Reference: t.Reference,
		TextSHA256: hex.EncodeToString(text[:]), DocumentSHA256: hex.EncodeToString(document[:]), ReceivedAt: t0, ValidFrom: t0, ValidUntil: t0.AddDate(10, 0, 0), State: client.ConsentValid, RemindAt: &year,
	}
	o.given[c.ID] = c
	return c, nil
}

func (o *office) ConsentsAfter(_ context.Context, tenant jpki.CorporateNumber, _, _ string) (p client.ConsentPage, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.given {
		if c.Tenant == tenant {
			p.Consents = append(p.Consents, c)
		}
	}
	p.Next = "c"
	return p, o.refuses
}

func (o *office) LatestAttributes(_ context.Context, key string, r client.AttributesRequest) (client.LatestAttributes, error) {
	o.keys = append(o.keys, key)
	if o.refuses != nil {
		return client.LatestAttributes{}, o.refuses
	}
	return client.LatestAttributes{Consent: "c", Address: newPlace}, nil
}

func (o *office) HolderLogin(context.Context, client.HolderAsk) (client.HolderLogin, error) {
	return client.HolderLogin{Challenge: "ch", Nonce: []byte("nonce"), Audience: "https://ca.example", ExpiresAt: t0.Add(time.Minute)}, o.refuses
}

func (o *office) HolderRecord(_ context.Context, p client.HolderProof) (client.RecordPage, error) {
	if p.Next == "" && len(p.Signature) == 0 {
		return client.RecordPage{}, errors.New("no proof")
	}
	return client.RecordPage{Entries: []client.RecordEntry{{At: t0, Tenant: bank, TenantName: "砂箱銀行", Operator: "verifier-1", Action: client.RecordLogin, Purpose: "log-in"}}, Next: "n"}, o.refuses
}

func (o *office) HolderConsents(context.Context, client.HolderProof) (out client.HolderConsents, err error) {
	out.Consents = []client.Consent{}
	for _, c := range o.given {
		c.User = ""
		out.Consents = append(out.Consents, c)
	}
	return out, o.refuses
}

func (o *office) HolderWithdrawal(_ context.Context, p client.HolderProof) (client.Consent, error) {
	c, ok := o.given[p.Consent]
	if !ok {
		return c, jpki.Errorf(jpki.NotFound, "")
	}
	c.State, c.WithdrawnAt, c.RemindAt = client.ConsentWithdrawn, &t0, nil
	o.given[p.Consent] = c
	c.User = ""
	return c, o.refuses
}

// ReportUses does as the authority does: a report with one that it refuses is refused whole, and none is recorded twice.
func (o *office) ReportUses(_ context.Context, r client.UseReport) (out client.UseOutcome, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuses != nil {
		return out, o.refuses
	}
	for _, u := range r.Uses {
		if o.picky != "" && u.Purpose == o.picky {
			return out, jpki.Errorf(jpki.Forbidden, "")
		}
	}
	for _, u := range r.Uses {
		o.told++
		if was, had := o.uses[u.ID]; had && (was.Purpose != u.Purpose || *was.Certificate != *u.Certificate || !was.At.Equal(u.At)) {
			o.t.Errorf("report %s changed: %v, %v", u.ID, was, u)
		}
		o.uses[u.ID] = u
	}
	if o.deaf {
		return out, jpki.Errorf(jpki.Unavailable, "")
	}
	return out, nil
}

var terms = object{"purpose": "address-upkeep", "description": "keeping your address up to date", "items": []string{"name", "address"}, "lang": "en"}

// order asks for a text and has a certificate's holder sign it.
func (b *bench) order(policy, text string, attached bool) object {
	b.t.Helper()
	a := b.send("POST", "/v1/consent-texts", terms)
	var o object
	if err := json.Unmarshal(a.body, &o); err != nil || a.StatusCode != http.StatusCreated {
		b.t.Fatalf("status %d: %s", a.StatusCode, a.body)
	}
	if text == "" {
		text = o["text"].(string)
	}
	key, cert := b.issue(policy)
	o["signature"] = b64(must(cms.Sign(strings.NewReader(text), cms.SignConfig{Certificate: cert, Signer: key, Rand: rand.Reader, SigningTime: t0, Attached: attached})))
	return o
}

type consent struct {
	ID, User, State, Receipt string
}

// claims verifies a receipt with the published keys, by RFC 7515 and nothing of ours.
func (b *bench) claims(receipt string) (out map[string]any) {
	b.t.Helper()
	a := b.send("GET", keysPath, nil, "Authorization", "")
	var set struct {
		Keys []struct{ Kid, X, Y string }
	}
	if err := json.Unmarshal(a.body, &set); err != nil || len(set.Keys) == 0 {
		b.t.Fatal(err, string(a.body))
	}
	parts := strings.Split(receipt, ".")
	raw := func(s string) []byte { return must(base64.RawURLEncoding.DecodeString(s)) }
	var header struct{ Alg, Kid string }
	if err := json.Unmarshal(raw(parts[0]), &header); err != nil || header.Alg != "ES256" || header.Kid != set.Keys[0].Kid {
		b.t.Fatal(header, err)
	}
	sum, signature := sha256.Sum256([]byte(parts[0]+"."+parts[1])), raw(parts[2])
	public := must(ecdsa.ParseUncompressedPublicKey(b.key.Curve, slices.Concat([]byte{4}, raw(set.Keys[0].X), raw(set.Keys[0].Y))))
	if !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		b.t.Fatal("the receipt's signature does not hold")
	}
	if err := json.Unmarshal(raw(parts[1]), &out); err != nil {
		b.t.Fatal(err)
	}
	return out
}

func TestConsents(t *testing.T) {
	b := newBench(t)
	a := b.send("POST", "/v1/consents", b.order(signOID, "", false))
	var got consent
	if err := json.Unmarshal(a.body, &got); err != nil || a.StatusCode != http.StatusCreated || got.User != user || got.State != "valid" {
		t.Fatalf("status %d %v: %s", a.StatusCode, err, a.body)
	}
	claims := b.claims(got.Receipt)
	if claims["record_id"] != got.ID || claims["pii_principal_id"] != user || claims["consent_state"] != "valid" || claims["reminder_time"] != "2027-11-24T03:00:00Z" || claims["iss"] != "https://verifier.example" {
		t.Error(claims)
	}
	// Another tenant has no part in it.
	if a := b.send("POST", "/v1/consent-searches", nil, "Authorization", "Bearer "+telecomToken); a.StatusCode != http.StatusOK || bytes.Contains(a.body, []byte(got.ID)) {
		t.Errorf("status %d: %s", a.StatusCode, a.body)
	}
	withdrawal := object{"challenge": "ch", "certificate": b64(bytes.Repeat([]byte{1}, 40)), "signature": b64(bytes.Repeat([]byte{2}, 64)), "consent": got.ID, "nonce": b64([]byte("nonce")), "expires_at": t0}
	if a := b.send("POST", "/v1/holder/consent-withdrawals", withdrawal); a.StatusCode != http.StatusOK || bytes.Contains(a.body, []byte(user)) {
		t.Errorf("status %d: %s", a.StatusCode, a.body)
	}
	var page struct{ Consents []consent }
	if err := json.Unmarshal(b.send("POST", "/v1/consent-searches", object{"user": user}).body, &page); err != nil || len(page.Consents) != 1 {
		t.Fatal(err, page)
	}
	if claims := b.claims(page.Consents[0].Receipt); claims["consent_state"] != "withdrawn" || len(claims["events"].([]any)) != 2 {
		t.Error(claims)
	}
}

// TestConsentsThatDoNotHold: the authority never sees them.
func TestConsentsThatDoNotHold(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		order object
		want  jpki.Problem
	}{
		"another certificate":   {b.order(authOID, "", false), jpki.Forbidden},
		"another text":          {b.order(signOID, "Consent to everything.\n", false), jpki.Forbidden},
		"the text inside":       {b.order(signOID, "", true), jpki.Malformed},
		"items twice the same":  {object{"items": "name"}, jpki.Malformed},
		"a My Number in a text": {object{"text": "123456789018"}, jpki.MyNumberPresent},
		"no CMS":                {object{"signature": b64(bytes.Repeat([]byte{48}, 80))}, jpki.Malformed},
	} {
		order := b.order(signOID, "", false)
		maps.Copy(order, c.order)
		t.Log(name)
		a := b.send("POST", "/v1/consents", order)
		if a.StatusCode == http.StatusCreated {
			t.Errorf("%s: taken", name)
		} else if name != "no CMS" {
			b.wantProblem(a, c.want)
		}
	}
	if len(b.office.given) != 0 {
		t.Error("the authority was given", b.office.given)
	}
}

func TestLatestAttributes(t *testing.T) {
	b := newBench(t)
	ask := object{"user": user, "purpose": "address-upkeep"}
	b.wantProblem(b.send("POST", "/v1/attributes", ask), jpki.MissingIdempotency)
	b.office.refuses = jpki.Errorf(jpki.NotAvailableYet, "")
	a := b.send("POST", "/v1/attributes", ask, "Idempotency-Key", "k 1")
	if b.wantProblem(a, jpki.NotAvailableYet); a.Header.Get("Retry-After") != "3600" {
		t.Error(a.Header)
	}
	b.office.refuses = nil
	for range 2 {
		a := b.send("POST", "/v1/attributes", ask, "Idempotency-Key", "k 1")
		if a.StatusCode != http.StatusOK || !bytes.Contains(a.body, []byte(newPlace)) || a.Header.Get("Idempotency-Replayed") != "" || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("status %d %v: %s", a.StatusCode, a.Header, a.body)
		}
	}
	b.send("POST", "/v1/attributes", ask, "Idempotency-Key", "k 1", "Authorization", "Bearer "+telecomToken)
	// The same key is the same at the authority, each time; another tenant's is another, and nobody's is told as it is.
	if k := b.office.keys; len(k) != 4 || k[0] != k[1] || k[1] != k[2] || k[2] == k[3] || strings.Contains(k[0], "k 1") {
		t.Error(k)
	}
	// Neither open nor sealed: no answer was kept under the key.
	for _, name := range []string{b.file, b.file + "-wal"} {
		if bytes.Contains(must(os.ReadFile(name)), []byte(newPlace)) {
			t.Error("the address is in", name)
		}
	}
	if strings.Contains(b.log.String(), newPlace) || strings.Contains(b.log.String(), user) {
		t.Error("the log tells of the holder")
	}
}

// TestAuthorityRefuses: what concerns the tenant is passed on, what concerns us is ours, and without an authority there is an answer, too.
func TestAuthorityRefuses(t *testing.T) {
	b := newBench(t)
	for p, want := range map[jpki.Problem]jpki.Problem{
		jpki.UnknownTenant: jpki.UnknownTenant, jpki.ConsentRequired: jpki.ConsentRequired, jpki.UnknownUser: jpki.UnknownUser, jpki.Unavailable: jpki.Unavailable,
		jpki.Unauthorized: jpki.Unavailable, jpki.Internal: jpki.Unavailable, jpki.UnknownStation: jpki.Unavailable,
	} {
		b.office.refuses = jpki.Errorf(p, "")
		b.wantProblem(b.send("POST", "/v1/attributes", object{"user": user, "purpose": "p"}, "Idempotency-Key", "k"), want)
	}
	b.api = must(api.New(api.Config{Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: func() time.Time { return b.now }}))
	for _, path := range []string{"/v1/consent-texts", "/v1/consents", "/v1/consent-searches", "/v1/attributes", "/v1/holder/log-ins", "/v1/holder/record", "/v1/holder/consents", "/v1/holder/consent-withdrawals"} {
		b.wantProblem(b.send("POST", path, object{}), jpki.NotFound)
	}
	b.wantProblem(b.send("GET", keysPath, nil), jpki.NotFound)
}

// consents goes through the routes that ask the authority, for the contract.
func (c *contract) consents() {
	c.conforms("POST", "/v1/consent-texts", "", terms)
	order := c.order(signOID, "", false)
	c.conforms("POST", "/v1/consents", "", order)
	c.conforms("POST", "/v1/consents", "", c.order(authOID, "", false))
	c.conforms("POST", "/v1/consent-searches", "", object{"user": user})
	ask := object{"user": user, "purpose": "address-upkeep"}
	c.conforms("POST", "/v1/attributes", "", ask, "Idempotency-Key", "k")
	c.office.refuses = jpki.Errorf(jpki.NotAvailableYet, "")
	c.conforms("POST", "/v1/attributes", "", ask, "Idempotency-Key", "k")
	c.office.refuses = jpki.Errorf(jpki.Unavailable, "")
	c.conforms("POST", "/v1/attributes", "", ask, "Idempotency-Key", "k")
	c.office.refuses = nil
	c.conforms("POST", "/v1/holder/log-ins", "", object{"action": "record"})
	proof := object{"challenge": "ch", "certificate": b64(bytes.Repeat([]byte{1}, 40)), "signature": b64(bytes.Repeat([]byte{2}, 64))}
	c.conforms("POST", "/v1/holder/record", "", proof)
	c.conforms("POST", "/v1/holder/record", "", object{"next": "n"})
	c.conforms("POST", "/v1/holder/consents", "", proof)
	for id := range c.office.given {
		withdrawal := maps.Clone(proof)
		withdrawal["consent"], withdrawal["nonce"], withdrawal["expires_at"] = id, b64([]byte("nonce")), t0
		c.conforms("POST", "/v1/holder/consent-withdrawals", "", withdrawal)
	}
	c.conforms("POST", "/v1/consent-searches", "", object{})
	c.conforms("GET", keysPath, "", nil, "Authorization", "")
	full := c.api
	c.api = must(api.New(api.Config{Verifier: c.verifier, Challenges: c.verifier.Challenges(), Store: c.store, Now: func() time.Time { return c.now }}))
	for path, item := range c.doc.Paths.Map() {
		if op := item.Post; op != nil && (slices.Contains(op.Tags, "consents") || slices.Contains(op.Tags, "holders")) {
			c.conforms("POST", path, "", object{})
		}
	}
	c.conforms("GET", keysPath, "", nil)
	c.api = full
}

func (b *bench) reporter() *api.Reporter {
	return must(api.NewReporter(api.ReporterConfig{Store: b.store, Authority: b.office, Now: func() time.Time { return b.now }}))
}

// TestReports: every use of a certificate that the authority issued gets there once, however often it is told, and nothing else does.
func TestReports(t *testing.T) {
	b := newBench(t)
	b.send("POST", "/v1/verifications", b.signed())
	b.send("POST", "/v1/verifications", object{"document": b64(b.document(true))})
	b.send("POST", "/v1/certificate-status", object{"certificate": b.signed()["certificate"], "purpose": "liveness_check"})
	b.send("POST", "/v1/authentications", b.login(b.challenge(nil), object{}))
	// Made up, with the issuer's name and another's key.
	stranger := newBench(t)
	stranger.anchor.SubjectKeyId = b.anchor.SubjectKeyId
	b.send("POST", "/v1/verifications", stranger.signed())

	r := b.reporter()
	b.office.refuses = jpki.Errorf(jpki.Unavailable, "") // stopped
	for range 3 {
		if err := r.Report(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if waiting, refused, err := b.store.CountUseReports(t.Context()); err != nil || waiting != 4 || refused != 0 {
		t.Fatal(waiting, refused, err)
	}
	b.office.refuses, b.office.deaf = nil, true // takes them, and the answer is lost
	b.now = b.now.Add(time.Hour)
	if err := r.Report(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.office.deaf, b.office.picky = false, "log-in" // and one is refused for good
	b.now = b.now.Add(time.Hour)
	if err := r.Report(t.Context()); err != nil {
		t.Fatal(err)
	}
	if waiting, refused, err := b.store.CountUseReports(t.Context()); err != nil || waiting != 0 || refused != 1 {
		t.Error(waiting, refused, err)
	}
	var purposes []string
	for _, u := range b.office.uses {
		purposes = append(purposes, string(u.Action)+" "+u.Purpose)
		if u.Certificate.Issuer.String() != "sign-1" || !u.At.Equal(t0) {
			t.Error(u)
		}
	}
	slices.Sort(purposes)
	if want := []string{"log-in log-in", "status-check liveness-check", "verification signature-verification", "verification signature-verification"}; !slices.Equal(purposes, want) {
		t.Error(purposes)
	}
	if b.office.told != 7 || r.Outcomes()["reported"] != 3 || r.Outcomes()["refused"] != 1 || r.Outcomes()["put-off"] != 2 {
		t.Error(b.office.told, r.Outcomes())
	}
}

// TestKilledLosesNoReport: a process that answers verdicts is killed in the middle. Whatever it had answered is reported by the next.
func TestKilledLosesNoReport(t *testing.T) {
	if dir := os.Getenv("VERIFIER_TO_KILL"); dir != "" {
		b := newBench(t)
		var err error
		if b.store, err = store.Create(t.Context(), store.Config{Database: "sqlite:" + filepath.Join(dir, "verifier.db"), MasterKey: bytes.Repeat([]byte{1}, 32)}); err != nil {
			t.Fatal(err)
		}
		if err := b.store.AddTenant(t.Context(), store.Tenant{ID: bank, Name: "bank"}, t0); err != nil {
			t.Fatal(err)
		}
		b.token(bank, bankToken, time.Time{}, store.Verify)
		b.api = must(api.New(api.Config{
			Verifier: b.verifier, Challenges: b.verifier.Challenges(), Store: b.store, Now: func() time.Time { return b.now },
			Issuers: map[string]jpki.IssuerID{hex.EncodeToString(b.anchor.SubjectKeyId): {CA: jpki.CAs[0], Generation: 1}},
		}))
		answered := must(os.OpenFile(filepath.Join(dir, "answered"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600))
		for { // until killed
			req := b.signed()
			a := b.send("POST", "/v1/verifications", req)
			cert := must(x509.ParseCertificate(must(base64.StdEncoding.DecodeString(req["certificate"].(string)))))
			if res := b.result(a); res.OK() {
				_, _ = answered.WriteString(must(jpki.SerialFromBig(cert.SerialNumber)).String() + "\n")
			}
		}
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledLosesNoReport$") //nolint:gosec // G702: this test itself
	cmd.Env = append(os.Environ(), "VERIFIER_TO_KILL="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for deadline := time.Now().Add(time.Minute); len(lines) < 50; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(dir, "answered"))
		lines = strings.Fields(string(text))
		if time.Now().After(deadline) {
			t.Fatal("the process answers nothing")
		}
	}
	if err := cmd.Process.Kill(); err != nil { // SIGKILL
		t.Fatal(err)
	}
	_ = cmd.Wait()
	lines = strings.Fields(string(must(os.ReadFile(filepath.Join(dir, "answered")))))
	s, err := store.Open(t.Context(), store.Config{Database: "sqlite:" + filepath.Join(dir, "verifier.db"), MasterKey: bytes.Repeat([]byte{1}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	o := &office{t: t, uses: map[string]client.CertificateUse{}}
	r := must(api.NewReporter(api.ReporterConfig{Store: s, Authority: o, Now: func() time.Time { return t0 }}))
	if err := r.Report(t.Context()); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, u := range o.uses {
		have[u.Certificate.Serial.String()] = true
	}
	for _, serial := range lines {
		if !have[serial] {
			t.Errorf("an answered verdict was not reported")
		}
	}
	if len(o.uses) > len(lines)+1 {
		t.Errorf("%d reports of %d answers", len(o.uses), len(lines))
	}
}
