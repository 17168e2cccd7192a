package ca

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// ConsentVersion is the wording of the texts that holders sign. Another wording has another name: what was signed is kept.
const ConsentVersion = "jpki-consent-1"

// Limits of consents.
const (
	consentYears   = 10
	textLife       = 24 * time.Hour // in which a text may be signed
	maxDescription = 200            // characters of a purpose's description
	maxDocument    = 32 << 10       // octets of what was signed
)

// ConsentTerms is what a holder consents to.
type ConsentTerms struct {
	Tenant      jpki.CorporateNumber
	Purpose     string
	Description string // of the purpose, for the holder to read
	Items       []jpki.Item
	Lang        string // of the text: ja or en
}

// check checks the terms; items come in their order, no one twice.
func (t ConsentTerms) check() error {
	if err := errors.Join(checkPurpose(t.Purpose), checkText("description", t.Description, maxDescription)); err != nil {
		return err
	}
	if t.Lang != "ja" && t.Lang != "en" {
		return jpki.Errorf(jpki.Malformed, "lang is ja or en")
	}
	last := -1
	for _, item := range t.Items {
		i := slices.Index(jpki.Items, item)
		if i <= last {
			return jpki.Errorf(jpki.Malformed, "items are some of name, address, birth_date and sex, in this order")
		}
		last = i
	}
	if len(t.Items) == 0 {
		return jpki.Errorf(jpki.Malformed, "items are some of name, address, birth_date and sex, in this order")
	}
	return nil
}

// A ConsentText is what a holder reads and signs.
type ConsentText struct {
	ConsentTerms
	Version   string
	Reference string
	IssuedAt  time.Time
	Text      string
}

// NewConsentText makes the text for a tenant's terms. Nothing is kept of it: whoever brings it back signed brings its
// particulars along, and the text is made again.
func (a *Authority) NewConsentText(ctx context.Context, by jpki.Actor, terms ConsentTerms) (out ConsentText, err error) {
	reference, err := a.drawID()
	if err != nil {
		return out, err
	}
	return a.ConsentText(ctx, by, ConsentText{ConsentTerms: terms, Version: ConsentVersion, Reference: reference, IssuedAt: a.now().UTC().Truncate(time.Second)})
}

var referenceForm = regexp.MustCompile(`^[a-z2-7]{26}$`)

// ConsentText returns a text by its terms and particulars, octet by octet as it was made.
func (a *Authority) ConsentText(ctx context.Context, by jpki.Actor, t ConsentText) (ConsentText, error) {
	if err := t.check(); err != nil {
		return t, err
	}
	if t.Version != ConsentVersion || !referenceForm.MatchString(t.Reference) || !t.IssuedAt.Equal(t.IssuedAt.Truncate(time.Second)) {
		return t, jpki.Errorf(jpki.Malformed, "version, reference and issued_at are those of the text")
	}
	err := a.store.View(ctx, func(tx *store.Tx) error {
		tenant, err := tenantFor(tx, by, t.Tenant, jpki.ForSignature)
		if err != nil {
			return err
		}
		t.Text = wording(t, tenant)
		return nil
	})
	return t, err
}

// itemNames are the items as people call them.
var itemNames = map[string]map[jpki.Item]string{
	"ja": {jpki.ItemName: "氏名", jpki.ItemAddress: "住所", jpki.ItemBirthDate: "生年月日", jpki.ItemSex: "性別"},
	"en": {jpki.ItemName: "name", jpki.ItemAddress: "address", jpki.ItemBirthDate: "date of birth", jpki.ItemSex: "sex"},
}

// wordings are the texts of a version: fifteen numbered items. The words in braces are put in.
var wordings = map[string]string{
	"ja": `最新の基本4情報の提供に関する同意書（{version}）
参照番号 {reference}　作成日時 {issued}

 1. 同意する者　この同意書に署名用電子証明書で電子署名をする本人
 2. 情報の提供を受ける者　{name}（法人番号 {number}）
 3. 照会を取り扱う者　{operator}
 4. 利用目的　{description}（{purpose}）
 5. 提供される情報　{items}。これ以外の情報は提供されません。
 6. 情報を提供する者　署名用電子証明書を発行する認証局
 7. 提供される時期　提供を受ける者が把握している署名用電子証明書が失効し、新しい署名用電子証明書が発行された後に限ります。
 8. 提供の方法　提供を受ける者が照会したときに、その都度、その時点の情報が提供されます。照会はすべて記録されます。
 9. 有効期間　認証局がこの同意書を受け付けた日の翌日から10年間
10. 証明書の更新等　電子証明書の更新、再発行、失効があっても、この同意は有効期間中有効です。
11. 取消し　この同意は、利用者証明用電子証明書による本人確認を経て、いつでも取り消すことができます。取消し後は提供されません。
12. 確認　この同意の状況と、同意に基づく提供の記録は、いつでも認証局に照会できます。
13. 目的外利用の禁止　提供を受ける者は、情報を上記の目的以外に利用せず、第三者に提供しません。
14. 保存の禁止　照会を取り扱う者は、情報を引き渡した後は保存しません。
15. 任意性と通知　同意は任意です。同意中であることは、年1回、提供を受ける者から通知されます。

以上に同意します。
`,
	"en": `Consent to the provision of the latest four attributes ({version})
Reference {reference}, made {issued}

 1. Who consents: the person who signs this text with a signature certificate.
 2. Who receives the information: {name} (Corporate Number {number}).
 3. Who handles the requests: {operator}.
 4. Purpose: {description} ({purpose}).
 5. Information provided: {items}. Nothing else is provided.
 6. Who provides it: the certification authority that issues the signature certificates.
 7. When: only after the signature certificate that the receiver knows has ended and a new one has been issued.
 8. How: each time the receiver asks, as the information is at that time. Every request is recorded.
 9. Period: ten years from the day after the authority receives this consent.
10. Renewal: this consent lasts through renewals, reissues and revocations of certificates.
11. Withdrawal: at any time, with an authentication certificate. Nothing is provided after that.
12. Enquiry: the state of this consent, and what was provided under it, can be asked of the authority at any time.
13. No other use: the receiver uses the information for no other purpose and gives it to nobody else.
14. No storage: who handles the requests keeps no copy after handing the information over.
15. Free will and reminder: consent is voluntary. Once a year the receiver reminds the person that it stands.

I consent to the above.
`,
}

func wording(t ConsentText, tenant store.Tenant) string {
	var items []string
	for _, i := range t.Items {
		items = append(items, itemNames[t.Lang][i])
	}
	between := map[string]string{"ja": "、", "en": ", "}[t.Lang]
	return strings.NewReplacer("{version}", t.Version, "{reference}", t.Reference, "{issued}", t.IssuedAt.In(jpki.JST).Format(time.RFC3339), "{name}", tenant.Name, "{number}", string(tenant.Number),
		"{operator}", tenant.Operator, "{description}", t.Description, "{purpose}", t.Purpose, "{items}", strings.Join(items, between)).Replace(wordings[t.Lang])
}

// consentPeriod returns from when to when a consent holds that was received at a time: ten years from the day after, by the
// calendar of Japan. Where the last year has no such day, it ends with the month (Civil Code, Article 143).
func consentPeriod(received time.Time) (from, until time.Time) {
	day := received.In(jpki.JST)
	start := time.Date(day.Year(), day.Month(), day.Day()+1, 0, 0, 0, 0, jpki.JST)
	return start.UTC(), time.Date(start.Year()+consentYears, start.Month(), start.Day(), 0, 0, -1, 0, jpki.JST).UTC()
}

// reminder returns when, after now, a holder is next to be reminded of a consent: once a year counted from its beginning.
func reminder(c store.Consent, now time.Time) *time.Time {
	if c.ReplacedAt != nil || c.WithdrawnAt != nil {
		return nil
	}
	for year := 1; year < consentYears; year++ {
		if at := c.ValidFrom.In(jpki.JST).AddDate(year, 0, 0).UTC(); at.After(now) {
			return &at
		}
	}
	return nil
}

// A ConsentState is what has become of a consent.
type ConsentState string

// The states.
const (
	ConsentPending   ConsentState = "pending" // begins at midnight
	ConsentValid     ConsentState = "valid"
	ConsentExpired   ConsentState = "expired"
	ConsentWithdrawn ConsentState = "withdrawn"
	ConsentReplaced  ConsentState = "replaced"
)

func consentState(c store.Consent, now time.Time) ConsentState {
	switch {
	case c.WithdrawnAt != nil:
		return ConsentWithdrawn
	case c.ReplacedAt != nil:
		return ConsentReplaced
	case now.Before(c.ValidFrom):
		return ConsentPending
	case now.After(c.ValidUntil):
		return ConsentExpired
	}
	return ConsentValid
}

// A Consent is a consent on record with what has become of it by now.
type Consent struct {
	store.Consent
	State    ConsentState
	RemindAt *time.Time
}

func (a *Authority) consent(c store.Consent) Consent {
	now := a.now()
	return Consent{c, consentState(c, now), reminder(c, now)}
}

// GiveConsent records what the holder of a signature certificate signed: t is the text, document the CMS over it, which the caller
// has verified up to the state of the certificate, der the certificate. The same again gets the same. Steps:
//  1. find the certificate
//  2. was this text consented to before? then it is the same consent, or somebody else's text
//  3. is the text fresh, and the certificate in force, now?
//  4. record the consent in the place of the one for the same purpose; who signed is the tenant's user, whose certificate it knows
func (a *Authority) GiveConsent(ctx context.Context, by jpki.Actor, t ConsentText, document, der []byte) (out Consent, err error) {
	if len(document) > maxDocument {
		return out, jpki.Errorf(jpki.TooLarge, "a signed consent has at most %d octets", maxDocument)
	}
	// 1.
	signer, err := a.OnRecord(ctx, der)
	if err != nil {
		return out, err
	}
	id, err := a.drawID()
	if err != nil {
		return out, err
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		tenant, err := tenantFor(tx, by, t.Tenant, jpki.ForSignature)
		if err != nil {
			return err
		}
		// 2.
		if had, found, err := tx.ConsentOn(t.Reference); err != nil {
			return err
		} else if found {
			if had.Tenant != t.Tenant || !bytes.Equal(had.Document, document) {
				return jpki.Errorf(jpki.Conflict, "the text was consented to before")
			}
			out = a.consent(had)
			return nil
		}
		// 3.
		if t.IssuedAt.After(now.Add(time.Minute)) || now.Sub(t.IssuedAt) > textLife {
			return jpki.Errorf(jpki.ChallengeInvalid, "a text may be signed for %d hours", textLife/time.Hour)
		}
		if _, err := tx.Holder(signer.Holder); err != nil {
			return err
		}
		all, err := tx.CertificatesOf(signer.Holder) // again, now that nobody else can change them
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(c store.Certificate) bool { return c.ID == signer.ID })
		if i < 0 {
			return jpki.Errorf(jpki.UnknownCertificate, "")
		}
		if c := all[i]; c.Kind.Use() != jpki.ForSignature || c.Status.State != jpki.Good || !c.Live(now) {
			return jpki.Errorf(jpki.Forbidden, "a consent is signed with a signature certificate in force")
		}
		// 4.
		u, _, err := userOf(tx, tenant, signer.Holder, now)
		if err != nil {
			return err
		}
		c := store.Consent{
			ID: id, Tenant: t.Tenant, TenantName: tenant.Name, Operator: by.ID, User: u.ID, Holder: signer.Holder, Purpose: t.Purpose, Description: t.Description, Items: t.Items, Lang: t.Lang,
			Version: t.Version, Reference: t.Reference, Text: t.Text, Document: document, Certificate: signer.ID, ReceivedAt: now,
		}
		if c.ValidFrom, c.ValidUntil = consentPeriod(now); a.atOnce {
			c.ValidFrom = now.UTC()
		}
		if err := tx.AddConsent(c); err != nil {
			return err
		}
		u.Kinds = u.Kinds.With(signer.Kind)
		know(&u, all[i], all)
		if err := tx.SetUser(u); err != nil {
			return fmt.Errorf("note certificate: %w", err)
		}
		if _, err := tx.AddRecords(store.Recorded{Operator: by.ID, Ref: drawnRef(id), Holder: c.Holder, Tenant: c.Tenant, Action: recordConsent, Purpose: c.Purpose, Items: c.Items, Consent: id, At: now}); err != nil {
			return err
		}
		out = a.consent(c)
		return tx.Audit(now, by, "consent.given", id, map[string]any{"tenant": c.Tenant, "purpose": c.Purpose, "items": c.Items, "certificate": c.Certificate, "until": c.ValidUntil})
	})
	return out, err
}

// MaxConsents is how many consents a page has.
const MaxConsents = 100

// Consents returns a page of the consents to a tenant, oldest first, behind the one called after: of one user, or of all. It is how
// the tenant learns of withdrawals.
func (a *Authority) Consents(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, user, after string) (out []Consent, more bool, err error) {
	if user != "" {
		if err := checkUser(user); err != nil {
			return nil, false, err
		}
	}
	var list []store.Consent
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := tenantFor(tx, by, tenant, ""); err != nil {
			return err
		}
		var last store.Consent
		if after != "" {
			if last, err = tx.Consent(after); err != nil || last.Tenant != tenant {
				return jpki.Errorf(jpki.Malformed, "after names no consent to the relying party")
			}
		}
		list, err = tx.ConsentsTo(tenant, user, last.ReceivedAt, last.ID, MaxConsents+1)
		return err
	})
	if more = len(list) > MaxConsents; more {
		list = list[:MaxConsents]
	}
	for _, c := range list {
		out = append(out, a.consent(c))
	}
	return out, more, err
}

// OwnConsents returns all consents of a holder, newest first, for the holder.
func (a *Authority) OwnConsents(ctx context.Context, by jpki.Actor) (out []Consent, err error) {
	if by.Role != jpki.Holder {
		return nil, jpki.Errorf(jpki.Forbidden, "a %s has no consents", by.Role)
	}
	var list []store.Consent
	err = a.store.View(ctx, func(tx *store.Tx) error {
		list, err = tx.ConsentsOf(by.ID)
		return err
	})
	for _, c := range list {
		out = append(out, a.consent(c))
	}
	return out, err
}

// A WithdrawalProof is how the holder's will is known, kept with the consent: what was signed, with which certificate, and the
// signature.
type WithdrawalProof struct {
	Certificate jpki.CertID `json:"certificate"`
	Message     []byte      `json:"message"`
	Signature   []byte      `json:"signature"`
}

// WithdrawConsent ends a consent of the holder, who has proved to be that; at once, and for ever. Again, it changes nothing.
func (a *Authority) WithdrawConsent(ctx context.Context, by jpki.Actor, id string, proof WithdrawalProof) (out Consent, err error) {
	if by.Role != jpki.Holder {
		return out, jpki.Errorf(jpki.Forbidden, "a %s withdraws no consent", by.Role)
	}
	text, err := json.Marshal(proof)
	if err != nil {
		return out, fmt.Errorf("encode proof: %w", err)
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		c, err := tx.Consent(id)
		if err != nil {
			return err
		}
		if c.Holder != by.ID {
			return jpki.Errorf(jpki.NotFound, "")
		}
		if c.WithdrawnAt == nil {
			if err := tx.WithdrawConsent(id, string(text), now); err != nil {
				return fmt.Errorf("withdraw consent: %w", err)
			}
			c.WithdrawnAt = &now
			if _, err := tx.AddRecords(store.Recorded{Operator: c.Operator, Ref: drawnRef(id + "-withdrawn"), Holder: c.Holder, Tenant: c.Tenant, Action: recordWithdrawal, Purpose: c.Purpose, Items: c.Items, Consent: id, At: now}); err != nil {
				return err
			}
			if err := tx.Audit(now, by, "consent.withdrawn", id, map[string]any{"tenant": c.Tenant, "purpose": c.Purpose, "certificate": proof.Certificate}); err != nil {
				return err
			}
		}
		out = a.consent(c)
		return nil
	})
	return out, err
}

// LatestAttributes are a holder's attributes as far as a consent covers them; the others are empty.
type LatestAttributes struct {
	Consent    string
	Attributes jpki.Attributes
	RemindAt   *time.Time
}

// LatestAttributes hands out a user's latest attributes: those that a consent in force for the purpose covers, and only once the
// signature certificate that the tenant knows has ended and a newer one is in force. Then the tenant knows that one for this
// purpose, and gets nothing more until it has ended, too; the same key gets the same again. Steps:
//  1. check the request, and that the operator acts for the tenant
//  2. is there a consent in force?
//  3. is there anything newer? For a protected person there never is
//  4. hand out the items; note what the tenant knows now; in the holder's record and the audit record: who got what
func (a *Authority) LatestAttributes(ctx context.Context, by jpki.Actor, key string, tenant jpki.CorporateNumber, user, purpose string) (out LatestAttributes, err error) {
	// 1.
	if err := errors.Join(checkUser(user), checkPurpose(purpose)); err != nil {
		return out, err
	}
	if err := checkIdempotencyKey(key); err != nil {
		return out, err
	}
	ref, err := a.drawID()
	if err != nil {
		return out, err
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		t, err := tenantFor(tx, by, tenant, jpki.ForSignature)
		if err != nil {
			return err
		}
		known, err := tx.Users(t.Number, []string{user})
		if err != nil {
			return err
		}
		u, ok := known[user]
		if !ok {
			return jpki.Errorf(jpki.UnknownUser, "")
		}
		h, err := tx.Holder(u.Holder) // the lock under which certificates change
		if err != nil {
			return err
		}
		// 2.
		c, found, err := tx.ConsentInForce(t.Number, user, purpose)
		if err != nil {
			return err
		}
		if !found {
			return jpki.Errorf(jpki.ConsentRequired, "")
		}
		if state := consentState(c, now); state != ConsentValid {
			return jpki.Errorf(jpki.ConsentRequired, "the consent is %s", state)
		}
		// 3.
		all, err := tx.CertificatesOf(h.ID)
		if err != nil {
			return err
		}
		latest, again := nothingNewer, c.ProvidedKey == key
		if !h.Protected && h.Ended == "" {
			latest = newest(all, again, now, u.Known, c.Provided)
		}
		if latest.ID == nothingNewer.ID {
			return jpki.Errorf(jpki.NotAvailableYet, "")
		}
		// 4.
		out = LatestAttributes{Consent: c.ID, Attributes: only(h.Attributes, c.Items), RemindAt: reminder(c, now)}
		if err := tx.ProvidedUnder(c.ID, latest.ID, key); err != nil {
			return fmt.Errorf("note certificate: %w", err)
		}
		if _, err := tx.AddRecords(store.Recorded{Operator: by.ID, Ref: drawnRef(ref), Holder: h.ID, Tenant: t.Number, Action: recordAttributes, Purpose: purpose, Items: c.Items, Consent: c.ID, At: now}); err != nil {
			return err
		}
		return tx.Audit(now, by, "attributes.provided", c.ID, map[string]any{"tenant": t.Number, "purpose": purpose, "items": c.Items, "again": again})
	})
	if err != nil {
		return LatestAttributes{}, err
	}
	return out, nil
}

var nothingNewer = store.Certificate{}

// newest returns the newest signature certificate in force, if the newest of those that are known has ended and was issued
// before; or, again, the known one itself. A suspended one has not ended: it may still be what the person has.
func newest(all []store.Certificate, again bool, now time.Time, known ...*jpki.CertID) store.Certificate {
	out, old := nothingNewer, nothingNewer
	for _, c := range all {
		if c.Kind.Use() != jpki.ForSignature {
			continue
		}
		if slices.ContainsFunc(known, func(k *jpki.CertID) bool { return k != nil && *k == c.ID }) && (old.ID == nothingNewer.ID || newer(c, old)) {
			old = c
		}
		if c.Status.State == jpki.Good && c.Live(now) && (out.ID == nothingNewer.ID || newer(c, out)) {
			out = c
		}
	}
	switch {
	case old.ID == nothingNewer.ID: // nothing is known: whatever there is is newer
		return out
	case old.Live(now) && again && old.Status.State == jpki.Good:
		return old
	case old.Live(now), out.ID == nothingNewer.ID, !newer(out, old):
		return nothingNewer
	}
	return out
}

// only returns the attributes that are among the items.
func only(a jpki.Attributes, items []jpki.Item) (out jpki.Attributes) {
	for _, item := range items {
		switch item {
		case jpki.ItemName:
			out.Name, out.NameSubstitutes = a.Name, a.NameSubstitutes
		case jpki.ItemAddress:
			out.Address, out.AddressSubstitutes = a.Address, a.AddressSubstitutes
		case jpki.ItemBirthDate:
			out.BirthDate = a.BirthDate
		case jpki.ItemSex:
			out.Sex = a.Sex
		}
	}
	return out
}
