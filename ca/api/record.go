package api

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/verifier"
)

// pageLife is how long a holder who has logged in may go on reading.
const pageLife = 15 * time.Minute

// holderLogin hands out what a holder's authentication key signs for one request.
func (a *API) holderLogin(c *gin.Context) {
	var ask client.HolderAsk
	if err := a.beginOwn(c, &ask); err != nil {
		a.refuse(c, err)
		return
	}
	if !slices.Contains([]client.HolderAction{client.ReadRecord, client.ReadConsents, client.WithdrawConsent}, ask.Action) || (ask.Consent == "") == (ask.Action == client.WithdrawConsent) || len(ask.Consent) > 64 {
		a.refuse(c, jpki.Errorf(jpki.Malformed, "action is record, consents, or withdraw-consent with a consent"))
		return
	}
	ch, err := a.relying.challenges.NewChallenge(c.Request.Context(), a.relying.Audience, ask.Binding())
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusCreated, client.HolderLogin{Challenge: ch.ID, Nonce: ch.Nonce, Audience: a.relying.Audience, ExpiresAt: ch.ExpiresAt})
}

// beginOwn reads the body of a holder who has not said yet who they are.
func (a *API) beginOwn(c *gin.Context, body any) error {
	switch {
	case a.relying == nil:
		return jpki.Errorf(jpki.NotFound, "there are no records here")
	case c.Request.URL.RawQuery != "" && queryHoldsMyNumber(c.Request.URL.RawQuery):
		return jpki.Errorf(jpki.MyNumberPresent, "")
	}
	return decode(c, body)
}

// proved finds out who asks. Steps:
//  1. the challenge is used up, whatever comes
//  2. does the signature hold: by an authentication certificate in force, over exactly this request?
//  3. whose certificate it is says our own record
func (a *API) proved(c *gin.Context, p client.HolderProof, ask client.HolderAsk) (by jpki.Actor, cert store.Certificate, err error) {
	if err := a.relying.admission.Spend(holdersQuota); err != nil {
		return by, cert, err
	}
	der, err := client.DER(p.Certificate)
	if err != nil {
		return by, cert, jpki.Errorf(jpki.Malformed, "certificate is not one certificate in PEM")
	}
	anchors, err := a.Authority.Anchors(c.Request.Context())
	if err != nil {
		return by, cert, err
	}
	v, err := verifier.New(verifier.Config{
		Anchors: anchors, Policies: []verifier.Policy{a.relying.Login}, Revocation: onRecord{a.Authority, a.Now}, Challenges: a.relying.challenges, Now: a.Now, Rand: a.relying.Rand,
	})
	if err != nil {
		return by, cert, err
	}
	// 1 and 2.
	res, err := v.Login(c.Request.Context(), verifier.LoginInput{ChallengeID: p.Challenge, Audience: a.relying.Audience, Binding: ask.Binding(), Certificate: der, Signature: p.Signature})
	switch {
	case err != nil:
		return by, cert, err
	case res.Code == verifier.StatusNotEstablished && res.Cause != nil:
		return by, cert, jpki.WrapError(jpki.Unavailable, res.Cause, "the certificate's state cannot be established")
	case !res.OK():
		return by, cert, jpki.Errorf(jpki.Forbidden, "the signature does not hold: %s", res.Code)
	}
	// 3.
	if cert, err = a.Authority.OnRecord(c.Request.Context(), der); err != nil {
		return by, cert, err
	}
	by = jpki.Actor{Role: jpki.Holder, ID: cert.Holder}
	c.Set("actor", string(by.Role)) // who it is stands in no log
	return by, cert, nil
}

// A recordCursor says where a holder's next page begins. It is sealed: who holds it may read on.
type recordCursor struct {
	Holder   string    `json:"h"`
	At       time.Time `json:"a"`
	Operator string    `json:"o"`
	Ref      string    `json:"r"`
	Until    time.Time `json:"u"`
}

var sealedFor = []byte("record, version 1")

func (r *relying) seal(c recordCursor) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(r.pages.Seal(nil, nil, text, sealedFor)), nil //nolint:gosec // the cipher draws the nonce itself
}

func (r *relying) open(s string, now time.Time) (c recordCursor, err error) {
	refused := jpki.Errorf(jpki.ChallengeInvalid, "log in again")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || base64.RawURLEncoding.EncodeToString(raw) != s {
		return c, refused
	}
	text, err := r.pages.Open(nil, nil, raw, sealedFor)
	if err != nil || json.Unmarshal(text, &c) != nil || now.After(c.Until) {
		return c, refused
	}
	return c, nil
}

func (a *API) holderRecord(c *gin.Context) {
	var body client.HolderProof
	if err := a.beginOwn(c, &body); err != nil {
		a.refuse(c, err)
		return
	}
	var by jpki.Actor
	var err error
	cursor := recordCursor{Until: a.Now().Add(pageLife)}
	if body.Next != "" {
		cursor, err = a.relying.open(body.Next, a.Now())
		by = jpki.Actor{Role: jpki.Holder, ID: cursor.Holder}
		c.Set("actor", string(by.Role))
	} else {
		by, _, err = a.proved(c, body, client.HolderAsk{Action: client.ReadRecord})
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	list, more, err := a.Authority.OwnRecord(c.Request.Context(), by, store.Recorded{At: cursor.At, Operator: cursor.Operator, Ref: cursor.Ref})
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.RecordPage{Entries: []client.RecordEntry{}}
	for _, r := range list {
		out.Entries = append(out.Entries, client.RecordEntry{
			At: r.At, Tenant: r.Tenant, TenantName: r.TenantName, Operator: r.Operator, Action: client.RecordAction(r.Action), Purpose: r.Purpose, Items: r.Items, Consent: r.Consent,
		})
	}
	if more {
		last := list[len(list)-1]
		if out.Next, err = a.relying.seal(recordCursor{by.ID, last.At, last.Operator, last.Ref, cursor.Until}); err != nil {
			a.refuse(c, err)
			return
		}
	}
	a.answer(c, http.StatusOK, out)
}

func (a *API) holderConsents(c *gin.Context) {
	var body client.HolderProof
	if err := a.beginOwn(c, &body); err != nil {
		a.refuse(c, err)
		return
	}
	by, _, err := a.proved(c, body, client.HolderAsk{Action: client.ReadConsents})
	if err != nil {
		a.refuse(c, err)
		return
	}
	list, err := a.Authority.OwnConsents(c.Request.Context(), by)
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.HolderConsents{Consents: []client.Consent{}}
	for _, consent := range list {
		out.Consents = append(out.Consents, forHolder(consent))
	}
	a.answer(c, http.StatusOK, out)
}

// forHolder leaves out under which name the tenant knows the holder.
func forHolder(c ca.Consent) client.Consent {
	out := encodeConsent(c)
	out.User = ""
	return out
}

func (a *API) holderWithdrawal(c *gin.Context) {
	var body client.HolderProof
	if err := a.beginOwn(c, &body); err != nil {
		a.refuse(c, err)
		return
	}
	ask := client.HolderAsk{Action: client.WithdrawConsent, Consent: body.Consent}
	by, cert, err := a.proved(c, body, ask)
	if err != nil {
		a.refuse(c, err)
		return
	}
	message, err := a.evidence(cert.DER, body, ask)
	if err != nil {
		a.refuse(c, err)
		return
	}
	consent, err := a.Authority.WithdrawConsent(c.Request.Context(), by, body.Consent, ca.WithdrawalProof{Certificate: cert.ID, Message: message, Signature: body.Signature})
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, forHolder(consent))
}

// evidence makes the message of a proof again, to be kept: it must be what was signed.
func (a *API) evidence(certificate []byte, p client.HolderProof, ask client.HolderAsk) ([]byte, error) {
	message, err := client.HolderLogin{Challenge: p.Challenge, Nonce: p.Nonce, Audience: a.relying.Audience, ExpiresAt: p.ExpiresAt}.Message(ask)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	digest, hash := client.HolderDigest(certificate, message)
	if !signedBy(cert.PublicKey, hash, digest, p.Signature) {
		return nil, jpki.Errorf(jpki.Malformed, "nonce and expires_at are those of the challenge")
	}
	return message, nil
}

func signedBy(key crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, signature)
	}
	return false
}
