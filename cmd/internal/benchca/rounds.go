package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// inProcess is package ca alone on a database: what issuance costs without HTTP.
type inProcess struct {
	key       crypto.Signer
	authority *ca.Authority
	hasty     *ca.Authority // the same on connections whose commits are not waited for
}

// openInProcess makes a generation for each kind of CA key on one database.
func (b *bench) openInProcess(ctx context.Context, url string) error {
	db, err := store.Create(ctx, url)
	if err != nil {
		return err
	}
	b.atEnd(db.Close)
	hasty, err := store.Open(ctx, url+"&synchronous_commit=off")
	if err != nil {
		return err
	}
	b.atEnd(hasty.Close)
	for i, kind := range []string{rsa2048, p256, p384} {
		key, err := newKey(kind)
		if err != nil {
			return err
		}
		b.keys[kind] = key
		issuers, err := newIssuers(ctx, db, key, i+1)
		if err != nil {
			return err
		}
		p := &inProcess{key: key}
		if p.authority, err = newAuthority(db, issuers, nil); err != nil {
			return err
		}
		if p.hasty, err = newAuthority(hasty, issuers, nil); err != nil {
			return err
		}
		b.inProcess[kind] = p
	}
	return nil
}

// patience is how long one measurement lasts at most.
const patience = 10 * time.Second

// issueInProcess has clients issue the pairs of many new cards.
func (b *bench) issueInProcess(ctx context.Context, a *ca.Authority, row row) error {
	cards, err := makeCards(ctx, b.ring, b.prefix(), b.pairs)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(cards, ca.MaxEventGroup) {
		events := make([]jpki.Event, len(chunk))
		for i, c := range chunk {
			events[i] = registered(c.name)
		}
		for _, r := range a.ApplyResidentEvents(ctx, register, events) {
			if r.Err != nil {
				return r.Err
			}
		}
	}
	return b.measure(row, b.keys[row.key], func() (out sample, err error) {
		cpu := ownCPU()
		// go tool pprof -tagfocus key=P-256 shows nothing but issuance under that key.
		pprof.Do(ctx, pprof.Labels("key", row.key), func(ctx context.Context) {
			out, err = drive(len(cards), row.clients, patience, func(_, i int) error {
				c := cards[i]
				req := ca.IssueRequest{IdempotencyKey: c.name, Holder: c.name, Token: c.name}
				for j, kind := range cardKinds {
					req.Requests = append(req.Requests, ca.KeyRequest{Kind: kind, Request: c.requests[j]})
				}
				_, err := a.Issue(ctx, counter, req)
				return err
			})
		})
		out.cpu, out.certs = ownCPU()-cpu, 2*out.certs
		return out, err
	})
}

// measure adds a measurement to a row: with the database's processor time, and between two measurements of what a bare
// signature by the key costs, if there is one.
func (b *bench) measure(r row, key crypto.Signer, work func() (sample, error)) error {
	var before, after limits
	var err error
	if key != nil {
		if before, err = bareLimits(key, b.proof); err != nil {
			return err
		}
	}
	database := b.postgres.cpu()
	s, err := work()
	if err != nil {
		return fmt.Errorf("%s, %s, %d clients: %w", r.what, r.key, r.clients, err)
	}
	s.database = b.postgres.cpu() - database
	if key != nil {
		if after, err = bareLimits(key, b.proof); err != nil {
			return err
		}
		s.limits = before.mean(after)
	}
	b.results.add(r, s)
	b.step()
	return nil
}

// proofOf reads a request, whose signature will be checked over and over.
func proofOf(ring *keyring) (*x509.CertificateRequest, error) {
	der, err := ring.request(&x509.CertificateRequest{})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}
