package api

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/store"
)

// A Consenter is the authority as far as consents, attributes and holders' records go. A client of package ca/client is one.
// It must be safe for concurrent use; its errors are the authority's problems.
type Consenter interface {
	NewConsentText(ctx context.Context, t client.ConsentTerms) (client.ConsentText, error)
	GiveConsent(ctx context.Context, t client.ConsentText, signature []byte) (client.Consent, error)
	ConsentsAfter(ctx context.Context, tenant jpki.CorporateNumber, user, after string) (client.ConsentPage, error)
	LatestAttributes(ctx context.Context, key string, r client.AttributesRequest) (client.LatestAttributes, error)
	HolderLogin(ctx context.Context, ask client.HolderAsk) (client.HolderLogin, error)
	HolderRecord(ctx context.Context, p client.HolderProof) (client.RecordPage, error)
	HolderConsents(ctx context.Context, p client.HolderProof) (client.HolderConsents, error)
	HolderWithdrawal(ctx context.Context, p client.HolderProof) (client.Consent, error)
}

// Consents is what the API needs to take consents.
type Consents struct {
	Authority  Consenter          // required
	Issuer     string             // required: the http or https URL in whose name receipts are signed, without a final slash
	Key        crypto.Signer      // required: P-256, which signs receipts
	FormerKeys []crypto.PublicKey // P-256: of receipts signed before, published as long as those shall be verified
}

// paths whose requests are passed on to the authority. It sees to it that nothing is done twice; answers are kept nowhere here,
// not even sealed.
var authorityPaths = []string{"/v1/consent-texts", "/v1/consents", "/v1/consent-searches", "/v1/attributes"}

func asksAuthority(path string) bool {
	return slices.Contains(authorityPaths, path) || strings.HasPrefix(path, "/v1/holder/")
}

func (a *API) openConsents() (err error) {
	if a.Consents == nil {
		return nil
	}
	if a.Consents.Authority == nil || a.Consents.Key == nil {
		return errors.New("the fields Authority, Issuer and Key are required")
	}
	a.receipts, err = newReceipts(a.Consents)
	return err
}

// authority returns who answers for consents.
func (a *API) authority() (Consenter, error) {
	if a.Consents == nil {
		return nil, jpki.Errorf(jpki.NotFound, "this server is not connected to the authority: it takes no consents")
	}
	return a.Consents.Authority, nil
}

// tenantsProblems are the authority's problems that concern the tenant or the holder. All others are ours: that the authority does not
// know our certificate, say, tells the tenant nothing about its token.
var tenantsProblems = []jpki.Problem{
	jpki.Malformed, jpki.MyNumberPresent, jpki.Forbidden, jpki.Conflict, jpki.TooLarge, jpki.NotFound, jpki.RateLimited, jpki.UnknownTenant, jpki.UnknownUser, jpki.UnknownCertificate,
	jpki.ConsentRequired, jpki.NotAvailableYet, jpki.ChallengeInvalid, jpki.IdempotencyReused,
}

// theirs makes the authority's refusal ours.
func theirs(err error) error {
	p := jpki.ProblemOf(err)
	if err == nil || slices.Contains(tenantsProblems, p) {
		return err
	}
	return jpki.WrapError(jpki.Unavailable, err, "the authority cannot be asked now")
}

// A consentText is what the holder reads and signs.
type consentText struct {
	Purpose     string      `json:"purpose"`
	Description string      `json:"description"`
	Items       []jpki.Item `json:"items"`
	Lang        string      `json:"lang"`
	Version     string      `json:"version"`
	Reference   string      `json:"reference"`
	IssuedAt    time.Time   `json:"issued_at"`
	Text        string      `json:"text"`
}

var termsMembers = []string{"purpose", "description", "items", "lang"}

func (f *fields) terms(tenant jpki.CorporateNumber) client.ConsentTerms {
	t := client.ConsentTerms{Tenant: tenant, Purpose: f.text("purpose"), Description: f.text("description"), Lang: f.text("lang")}
	for word := range strings.FieldsSeq(f.text("items")) {
		t.Items = append(t.Items, jpki.Item(word))
	}
	return t
}

func (a *API) consentText(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields(termsMembers...)
	if err != nil {
		return reply{}, err
	}
	t, err := authority.NewConsentText(c.Context(), f.terms(c.Tenant.ID))
	if err != nil {
		return reply{}, theirs(err)
	}
	return reply{http.StatusCreated, consentText{t.Purpose, t.Description, t.Items, t.Lang, t.Version, t.Reference, t.IssuedAt, t.Text}, answered}, nil
}

// giveConsent takes what a holder signed. Steps:
//  1. read it
//  2. does the signature hold, over exactly this text? Else the authority never sees it
//  3. hand it to the authority, which makes the text again and records the consent
//  4. answer with a receipt
func (a *API) giveConsent(c call) (reply, error) {
	// 1.
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields(append(slices.Clone(termsMembers), "version", "reference", "issued_at", "text", "signature")...)
	if err != nil {
		return reply{}, err
	}
	t := client.ConsentText{ConsentTerms: f.terms(c.Tenant.ID), Version: f.text("version"), Reference: f.text("reference"), IssuedAt: f.time("issued_at"), Text: f.text("text")}
	signature := f.octets("signature")
	if f.err != nil {
		return reply{}, f.err
	}
	if err := a.meters.verdict(c.answer, c.Access, a.Now()); err != nil {
		return reply{}, err
	}
	// 2.
	if err := a.checkConsent(c, t.Text, signature); err != nil {
		return reply{}, err
	}
	// 3.
	given, err := authority.GiveConsent(c.Context(), t, signature)
	if err != nil {
		return reply{}, theirs(err)
	}
	if want := hexSHA256([]byte(t.Text)); given.TextSHA256 != want || given.Tenant != c.Tenant.ID {
		return reply{}, errors.New("the authority's record of the consent is about another text or tenant")
	}
	// 4.
	out, err := a.consent(given)
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, out, answered}, nil
}

// checkConsent verifies the signature with our own library, and notes that the certificate was used.
func (a *API) checkConsent(c call, text string, signature []byte) error {
	asked := false
	res, err := a.Verifier.Document(c.Context(), verifier.DocumentInput{Data: signature, Format: verifier.FormatCMS, Detached: func(string) io.Reader {
		asked = true
		return bytes.NewReader([]byte(text))
	}})
	switch {
	case err != nil:
		return err
	case c.Context().Err() != nil:
		return c.Context().Err()
	case !asked || len(res.Signatures) != 1:
		return jpki.Errorf(jpki.Malformed, "signature is not a CMS with one signature, detached from the text")
	case res.Code == verifier.StatusNotEstablished:
		return jpki.Errorf(jpki.Unavailable, "the certificate's state cannot be established now")
	case res.Code != verifier.OK:
		return jpki.Errorf(jpki.Forbidden, "the signature on the consent does not hold: %s", res.Code)
	}
	r := store.Record{ID: res.ID, Action: "consent", Outcome: string(res.Code)}
	if s := res.Signatures[0].Signer; s != nil {
		r.Certificate, _ = hex.DecodeString(s.SHA256)
	}
	return a.Store.Keep(c.Context(), c.Access, []store.Record{r}, a.Now())
}

// A consent is what a tenant is told of one, with the receipt for it as of now.
type consent struct {
	ID             string              `json:"id"`
	User           string              `json:"user"`
	Purpose        string              `json:"purpose"`
	Description    string              `json:"description"`
	Items          []jpki.Item         `json:"items"`
	Lang           string              `json:"lang"`
	Version        string              `json:"version"`
	Reference      string              `json:"reference"`
	TextSHA256     string              `json:"text_sha256"`
	DocumentSHA256 string              `json:"document_sha256"`
	ReceivedAt     time.Time           `json:"received_at"`
	ValidFrom      time.Time           `json:"valid_from"`
	ValidUntil     time.Time           `json:"valid_until"`
	State          client.ConsentState `json:"state"`
	WithdrawnAt    *time.Time          `json:"withdrawn_at,omitempty"`
	RemindAt       *time.Time          `json:"remind_at,omitempty"`
	Receipt        string              `json:"receipt"`
}

func (a *API) consent(c client.Consent) (out consent, err error) {
	out = consent{
		c.ID, c.User, c.Purpose, c.Description, c.Items, c.Lang, c.Version, c.Reference, c.TextSHA256, c.DocumentSHA256, c.ReceivedAt, c.ValidFrom, c.ValidUntil, c.State, c.WithdrawnAt, c.RemindAt, "",
	}
	out.Receipt, err = a.receipts.of(c, a.Now(), a.Rand)
	return out, err
}

func (a *API) searchConsents(c call) (reply, error) {
	authority, err := a.authority()
	if err != nil {
		return reply{}, err
	}
	f, err := c.fields("user?", "after?")
	if err != nil {
		return reply{}, err
	}
	page, err := authority.ConsentsAfter(c.Context(), c.Tenant.ID, f.text("user"), f.text("after"))
	if err != nil {
		return reply{}, theirs(err)
	}
	out := struct {
		Consents []consent `json:"consents"`
		Next     string    `json:"next,omitempty"`
	}{[]consent{}, page.Next}
	for _, found := range page.Consents {
		one, err := a.consent(found)
		if err != nil {
			return reply{}, err
		}
		out.Consents = append(out.Consents, one)
	}
	return reply{http.StatusOK, out, answered}, nil
}
