package sandbox

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/verifier"
)

// changesKept is for how long the feed of changes can be read again.
const changesKept = 90 * 24 * time.Hour

// registerBank registers the bank with the operator of the sandbox's verifier, once: what an operator changed stays.
func (s *System) registerBank(ctx context.Context) error {
	known, err := s.ca.Tenants(ctx)
	if err != nil || slices.ContainsFunc(known, func(t store.Tenant) bool { return t.Number == bankNumber }) {
		return err
	}
	return s.ca.RegisterTenant(ctx, system, store.Tenant{Number: bankNumber, Operator: verifierActor.ID, Name: "砂箱銀行", Uses: jpki.Uses})
}

// relying is what the API needs to take consents and to let holders read their record.
func (s *System) relying() (*api.Relying, error) {
	consent, err := verifier.FindDocumentPolicy("sandbox-signature-2026")
	return &api.Relying{Audience: s.env.CAURL, Login: verifier.SandboxPolicies()[1], Consent: consent, Rand: rand.Reader}, err
}
