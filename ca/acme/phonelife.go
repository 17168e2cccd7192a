package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"path"
	"slices"
	"sync"

	stepacme "github.com/smallstep/certificates/acme"
	"go.step.sm/crypto/jose"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// A revocation is a request to revoke a certificate (RFC 8555 §7.6) on its way through smallstep, which asks for the
// certificate, checks that the account ordered it or that its own key signed, and comes back with nothing but its serial number.
type revocation struct {
	ctx    context.Context // of the request, which ends after the revocation
	serial string          // "" until smallstep has asked
	cert   store.Certificate
}

type revocationKey struct{}

// revocations are those under way, by serial number.
type revocations struct {
	mu sync.Mutex
	m  map[string]*revocation
}

func (s *revocations) add(r *revocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[r.serial] != nil {
		return jpki.Errorf(jpki.InProgress, "the certificate is being revoked")
	}
	if s.m == nil {
		s.m = map[string]*revocation{}
	}
	s.m[r.serial] = r
	return nil
}

func (s *revocations) find(serial string) *revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[serial]
}

func (s *revocations) drop(r *revocation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[r.serial] == r {
		delete(s.m, r.serial)
	}
}

// revokeCert runs smallstep's handler.
func (e *Enrolment) revokeCert(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rev := &revocation{ctx: r.Context()}
		defer e.revoking.drop(rev)
		h(w, r.WithContext(context.WithValue(r.Context(), revocationKey{}, rev)))
	}
}

// otherCertificate is what smallstep says, as a mistake of ours, of a certificate that has one's serial number and is another.
const otherCertificate = "certificate raw bytes are not equal"

// findRevoked finds the phone's certificate with a serial number, decimal. Cards' certificates are none of ours.
func (e *Enrolment) findRevoked(r *revocation, decimal string) (*stepacme.Certificate, error) {
	unknown := asACME(jpki.Errorf(jpki.UnknownCertificate, ""))
	n, ok := new(big.Int).SetString(decimal, 10)
	if !ok {
		return nil, unknown
	}
	serial, err := jpki.SerialFromBig(n)
	if err != nil {
		return nil, unknown
	}
	out := &stepacme.Certificate{}
	err = e.Store.View(r.ctx, func(tx *store.Tx) error {
		generations, err := tx.Generations()
		if err != nil {
			return err
		}
		for _, g := range generations {
			r.cert, err = tx.Certificate(jpki.CertID{Issuer: g.Issuer, Serial: serial})
			if err == nil && r.cert.Kind.Token() == jpki.Phone {
				out.AccountID, err = tx.ACMEAccountOfCertificate(r.cert.ID)
				return err
			}
			if err != nil && !errors.Is(err, jpki.UnknownCertificate) {
				return err
			}
		}
		return jpki.Errorf(jpki.UnknownCertificate, "")
	})
	if err != nil {
		return nil, asACME(err)
	}
	if r.cert.Status.State == jpki.Revoked {
		return nil, stepacme.NewDetailedError(stepacme.ErrorAlreadyRevokedType, "the certificate is revoked")
	}
	if out.Leaf, err = x509.ParseCertificate(r.cert.DER); err != nil {
		return nil, asACME(err)
	}
	r.serial = decimal
	return out, asACME(e.revoking.add(r))
}

// revocationCauses says what a phone can give for a reason (RFC 5280 §5.3.1), and what we take it for.
var revocationCauses = map[int]jpki.Cause{
	0: jpki.HolderRequest, // unspecified, or none given
	1: jpki.KeyCompromised,
	4: jpki.HolderRequest, // superseded
	5: jpki.HolderRequest, // cessationOfOperation
}

// revokePhone ends a certificate for its holder, whose phone asks.
func (e *Enrolment) revokePhone(r *revocation, reason int) error {
	cause, known := revocationCauses[reason]
	if !known {
		return stepacme.NewDetailedError(stepacme.ErrorBadRevocationReasonType, "the reasons are unspecified, keyCompromise, superseded and cessationOfOperation")
	}
	_, err := e.Authority.Revoke(r.ctx, jpki.Actor{Role: jpki.Holder, ID: r.cert.Holder}, ca.ChangeRequest{
		IdempotencyKey: "acme-" + e.NewID(), Certificate: &r.cert.ID, Cause: cause,
	})
	return asACME(err)
}

// keyChangePath ends the path of the resource where an account's key is changed.
const keyChangePath = "/key-change"

// changeKey changes the key of an account (RFC 8555 §7.3.5). Steps:
//  1. smallstep checks the request as any of the account's: nonce, URL, the present key's signature. It has no more for it
//     than that it is not implemented, and any other answer is a refusal
//  2. inside is a request that the new key signed, for the same URL, and that names the account and its present key
//  3. the account has the new key
func (e *Enrolment) changeKey(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // which servePhone has bounded
		if err != nil {
			refuse(w, r, jpki.Errorf(jpki.Malformed, "the request broke off"))
			return
		}
		// 1.
		r.Body = io.NopCloser(bytes.NewReader(body))
		checked := &heldBack{header: http.Header{}}
		h(checked, r)
		if checked.status != http.StatusNotImplemented {
			checked.send(w)
			return
		}
		w.Header().Set("Replay-Nonce", checked.header.Get("Replay-Nonce"))
		// 2.
		account, key, err := readKeyChange(body)
		if err != nil {
			refuse(w, r, err)
			return
		}
		// 3.
		if err := e.recordKey(r.Context(), account, key); err != nil {
			refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"status": string(stepacme.StatusValid), "orders": account.location + "/orders"})
	}
}

// An accountRef is an account as a request names it.
type accountRef struct {
	location string
	former   string // thumbprint of the key that it has
}

// readKeyChange reads a change of keys out of a request whose outer signature has been checked.
func readKeyChange(body []byte) (account accountRef, key *jose.JSONWebKey, err error) {
	malformed := func(why string) (accountRef, *jose.JSONWebKey, error) {
		return account, nil, jpki.Errorf(jpki.Malformed, "%s", why)
	}
	outer, err := jose.ParseJWS(string(body))
	if err != nil || len(outer.Signatures) != 1 {
		return malformed("the request is not one JWS")
	}
	inner, err := jose.ParseJWS(string(outer.UnsafePayloadWithoutVerification()))
	if err != nil || len(inner.Signatures) != 1 {
		return malformed("the payload is not a JWS with one signature")
	}
	header := inner.Signatures[0].Protected
	key = header.JSONWebKey
	if key == nil || !key.Valid() || !key.IsPublic() || header.KeyID != "" || !admittedKey(key.Key, header.Algorithm) {
		return malformed("the inner request must have a public jwk of RSA, P-256, P-384, P-521 or Ed25519")
	}
	url, _ := header.ExtraHeaders["url"].(string)
	if outside, _ := outer.Signatures[0].Protected.ExtraHeaders["url"].(string); url == "" || url != outside || header.Nonce != "" {
		return malformed("the inner request is for the same URL and has no nonce")
	}
	payload, err := inner.Verify(key)
	if err != nil {
		return malformed("the new key has not signed the inner request")
	}
	var change struct {
		Account string           `json:"account"`
		OldKey  *jose.JSONWebKey `json:"oldKey"`
	}
	if err := json.Unmarshal(payload, &change); err != nil || change.OldKey == nil || !change.OldKey.Valid() {
		return malformed("the inner payload is not account and oldKey")
	}
	account.location = outer.Signatures[0].Protected.KeyID
	if change.Account != account.location {
		return malformed("the change is for another account")
	}
	account.former, err = stepacme.KeyToID(change.OldKey)
	return account, key, err
}

// admittedKey reports whether an account may have a key, as smallstep sees it, and that the algorithm is the key's.
func admittedKey(key any, algorithm string) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= 2048 && k.N.BitLen() <= 8192 && slices.Contains([]string{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}, algorithm)
	case *ecdsa.PublicKey:
		return slices.Contains([]string{jose.ES256, jose.ES384, jose.ES512}, algorithm)
	case ed25519.PublicKey:
		return algorithm == jose.EdDSA
	}
	return false
}

// recordKey records the new key, for as long as the enrolment is open.
func (e *Enrolment) recordKey(ctx context.Context, account accountRef, key *jose.JSONWebKey) error {
	text, err := json.Marshal(key.Public())
	if err != nil {
		return err
	}
	keyID, err := stepacme.KeyToID(key)
	if err != nil {
		return err
	}
	id := path.Base(account.location)
	return e.Store.Update(ctx, func(tx *store.Tx) error {
		row, err := (accounts{e}).open(tx, id)
		if err != nil {
			return err
		}
		if err := tx.ChangeACMEAccountKey(id, account.former, keyID, text); err != nil {
			return err
		}
		return tx.Audit(e.Now(), row.By, "phone.rekeyed", row.ID, map[string]any{"account": id})
	})
}

// heldBack is an answer that is looked at before it is sent.
type heldBack struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header returns the answer's header.
func (a *heldBack) Header() http.Header { return a.header }

// Write keeps a part of the body.
func (a *heldBack) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.body.Write(b)
}

// WriteHeader keeps the status.
func (a *heldBack) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *heldBack) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes())
}
