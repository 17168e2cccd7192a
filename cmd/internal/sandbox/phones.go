package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/phone"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/verifier"
)

// How Android attests, also keys of the next generation, and how an iPhone's application vouches for them.
const (
	androidKey = "android-key"
	appAttest  = "apple-appattest"
)

// phoneFormats are those in which the sandbox's maker of phones attests. All have the same root.
var phoneFormats = []string{"step", "apple", androidKey, appAttest}

// phones is what the station API needs to begin enrolments.
func (s *System) phones() *api.Phones {
	p := &api.Phones{Directories: map[string]string{}, Audience: s.env.CAURL, Policy: verifier.SandboxPolicies()[0], Rand: rand.Reader}
	for _, f := range phoneFormats {
		p.Directories[f] = s.env.EnrolmentURL + "/acme/phone-" + f + "/directory"
	}
	return p
}

// An Invitation is what a phone is handed to enrol with, on a screen or as a file.
type Invitation struct {
	client.PhoneEnrolment
	Token string      `json:"token"`
	Kinds []jpki.Kind `json:"kinds"`
}

// PhoneKinds are a phone's two certificates.
func PhoneKinds() []jpki.Kind { return []jpki.Kind{jpki.PhoneSign, jpki.PhoneAuth} }

// NewPhone returns a number for a phone that never was before.
func NewPhone() string { return "P" + rand.Text()[:12] }

// Holder returns the authority's client for somebody who has nothing but a card.
func (e Env) Holder() (*client.Client, error) {
	root, err := ReadCertificate(e.StationCA)
	if err != nil {
		return nil, err
	}
	return client.New(e.CAURL, &tls.Config{RootCAs: poolOf(root), MinVersion: tls.VersionTLS12}), nil
}

// BeginOwnPhone asks for a phone with the card's signature key.
func (e Env) BeginOwnPhone(ctx context.Context, k *card.Card, pin, token string, kinds ...jpki.Kind) (Invitation, error) {
	holder, err := e.Holder()
	if err != nil {
		return Invitation{}, err
	}
	der, err := k.Certificate(jpki.CardSign, pin)
	if err != nil {
		return Invitation{}, err
	}
	got, err := holder.BeginOwnPhone(ctx, token, kinds, der, func(message []byte) ([]byte, error) {
		_, _, signature, err := SignWith(k, jpki.CardSign, pin, message)
		return signature, err
	})
	return Invitation{got, token, kinds}, err
}

// BeginPhone has the counter ask for a phone, on the strength of a card's signature certificate in force.
func (e Env) BeginPhone(ctx context.Context, cardToken, token string, kinds ...jpki.Kind) (Invitation, error) {
	station, err := e.Station()
	if err != nil {
		return Invitation{}, err
	}
	on, err := station.Token(ctx, cardToken)
	if err != nil {
		return Invitation{}, err
	}
	for _, c := range on.Certificates {
		if c.Kind == jpki.CardSign && c.State == jpki.Good {
			got, err := station.BeginPhone(ctx, client.PhoneEnrolmentOrder{Holder: c.Holder, Token: token, Parent: c.ID, Kinds: kinds})
			return Invitation{got, token, kinds}, err
		}
	}
	return Invitation{}, jpki.Errorf(jpki.Forbidden, "the card has no signature certificate in force")
}

// EnrolPhone is the phone's part: a phone in software, whose maker is the sandbox's and attests in a format, "" for the
// usual one.
func (e Env) EnrolPhone(ctx context.Context, i Invitation, format string) ([]phone.Certificate, error) {
	root, err := ReadCertificate(e.StationCA)
	if err != nil {
		return nil, err
	}
	maker, err := ReadCertificate(e.AttestationRoot)
	if err != nil {
		return nil, err
	}
	key, err := hsm.Open(ctx, hsm.FileURI(e.AttestationKey))
	if err != nil {
		return nil, err
	}
	if format == "" {
		format = phoneFormats[0]
		if e.Keys() == card.P384 {
			format = androidKey
		}
	}
	directory := i.Directories[format]
	if directory == "" {
		return nil, errors.New("the invitation names no directory for attestations in the format " + format)
	}
	return phone.Enrol(ctx, phone.Config{
		Directory: directory, Format: format, KeyID: i.KeyID, Key: i.Key, Device: "app-" + i.Token, Maker: maker, MakerKey: key, Keys: e.Keys(),
		HTTP: &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: poolOf(root), MinVersion: tls.VersionTLS12}}}, Now: time.Now,
	}, i.Kinds...)
}
