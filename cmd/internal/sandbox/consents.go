package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/card"
	verifierapi "github.com/openjpki/jpki/verifier/api"
	verifierclient "github.com/openjpki/jpki/verifier/client"
	"github.com/openjpki/jpki/verifier/cms"
)

// openConsents makes what the verifier asks the authority with: as the operator that the authority knows, by its own door.
func (s *System) openConsents(ctx context.Context) error {
	authority, err := s.env.RelyingParty()
	if err != nil {
		return err
	}
	key, err := openKey(ctx, s.dir.path("verifier", "receipts.key"), hsm.P256)
	if err != nil {
		return err
	}
	s.consents = &verifierapi.Consents{Authority: authority, Issuer: s.env.VerifierURL, Key: key}
	s.reporter, err = verifierapi.NewReporter(verifierapi.ReporterConfig{Store: s.tenants, Authority: authority, Now: time.Now, Log: s.log})
	return err
}

// issuersByKey names the generations by their keys' identifiers.
func issuersByKey(issuers []ca.Issuer) map[string]jpki.IssuerID {
	out := map[string]jpki.IssuerID{}
	for _, i := range issuers {
		out[hex.EncodeToString(i.Certificate.SubjectKeyId)] = i.ID
	}
	return out
}

// reportsWaiting returns how many uses the authority has not been told yet.
func (s *System) reportsWaiting() float64 {
	n, _, err := s.tenants.CountUseReports(context.Background())
	if err != nil {
		return -1
	}
	return float64(n)
}

// upkeep is the bank's purpose of consents.
const upkeep = "address-upkeep"

// banking returns the bank's own client.
func (t *story) banking() (*verifierclient.Client, error) {
	return verifierclient.New(verifierclient.Config{URL: t.s.env.VerifierURL, Token: t.s.env.VerifierToken})
}

// consent has the holder sign the consent that the bank asks for together with the account.
func (t *story) consent(ctx context.Context) error {
	bank, err := t.banking()
	if err != nil {
		return err
	}
	text, err := bank.NewConsentText(ctx, verifierclient.ConsentTerms{
		Purpose: upkeep, Description: t.say("keeping your address up to date", "ご住所を最新に保つため"), Items: []jpki.Item{jpki.ItemName, jpki.ItemAddress}, Lang: t.lang,
	})
	if err != nil {
		return err
	}
	key, err := t.first.Signer(jpki.CardSign, SignPIN)
	if err != nil {
		return err
	}
	signed, err := cms.Sign(strings.NewReader(text.Text), cms.SignConfig{Certificate: t.sign, Signer: key, Rand: rand.Reader})
	if err != nil {
		return err
	}
	given, err := bank.GiveConsent(ctx, text, signed)
	if err != nil {
		return err
	}
	keys, err := bank.ReceiptKeys(ctx)
	if err != nil {
		return err
	}
	if _, err := verifierclient.VerifyReceipt(keys, given.Receipt); err != nil {
		return fmt.Errorf("the receipt: %w", err)
	}
	if given.State != "valid" || given.RemindAt == nil {
		return fmt.Errorf("the consent is %s", given.State)
	}
	t.user = given.User
	t.note("name and address, until %s, reminder on %s; a receipt is signed", "氏名と住所、%sまで、通知日は%s。署名済みの受領証あり", given.ValidUntil.In(jpki.JST).Format(time.DateOnly), given.RemindAt.In(jpki.JST).Format(time.DateOnly))
	return nil
}

// fetch has the bank ask in vain, the counter write a new certificate onto the card, and the bank ask again.
func (t *story) fetch(ctx context.Context) error {
	bank, err := t.banking()
	if err != nil {
		return err
	}
	key := rand.Text()
	if _, err := bank.LatestAttributes(ctx, key, t.user, upkeep); !errors.Is(err, jpki.NotAvailableYet) {
		return fmt.Errorf("before there is a new certificate the bank got: %w", err)
	}
	t.note("before: %s", "発行前: %s", t.say("there is nothing newer yet", "新しい情報はまだない"))
	infra := func(name string) string { return t.s.dir.path("infrastructure", minatoActor.ID+name) } // the counter of where the holder lives now
	counter, err := t.s.env.client(infra(".crt"), infra(".key"))
	if err != nil {
		return err
	}
	if err := t.second.RegenerateKey(jpki.CardSign, SignPIN); err != nil {
		return err
	}
	if _, err := Personalise(ctx, counter, t.second, t.resident.ID, SignPIN, AuthPIN, jpki.CardSign); err != nil {
		return err
	}
	if t.newSign, err = t.second.Certificate(jpki.CardSign, SignPIN); err != nil {
		return err
	}
	got, err := bank.LatestAttributes(ctx, key, t.user, upkeep)
	if err != nil {
		return err
	}
	want := t.resident.Attributes
	if got.Name != want.Name || got.Address != want.Address || got.BirthDate != "" || got.Sex != "" {
		return errors.New("the bank got something else than the name and the new address")
	}
	t.note("after:  %s", "発行後: %s", got.Address)
	return nil
}

// recordPatience is how long uses may be on their way to the holder's record.
const recordPatience = 15 * time.Second

// readRecord has the holder read, with the authentication certificate, who did what.
func (t *story) readRecord(ctx context.Context) error {
	bank, err := t.banking()
	if err != nil {
		return err
	}
	want := []string{"verification", "log-in", "status-check", "consent", "attributes"}
	for deadline := time.Now().Add(recordPatience); ; time.Sleep(100 * time.Millisecond) {
		entries, err := OwnRecord(ctx, bank, t.second, t.newAuth)
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(want), func(action string) bool {
			return slices.ContainsFunc(entries, func(e verifierclient.RecordEntry) bool { return e.Action == action })
		})
		if len(missing) == 0 {
			for _, action := range want {
				n := 0
				for _, e := range entries {
					if e.Action == action {
						n++
					}
				}
				t.note("%-13s %d × %s", "%-13s %d回 %s", action, n, entries[0].TenantName)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in the holder's record: %v", missing)
		}
	}
}

// OwnRecord reads the newest page of a holder's record with the card, through the verifier.
func OwnRecord(ctx context.Context, bank *verifierclient.Client, c *card.Card, certificate []byte) ([]verifierclient.RecordEntry, error) {
	ask := verifierclient.HolderAsk{Action: "record"}
	l, err := bank.HolderLogin(ctx, ask)
	if err != nil {
		return nil, err
	}
	_, _, signature, err := SignWith(c, jpki.CardAuth, AuthPIN, bytes.Clone(l.Message))
	if err != nil {
		return nil, err
	}
	entries, _, err := bank.HolderRecord(ctx, l.Proof(ask, certificate, signature))
	return entries, err
}
