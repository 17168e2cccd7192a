package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// Relying parties of the tests; the numbers are made up, with right check digits.
const (
	bank    = jpki.CorporateNumber("5835678256246")
	telecom = jpki.CorporateNumber("8700110005901")
)

var (
	authority = jpki.Actor{Role: jpki.System, ID: "test"}
	platform  = jpki.Actor{Role: jpki.Verifying, ID: "platform"}
	rival     = jpki.Actor{Role: jpki.Verifying, ID: "rival"}
	bothUses  = []jpki.Use{jpki.ForSignature, jpki.ForAuthentication}
)

// relying enrols two operators, with the bank entitled to both uses at one and the telecom to signatures at the other.
func (w *world) relying() {
	w.t.Helper()
	for _, o := range []jpki.Actor{platform, rival} {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: o.ID}, NotBefore: w.now, NotAfter: w.now.AddDate(1, 0, 0)}
		cert := must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))))
		if err := w.a.Enrol(w.t.Context(), authority, o, cert); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, t := range []store.Tenant{
		{Number: bank, Operator: platform.ID, Name: "砂箱銀行", Uses: bothUses},
		{Number: telecom, Operator: rival.ID, Name: "砂箱電話", Uses: bothUses[:1]},
	} {
		if err := w.a.RegisterTenant(w.t.Context(), authority, t); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) identify(by jpki.Actor, tenant jpki.CorporateNumber, id jpki.CertID) ca.Identity {
	w.t.Helper()
	got, err := w.a.Identify(w.t.Context(), by, ca.IdentityRequest{Tenant: tenant, Purpose: "account", ID: &id})
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func (w *world) watch(by jpki.Actor, tenant jpki.CorporateNumber, users ...string) {
	w.t.Helper()
	var list []store.Watch
	for _, u := range users {
		list = append(list, store.Watch{User: u, Purpose: "address-upkeep"})
	}
	if got, err := w.a.Watch(w.t.Context(), by, tenant, list); err != nil || got.Changed != len(users) || got.Unknown != nil {
		w.t.Fatal(got, err)
	}
}

// derive derives everything.
func (w *world) derive() {
	w.t.Helper()
	for {
		some, err := w.a.DeriveChanges(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		if !some {
			return
		}
	}
}

// told returns what an operator is told behind a position, as class and kind, and checks that there are no gaps.
func (w *world) told(by jpki.Actor, after *int64) (out []string) {
	w.t.Helper()
	w.derive()
	f, err := w.a.Changes(w.t.Context(), by, *after, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range f.Changes {
		if *after++; c.Seq != *after {
			w.t.Errorf("position %d, want %d", c.Seq, *after)
		}
		text := string(c.Class) + " " + string(c.Kind)
		if c.Correction {
			text += " correction"
		}
		out = append(out, text)
	}
	if f.Next != *after {
		w.t.Errorf("next is %d, want %d", f.Next, *after)
	}
	return out
}

func (w *world) moves(holder, address string) {
	w.t.Helper()
	w.now = w.now.Add(time.Minute)
	if _, err := w.event(jpki.Event{Holder: holder, Type: jpki.AddressChanged, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = address })}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) later(d time.Duration) { w.now = w.now.Add(d) }

// A tenant knows a person by one name through renewals, new cards and phones; no other tenant knows it.
func TestIdentityOutlivesCertificates(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		first := w.identify(platform, bank, card[0].ID)
		if !first.New || !first.Latest || first.Kind != jpki.CardSign || first.State != jpki.Good || len(first.User) != 32 || first.Linked != nil {
			w.t.Errorf("first: %+v", first)
		}
		same := func(id jpki.CertID, latest bool, what string) {
			w.t.Helper()
			if got := w.identify(platform, bank, id); got.User != first.User || got.New || got.Latest != latest {
				w.t.Errorf("%s: %+v, want the user %s, latest %t", what, got, first.User, latest)
			}
		}
		same(card[1].ID, true, "the other certificate")
		w.later(time.Minute)
		req := w.request("h1", "phone-1", jpki.PhoneSign, jpki.PhoneAuth)
		req.Parent = &card[0].ID
		phone := must(w.a.Issue(w.t.Context(), counter, req))
		same(phone[0].ID, true, "a phone")
		w.later(time.Minute)
		again := w.issue("h1", "card-2", jpki.CardSign, jpki.CardAuth)
		same(again[0].ID, true, "a new card")
		same(card[0].ID, false, "the old card")
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		w.later(time.Minute)
		same(w.issue("h1", "card-2", jpki.CardSign)[0].ID, true, "after a move")

		// By the certificate itself, too; and never by somebody else's.
		if got, err := w.a.Identify(w.t.Context(), platform, ca.IdentityRequest{Tenant: bank, Purpose: "account", DER: again[1].Certificate}); err != nil || got.User != first.User {
			w.t.Error(got, err)
		}
		if got := w.identify(rival, telecom, again[0].ID); got.User == first.User || !got.New {
			w.t.Errorf("another tenant: %+v", got)
		}
	})
}

// Two tenants that put all they were told together cannot tell which of their users are one person: nothing but what is the same for
// everybody stands in both.
func TestTenantsCannotLinkUsers(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		tokens := map[jpki.CorporateNumber]map[string]bool{bank: {}, telecom: {}}
		for i := range 4 {
			holder := fmt.Sprint("person-", i)
			w.register(holder, "99101", jpki.NewBirthDate(1980, 2, 17))
			id := w.issue(holder, fmt.Sprint("card-", i), jpki.CardSign)[0].ID
			for tenant, by := range map[jpki.CorporateNumber]jpki.Actor{bank: platform, telecom: rival} {
				u := w.identify(by, tenant, id).User
				if strings.Contains(u, holder) || tokens[tenant][u] {
					w.t.Errorf("user %q of %s", u, holder)
				}
				tokens[tenant][u] = true
				w.watch(by, tenant, u)
			}
			w.moves(holder, "砂箱県青葉市北町一丁目1番1号")
		}
		w.derive()
		for tenant, by := range map[jpki.CorporateNumber]jpki.Actor{bank: platform, telecom: rival} {
			f := must(w.a.Changes(w.t.Context(), by, 0, 0, 0))
			tokens[tenant][f.Name] = true
			for _, c := range f.Changes {
				if c.Tenant != tenant {
					w.t.Errorf("told of %s", c.Tenant)
				}
				tokens[tenant][c.User] = true
			}
			if len(f.Changes) != 4 {
				w.t.Errorf("%d changes", len(f.Changes))
			}
		}
		for token := range tokens[bank] {
			if tokens[telecom][token] {
				w.t.Errorf("both know %q", token)
			}
		}
	})
}

// What a tenant is not entitled to, it does not learn.
func TestEntitlements(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		sign, auth := card[0].ID, card[1].ID
		got, err := w.a.Identify(w.t.Context(), platform, ca.IdentityRequest{Tenant: bank, Purpose: "log-in", ID: &auth, Linkage: true})
		if err != nil || got.Linked == nil || got.Linked.ID != sign {
			w.t.Error("the linkage:", got, err)
		}
		unknown := jpki.CertID{Issuer: sign.Issuer, Serial: must(jpki.NewSerial(rand.Reader))}
		for name, c := range map[string]struct {
			by   jpki.Actor
			req  ca.IdentityRequest
			want jpki.Problem
		}{
			"the other use":          {rival, ca.IdentityRequest{Tenant: telecom, Purpose: "p", ID: &auth}, jpki.Forbidden},
			"the linkage":            {rival, ca.IdentityRequest{Tenant: telecom, Purpose: "p", ID: &sign, Linkage: true}, jpki.Forbidden},
			"another's tenant":       {rival, ca.IdentityRequest{Tenant: bank, Purpose: "p", ID: &sign}, jpki.UnknownTenant},
			"another's, unknown":     {rival, ca.IdentityRequest{Tenant: bank, Purpose: "p", ID: &unknown}, jpki.UnknownTenant},
			"no tenant":              {platform, ca.IdentityRequest{Tenant: "7000012050002", Purpose: "p", ID: &sign}, jpki.UnknownTenant},
			"a wrong number":         {platform, ca.IdentityRequest{Tenant: "5835678256247", Purpose: "p", ID: &sign}, jpki.Malformed},
			"a counter":              {counter, ca.IdentityRequest{Tenant: bank, Purpose: "p", ID: &sign}, jpki.Forbidden},
			"no purpose":             {platform, ca.IdentityRequest{Tenant: bank, ID: &sign}, jpki.Malformed},
			"a sentence for purpose": {platform, ca.IdentityRequest{Tenant: bank, Purpose: "to see", ID: &sign}, jpki.Malformed},
			"no certificate":         {platform, ca.IdentityRequest{Tenant: bank, Purpose: "p"}, jpki.Malformed},
			"unknown certificate":    {platform, ca.IdentityRequest{Tenant: bank, Purpose: "p", ID: &unknown}, jpki.UnknownCertificate},
			"no certificate at all":  {platform, ca.IdentityRequest{Tenant: bank, Purpose: "p", DER: []byte("x")}, jpki.Malformed},
		} {
			if got, err := w.a.Identify(w.t.Context(), c.by, c.req); !errors.Is(err, c.want) {
				w.t.Errorf("%s: %+v %v, want %s", name, got, err, c.want)
			}
		}
		if err := w.a.EndTenant(w.t.Context(), authority, bank); err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.a.Identify(w.t.Context(), platform, ca.IdentityRequest{Tenant: bank, Purpose: "p", ID: &sign}); !errors.Is(err, jpki.UnknownTenant) {
			w.t.Error("after the end:", err)
		}
	})
}

func TestTenantsAreRegisteredByTheAuthority(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		good := store.Tenant{Number: "7000012050002", Operator: platform.ID, Name: "砂箱信金", Uses: bothUses}
		for name, c := range map[string]struct {
			by     jpki.Actor
			change func(*store.Tenant)
			want   jpki.Problem
		}{
			"by itself":        {platform, func(*store.Tenant) {}, jpki.Forbidden},
			"check digit":      {authority, func(t *store.Tenant) { t.Number = "7000012050003" }, jpki.Malformed},
			"no name":          {authority, func(t *store.Tenant) { t.Name = "" }, jpki.Malformed},
			"two lines":        {authority, func(t *store.Tenant) { t.Name = "a\nb" }, jpki.Malformed},
			"no use":           {authority, func(t *store.Tenant) { t.Uses = nil }, jpki.Malformed},
			"another use":      {authority, func(t *store.Tenant) { t.Uses = []jpki.Use{"voting"} }, jpki.Malformed},
			"no operator":      {authority, func(t *store.Tenant) { t.Operator = "nobody" }, jpki.UnknownStation},
			"another operator": {authority, func(t *store.Tenant) { t.Number = telecom }, jpki.Conflict},
			"a My Number":      {authority, func(t *store.Tenant) { t.Name = "123456789018" }, jpki.MyNumberPresent},
		} {
			tenant := good
			tenant.Uses = slices.Clone(good.Uses)
			c.change(&tenant)
			if err := w.a.RegisterTenant(w.t.Context(), c.by, tenant); !errors.Is(err, c.want) {
				w.t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		// Registered anew, it keeps its key: its users keep their names.
		id := w.issue("h1", "card-1", jpki.CardSign)[0].ID
		before := w.identify(platform, bank, id).User
		if err := w.a.RegisterTenant(w.t.Context(), authority, store.Tenant{Number: bank, Operator: platform.ID, Name: "砂箱銀行", Uses: bothUses[:1]}); err != nil {
			w.t.Fatal(err)
		}
		if after := w.identify(platform, bank, id).User; after != before {
			w.t.Error("the user has another name now")
		}
		list := must(w.a.Tenants(w.t.Context()))
		if len(list) != 2 || list[0].Key != nil || len(list[0].Uses) != 1 {
			w.t.Errorf("%+v", list)
		}
	})
}

// A life, and what the bank, which knows both certificates of the card, and the telecom, which knows one, are told of it.
func TestChangesOfALife(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		u := w.identify(platform, bank, card[0].ID).User
		w.identify(platform, bank, card[1].ID)
		v := w.identify(rival, telecom, card[0].ID).User
		w.watch(platform, bank, u)
		w.watch(rival, telecom, v)
		var b, c int64
		step := func(what string, wantBank, wantTelecom []string) {
			w.t.Helper()
			if diff := cmp.Diff(wantBank, w.told(platform, &b)); diff != "" {
				w.t.Errorf("%s, the bank: %s", what, diff)
			}
			if diff := cmp.Diff(wantTelecom, w.told(rival, &c)); diff != "" {
				w.t.Errorf("%s, the telecom: %s", what, diff)
			}
			w.later(time.Minute)
		}
		step("before", nil, nil)

		req := w.request("h1", "phone-1", jpki.PhoneSign, jpki.PhoneAuth)
		req.Parent = &card[0].ID
		phone := must(w.a.Issue(w.t.Context(), counter, req))
		step("a phone that neither knows", nil, nil)

		must(w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "phone-1", Cause: jpki.Lost}))
		step("its loss", nil, nil)
		must(w.change(w.a.Resume, counter, ca.ChangeRequest{Certificate: &phone[1].ID, Cause: jpki.Found}))
		w.identify(platform, bank, phone[1].ID)
		must(w.change(w.a.Suspend, centre, ca.ChangeRequest{Certificate: &phone[1].ID, Cause: jpki.KeyDoubt}))
		must(w.change(w.a.Resume, counter, ca.ChangeRequest{Certificate: &phone[1].ID, Cause: jpki.Found}))
		// The bank was told of the kind before the loss and the finding were derived: it hears of both.
		step("once the bank knows it", []string{"resumed phone-auth", "suspended phone-auth", "resumed phone-auth"}, nil)

		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		step("a move", []string{"attributes-changed card-sign"}, []string{"attributes-changed card-sign"})
		w.issue("h1", "card-1", jpki.CardSign)
		step("the new certificate", []string{"credential-renewed card-sign"}, []string{"credential-renewed card-sign"})
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.AddressRenamed, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address = "砂箱県青葉市新北町一丁目1番1号" })}); err != nil {
			w.t.Fatal(err)
		}
		step("a renamed place", nil, nil)
		w.issue("h1", "card-2", jpki.CardSign, jpki.CardAuth)
		step("a new card", []string{"credential-renewed card-sign", "credential-renewed card-auth"}, []string{"credential-renewed card-sign"})
		last := w.issue("h1", "card-3", jpki.CardAuth)
		step("a card without signature", []string{"ended card-sign", "credential-renewed card-auth"}, []string{"ended card-sign"})
		w.watchEnd(rival, telecom, v)
		w.issue("h1", "card-3", jpki.CardSign)
		step("after the telecom's watch", []string{"credential-renewed card-sign"}, nil)
		_ = last
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.Death}); err != nil {
			w.t.Fatal(err)
		}
		got := w.told(platform, &b)
		slices.Sort(got)
		if diff := cmp.Diff([]string{"ended card-auth", "ended card-sign", "ended phone-auth"}, got); diff != "" {
			w.t.Error("death:", diff)
		}
	})
}

func (w *world) watchEnd(by jpki.Actor, tenant jpki.CorporateNumber, user string) {
	w.t.Helper()
	got, err := w.a.EndWatches(w.t.Context(), by, tenant, []store.Watch{{User: user, Purpose: "address-upkeep"}})
	if err != nil || got.Changed != 1 {
		w.t.Fatal(got, err)
	}
}

// Of whom the register protects, a change of attributes looks like any other end, and nothing is ever handed out. What a
// mistaken certificate said is told as a correction.
func TestProtectedPersonsAndCorrections(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		var after int64
		card := w.issue("h1", "card-1", jpki.CardSign)
		u := w.identify(platform, bank, card[0].ID).User
		w.watch(platform, bank, u)
		w.consents(platform, bank, card[0], jpki.Items...)
		w.later(24 * time.Hour)
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.ProtectionBegan}); err != nil {
			w.t.Fatal(err)
		}
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		w.later(time.Minute)
		w.issue("h1", "card-1", jpki.CardSign)
		if diff := cmp.Diff([]string{"ended card-sign", "credential-renewed card-sign"}, w.told(platform, &after)); diff != "" {
			w.t.Error(diff)
		}
		if got, err := w.a.LatestAttributes(w.t.Context(), platform, "k1", bank, u, "address-upkeep"); !errors.Is(err, jpki.NotAvailableYet) {
			w.t.Error("of a protected person:", got, err)
		}
		w.later(time.Minute)
		if _, err := w.event(jpki.Event{Holder: "h1", Type: jpki.ProtectionEnded}); err != nil {
			w.t.Fatal(err)
		}
		if got, err := w.a.LatestAttributes(w.t.Context(), platform, "k1", bank, u, "address-upkeep"); err != nil || got.Attributes.Address != "砂箱県青葉市北町一丁目1番1号" {
			w.t.Error("once that has ended:", got, err)
		}
		must(w.change(w.a.Revoke, counter, ca.ChangeRequest{Token: "card-1", Cause: jpki.RecordError}))
		if diff := cmp.Diff([]string{"attributes-changed card-sign correction"}, w.told(platform, &after)); diff != "" {
			w.t.Error(diff)
		}
	})
}

// consents has the holder of a certificate consent under the purpose of the tests.
func (w *world) consents(by jpki.Actor, tenant jpki.CorporateNumber, c ca.Issued, items ...jpki.Item) ca.Consent {
	w.t.Helper()
	text, err := w.a.NewConsentText(w.t.Context(), by, ca.ConsentTerms{Tenant: tenant, Purpose: "address-upkeep", Description: "住所変更の確認", Items: items, Lang: "ja"})
	if err != nil {
		w.t.Fatal(err)
	}
	got, err := w.a.GiveConsent(w.t.Context(), by, text, []byte("signed "+text.Reference), c.Certificate)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// The latest attributes come only under a consent in force, once the known certificate has ended and a newer one is there; only the
// items, and once.
func TestLatestAttributes(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		card := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth)
		u := w.identify(platform, bank, card[0].ID).User
		ask := func(key string) (ca.LatestAttributes, error) {
			return w.a.LatestAttributes(w.t.Context(), platform, key, bank, u, "address-upkeep")
		}
		refused := func(what string, want jpki.Problem) {
			w.t.Helper()
			if got, err := ask("k-" + w.name()); !errors.Is(err, want) {
				w.t.Errorf("%s: %v %v, want %s", what, got.Attributes.Address, err, want)
			}
		}
		refused("without consent", jpki.ConsentRequired)
		w.now = time.Date(2026, 5, 18, 10, 0, 0, 0, jpki.JST)
		consent := w.consents(platform, bank, card[0], jpki.ItemName, jpki.ItemAddress)
		if consent.State != ca.ConsentPending || !consent.ValidFrom.Equal(time.Date(2026, 5, 19, 0, 0, 0, 0, jpki.JST)) || !consent.ValidUntil.Equal(time.Date(2036, 5, 18, 23, 59, 59, 0, jpki.JST)) ||
			consent.RemindAt == nil || !consent.RemindAt.Equal(time.Date(2027, 5, 19, 0, 0, 0, 0, jpki.JST)) || consent.User != u {
			w.t.Errorf("consent: %+v", consent)
		}
		refused("on the day of consent", jpki.ConsentRequired)
		w.now = time.Date(2026, 5, 19, 0, 0, 0, 0, jpki.JST)
		refused("while nothing has changed", jpki.NotAvailableYet)
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		refused("before there is a new certificate", jpki.NotAvailableYet)
		w.later(time.Minute)
		second := w.issue("h1", "card-1", jpki.CardSign)
		must(w.change(w.a.Suspend, centre, ca.ChangeRequest{Certificate: &second[0].ID, Cause: jpki.KeyDoubt}))
		refused("while the new one is suspended", jpki.NotAvailableYet)
		w.later(time.Minute)
		third := w.issue("h1", "card-3", jpki.CardSign, jpki.CardAuth)
		got, err := ask("fetch-1")
		want := jpki.Attributes{Name: "砂場　花子", NameSubstitutes: "00000", Address: "砂箱県青葉市北町一丁目1番1号", AddressSubstitutes: strings.Repeat("0", 15)}
		if err != nil || got.Consent != consent.ID || got.Attributes != want {
			w.t.Errorf("%v %v: name %q address %q sex %q born %q", err, got.Consent, got.Attributes.Name, got.Attributes.Address, got.Attributes.Sex, got.Attributes.BirthDate)
		}
		refused("again", jpki.NotAvailableYet)
		if again, err := ask("fetch-1"); err != nil || again.Attributes != want {
			w.t.Error("the same request again:", err)
		}
		// A certificate that the tenant has seen itself needs no fetch.
		w.moves("h1", "砂箱県青葉市南町一丁目1番1号")
		w.later(time.Minute)
		fourth := w.issue("h1", "card-3", jpki.CardSign)
		w.identify(platform, bank, fourth[0].ID)
		refused("what the tenant saw itself", jpki.NotAvailableYet)
		// Nobody else gets anything.
		for by, tenant := range map[jpki.Actor]jpki.CorporateNumber{rival: telecom, platform: telecom} {
			if _, err := w.a.LatestAttributes(w.t.Context(), by, "k", tenant, u, "address-upkeep"); !errors.Is(err, jpki.UnknownUser) && !errors.Is(err, jpki.UnknownTenant) {
				w.t.Error(err)
			}
		}
		if _, err := w.a.LatestAttributes(w.t.Context(), platform, "k", bank, u, "advertising"); !errors.Is(err, jpki.ConsentRequired) {
			w.t.Error("another purpose:", err)
		}
		// Until the last second of ten years; not a second longer. The card is renewed meanwhile.
		w.now = time.Date(2036, 5, 18, 23, 59, 59, 0, jpki.JST)
		refused("in the last second", jpki.NotAvailableYet)
		w.later(time.Second)
		refused("after ten years", jpki.ConsentRequired)
		_ = third
	})
}

// A consent ends when its holder says so, at once; a newer one takes the place of an older; what was signed once is no consent twice.
func TestConsentsEnd(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		w.register("h2", "99101", jpki.NewBirthDate(1990, 3, 3))
		card, other := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth), w.issue("h2", "card-2", jpki.CardSign)
		terms := ca.ConsentTerms{Tenant: bank, Purpose: "address-upkeep", Description: "住所変更の確認", Items: jpki.Items, Lang: "en"}
		text := must(w.a.NewConsentText(w.t.Context(), platform, terms))
		if again := must(w.a.ConsentText(w.t.Context(), platform, text)); again.Text != text.Text {
			w.t.Error("the text is not made again as it was")
		}
		first := must(w.a.GiveConsent(w.t.Context(), platform, text, []byte("signed"), card[0].Certificate))
		if again, err := w.a.GiveConsent(w.t.Context(), platform, text, []byte("signed"), card[0].Certificate); err != nil || again.ID != first.ID {
			w.t.Error("the same again:", again.ID, err)
		}
		for name, c := range map[string]struct {
			by       jpki.Actor
			text     func(*ca.ConsentText)
			document string
			der      []byte
			want     jpki.Problem
		}{
			"another document":             {platform, func(*ca.ConsentText) {}, "otherwise signed", card[0].Certificate, jpki.Conflict},
			"somebody else's":              {platform, func(*ca.ConsentText) {}, "signed by another", other[0].Certificate, jpki.Conflict},
			"an authentication":            {platform, func(t *ca.ConsentText) { t.Reference = strings.Repeat("b", 26) }, "x", card[1].Certificate, jpki.Forbidden},
			"an old text":                  {platform, func(t *ca.ConsentText) { t.Reference, t.IssuedAt = strings.Repeat("b", 26), w.now.Add(-25*time.Hour) }, "x", card[0].Certificate, jpki.ChallengeInvalid},
			"a text of the future":         {platform, func(t *ca.ConsentText) { t.Reference, t.IssuedAt = strings.Repeat("b", 26), w.now.Add(time.Hour) }, "x", card[0].Certificate, jpki.ChallengeInvalid},
			"another operator":             {rival, func(t *ca.ConsentText) { t.Reference = strings.Repeat("b", 26) }, "x", card[0].Certificate, jpki.UnknownTenant},
			"a long document":              {platform, func(t *ca.ConsentText) { t.Reference = strings.Repeat("b", 26) }, strings.Repeat("x", 33<<10), card[0].Certificate, jpki.TooLarge},
			"a certificate of nobody here": {platform, func(t *ca.ConsentText) { t.Reference = strings.Repeat("b", 26) }, "x", w.issuers[0].Certificate.Raw, jpki.UnknownCertificate},
		} {
			text := text
			c.text(&text)
			if got, err := w.a.GiveConsent(w.t.Context(), c.by, text, []byte(c.document), c.der); !errors.Is(err, c.want) {
				w.t.Errorf("%s: %v %v, want %s", name, got.ID, err, c.want)
			}
		}
		w.later(48 * time.Hour)
		second := w.consents(platform, bank, card[0], jpki.ItemAddress)
		me := jpki.Actor{Role: jpki.Holder, ID: "h1"}
		if _, err := w.a.WithdrawConsent(w.t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h2"}, second.ID, ca.WithdrawalProof{}); !errors.Is(err, jpki.NotFound) {
			w.t.Error("somebody else withdraws:", err)
		}
		if _, err := w.a.WithdrawConsent(w.t.Context(), platform, second.ID, ca.WithdrawalProof{}); !errors.Is(err, jpki.Forbidden) {
			w.t.Error("the operator withdraws:", err)
		}
		for range 2 {
			got, err := w.a.WithdrawConsent(w.t.Context(), me, second.ID, ca.WithdrawalProof{Certificate: card[1].ID, Message: []byte("m"), Signature: []byte("s")})
			if err != nil || got.State != ca.ConsentWithdrawn || got.RemindAt != nil {
				w.t.Error(got.State, err)
			}
		}
		w.later(48 * time.Hour)
		if _, err := w.a.LatestAttributes(w.t.Context(), platform, "k", bank, first.User, "address-upkeep"); !errors.Is(err, jpki.ConsentRequired) {
			w.t.Error("after the withdrawal, with an older consent:", err)
		}
		list, more, err := w.a.Consents(w.t.Context(), platform, bank, "", "")
		if err != nil || more || len(list) != 2 || list[0].State != ca.ConsentReplaced || list[1].State != ca.ConsentWithdrawn {
			w.t.Error(list, more, err)
		}
		if rest, _, err := w.a.Consents(w.t.Context(), platform, bank, first.User, list[0].ID); err != nil || len(rest) != 1 || rest[0].ID != second.ID {
			w.t.Error(rest, err)
		}
		if own, err := w.a.OwnConsents(w.t.Context(), me); err != nil || len(own) != 2 || own[0].ID != second.ID {
			w.t.Error(own, err)
		}
	})
}

// Everything that a relying party did about a holder stands in the record, once, and in no one else's.
func TestHoldersRecord(t *testing.T) {
	onBoth(t, func(w *world) {
		w.relying()
		w.register("h2", "99101", jpki.NewBirthDate(1990, 3, 3))
		card, other := w.issue("h1", "card-1", jpki.CardSign, jpki.CardAuth), w.issue("h2", "card-2", jpki.CardSign)
		step := func() { w.later(time.Second) }
		u := w.identify(platform, bank, card[0].ID).User
		step()
		w.watch(platform, bank, u)
		step()
		c := w.consents(platform, bank, card[0], jpki.ItemAddress)
		step()
		w.watchEnd(platform, bank, u)
		step()
		uses := []ca.CertificateUse{
			{ID: "v1", User: u, Action: "verification", Purpose: "loan", At: w.now},
			{ID: "l1", Certificate: &card[1].ID, Action: "log-in", Purpose: "web", At: w.now.Add(time.Second)},
			{ID: "s1", Certificate: &other[0].ID, Action: "status-check", Purpose: "nightly", At: w.now},
			{ID: "x1", User: strings.Repeat("a", 32), Action: "log-in", Purpose: "web", At: w.now},
		}
		for i, want := range []int{3, 0} {
			got, err := w.a.ReportUses(w.t.Context(), platform, bank, uses)
			if err != nil || got.Recorded != want || !slices.Equal(got.Unknown, []string{"x1"}) {
				w.t.Errorf("report %d: %+v %v", i, got, err)
			}
		}
		w.later(24 * time.Hour)
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		step()
		w.issue("h1", "card-1", jpki.CardSign)
		must(w.a.LatestAttributes(w.t.Context(), platform, "k", bank, u, "address-upkeep"))
		step()
		must(w.a.WithdrawConsent(w.t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h1"}, c.ID, ca.WithdrawalProof{}))
		list, more, err := w.a.OwnRecord(w.t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h1"}, store.Recorded{})
		var got []string
		for _, r := range list {
			got = append(got, r.Action+" "+r.Purpose)
			if r.Tenant != bank || r.TenantName != "砂箱銀行" || r.Operator != platform.ID {
				w.t.Errorf("%+v", r)
			}
		}
		want := []string{
			"consent-withdrawn address-upkeep", "attributes address-upkeep", "log-in web", "verification loan", "watch-ended address-upkeep", "consent address-upkeep", "watch address-upkeep", "identity account",
		}
		if diff := cmp.Diff(want, got); diff != "" || more || err != nil {
			w.t.Error(diff, more, err)
		}
		if rest, _, err := w.a.OwnRecord(w.t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h1"}, list[5]); err != nil || len(rest) != 2 {
			w.t.Error(rest, err)
		}
		if theirs, _, err := w.a.OwnRecord(w.t.Context(), jpki.Actor{Role: jpki.Holder, ID: "h2"}, store.Recorded{}); err != nil || len(theirs) != 1 || theirs[0].Action != "status-check" {
			w.t.Error(theirs, err)
		}
		if _, _, err := w.a.OwnRecord(w.t.Context(), platform, store.Recorded{}); !errors.Is(err, jpki.Forbidden) {
			w.t.Error(err)
		}
		for name, u := range map[string]ca.CertificateUse{
			"another action": {ID: "a", User: u, Action: "marketing", Purpose: "p", At: w.now}, "long ago": {ID: "a", User: u, Action: "log-in", Purpose: "p", At: w.now.AddDate(0, 0, -8)},
			"to come": {ID: "a", User: u, Action: "log-in", Purpose: "p", At: w.now.Add(time.Hour)}, "nobody": {ID: "a", Action: "log-in", Purpose: "p", At: w.now}, "no name": {User: u, Action: "log-in", Purpose: "p", At: w.now},
			"one drawn here": {ID: "~a", User: u, Action: "log-in", Purpose: "p", At: w.now},
		} {
			if _, err := w.a.ReportUses(w.t.Context(), platform, bank, []ca.CertificateUse{u}); !errors.Is(err, jpki.Malformed) {
				w.t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.a.ReportUses(w.t.Context(), rival, telecom, []ca.CertificateUse{{ID: "a", Certificate: &card[1].ID, Action: "log-in", Purpose: "p", At: w.now}}); !errors.Is(err, jpki.Forbidden) {
			w.t.Error("a log-in at who is not entitled:", err)
		}
	})
}
