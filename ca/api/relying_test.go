package api_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/cms"
)

const (
	bank    = jpki.CorporateNumber("5835678256246")
	telecom = jpki.CorporateNumber("8700110005901")
	upkeep  = "address-upkeep"
)

func relying(audience string) *api.Relying {
	p, err := verifier.FindDocumentPolicy("sandbox-signature-2026")
	if err != nil {
		panic(err)
	}
	return &api.Relying{Audience: audience, Login: verifier.SandboxPolicies()[1], Consent: p, Rand: rand.Reader}
}

// operator enrols an operator of a verifier with one relying party.
func (w *world) operator(t *testing.T, name string, tenant jpki.CorporateNumber, uses ...jpki.Use) *tls.Certificate {
	t.Helper()
	pair, cert := w.stations.client(t, name, x509.ExtKeyUsageClientAuth, 10*365*24*time.Hour)
	test := jpki.Actor{Role: jpki.System, ID: "test"}
	if err := w.authority.Enrol(t.Context(), test, jpki.Actor{Role: jpki.Verifying, ID: name}, cert); err != nil {
		t.Fatal(err)
	}
	if err := w.authority.RegisterTenant(t.Context(), test, store.Tenant{Number: tenant, Operator: name, Name: "砂箱" + name, Uses: uses}); err != nil {
		t.Fatal(err)
	}
	return pair
}

// cms has the card sign a text.
func (c card) cms(t *testing.T, kind jpki.Kind, text string, attached bool) []byte {
	t.Helper()
	out, err := cms.Sign(strings.NewReader(text), cms.SignConfig{Certificate: c.der[kind], Signer: c.keys[kind], Rand: rand.Reader, Attached: attached})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c card) holder() client.HolderSigner {
	return client.HolderSigner{Certificate: c.der[jpki.CardAuth], Sign: c.sign(jpki.CardAuth)}
}

func (w *world) derive(t *testing.T) {
	t.Helper()
	for some := true; some; {
		var err error
		if some, err = w.authority.DeriveChanges(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The whole life of a consent by the client: identity, watch, consent signed by the card, a move, the feed, the attributes,
// reported uses, the holder's record and withdrawal. Nothing personal is in the log.
func TestRelyingPartiesByTheClient(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w, ctx := newWorldOn(t, db), t.Context()
		k := w.card(t, "card-1")
		platform := w.as(w.operator(t, "platform", bank, jpki.ForSignature, jpki.ForAuthentication))
		id, err := platform.Identify(ctx, client.IdentityRequest{Tenant: bank, Purpose: "account", Certificate: client.PEM(k.der[jpki.CardSign]), Linkage: true})
		if err != nil || !id.New || !id.Latest || id.Linked == nil || id.Linked.Kind != jpki.CardAuth {
			t.Fatal(id, err)
		}
		watches := client.WatchOrder{Tenant: bank, Watches: []client.Watch{{User: id.User, Purpose: upkeep}, {User: strings.Repeat("a", 32), Purpose: upkeep}}}
		if got, err := platform.CreateWatches(ctx, watches); err != nil || got.Changed != 1 || len(got.Unknown) != 1 {
			t.Fatal(got, err)
		}
		for watch, err := range platform.Watches(ctx, bank) {
			if err != nil || watch.User != id.User || watch.Purpose != upkeep || watch.Since.IsZero() {
				t.Error(watch, err)
			}
		}
		text, err := platform.NewConsentText(ctx, client.ConsentTerms{Tenant: bank, Purpose: upkeep, Description: "住所変更の確認", Items: []jpki.Item{jpki.ItemAddress}, Lang: "ja"})
		if err != nil || !strings.Contains(text.Text, "砂箱platform") || !strings.Contains(text.Text, "住所変更の確認") {
			t.Fatal(text, err)
		}
		signed := k.cms(t, jpki.CardSign, text.Text, false)
		consent, err := platform.GiveConsent(ctx, text, signed)
		if err != nil || consent.State != client.ConsentPending || consent.User != id.User || consent.ValidFrom.In(jpki.JST).Format(time.TimeOnly) != "00:00:00" {
			t.Fatal(consent, err)
		}
		if again, err := platform.GiveConsent(ctx, text, signed); err != nil || again.ID != consent.ID {
			t.Error(again, err)
		}
		w.ahead.Store(int64(24 * time.Hour))

		moved := registered("h1", "99101")
		moved.ID, moved.Type, moved.EffectiveAt = "move", jpki.AddressChanged, w.now()
		moved.Attributes.Address = "砂箱県青葉市北町一丁目1番1号"
		if _, err := w.as(w.register).ReportEvent(ctx, moved); err != nil {
			t.Fatal(err)
		}
		w.derive(t)
		feed, err := platform.Changes(ctx, 0, 0, 0)
		if err != nil || len(feed.Changes) != 1 || feed.Next != 1 || feed.Changes[0].Class != jpki.AttributesChanged || feed.Changes[0].User != id.User || feed.Changes[0].ID == "" {
			t.Fatal(feed, err)
		}
		if start, end, err := platform.FeedBounds(ctx); start != 0 || end != feed.Next || err != nil {
			t.Error(start, end, err)
		}
		if _, _, err := w.as(w.register).FeedBounds(ctx); !errors.Is(err, jpki.Forbidden) {
			t.Error("the register reads the feed's bounds:", err)
		}
		ask := client.AttributesRequest{Tenant: bank, User: id.User, Purpose: upkeep}
		if _, err := platform.LatestAttributes(ctx, "f1", ask); !errors.Is(err, jpki.NotAvailableYet) {
			t.Error(err)
		}
		// The feed is read while it grows: who waits is woken.
		page := make(chan client.ChangePage, 1)
		go func() {
			p, err := platform.Changes(ctx, feed.Next, 0, 20*time.Second)
			if err != nil {
				t.Error(err)
			}
			page <- p
		}()
		second := w.card(t, "card-2")
		w.derive(t)
		if p := <-page; len(p.Changes) == 0 || p.Changes[0].Class != jpki.CredentialRenewed {
			t.Error(p)
		}
		got, err := platform.LatestAttributes(ctx, "f1", ask)
		if err != nil || got.Address != moved.Attributes.Address || got.Name != "" || got.BirthDate != "" || got.Sex != "" || got.Consent != consent.ID || got.RemindAt == nil {
			t.Error(got.Consent, err)
		}
		if s := fmt.Sprintf("%v %+v %s", got, got, got); strings.Contains(s, "青葉") {
			t.Error("attributes are printed")
		}
		report := client.UseReport{Tenant: bank, Uses: []client.CertificateUse{{ID: "u1", User: id.User, Action: client.UseLogin, Purpose: "web", At: w.now()}}}
		if out, err := platform.ReportUses(ctx, report); err != nil || out.Recorded != 1 {
			t.Error(out, err)
		}

		holder := w.as(nil)
		var actions []client.RecordAction
		for e, err := range holder.OwnRecord(ctx, second.holder()) {
			if err != nil || e.Tenant != bank || e.Operator != "platform" {
				t.Fatal(e, err)
			}
			actions = append(actions, e.Action)
		}
		if len(actions) != 5 || actions[len(actions)-1] != client.RecordIdentity {
			t.Error(actions)
		}
		own, err := holder.OwnConsents(ctx, second.holder())
		if err != nil || len(own.Consents) != 1 || own.Consents[0].State != client.ConsentValid || own.Consents[0].User != "" {
			t.Error(own, err)
		}
		if ended, err := holder.WithdrawConsent(ctx, second.holder(), consent.ID); err != nil || ended.State != client.ConsentWithdrawn {
			t.Error(ended, err)
		}
		if _, err := platform.LatestAttributes(ctx, "f1", ask); !errors.Is(err, jpki.ConsentRequired) {
			t.Error("after the withdrawal:", err)
		}
		for c, err := range platform.Consents(ctx, bank, id.User) {
			if err != nil || c.State != client.ConsentWithdrawn || c.WithdrawnAt == nil {
				t.Error(c, err)
			}
		}
		if out, err := platform.EndWatches(ctx, client.WatchOrder{Tenant: bank, Watches: watches.Watches[:1]}); err != nil || out.Changed != 1 {
			t.Error(out, err)
		}
		log := w.log.String()
		for _, secret := range []string{id.User, "青葉", "花子", "h1 ", "holder:h1", consent.ID, text.Reference, string(bank)} {
			if strings.Contains(log, secret) {
				t.Errorf("the log has %q", secret)
			}
		}
	})
}

// A consent is what a signature certificate of the authority's, in force, signed: exactly this text, once.
func TestConsentsRefused(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	k := w.card(t, "card-1")
	platform := w.as(w.operator(t, "platform", bank, jpki.ForSignature, jpki.ForAuthentication))
	rival := w.as(w.operator(t, "rival", telecom, jpki.ForSignature))
	terms := client.ConsentTerms{Tenant: bank, Purpose: upkeep, Description: "Keeping your address right", Items: jpki.Items, Lang: "en"}
	stranger := card{der: k.der, keys: k.keys}
	for name, c := range map[string]struct {
		as     *client.Client
		change func(text *client.ConsentText, signed *[]byte)
		want   jpki.Problem
	}{
		"another operator":         {rival, func(*client.ConsentText, *[]byte) {}, jpki.UnknownTenant},
		"more items":               {platform, func(x *client.ConsentText, s *[]byte) { x.Items = jpki.Items[:2] }, jpki.Forbidden},
		"another purpose":          {platform, func(x *client.ConsentText, _ *[]byte) { x.Purpose = "advertising" }, jpki.Forbidden},
		"another description":      {platform, func(x *client.ConsentText, _ *[]byte) { x.Description = "Advertising" }, jpki.Forbidden},
		"another language":         {platform, func(x *client.ConsentText, _ *[]byte) { x.Lang = "ja" }, jpki.Forbidden},
		"another reference":        {platform, func(x *client.ConsentText, _ *[]byte) { x.Reference = strings.Repeat("b", 26) }, jpki.Forbidden},
		"another time":             {platform, func(x *client.ConsentText, _ *[]byte) { x.IssuedAt = x.IssuedAt.Add(time.Second) }, jpki.Forbidden},
		"half a second":            {platform, func(x *client.ConsentText, _ *[]byte) { x.IssuedAt = x.IssuedAt.Add(time.Second / 2) }, jpki.Malformed},
		"another version":          {platform, func(x *client.ConsentText, _ *[]byte) { x.Version = "2" }, jpki.Malformed},
		"no items":                 {platform, func(x *client.ConsentText, _ *[]byte) { x.Items = nil }, jpki.Malformed},
		"items in another order":   {platform, func(x *client.ConsentText, _ *[]byte) { x.Items = []jpki.Item{jpki.ItemSex, jpki.ItemName} }, jpki.Malformed},
		"items twice":              {platform, func(x *client.ConsentText, _ *[]byte) { x.Items = []jpki.Item{jpki.ItemName, jpki.ItemName} }, jpki.Malformed},
		"nothing signed":           {platform, func(_ *client.ConsentText, s *[]byte) { *s = nil }, jpki.Malformed},
		"no CMS":                   {platform, func(_ *client.ConsentText, s *[]byte) { *s = []byte("0000") }, jpki.Malformed},
		"attached":                 {platform, func(x *client.ConsentText, s *[]byte) { *s = k.cms(t, jpki.CardSign, x.Text, true) }, jpki.Malformed},
		"by the other certificate": {platform, func(x *client.ConsentText, s *[]byte) { *s = k.cms(t, jpki.CardAuth, x.Text, false) }, jpki.Forbidden},
		"another text":             {platform, func(x *client.ConsentText, s *[]byte) { *s = stranger.cms(t, jpki.CardSign, x.Text+" ", false) }, jpki.Forbidden},
		"a changed signature":      {platform, func(_ *client.ConsentText, s *[]byte) { (*s)[len(*s)-5] ^= 1 }, jpki.Forbidden},
	} {
		text, err := platform.NewConsentText(ctx, terms)
		if err != nil {
			t.Fatal(err)
		}
		signed := k.cms(t, jpki.CardSign, text.Text, false)
		text.Items = append([]jpki.Item(nil), text.Items...)
		c.change(&text, &signed)
		if got, err := c.as.GiveConsent(ctx, text, signed); !errors.Is(err, c.want) {
			t.Errorf("%s: %v %v, want %s", name, got.ID, err, c.want)
		}
	}
	// A suspended card consents to nothing.
	text, err := platform.NewConsentText(ctx, terms)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.as(w.hotline).Suspend(ctx, "lost", client.Change{Token: "card-1", Cause: jpki.Lost}); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.GiveConsent(ctx, text, k.cms(t, jpki.CardSign, text.Text, false)); !errors.Is(err, jpki.Forbidden) {
		t.Error("a suspended card:", err)
	}
	for c, err := range platform.Consents(ctx, bank, "") {
		t.Errorf("a consent was recorded: %s %v", c.ID, err)
	}
}

// Holders read their own, and nothing without their key; each signature serves for what it was made for, once.
func TestHoldersRefused(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	k := w.card(t, "card-1")
	platform := w.as(w.operator(t, "platform", bank, jpki.ForSignature, jpki.ForAuthentication))
	text, err := platform.NewConsentText(ctx, client.ConsentTerms{Tenant: bank, Purpose: upkeep, Description: "x", Items: jpki.Items, Lang: "en"})
	if err != nil {
		t.Fatal(err)
	}
	consent, err := platform.GiveConsent(ctx, text, k.cms(t, jpki.CardSign, text.Text, false))
	if err != nil {
		t.Fatal(err)
	}
	login := func(ask client.HolderAsk, kind jpki.Kind) client.HolderProof {
		body, _ := json.Marshal(ask)
		var l client.HolderLogin
		problem, _, answer := w.post(t, nil, "POST", "/holder/v1/log-ins", "", string(body))
		if err := json.Unmarshal([]byte(answer), &l); err != nil || problem != "" {
			t.Fatal(answer, err)
		}
		message, err := l.Message(ask)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := k.sign(kind)(message)
		if err != nil {
			t.Fatal(err)
		}
		return client.HolderProof{Challenge: l.Challenge, Certificate: client.PEM(k.der[kind]), Signature: signature, Consent: ask.Consent, Nonce: l.Nonce, ExpiresAt: l.ExpiresAt}
	}
	send := func(path string, p client.HolderProof) string {
		body, _ := json.Marshal(p)
		problem, _, _ := w.post(t, nil, "POST", path, "", string(body))
		return problem
	}
	withdraw := client.HolderAsk{Action: client.WithdrawConsent, Consent: consent.ID}
	for name, c := range map[string]struct {
		ask    client.HolderAsk
		path   string
		change func(*client.HolderProof)
		want   jpki.Problem
	}{
		"for something else":    {client.HolderAsk{Action: client.ReadRecord}, "/holder/v1/consents", func(*client.HolderProof) {}, jpki.ChallengeInvalid},
		"for another consent":   {client.HolderAsk{Action: client.WithdrawConsent, Consent: "x"}, "/holder/v1/consent-withdrawals", func(p *client.HolderProof) { p.Consent = consent.ID }, jpki.ChallengeInvalid},
		"no signature":          {withdraw, "/holder/v1/consent-withdrawals", func(p *client.HolderProof) { p.Signature = nil }, jpki.Malformed},
		"a changed signature":   {withdraw, "/holder/v1/consent-withdrawals", func(p *client.HolderProof) { p.Signature[3] ^= 1 }, jpki.Forbidden},
		"another nonce":         {withdraw, "/holder/v1/consent-withdrawals", func(p *client.HolderProof) { p.Nonce = bytes.Repeat([]byte{1}, 32) }, jpki.Malformed},
		"a made-up page":        {withdraw, "/holder/v1/record", func(p *client.HolderProof) { *p = client.HolderProof{Next: "AAAA"} }, jpki.ChallengeInvalid},
		"the other certificate": {client.HolderAsk{Action: client.ReadRecord}, "/holder/v1/record", func(p *client.HolderProof) { *p = login(client.HolderAsk{Action: client.ReadRecord}, jpki.CardSign) }, jpki.Forbidden},
		"nothing":               {withdraw, "/holder/v1/record", func(p *client.HolderProof) { *p = client.HolderProof{} }, jpki.Malformed},
	} {
		p := login(c.ask, jpki.CardAuth)
		p.Signature = bytes.Clone(p.Signature)
		c.change(&p)
		if got := send(c.path, p); got != string(c.want) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}
	p := login(client.HolderAsk{Action: client.ReadConsents}, jpki.CardAuth)
	if first, again := send("/holder/v1/consents", p), send("/holder/v1/consents", p); first != "" || again != string(jpki.ChallengeInvalid) {
		t.Errorf("once %q, twice %q", first, again)
	}
	for c, err := range platform.Consents(ctx, bank, "") {
		if err != nil || c.State != client.ConsentPending {
			t.Error(c.State, err)
		}
	}
}

// The record goes on for pages, and one log-in is enough for them.
func TestLongRecords(t *testing.T) {
	w, ctx := newWorld(t), t.Context()
	k := w.card(t, "card-1")
	platform := w.as(w.operator(t, "platform", bank, jpki.ForSignature, jpki.ForAuthentication))
	id, err := platform.Identify(ctx, client.IdentityRequest{Tenant: bank, Purpose: "account", ID: &k.id})
	if err != nil {
		t.Fatal(err)
	}
	report := client.UseReport{Tenant: bank}
	for i := range 450 {
		report.Uses = append(report.Uses, client.CertificateUse{ID: fmt.Sprint("use-", i), User: id.User, Action: client.UseStatusCheck, Purpose: "nightly", At: w.now()})
	}
	if out, err := platform.ReportUses(ctx, report); err != nil || out.Recorded != 450 {
		t.Fatal(out, err)
	}
	n := 0
	for _, err := range w.as(nil).OwnRecord(ctx, k.holder()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 451 {
		t.Errorf("%d entries", n)
	}
}

// The zone is for operators of verifiers, and they have no business elsewhere.
func TestRelyingZone(t *testing.T) {
	w := newWorld(t)
	operator := w.operator(t, "platform", bank, jpki.ForSignature)
	for name, c := range map[string]struct {
		pair         *tls.Certificate
		method, path string
		body         string
		want         jpki.Problem
	}{
		"a counter":           {w.counter, "POST", "/relying-party/v1/identities", "{}", jpki.Forbidden},
		"the register":        {w.register, "GET", "/relying-party/v1/changes", "", jpki.Forbidden},
		"nobody":              {nil, "GET", "/relying-party/v1/changes", "", jpki.NoClientCertificate},
		"at a counter":        {operator, "POST", "/station/v1/certificates", "{}", jpki.Forbidden},
		"in the register":     {operator, "POST", "/registry/v1/events", "{}", jpki.Forbidden},
		"a batch":             {operator, "POST", "/station/v1/batches", "{}", jpki.Forbidden},
		"an odd position":     {operator, "GET", "/relying-party/v1/changes?after=-1", "", jpki.Malformed},
		"a position to come":  {operator, "GET", "/relying-party/v1/changes?after=5", "", jpki.Malformed},
		"a long wait":         {operator, "GET", "/relying-party/v1/changes?wait=31", "", jpki.Malformed},
		"a big page":          {operator, "GET", "/relying-party/v1/changes?limit=1001", "", jpki.Malformed},
		"another parameter":   {operator, "GET", "/relying-party/v1/changes?x=1", "", jpki.Malformed},
		"another's watches":   {operator, "GET", "/relying-party/v1/watches?tenant=" + string(telecom), "", jpki.UnknownTenant},
		"nobody's consents":   {operator, "GET", "/relying-party/v1/consents", "", jpki.Malformed},
		"no such consent":     {operator, "GET", "/relying-party/v1/consents?tenant=" + string(bank) + "&after=x", "", jpki.Malformed},
		"watches of nobody":   {operator, "POST", "/relying-party/v1/watches", `{"tenant":"` + string(bank) + `","watches":[]}`, jpki.Malformed},
		"an odd user":         {operator, "POST", "/relying-party/v1/watches", `{"tenant":"` + string(bank) + `","watches":[{"user":"x","purpose":"p"}]}`, jpki.Malformed},
		"no idempotency key":  {operator, "POST", "/relying-party/v1/attributes", `{"tenant":"` + string(bank) + `","user":"` + strings.Repeat("a", 32) + `","purpose":"p"}`, jpki.MissingIdempotency},
		"a My Number":         {operator, "POST", "/relying-party/v1/consent-texts", `{"description":"123456789018"}`, jpki.MyNumberPresent},
		"an odd holder's ask": {nil, "POST", "/holder/v1/log-ins", `{"action":"dance"}`, jpki.Malformed},
		"nothing to withdraw": {nil, "POST", "/holder/v1/log-ins", `{"action":"withdraw-consent"}`, jpki.Malformed},
	} {
		if got, _, text := w.post(t, c.pair, c.method, c.path, "", c.body); got != string(c.want) {
			t.Errorf("%s: %s, want %s", name, text, c.want)
		}
	}
}
