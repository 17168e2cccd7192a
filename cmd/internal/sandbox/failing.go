package sandbox

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
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/verifier"
	verifierstore "github.com/openjpki/jpki/verifier/store"
)

// A sample is a request to the verifier's API that is answered in a certain way: for those who write programs that call it. Its
// folder has request.json, expected.json and send.sh, which sends it; what is signed and with what, if anything is.
type sample struct {
	name   string
	from   source
	mint   *minted // the certificate, if from is ownCertificate
	expect expectation
}

// An expectation is what the API answers: a verdict, or a problem.
type expectation struct {
	Status        int                    `json:"http_status"`
	Indication    verifier.Indication    `json:"indication,omitempty"`
	SubIndication verifier.SubIndication `json:"sub_indication,omitempty"`
	Code          verifier.Code          `json:"code,omitempty"`
	Problem       jpki.Problem           `json:"problem,omitempty"`
}

// A source says whose certificate and key a sample uses.
type source int

const (
	signCertificate source = iota // the sample holder's for signatures
	authCertificate               // and for log-ins
	ownCertificate                // minted for the sample
	foreignCertificate
	slowCertificate // the one minted for the sample called slow
	noCertificate
)

// minted says what is particular about a sample's certificate.
type minted struct {
	kind      jpki.Kind // empty means card-sign
	responder string    // at the status zone, before /ocsp
	status    jpki.Status
	from, to  int // of its validity, in years from now; an end in the past is one of a month ago
}

// samples, each of which has its row in docs/samples.md.
var samples = []sample{
	{"good", signCertificate, nil, passed},
	{"altered-document", signCertificate, nil, expectation{200, verifier.TotalFailed, verifier.SubHashFailure, verifier.DigestMismatch, ""}},
	{"other-key", signCertificate, nil, expectation{200, verifier.TotalFailed, verifier.SubSigCryptoFailure, verifier.SignatureWrong, ""}},
	{"wrong-purpose", authCertificate, nil, expectation{200, verifier.Indeterminate, verifier.SubChainConstraintsFailure, verifier.WrongPurpose, ""}},
	{"foreign-ca", foreignCertificate, nil, expectation{200, verifier.Indeterminate, verifier.SubNoCertificateChainFound, verifier.UntrustedIssuer, ""}},
	{"not-a-certificate", signCertificate, nil, expectation{200, verifier.TotalFailed, verifier.SubFormatFailure, verifier.MalformedCertificate, ""}},
	{"moved", ownCertificate, &minted{status: ended(jpki.AffiliationChanged, jpki.Moved), to: 5}, expectation{200, verifier.Indeterminate, verifier.SubRevokedNoPOE, verifier.RevokedAttributesChanged, ""}},
	{"superseded", ownCertificate, &minted{status: ended(jpki.Superseded, jpki.Renewed), to: 5}, expectation{200, verifier.Indeterminate, verifier.SubRevokedNoPOE, verifier.RevokedSuperseded, ""}},
	{"suspended", ownCertificate, &minted{status: suspended, to: 5}, expectation{200, verifier.Indeterminate, verifier.SubTryLater, verifier.Suspended, ""}},
	{"expired", ownCertificate, &minted{status: inForce, from: -5}, expectation{200, verifier.Indeterminate, verifier.SubOutOfBoundsNoPOE, verifier.Expired, ""}},
	{"not-yet-valid", ownCertificate, &minted{status: inForce, from: 1, to: 6}, expectation{200, verifier.TotalFailed, verifier.SubNotYetValid, verifier.NotYetValid, ""}},
	{"status-unavailable", ownCertificate, &minted{status: inForce, responder: unavailablePath, to: 5}, expectation{200, verifier.Indeterminate, verifier.SubTryLater, verifier.StatusNotEstablished, ""}},
	{"slow", ownCertificate, &minted{status: inForce, responder: slowPath, to: 5}, passed},
	{"deadline", slowCertificate, nil, refused(jpki.DeadlineExceeded)},
	{"login", authCertificate, nil, passed},
	{"login-wrong-purpose", signCertificate, nil, expectation{200, verifier.Indeterminate, verifier.SubChainConstraintsFailure, verifier.WrongPurpose, ""}},
	{"login-suspended", ownCertificate, &minted{kind: jpki.CardAuth, status: suspended, to: 5}, expectation{200, verifier.Indeterminate, verifier.SubTryLater, verifier.Suspended, ""}},
	{"login-expired-challenge", authCertificate, nil, refused(jpki.ChallengeInvalid)},
	{"login-replayed", authCertificate, nil, refused(jpki.ChallengeInvalid)},
	{"malformed", noCertificate, nil, refused(jpki.Malformed)},
	{"my-number", noCertificate, nil, refused(jpki.MyNumberPresent)},
	{"unauthorized", signCertificate, nil, refused(jpki.Unauthorized)},
	{"quota", signCertificate, nil, refused(jpki.RateLimited)},
}

var (
	passed    = expectation{200, verifier.TotalPassed, "", verifier.OK, ""}
	inForce   = jpki.Status{State: jpki.Good}
	suspended = jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost}
)

func ended(reason jpki.Reason, cause jpki.Cause) jpki.Status {
	return jpki.Status{State: jpki.Revoked, Reason: reason, Cause: cause}
}

func refused(p jpki.Problem) expectation { return expectation{Status: p.HTTPStatus(), Problem: p} }

// Two responders that the status zone has for the samples: one always wants to be asked later, the other takes its time.
const (
	unavailablePath = "/unavailable"
	slowPath        = "/slow"
	slowness        = 3 * time.Second // less than a verifier's patience
)

// Whom the samples' certificates belong to.
const (
	samplesHolder = "failing-samples"
	samplesToken  = "failing-samples"
)

// quotaNumber is the tenant whose quota is one verdict a day. No organisation has the number.
const quotaNumber jpki.CorporateNumber = "1999999999998"

// writeSamples writes DIR/samples anew, with keys and certificates of before as far as they still serve. Steps:
//  1. mint what is missing, and record it like everything the authority issues
//  2. make a stranger's certificate, and the tenant that may ask once
//  3. write each sample
func (s *System) writeSamples(ctx context.Context) error {
	for _, f := range samples {
		if err := os.MkdirAll(s.folder(f.name), 0o700); err != nil {
			return err
		}
	}
	// 1.
	if err := s.mintSamples(ctx); err != nil {
		return fmt.Errorf("mint certificates: %w", err)
	}
	// 2.
	stranger, err := openKey(ctx, s.folder("foreign-ca", "key.pem"), hsm.P384)
	if err != nil {
		return err
	}
	if _, err := openCertificate(s.folder("foreign-ca", "certificate.pem"), renewBefore, func() (*x509.Certificate, error) { return strange(stranger) }); err != nil {
		return err
	}
	if err := s.makeQuotaTenant(ctx); err != nil {
		return fmt.Errorf("make the tenant with a quota: %w", err)
	}
	// 3.
	for _, f := range samples {
		if err := s.writeSample(ctx, f); err != nil {
			return fmt.Errorf("sample %s: %w", f.name, err)
		}
	}
	return nil
}

// folder is where a sample, or a file of it, lies.
func (s *System) folder(name string, file ...string) string {
	return filepath.Join(append([]string{s.env.Samples, name}, file...)...)
}

// mintSamples mints the certificates of those samples that have none which still serves.
func (s *System) mintSamples(ctx context.Context) error {
	now := time.Now().UTC().Truncate(time.Second)
	certs := make([]store.Certificate, len(samples))
	g, mintCtx := errgroup.WithContext(ctx)
	for i, f := range samples {
		if f.mint == nil || s.serves(ctx, s.folder(f.name, "certificate.pem"), f.mint) {
			continue
		}
		g.Go(func() (err error) { certs[i], err = s.mintSample(mintCtx, f, now); return err })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	certs = slices.DeleteFunc(certs, func(c store.Certificate) bool { return c.DER == nil })
	if len(certs) == 0 {
		return nil
	}
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		if _, err := tx.Token(samplesToken); errors.Is(err, jpki.UnknownToken) {
			if err := errors.Join(tx.PutHolder(store.Holder{ID: samplesHolder, Municipality: counterActor.Municipality, Attributes: residents[0].Attributes}, now),
				tx.AddToken(store.Token{ID: samplesToken, Type: jpki.Card, Holder: samplesHolder, ValidUntil: now.AddDate(10, 0, 0)}, now)); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		changes := make([]jpki.StatusChange, len(certs))
		for i, c := range certs {
			changes[i] = jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: c.Status}
			if err := tx.AddCertificate(c); err != nil {
				return err
			}
		}
		return tx.Audit(now, system, "seed", certs[0].ID.String(), SeedRecord{len(certs), SeedDigest(changes)})
	})
	if err != nil {
		return err
	}
	// The responder follows; a sample that it does not know yet would be answered otherwise than is said.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, _, err = s.index.Status(ctx, certs[len(certs)-1].ID); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (s *System) mintSample(ctx context.Context, f sample, now time.Time) (c store.Certificate, err error) {
	path := s.folder(f.name, "key.pem")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	key, err := hsm.Create(ctx, hsm.FileURI(path), s.profile.samples)
	if err != nil {
		return c, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return c, err
	}
	minter, err := ca.NewMinter(s.profile.Profile, s.keys.active, s.env.StatusURL()+f.mint.responder, rand.Reader)
	if err != nil {
		return c, err
	}
	c = store.Certificate{
		Kind: jpki.CardSign, Holder: samplesHolder, Token: samplesToken, Partition: counterActor.Municipality,
		NotBefore: now.AddDate(f.mint.from, 0, 0), NotAfter: now.AddDate(f.mint.to, 0, 0), IssuedAt: now, Status: f.mint.status,
	}
	if f.mint.kind != "" {
		c.Kind = f.mint.kind
	}
	if f.mint.to <= 0 {
		c.NotBefore, c.NotAfter = c.NotBefore.AddDate(0, -1, 0), c.NotAfter.AddDate(0, -1, 0)
		c.IssuedAt = c.NotBefore // by an authority of that time
	}
	c.Status.Since = now
	if c, err = minter.Mint(c, residents[0].Attributes, spki); err != nil {
		return c, err
	}
	return c, writeFile(s.folder(f.name, "certificate.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.DER}), 0o644)
}

// serves reports whether a certificate of an earlier start is still what the sample wants, recorded and all.
func (s *System) serves(ctx context.Context, path string, m *minted) bool {
	cert, err := ReadCertificate(path)
	now := time.Now()
	if err != nil || !s.profile.madeFor(cert.PublicKey) || now.After(cert.NotAfter) != (m.to <= 0) || now.Before(cert.NotBefore) != (m.from > 0) ||
		!slices.Equal(cert.OCSPServer, []string{s.env.StatusURL() + m.responder + "/ocsp"}) {
		return false
	}
	id, err := s.env.CertID(cert)
	if err != nil {
		return false
	}
	got, err := s.reader.StatusOf(ctx, id)
	return err == nil && got.Status.State == m.status.State
}

// strange makes a certificate that looks like one of ours and is of nobody's authority.
func strange(key crypto.Signer) (*x509.Certificate, error) {
	root, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX somebody else"}}}
	leaf := &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{Country: []string{"JP"}, CommonName: "JPKI-SANDBOX stranger"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(5, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public(), root)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// makeQuotaTenant makes the tenant with a quota of one verdict a day if there is none. Its token is a file of the sample's.
func (s *System) makeQuotaTenant(ctx context.Context) error {
	token, err := openToken(s.folder("quota", "token"))
	if err != nil {
		return err
	}
	err = s.tenants.AddTenant(ctx, verifierstore.Tenant{ID: quotaNumber, Name: "sunabako-quota", DailyQuota: 1}, time.Now())
	if err != nil && !errors.Is(err, jpki.Conflict) {
		return err
	}
	c := verifierstore.Credential{Kind: verifierstore.BearerToken, Hash: sha256.Sum256([]byte(token))}
	if _, err := s.tenants.AddCredential(ctx, quotaNumber, c, []verifierstore.Scope{verifierstore.Verify}, time.Time{}, time.Now()); err != nil && !errors.Is(err, jpki.Conflict) {
		return err
	}
	return nil
}

// writeSample writes what a relying party would send, what it is made of, and what the answer is.
func (s *System) writeSample(ctx context.Context, f sample) error {
	// Whose key?
	certFile, keyFile := s.folder(f.name, "certificate.pem"), s.folder(f.name, "key.pem")
	var err error
	switch f.from {
	case signCertificate:
		err = errors.Join(copyFile(certFile, s.env.SampleSignCert), copyFile(keyFile, s.env.SampleSignKey))
	case authCertificate:
		err = errors.Join(copyFile(certFile, s.env.SampleAuthCert), copyFile(keyFile, s.env.SampleAuthKey))
	case slowCertificate:
		err = errors.Join(copyFile(certFile, s.folder("slow", "certificate.pem")), copyFile(keyFile, s.folder("slow", "key.pem")))
	default:
	}
	if err != nil {
		return err
	}
	var key crypto.Signer
	var cert *x509.Certificate
	if f.from != noCertificate {
		if key, err = hsm.Open(ctx, hsm.FileURI(keyFile)); err != nil {
			return err
		}
		if cert, err = ReadCertificate(certFile); err != nil {
			return err
		}
	}
	// What is sent, and how?
	send, prefix, suffix := "verifications", "", ""
	var request any
	switch f.name {
	case "malformed":
		request = map[string]any{"certificate": "%"}
	case "my-number":
		request = map[string]any{"user": "123456789018"} // in form only: nobody has it
	case "login", "login-wrong-purpose", "login-suspended":
		send = "" // a challenge is new each time
	case "login-expired-challenge", "login-replayed":
		send = "authentications"
		request, err = s.spentLogin(ctx, cert, key, f.name == "login-replayed")
	default:
		request, err = s.signedApplication(f.name, cert, key)
	}
	if err != nil {
		return err
	}
	switch f.name {
	case "deadline":
		suffix = ` -H "Prefer: wait=1"`
	case "unauthorized":
		prefix = "VERIFIER_TOKEN=nobodys-token\n"
	case "quota":
		prefix = "VERIFIER_TOKEN=$(cat token) # of an organisation that gets one verdict a day\n"
	}
	const head = "#!/bin/sh\n# Needs VERIFIER_URL and VERIFIER_TOKEN, which the sandbox's file env has. The answer is on standard output.\nset -eu\ncd \"$(dirname \"$0\")\"\n"
	line := `curl -sS -w '%{stderr}HTTP %{http_code}\n' -H "Authorization: Bearer $VERIFIER_TOKEN"` + suffix + ` --json @request.json "$VERIFIER_URL/v1/` + send + "\"\n"
	script := head + prefix + line
	if f.name == "quota" {
		script = head + prefix + strings.Replace(line, "-sS", "-sS -o /dev/null", 1) + line
	}
	if send == "" {
		_, hash := Digest(key.Public(), nil)
		script = head + strings.ReplaceAll(loginScript, "HASH", hashName(hash))
	}
	expected, err := json.MarshalIndent(f.expect, "", "  ")
	if err != nil {
		return err
	}
	err = errors.Join(writeFile(s.folder(f.name, "send.sh"), []byte(script), 0o700), writeFile(s.folder(f.name, "expected.json"), append(expected, '\n'), 0o600))
	if request != nil && err == nil {
		var text []byte
		if text, err = json.MarshalIndent(request, "", "  "); err == nil {
			err = writeFile(s.folder(f.name, "request.json"), append(text, '\n'), 0o600)
		}
	}
	return err
}

// loginScript logs in, the key in the file standing for the card.
const loginScript = `post() { curl -sS -w '%{stderr}HTTP %{http_code}\n' -H "Authorization: Bearer $VERIFIER_TOKEN" --json @- "$VERIFIER_URL/v1/$1"; }
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
echo '{"audience": "https://bank.example"}' | post challenges >"$work/challenge" 2>/dev/null
jq -r .message "$work/challenge" | base64 -d >"$work/message"
openssl dgst -HASH -sign key.pem -out "$work/signature" "$work/message"
openssl x509 -in certificate.pem -outform DER -out "$work/certificate"
jq --arg c "$(base64 -w0 "$work/certificate")" --arg s "$(base64 -w0 "$work/signature")" \
  '{challenge_id, audience: "https://bank.example", certificate: $c, signature: $s}' "$work/challenge" | post authentications
`

// signedApplication signs the application, writes it with its signature, and returns the request that asks about it.
func (s *System) signedApplication(name string, cert *x509.Certificate, key crypto.Signer) (any, error) {
	document, der := application, cert.Raw
	digest, hash := Digest(key.Public(), []byte(document))
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, err
	}
	switch name {
	case "altered-document": // a line is added after the signature
		document += "限度額は一億円とします。\n"
		digest, _ = Digest(key.Public(), []byte(document))
	case "other-key":
		signature[len(signature)/2] ^= 1 // as good as any other key's
	case "not-a-certificate":
		der = der[:len(der)/2]
	}
	err = errors.Join(writeFile(s.folder(name, "application.txt"), []byte(document), 0o600), writeFile(s.folder(name, "application.txt.sig"), signature, 0o600),
		writeFile(s.folder(name, "application.txt.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return map[string]any{"certificate": der, "digest": digest, "hash": hashName(hash), "signature": signature}, err
}

// spentLogin returns the end of a log-in whose challenge is an hour old, or was answered already.
func (s *System) spentLogin(ctx context.Context, cert *x509.Certificate, key crypto.Signer, used bool) (any, error) {
	bank := s.env.Bank()
	var id string
	var message []byte
	if used {
		c, err := bank.Challenge(ctx)
		if err != nil {
			return nil, err
		}
		id, message = c.ID, c.Message
	} else {
		old, err := verifier.NewChallenges(verifier.ChallengesConfig{Now: func() time.Time { return time.Now().Add(-time.Hour) }, Rand: rand.Reader})
		if err != nil {
			return nil, err
		}
		c, err := old.NewChallenge(ctx, bankName, nil)
		if err != nil {
			return nil, err
		}
		id, message = c.ID, c.Message
	}
	digest, hash := Digest(key.Public(), message)
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return nil, err
	}
	if used {
		if v, err := bank.Login(ctx, id, cert.Raw, signature); err != nil || v.Code != string(verifier.OK) {
			return nil, errors.Join(errors.New("the log-in that is to be replayed failed: "+v.Code), err)
		}
	}
	return map[string]any{"challenge_id": id, "certificate": cert.Raw, "signature": signature}, nil
}

func hashName(h crypto.Hash) string { return strings.ToLower(strings.ReplaceAll(h.String(), "-", "")) }

func copyFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeFile(to, text, 0o600)
}

// A namedSource asks the sandbox's responder about every certificate, but about the samples that name another responder
// that one, as a relying party does who asks whom certificates name.
type namedSource struct {
	usual, named verifier.StatusChecker
	names        []string
}

// Check asks one of the two.
func (n namedSource) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (verifier.Revocation, error) {
	if len(leaf.OCSPServer) == 1 && slices.Contains(n.names, leaf.OCSPServer[0]) {
		return n.named.Check(ctx, leaf, issuer, at)
	}
	return n.usual.Check(ctx, leaf, issuer, at)
}

// newChecker returns whom the bank asks about certificates' statuses.
func (s *System) newChecker() (verifier.StatusChecker, error) {
	usual, err := verifier.NewOCSP(verifier.OCSPConfig{URL: s.env.OCSPURL, Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	names := []string{s.env.StatusURL() + unavailablePath + "/ocsp", s.env.StatusURL() + slowPath + "/ocsp"}
	named, err := verifier.NewOCSP(verifier.OCSPConfig{Allowed: names, Now: time.Now, Rand: rand.Reader})
	return namedSource{usual, named, names}, err
}

// tryLater is the whole OCSP answer that says so (RFC 6960 §4.2.1).
var tryLater = []byte{0x30, 0x03, 0x0a, 0x01, 0x03}

// serveTroubled is the samples' two responders.
func (s *System) serveTroubled(w http.ResponseWriter, r *http.Request) {
	body, err := jpki.ReadBody(r, ocsp.MaxRequestBytes)
	if err != nil {
		jpki.WriteProblem(w, r, err)
		return
	}
	answer := tryLater
	if r.URL.Path == slowPath+"/ocsp" {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(slowness):
		}
		if answer, err = s.askResponder(r.Context(), body); err != nil {
			jpki.WriteProblem(w, r, jpki.WrapError(jpki.Unavailable, err, ""))
			return
		}
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = w.Write(answer) //nolint:gosec // an OCSP answer, and said to be one
}

// askResponder passes a question on to the sandbox's own responder.
func (s *System) askResponder(ctx context.Context, question []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.env.OCSPURL, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := http.DefaultClient.Do(req) //nolint:gosec // the sandbox's own address
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(io.LimitReader(resp.Body, 64<<10))
}
