package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/api"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm/signer"
	"github.com/openjpki/jpki/verifier"
)

// changesKept is for how long relying parties can read the feed of changes again.
const changesKept = 90 * 24 * time.Hour

// relying says whether consents are taken and holders read their record here.
type relying struct {
	Audience string `yaml:"audience"`
	Login    string `yaml:"login"`
	Policies string `yaml:"policies"`
	Consent  string `yaml:"consent"`
}

func (r *relying) validate() error {
	if r == nil {
		return nil
	}
	if !strings.HasPrefix(r.Audience, "https://") || strings.HasSuffix(r.Audience, "/") {
		return errors.New("relying: audience is an https URL without a final slash")
	}
	if r.Consent == "" || r.Login == "" {
		return errors.New("relying: login and consent are required")
	}
	return nil
}

// relyingParties is what the API needs to take consents and to let holders read their record; nil where there is none.
func (c *config) relyingParties() (*api.Relying, error) {
	r := c.Relying
	if r == nil {
		return nil, nil
	}
	policies := verifier.SandboxPolicies()
	if r.Policies != "" {
		text, err := c.read(r.Policies)
		if err != nil {
			return nil, fmt.Errorf("relying.policies: %w", err)
		}
		if policies, err = verifier.ParsePolicies(text); err != nil {
			return nil, fmt.Errorf("relying.policies: %w", err)
		}
	}
	consent, err := verifier.FindDocumentPolicy(r.Consent)
	if err != nil {
		return nil, fmt.Errorf("relying.consent: %w", err)
	}
	for _, p := range policies {
		if p.Name == r.Login && p.Purpose == verifier.ForAuthentication {
			return &api.Relying{Audience: r.Audience, Login: p, Consent: consent, Rand: rand.Reader}, nil
		}
	}
	return nil, errors.New("relying.login: there is no such policy for authentication")
}

// socket is that of the jpki-signer which holds the issuing keys; empty if files or tokens do.
func (c *config) socket() (string, error) {
	if !strings.HasPrefix(c.Keys.Certificates, "signer:") {
		return "", nil
	}
	ref, err := signer.ParseRef(strings.Replace(c.Keys.Certificates, "{}", "sign-1", 1))
	if err != nil {
		return "", fmt.Errorf("keys.certificates: %w", err)
	}
	return ref.Socket, nil
}

// auditKeys puts the hash of jpki-signer's record of use into the audit chain, when it has changed since this process looked: what was
// signed with the issuing keys can be compared with what the chain says was issued.
func (a *alone) auditKeys(ctx context.Context) error {
	if a.signer == nil {
		return nil
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := a.signer.Usage(ask)
	if err != nil {
		return err
	}
	var record signer.Record
	if err := json.Unmarshal(text, &record); err != nil || record.Hash == a.usage || record.Seq == 0 {
		return err
	}
	detail := map[string]any{"seq": record.Seq, "hash": record.Hash}
	for name, u := range record.Keys {
		detail[strings.ReplaceAll(name, "-", "_")] = u.Ceiling
	}
	by := jpki.Actor{Role: jpki.System, ID: "jpki-ca"}
	if err := a.db.Update(ctx, func(tx *store.Tx) error { return tx.Audit(time.Now(), by, "keys.used", "jpki-signer", detail) }); err != nil {
		return err
	}
	a.usage = record.Hash
	return nil
}
