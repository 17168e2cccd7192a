package api_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/verifier"
)

const directory = "https://ca.example/acme/phone-step/directory"

func phones(audience string) *api.Phones {
	return &api.Phones{Directories: map[string]string{"step": directory}, Audience: audience, Policy: verifier.SandboxPolicies()[0], Rand: rand.Reader}
}

// A card has its keys here, and signs without a PIN.
type card struct {
	id   jpki.CertID // of the signature certificate
	der  map[jpki.Kind][]byte
	keys map[jpki.Kind]*rsa.PrivateKey
}

func (w *world) card(t *testing.T, token string) card {
	t.Helper()
	c := card{der: map[jpki.Kind][]byte{}, keys: map[jpki.Kind]*rsa.PrivateKey{}}
	o := client.CertificateOrder{Holder: "h1", Token: token}
	for _, k := range []jpki.Kind{jpki.CardSign, jpki.CardAuth} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		c.keys[k], o.Requests = key, append(o.Requests, client.KeyRequest{Kind: k, Request: client.RequestPEM(der)})
	}
	got, err := w.as(w.counter).Issue(t.Context(), "card-"+token, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range got.Certificates {
		if c.der[i.Kind], err = client.DER(i.Certificate); err != nil {
			t.Fatal(err)
		}
		if i.Kind == jpki.CardSign {
			c.id = i.ID
		}
	}
	return c
}

func (c card) sign(kind jpki.Kind) func([]byte) ([]byte, error) {
	return func(message []byte) ([]byte, error) {
		sum := sha256.Sum256(message)
		return rsa.SignPKCS1v15(nil, c.keys[kind], crypto.SHA256, sum[:])
	}
}

var both = []jpki.Kind{jpki.PhoneSign, jpki.PhoneAuth}

// opens reports whether an answer is the key of an enrolment that the authority has recorded.
func (w *world) opens(t *testing.T, e client.PhoneEnrolment) (row store.PhoneEnrolment, ok bool) {
	t.Helper()
	id, err := ca.ParseBindingKeyID(e.KeyID)
	if err != nil || id != e.ID {
		return row, false
	}
	if err := w.db.View(t.Context(), func(tx *store.Tx) (err error) { row, err = tx.PhoneEnrolment(id); return err }); err != nil {
		t.Fatal(err)
	}
	key, err := ca.OpenBinding(e.KeyID, row)
	return row, err == nil && len(key) == 32 && string(key) == string(e.Key)
}

// A counter begins an enrolment, and the holder with the card; the key is in the answer and nowhere else.
func TestPhoneEnrolmentsBegin(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorldOn(t, db)
		k := w.card(t, "card-1")
		counter, err := w.as(w.counter).BeginPhone(t.Context(), client.PhoneEnrolmentOrder{Holder: "h1", Token: "phone-1", Parent: k.id, Kinds: both, Minutes: 5})
		if err != nil {
			t.Fatal(err)
		}
		row, ok := w.opens(t, counter)
		if !ok || row.By.Role != jpki.Counter || row.Holder != "h1" || row.Token != "phone-1" || row.Parent != k.id || counter.Directories["step"] != directory ||
			time.Until(counter.ExpiresAt) > 5*time.Minute || time.Until(counter.ExpiresAt) < 3*time.Minute {
			t.Errorf("the counter's: %t %+v %v %s", ok, row, counter.Directories, counter.ExpiresAt)
		}
		own, err := w.as(nil).BeginOwnPhone(t.Context(), "phone-2", both, k.der[jpki.CardSign], k.sign(jpki.CardSign))
		if err != nil {
			t.Fatal(err)
		}
		row, ok = w.opens(t, own)
		if !ok || (row.By != jpki.Actor{Role: jpki.Holder, ID: "h1"}) || row.Holder != "h1" || row.Token != "phone-2" || row.Parent != k.id || len(row.Kinds) != 2 {
			t.Errorf("the holder's: %t %+v", ok, row)
		}
		log := w.log.String()
		for _, secret := range []string{"holder:h1", counter.KeyID, own.KeyID, base64.StdEncoding.EncodeToString(own.Key), "phone-2"} {
			if strings.Contains(log, secret) {
				t.Errorf("the log has %q", secret)
			}
		}
		if !strings.Contains(log, "actor=holder ") {
			t.Error("the log does not say who asked")
		}
		for e, err := range db.AuditEntries(t.Context()) {
			if err != nil || strings.Contains(e.Detail, own.KeyID) || strings.Contains(e.Detail, base64.StdEncoding.EncodeToString(own.Key)) {
				t.Error("the audit record has the key", err)
			}
		}
	})
}

// What a card signs is what the description says, written down here once more.
func TestPhoneMessage(t *testing.T) {
	t.Parallel()
	c := client.HolderChallenge{Challenge: "abc", Audience: "https://ca.example", ExpiresAt: time.Unix(1_800_000_000, 0)}
	want := strings.Repeat(" ", 64) + "JPKI phone enrolment, version 1\x00" +
		"\x00\x12https://ca.example" + "\x00\x03abc" + "\x00\x07phone-1" + "\x00\x15phone-auth phone-sign" + string(binary.BigEndian.AppendUint64(nil, 1_800_000_000))
	for _, kinds := range [][]jpki.Kind{both, {jpki.PhoneAuth, jpki.PhoneSign}} {
		if got, err := c.PhoneMessage("phone-1", kinds); err != nil || string(got) != want {
			t.Errorf("%q %v", got, err)
		}
	}
	for _, kinds := range [][]jpki.Kind{nil, {jpki.PhoneAuth, jpki.PhoneAuth}, {jpki.CardSign}, {jpki.PhoneAuth, "phone-sign "}} {
		if _, err := c.PhoneMessage("phone-1", kinds); !errors.Is(err, jpki.Malformed) {
			t.Errorf("%v: %v", kinds, err)
		}
	}
	if _, err := c.PhoneMessage(strings.Repeat("x", 1<<16), both); !errors.Is(err, jpki.Malformed) {
		t.Error(err)
	}
}

// signed is a holder's request in full.
func (w *world) signed(t *testing.T, k card, kind jpki.Kind, token string, kinds ...jpki.Kind) client.HolderPhoneOrder {
	t.Helper()
	problem, resp, text := w.post(t, nil, "POST", "/holder/v1/challenges", "", "{}")
	var ch client.HolderChallenge
	if err := json.Unmarshal([]byte(text), &ch); err != nil || resp.StatusCode != 201 || ch.Audience != w.url {
		t.Fatal(problem, text, err)
	}
	message, err := ch.PhoneMessage(token, kinds)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := k.sign(kind)(message)
	if err != nil {
		t.Fatal(err)
	}
	return client.HolderPhoneOrder{Challenge: ch.Challenge, Token: token, Kinds: kinds, Certificate: client.PEM(k.der[kind]), Signature: signature}
}

func (w *world) ask(t *testing.T, o client.HolderPhoneOrder) string {
	t.Helper()
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	problem, _, _ := w.post(t, nil, "POST", "/holder/v1/phone-enrolments", "", string(body))
	return problem
}

// Nothing is begun but what the holder's own card in force signed, for this authority, now, once.
func TestHolderPhonesRefused(t *testing.T) {
	w := newWorld(t)
	k := w.card(t, "card-1")
	stranger := card{der: k.der, keys: map[jpki.Kind]*rsa.PrivateKey{jpki.CardSign: caKeys()[1]}}
	for name, c := range map[string]struct {
		change func(o *client.HolderPhoneOrder)
		want   jpki.Problem
	}{
		"another phone":            {func(o *client.HolderPhoneOrder) { o.Token = "phone-2" }, jpki.Forbidden},
		"more kinds":               {func(o *client.HolderPhoneOrder) { o.Kinds = both }, jpki.Forbidden},
		"no kinds":                 {func(o *client.HolderPhoneOrder) { o.Kinds = nil }, jpki.Malformed},
		"a card's kind":            {func(o *client.HolderPhoneOrder) { o.Kinds = []jpki.Kind{jpki.CardAuth} }, jpki.Malformed},
		"no certificate":           {func(o *client.HolderPhoneOrder) { o.Certificate = "" }, jpki.Malformed},
		"no signature":             {func(o *client.HolderPhoneOrder) { o.Signature = nil }, jpki.Malformed},
		"another signature":        {func(o *client.HolderPhoneOrder) { o.Signature[0] ^= 1 }, jpki.Forbidden},
		"no challenge":             {func(o *client.HolderPhoneOrder) { o.Challenge = "" }, jpki.ChallengeInvalid},
		"a challenge of one's own": {func(o *client.HolderPhoneOrder) { o.Challenge = strings.Repeat("A", len(o.Challenge)) }, jpki.ChallengeInvalid},
		"a challenge, respelt":     {func(o *client.HolderPhoneOrder) { o.Challenge += "\n" }, jpki.ChallengeInvalid},
		"another challenge": {func(o *client.HolderPhoneOrder) {
			o.Challenge = w.signed(t, k, jpki.CardSign, "x", jpki.PhoneAuth).Challenge
		}, jpki.Forbidden},
		"a stranger's signature": {func(o *client.HolderPhoneOrder) {
			o.Signature = w.signed(t, stranger, jpki.CardSign, o.Token, o.Kinds...).Signature
		}, jpki.Forbidden},
		"the other certificate":       {func(o *client.HolderPhoneOrder) { *o = w.signed(t, k, jpki.CardAuth, o.Token, o.Kinds...) }, jpki.Forbidden},
		"a certificate of a stranger": {func(o *client.HolderPhoneOrder) { o.Certificate = client.PEM(w.stations.cert.Raw) }, jpki.Forbidden},
		"a My Number":                 {func(o *client.HolderPhoneOrder) { o.Token = "123456789018" }, jpki.MyNumberPresent},
	} {
		o := w.signed(t, k, jpki.CardSign, "phone-1", jpki.PhoneAuth)
		c.change(&o)
		if got := w.ask(t, o); got != string(c.want) {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
	}

	// A challenge lives for two minutes, of this API's clock.
	late := w.signed(t, k, jpki.CardSign, "phone-1", jpki.PhoneAuth)
	w.ahead.Store(int64(2*time.Minute + time.Second))
	if got := w.ask(t, late); got != string(jpki.ChallengeInvalid) {
		t.Errorf("too late: %q", got)
	}
	w.ahead.Store(0)

	// A client does not sign for another.
	elsewhere := client.New(strings.Replace(w.url, "127.0.0.1", "localhost", 1), w.tls(nil))
	if _, err := elsewhere.BeginOwnPhone(t.Context(), "phone-1", both, k.der[jpki.CardSign], func([]byte) ([]byte, error) {
		t.Error("the card was asked")
		return nil, errors.New("no")
	}); err == nil {
		t.Error("a challenge of another authority was signed")
	}

	// One signature opens one enrolment, however often and fast it is shown.
	o := w.signed(t, k, jpki.CardSign, "phone-1", jpki.PhoneAuth)
	var good, used atomic.Int64
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			switch got := w.ask(t, o); got {
			case "":
				good.Add(1)
			case string(jpki.ChallengeInvalid):
				used.Add(1)
			default:
				t.Error(got)
			}
			return nil
		})
	}
	_ = g.Wait()
	if good.Load() != 1 || used.Load() != 7 {
		t.Errorf("%d enrolments by one signature, %d refused", good.Load(), used.Load())
	}

	// A lost card opens nothing, and says why.
	o = w.signed(t, k, jpki.CardSign, "phone-1", jpki.PhoneAuth)
	if _, err := w.as(w.hotline).Suspend(t.Context(), "lost", client.Change{Token: "card-1", Cause: jpki.Lost}); err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(o)
	if got, _, text := w.post(t, nil, "POST", "/holder/v1/phone-enrolments", "", string(body)); got != string(jpki.Forbidden) || !strings.Contains(text, "suspended") {
		t.Error(text)
	}
	begun := 0
	for e, err := range w.db.AuditEntries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Action == "phone.enrolment" {
			begun++
		}
	}
	if begun != 1 {
		t.Errorf("%d enrolments begun, want the one", begun)
	}
}

// Who may begin one at the counter is the authority's business; the API passes it on.
func TestCounterPhonesRefused(t *testing.T) {
	w := newWorld(t)
	k := w.card(t, "card-1")
	good := client.PhoneEnrolmentOrder{Holder: "h1", Token: "phone-1", Parent: k.id, Kinds: both}
	for name, c := range map[string]struct {
		as     *client.Client
		change func(o *client.PhoneEnrolmentOrder)
		want   jpki.Problem
	}{
		"nobody":      {w.as(nil), func(*client.PhoneEnrolmentOrder) {}, jpki.NoClientCertificate},
		"the hotline": {w.as(w.hotline), func(*client.PhoneEnrolmentOrder) {}, jpki.Forbidden},
		"a stranger":  {w.as(w.counter), func(o *client.PhoneEnrolmentOrder) { o.Holder = "h9" }, jpki.UnknownHolder},
		"no parent":   {w.as(w.counter), func(o *client.PhoneEnrolmentOrder) { o.Parent = jpki.CertID{} }, jpki.Malformed},
		"a long time": {w.as(w.counter), func(o *client.PhoneEnrolmentOrder) { o.Minutes = 61 }, jpki.Malformed},
		"for ever":    {w.as(w.counter), func(o *client.PhoneEnrolmentOrder) { o.Minutes = 1 << 60 }, jpki.Malformed},
		"a past time": {w.as(w.counter), func(o *client.PhoneEnrolmentOrder) { o.Minutes = -1 }, jpki.Malformed},
	} {
		o := good
		o.Kinds = slices.Clone(good.Kinds)
		c.change(&o)
		if _, err := c.as.BeginPhone(t.Context(), o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}

	none, err := api.New(api.Config{Authority: w.authority, NewID: rand.Text, Now: time.Now, Log: w.handler.Log})
	if err != nil || len(none.Routes()) != len(w.handler.Routes()) {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *api.Phones){
		"no directory": func(p *api.Phones) { p.Directories = nil }, "no audience": func(p *api.Phones) { p.Audience = "" },
		"no policy": func(p *api.Phones) { p.Policy = verifier.Policy{} }, "a policy for log-ins": func(p *api.Phones) { p.Policy = verifier.SandboxPolicies()[1] },
		"no randomness": func(p *api.Phones) { p.Rand = nil },
	} {
		p := phones("https://ca.example")
		change(p)
		if _, err := api.New(api.Config{Authority: w.authority, NewID: rand.Text, Now: time.Now, Log: w.handler.Log, Phones: p}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A challenge has one spelling and one key: nothing that the API did not hand out passes.
func FuzzChallenge(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("A", 54))
	f.Add(strings.Repeat("A", 53) + "B")
	check := api.Challenges(f)
	good := check.New()
	f.Add(good)
	f.Fuzz(func(t *testing.T, s string) {
		if check.Good(s) != (s == good) {
			t.Errorf("%q", s)
		}
	})
}
