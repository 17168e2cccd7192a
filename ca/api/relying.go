package api

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/verifier"
)

// Relying is what the API needs to take consents and to let holders read their record. Every field is required.
type Relying struct {
	// Audience is what holders see that they sign for: the https URL by which they reach this API, without a final slash.
	Audience string
	// Login is what is demanded of holders' authentication certificates.
	Login verifier.Policy
	// Consent is what is demanded of the signature on a consent. The state of the certificate is looked up on record.
	Consent verifier.DocumentPolicy
	Rand    io.Reader // for challenges and pages
}

// Limits of the relying parties' zone: an operator serves many relying parties.
const (
	operatorRate  = 1000 // requests a second, on average
	operatorBurst = 2000
	operatorPolls = 8         // waiting reads of the feed at once
	maxBulkBody   = 512 << 10 // of lists
)

// relying is the part that serves consents and records.
type relying struct {
	Relying
	challenges *verifier.Challenges
	pages      cipher.AEAD // seals where a holder's next page begins; ends with the process
	admission  *ca.Admission
}

func newRelying(c Config) (*relying, error) {
	r := &relying{Relying: *c.Relying}
	if r.Audience == "" || r.Rand == nil {
		return nil, errors.New("api: every field of Relying is required")
	}
	if err := errors.Join(r.Login.Validate(), r.Consent.Validate()); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if r.Login.Purpose != verifier.ForAuthentication {
		return nil, errors.New("api: the log-in policy of Relying is not for authentication")
	}
	var err error
	if r.challenges, err = verifier.NewChallenges(verifier.ChallengesConfig{Now: c.Now, Rand: r.Rand, TTL: challengeLife}); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	key := make([]byte, 32)
	if _, err := io.ReadFull(r.Rand, key); err != nil {
		return nil, fmt.Errorf("draw key of pages: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of pages: %w", err)
	}
	if r.pages, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return nil, fmt.Errorf("key of pages: %w", err)
	}
	r.admission, err = ca.NewAdmission(ca.AdmissionConfig{Now: c.Now})
	return r, err
}

// relyingRoutes is the table of the zone; none but operators of verifiers may call them, and these call nothing else.
func (a *API) relyingRoutes() []route {
	return []route{
		{http.MethodPost, "/relying-party/v1/identities", a.identify},
		{http.MethodPost, "/relying-party/v1/watches", a.watch(a.Authority.Watch)},
		{http.MethodPost, "/relying-party/v1/watch-endings", a.watch(a.Authority.EndWatches)},
		{http.MethodGet, "/relying-party/v1/watches", a.listWatches},
		{http.MethodGet, "/relying-party/v1/changes", a.changes},
		{http.MethodPost, "/relying-party/v1/consent-texts", a.consentText},
		{http.MethodPost, "/relying-party/v1/consents", a.giveConsent},
		{http.MethodGet, "/relying-party/v1/consents", a.listConsents},
		{http.MethodPost, "/relying-party/v1/attributes", a.latestAttributes},
		{http.MethodPost, "/relying-party/v1/uses", a.reportUses},
		{http.MethodPost, "/holder/v1/log-ins", a.holderLogin},
		{http.MethodPost, "/holder/v1/record", a.holderRecord},
		{http.MethodPost, "/holder/v1/consents", a.holderConsents},
		{http.MethodPost, "/holder/v1/consent-withdrawals", a.holderWithdrawal},
	}
}

const relyingZone = "/relying-party/"

func (a *API) identify(c *gin.Context) {
	var body client.IdentityRequest
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	req := ca.IdentityRequest{Tenant: body.Tenant, Purpose: body.Purpose, ID: body.ID, Linkage: body.Linkage}
	if body.Certificate != "" {
		if req.DER, err = client.DER(body.Certificate); err != nil {
			a.refuse(c, jpki.Errorf(jpki.Malformed, "certificate is not one certificate in PEM"))
			return
		}
	}
	id, err := a.Authority.Identify(c.Request.Context(), by, req)
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.Identity{User: id.User, New: id.New, Kind: id.Kind, Latest: id.Latest, State: id.State}
	if id.Linked != nil {
		out.Linked = &client.Linked{ID: id.Linked.ID, Kind: id.Linked.Kind}
	}
	a.answer(c, http.StatusOK, out)
}

type watchCommand = func(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, list []store.Watch) (ca.WatchOutcome, error)

func (a *API) watch(command watchCommand) gin.HandlerFunc {
	return func(c *gin.Context) {
		var body client.WatchOrder
		by, err := a.beginBulk(c, &body)
		if err != nil {
			a.refuse(c, err)
			return
		}
		list := make([]store.Watch, len(body.Watches))
		for i, w := range body.Watches {
			list[i] = store.Watch{User: w.User, Purpose: w.Purpose}
		}
		out, err := command(c.Request.Context(), by, body.Tenant, list)
		if err != nil {
			a.refuse(c, err)
			return
		}
		a.answer(c, http.StatusOK, client.WatchOutcome{Changed: out.Changed, Unknown: out.Unknown})
	}
}

// watchPage is how many watches a page has.
const watchPage = 1000

func (a *API) listWatches(c *gin.Context) {
	by, q, err := a.beginList(c, "tenant", "after")
	if err != nil {
		a.refuse(c, err)
		return
	}
	var after store.Watch
	after.User, after.Purpose, _ = strings.Cut(q.Get("after"), "/")
	list, err := a.Authority.Watches(c.Request.Context(), by, jpki.CorporateNumber(q.Get("tenant")), after, watchPage)
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.WatchPage{Watches: []client.Watch{}}
	for _, w := range list {
		out.Watches = append(out.Watches, client.Watch{User: w.User, Purpose: w.Purpose, Since: w.CreatedAt})
		if out.Next = ""; len(list) == watchPage {
			out.Next = w.User + "/" + w.Purpose
		}
	}
	a.answer(c, http.StatusOK, out)
}

func (a *API) changes(c *gin.Context) {
	by, q, err := a.beginList(c, "after", "limit", "wait")
	if err != nil {
		a.refuse(c, err)
		return
	}
	after := int64(0)
	switch s := q.Get("after"); s {
	case "":
	case "start", "end":
		start, end, err := a.Authority.FeedBounds(c.Request.Context(), by)
		if err != nil {
			a.refuse(c, err)
			return
		}
		out := client.ChangePage{Changes: []client.UserChange{}, Next: start}
		if s == "end" {
			out.Next = end
		}
		a.answer(c, http.StatusOK, out)
		return
	default:
		if after, err = strconv.ParseInt(s, 10, 64); err != nil || after < 0 {
			a.refuse(c, jpki.Errorf(jpki.Malformed, "after is a position in the feed"))
			return
		}
	}
	limit, err := number(q, "limit", ca.MaxChanges)
	wait, wrong := number(q, "wait", int(ca.MaxChangeWait/time.Second))
	if err = errors.Join(err, wrong); err != nil {
		a.refuse(c, err)
		return
	}
	if wait > 0 {
		done, err := a.operators.Stream(by.ID)
		if err != nil {
			a.refuse(c, err)
			return
		}
		defer done()
	}
	f, err := a.Authority.Changes(c.Request.Context(), by, after, limit, time.Duration(wait)*time.Second)
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.ChangePage{Changes: []client.UserChange{}, Next: f.Next}
	for _, u := range f.Changes {
		out.Changes = append(out.Changes, client.UserChange{
			Position: u.Seq, ID: f.Name + "-" + strconv.FormatInt(u.Seq, 10), Tenant: u.Tenant, User: u.User, Purpose: u.Purpose, Class: u.Class, Kind: u.Kind, Correction: u.Correction, At: u.At,
		})
	}
	a.answer(c, http.StatusOK, out)
}

func (a *API) consentText(c *gin.Context) {
	var body client.ConsentTerms
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	t, err := a.Authority.NewConsentText(c.Request.Context(), by, ca.ConsentTerms(body))
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, client.ConsentText{ConsentTerms: client.ConsentTerms(t.ConsentTerms), Version: t.Version, Reference: t.Reference, IssuedAt: t.IssuedAt, Text: t.Text})
}

// giveConsent takes in what a holder signed. Steps:
//  1. make the text again
//  2. does the signature hold, by a certificate of ours?
//  3. the state of the certificate, and all else, says the authority's record
func (a *API) giveConsent(c *gin.Context) {
	var body client.ConsentOrder
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	// 1.
	t, err := a.Authority.ConsentText(c.Request.Context(), by, ca.ConsentText{
		ConsentTerms: ca.ConsentTerms(body.ConsentTerms), Version: body.Version, Reference: body.Reference, IssuedAt: body.IssuedAt,
	})
	if err != nil {
		a.refuse(c, err)
		return
	}
	// 2.
	der, err := a.checkConsent(c.Request.Context(), t.Text, body.Signature)
	if err != nil {
		a.refuse(c, err)
		return
	}
	// 3.
	consent, err := a.Authority.GiveConsent(c.Request.Context(), by, t, body.Signature, der)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusCreated, encodeConsent(consent))
}

// checkConsent verifies the CMS over a text with the library that relying parties use, and returns the signer's certificate.
// The library establishes no status here, where none is published: everything before that must hold, and the record is asked.
func (a *API) checkConsent(ctx context.Context, text string, document []byte) ([]byte, error) {
	if a.relying == nil {
		return nil, jpki.Errorf(jpki.NotFound, "consents are not taken here")
	}
	if len(document) == 0 {
		return nil, jpki.Errorf(jpki.Malformed, "signature is required")
	}
	anchors, err := a.Authority.Anchors(ctx)
	if err != nil {
		return nil, err
	}
	v, err := verifier.New(verifier.Config{Documents: &verifier.DocumentConfig{Policy: a.relying.Consent, Anchors: anchors}, Now: a.Now, Rand: a.relying.Rand})
	if err != nil {
		return nil, err
	}
	asked := false
	res, err := v.Document(ctx, verifier.DocumentInput{Data: document, Format: verifier.FormatCMS, Detached: func(string) io.Reader {
		asked = true
		return strings.NewReader(text)
	}})
	switch {
	case err != nil:
		return nil, err
	case !asked || len(res.Signatures) != 1 || len(res.Evidence.Signatures) != 1:
		return nil, jpki.Errorf(jpki.Malformed, "signature is not a CMS with one signature, detached from the text")
	}
	s := res.Signatures[0]
	last := s.Checks[len(s.Checks)-1]
	if s.Code != verifier.OK && (s.Code != verifier.StatusNotEstablished || last.ID != verifier.CheckRFC) {
		return nil, jpki.Errorf(jpki.Forbidden, "the signature on the consent does not hold: %s", s.Code)
	}
	return res.Evidence.Signatures[0].Certificate, nil
}

func encodeConsent(c ca.Consent) client.Consent {
	return client.Consent{
		ID: c.ID, ConsentTerms: client.ConsentTerms{Tenant: c.Tenant, Purpose: c.Purpose, Description: c.Description, Items: c.Items, Lang: c.Lang}, TenantName: c.TenantName, Operator: c.Operator,
		User: c.User, Version: c.Version, Reference: c.Reference, TextSHA256: hexSHA256([]byte(c.Text)), DocumentSHA256: hexSHA256(c.Document), ReceivedAt: c.ReceivedAt, ValidFrom: c.ValidFrom,
		ValidUntil: c.ValidUntil, State: client.ConsentState(c.State), WithdrawnAt: c.WithdrawnAt, RemindAt: c.RemindAt,
	}
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (a *API) listConsents(c *gin.Context) {
	by, q, err := a.beginList(c, "tenant", "user", "after")
	if err != nil {
		a.refuse(c, err)
		return
	}
	list, more, err := a.Authority.Consents(c.Request.Context(), by, jpki.CorporateNumber(q.Get("tenant")), q.Get("user"), q.Get("after"))
	if err != nil {
		a.refuse(c, err)
		return
	}
	out := client.ConsentPage{Consents: []client.Consent{}}
	for _, consent := range list {
		out.Consents = append(out.Consents, encodeConsent(consent))
	}
	if more {
		out.Next = list[len(list)-1].ID
	}
	a.answer(c, http.StatusOK, out)
}

func (a *API) latestAttributes(c *gin.Context) {
	var body client.AttributesRequest
	by, err := a.begin(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	got, err := a.Authority.LatestAttributes(c.Request.Context(), by, c.GetHeader("Idempotency-Key"), body.Tenant, body.User, body.Purpose)
	if err != nil {
		a.refuse(c, err)
		return
	}
	v := got.Attributes
	a.answer(c, http.StatusOK, client.LatestAttributes{
		Consent: got.Consent, Name: v.Name, NameSubstitutes: v.NameSubstitutes, Sex: v.Sex, BirthDate: v.BirthDate, Address: v.Address, AddressSubstitutes: v.AddressSubstitutes, RemindAt: got.RemindAt,
	})
}

func (a *API) reportUses(c *gin.Context) {
	var body client.UseReport
	by, err := a.beginBulk(c, &body)
	if err != nil {
		a.refuse(c, err)
		return
	}
	uses := make([]ca.CertificateUse, len(body.Uses))
	for i, u := range body.Uses {
		uses[i] = ca.CertificateUse{ID: u.ID, User: u.User, Certificate: u.Certificate, Action: string(u.Action), Purpose: u.Purpose, At: u.At}
	}
	out, err := a.Authority.ReportUses(c.Request.Context(), by, body.Tenant, uses)
	if err != nil {
		a.refuse(c, err)
		return
	}
	a.answer(c, http.StatusOK, client.UseOutcome{Recorded: out.Recorded, Unknown: out.Unknown})
}

// beginBulk is begin for bodies with long lists.
func (a *API) beginBulk(c *gin.Context, body any) (jpki.Actor, error) {
	by, err := a.begin(c, nil)
	if err != nil {
		return by, err
	}
	text, err := jpki.ReadBody(c.Request, maxBulkBody)
	if err != nil {
		return by, err
	}
	return by, parse(text, body)
}

// beginList authenticates the caller and reads the query strictly: the named parameters, each once.
func (a *API) beginList(c *gin.Context, names ...string) (by jpki.Actor, q url.Values, err error) {
	if by, err = a.begin(c, nil); err != nil {
		return by, nil, err
	}
	if q, err = url.ParseQuery(c.Request.URL.RawQuery); err != nil {
		return by, nil, jpki.WrapError(jpki.Malformed, err, "the query is not well formed")
	}
	return by, q, onlyOnce(q, names)
}
