package client

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/openjpki/jpki"
)

// The most that one request may carry.
const (
	MaxWatches = 1000 // of [WatchOrder]
	MaxUses    = 1000 // of [UseReport]
	MaxChanges = 1000 // of [ChangePage]
)

// An IdentityRequest asks whose certificate it is, as a tenant knows that person. Name the certificate by ID or give it.
type IdentityRequest struct {
	Tenant      jpki.CorporateNumber `json:"tenant"`
	Purpose     string               `json:"purpose"` // 1 to 64 of a-z, 0-9 and hyphen
	ID          *jpki.CertID         `json:"id,omitempty"`
	Certificate string               `json:"certificate,omitempty"` // PEM
	// Linkage asks for the person's certificate in force for the other use, on the same card or phone. Only tenants entitled to
	// both uses get it.
	Linkage bool `json:"linkage,omitempty"`
}

// An Identity is a person as one tenant knows them.
type Identity struct {
	User   string     `json:"user"`   // 32 letters and digits; the same after renewals, on a new card and on a phone
	New    bool       `json:"new"`    // the tenant had not asked about this person before
	Kind   jpki.Kind  `json:"kind"`   // of the certificate
	Latest bool       `json:"latest"` // no newer certificate of this kind was issued to the person
	State  jpki.State `json:"state"`  // of the certificate, now
	Linked *Linked    `json:"linked,omitempty"`
}

// Linked is the certificate in force for the other use.
type Linked struct {
	ID   jpki.CertID `json:"id"`
	Kind jpki.Kind   `json:"kind"`
}

// A Watch has a tenant told what changes about a user, under a purpose. It is known by these three: making it twice is
// making it once.
type Watch struct {
	User    string    `json:"user"`
	Purpose string    `json:"purpose"`
	Since   time.Time `json:"since,omitzero"` // in lists
}

// A WatchOrder makes or ends watches, up to [MaxWatches].
type WatchOrder struct {
	Tenant  jpki.CorporateNumber `json:"tenant"`
	Watches []Watch              `json:"watches"`
}

// A WatchOutcome answers that.
type WatchOutcome struct {
	Changed int      `json:"changed"`           // watches made or ended; the others were so before
	Unknown []string `json:"unknown,omitempty"` // users whom the tenant does not know; nothing was done about them
}

// A WatchPage is a part of a tenant's watches.
type WatchPage struct {
	Watches []Watch `json:"watches"`
	Next    string  `json:"next,omitempty"` // where the next page goes on; empty at the end
}

// A UserChange tells that something about a user changed: of which class, never what.
type UserChange struct {
	Position   int64                `json:"position"` // 1, 2, 3 … for each operator, without gaps
	ID         string               `json:"id"`       // unique for ever; the same whenever the change is read again
	Tenant     jpki.CorporateNumber `json:"tenant"`
	User       string               `json:"user"`
	Purpose    string               `json:"purpose"`
	Class      jpki.ChangeClass     `json:"class"`
	Kind       jpki.Kind            `json:"kind"`                 // of the certificate it concerns
	Correction bool                 `json:"correction,omitempty"` // what the certificate said had been wrong
	At         time.Time            `json:"at"`                   // to the second
}

// A ChangePage is a part of an operator's feed, in order.
type ChangePage struct {
	Changes []UserChange `json:"changes"`
	Next    int64        `json:"next"` // after which position to go on
}

// A ConsentTerms is what a holder consents to.
type ConsentTerms struct {
	Tenant      jpki.CorporateNumber `json:"tenant"`
	Purpose     string               `json:"purpose"`
	Description string               `json:"description"` // of the purpose, for the holder to read: 1 to 200 characters
	Items       []jpki.Item          `json:"items"`
	Lang        string               `json:"lang"` // of the text: ja or en
}

// A ConsentText is what the holder reads and signs, detached, as CMS: exactly the octets of Text in UTF-8.
type ConsentText struct {
	ConsentTerms
	Version   string    `json:"version"`   // of the wording
	Reference string    `json:"reference"` // of this text, which is signed once
	IssuedAt  time.Time `json:"issued_at"` // to the second; it may be signed for a day
	Text      string    `json:"text"`
}

// A ConsentOrder brings a signed consent: the text's terms and particulars as they were given, without Text, and the CMS.
type ConsentOrder struct {
	ConsentTerms
	Version   string    `json:"version"`
	Reference string    `json:"reference"`
	IssuedAt  time.Time `json:"issued_at"`
	Signature []byte    `json:"signature"` // CMS, DER, detached
}

// A ConsentState is what has become of a consent.
type ConsentState string

// The states.
const (
	ConsentPending   ConsentState = "pending" // begins at midnight
	ConsentValid     ConsentState = "valid"
	ConsentExpired   ConsentState = "expired"
	ConsentWithdrawn ConsentState = "withdrawn"
	ConsentReplaced  ConsentState = "replaced" // by a newer one for the same purpose
)

// A Consent is a consent on record, and the receipt for it.
type Consent struct {
	ID string `json:"id"`
	ConsentTerms
	TenantName     string       `json:"tenant_name"`
	Operator       string       `json:"operator"`
	User           string       `json:"user,omitempty"` // not told to the holder
	Version        string       `json:"version"`
	Reference      string       `json:"reference"`
	TextSHA256     string       `json:"text_sha256"`
	DocumentSHA256 string       `json:"document_sha256"` // of the CMS
	ReceivedAt     time.Time    `json:"received_at"`
	ValidFrom      time.Time    `json:"valid_from"`
	ValidUntil     time.Time    `json:"valid_until"`
	State          ConsentState `json:"state"`
	WithdrawnAt    *time.Time   `json:"withdrawn_at,omitempty"`
	RemindAt       *time.Time   `json:"remind_at,omitempty"` // when the holder is next to be reminded, once a year
}

// A ConsentPage is a part of a tenant's consents, oldest first.
type ConsentPage struct {
	Consents []Consent `json:"consents"`
	Next     string    `json:"next,omitempty"`
}

// An AttributesRequest asks for a user's latest attributes under a consent.
type AttributesRequest struct {
	Tenant  jpki.CorporateNumber `json:"tenant"`
	User    string               `json:"user"`
	Purpose string               `json:"purpose"`
}

// LatestAttributes are those of the four that the consent covers. They are personal data: fmt and slog print a placeholder.
type LatestAttributes struct {
	Consent            string         `json:"consent"` // under which they are handed out
	Name               string         `json:"name,omitempty"`
	NameSubstitutes    string         `json:"name_substitutes,omitempty"`
	Sex                jpki.Sex       `json:"sex,omitempty"`
	BirthDate          jpki.BirthDate `json:"birth_date,omitempty"`
	Address            string         `json:"address,omitempty"`
	AddressSubstitutes string         `json:"address_substitutes,omitempty"`
	RemindAt           *time.Time     `json:"remind_at,omitempty"`
}

// Format keeps the attributes out of formatted output.
func (LatestAttributes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

// LogValue keeps the attributes out of logs.
func (LatestAttributes) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// A UseAction is what a relying party did with a certificate.
type UseAction string

// The actions that verifiers report.
const (
	UseVerification UseAction = "verification" // of a signature
	UseLogin        UseAction = "log-in"
	UseStatusCheck  UseAction = "status-check"
)

// A CertificateUse is one use of a person's certificate at a verifier, for the holder's record. Name the person as the tenant's
// user, or by the certificate.
type CertificateUse struct {
	ID          string       `json:"id"` // the operator's own, which makes reporting it twice harmless
	User        string       `json:"user,omitempty"`
	Certificate *jpki.CertID `json:"certificate,omitempty"`
	Action      UseAction    `json:"action"`
	Purpose     string       `json:"purpose"`
	At          time.Time    `json:"at"` // within the last 7 days
}

// A UseReport reports uses, up to [MaxUses].
type UseReport struct {
	Tenant jpki.CorporateNumber `json:"tenant"`
	Uses   []CertificateUse     `json:"uses"`
}

// A UseOutcome answers that.
type UseOutcome struct {
	Recorded int      `json:"recorded"`          // those that had been reported before are not counted
	Unknown  []string `json:"unknown,omitempty"` // identifiers of uses that concern nobody known; they are not recorded
}

// Identify says whose certificate it is.
func (c *Client) Identify(ctx context.Context, r IdentityRequest) (out Identity, err error) {
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/identities", "", r, &out)
}

// CreateWatches makes watches. What commits afterwards is told, and nothing from before.
func (c *Client) CreateWatches(ctx context.Context, o WatchOrder) (out WatchOutcome, err error) {
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/watches", "", o, &out)
}

// EndWatches ends watches. What was told before stays in the feed.
func (c *Client) EndWatches(ctx context.Context, o WatchOrder) (out WatchOutcome, err error) {
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/watch-endings", "", o, &out)
}

// Watches yields a tenant's watches in the order of users and purposes.
func (c *Client) Watches(ctx context.Context, tenant jpki.CorporateNumber) iter.Seq2[Watch, error] {
	return pagesOf(ctx, c, "/relying-party/v1/watches", url.Values{"tenant": {string(tenant)}}, func(p WatchPage) ([]Watch, string) { return p.Watches, p.Next })
}

// WatchesAfter returns one page of what [Client.Watches] yields; after is the former page's Next, empty for the first.
func (c *Client) WatchesAfter(ctx context.Context, tenant jpki.CorporateNumber, after string) (out WatchPage, err error) {
	q := url.Values{"tenant": {string(tenant)}}
	if after != "" {
		q.Set("after", after)
	}
	return out, c.do(ctx, http.MethodGet, "/relying-party/v1/watches?"+q.Encode(), "", nil, &out)
}

// Changes reads the operator's feed behind a position, up to limit changes (0 means [MaxChanges]). Without any it waits up to
// wait, at most 30 s, for one. Positions that are not kept any more are [jpki.CursorExpired].
func (c *Client) Changes(ctx context.Context, after int64, limit int, wait time.Duration) (out ChangePage, err error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}, "wait": {strconv.Itoa(int(wait / time.Second))}}
	return out, c.do(ctx, http.MethodGet, "/relying-party/v1/changes?"+q.Encode(), "", nil, &out)
}

// FeedBounds returns the position behind which everything in the operator's feed is kept, and the last. They are asked for one after the
// other: the feed may grow meanwhile.
func (c *Client) FeedBounds(ctx context.Context) (start, end int64, err error) {
	for name, to := range map[string]*int64{"start": &start, "end": &end} {
		var page ChangePage
		if err := c.do(ctx, http.MethodGet, "/relying-party/v1/changes?after="+name, "", nil, &page); err != nil {
			return 0, 0, err
		}
		*to = page.Next
	}
	return start, end, nil
}

// NewConsentText returns what a holder is to read and sign.
func (c *Client) NewConsentText(ctx context.Context, t ConsentTerms) (out ConsentText, err error) {
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/consent-texts", "", t, &out)
}

// GiveConsent records what a holder signed and returns the receipt. Repeated, it returns the same.
func (c *Client) GiveConsent(ctx context.Context, t ConsentText, signature []byte) (out Consent, err error) {
	o := ConsentOrder{ConsentTerms: t.ConsentTerms, Version: t.Version, Reference: t.Reference, IssuedAt: t.IssuedAt, Signature: signature}
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/consents", "", o, &out)
}

// Consents yields a tenant's consents, oldest first: all of them, or one user's.
func (c *Client) Consents(ctx context.Context, tenant jpki.CorporateNumber, user string) iter.Seq2[Consent, error] {
	q := url.Values{"tenant": {string(tenant)}}
	if user != "" {
		q.Set("user", user)
	}
	return pagesOf(ctx, c, "/relying-party/v1/consents", q, func(p ConsentPage) ([]Consent, string) { return p.Consents, p.Next })
}

// LatestAttributes returns a user's latest attributes as far as the holder consented: [jpki.ConsentRequired] without consent,
// [jpki.NotAvailableYet] while nothing newer is certified. The same key gets the same again, if an answer was lost.
func (c *Client) LatestAttributes(ctx context.Context, key string, r AttributesRequest) (out LatestAttributes, err error) {
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/attributes", key, r, &out)
}

// ReportUses reports uses of certificates for their holders' record. Repeated, it records nothing twice.
func (c *Client) ReportUses(ctx context.Context, r UseReport) (out UseOutcome, err error) {
	return out, c.do(ctx, http.MethodPost, "/relying-party/v1/uses", "", r, &out)
}

// pagesOf yields what is on every page of a list.
func pagesOf[P, T any](ctx context.Context, c *Client, path string, q url.Values, of func(P) (list []T, next string)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for after := ""; ; {
			var page P
			query := path + "?" + q.Encode()
			if after != "" {
				query += "&" + url.Values{"after": {after}}.Encode()
			}
			if err := c.do(ctx, http.MethodGet, query, "", nil, &page); err != nil {
				var none T
				yield(none, err)
				return
			}
			var list []T
			list, after = of(page)
			for _, v := range list {
				if !yield(v, nil) {
					return
				}
			}
			if after == "" {
				return
			}
		}
	}
}
