package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/cmd/internal/sources"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

// join makes what needs the authority, and adds it to the API's configuration. Without an authority nothing is added, and the routes that
// need it refuse. Steps:
//  1. uses of certificates are reported
//  2. the authority's feed is followed into the tenants' feeds
//  3. if there are keys to sign with, tenants follow users and hear of them, and consents are taken
func (c *config) join(ctx context.Context, z *zone, cfg *api.Config, issuers []sources.Issuer, log *slog.Logger) error {
	authority, err := c.relyingParty(ctx)
	if err != nil || authority == nil {
		return err
	}
	// 1.
	reporter, err := api.NewReporter(api.ReporterConfig{Store: z.store, Authority: authority, Now: time.Now, Log: log})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	cfg.Issuers = map[string]jpki.IssuerID{}
	for _, i := range issuers {
		cfg.Issuers[hex.EncodeToString(i.Certificate.SubjectKeyId)] = i.ID
	}
	// 2.
	follower, err := push.NewFollower(push.FollowerConfig{Store: z.store, Feed: authority, Now: time.Now, Log: log, Rand: rand.Reader})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	z.loops = append(z.loops, reporter.Run, follower.Run, boot.Every(log, "forget changes told long ago", c.Sweep, z.forgetChanges))
	z.metrics = append(z.metrics,
		boot.Outcomes("jpki_verifier_feed_total", "How often changes of the authority's may have been missed, and tenants were told so.", follower.Outcomes),
		boot.Outcomes("jpki_verifier_reports_total", "Uses of certificates reported to the authority, by outcome.", reporter.Outcomes),
		boot.Gauge("jpki_verifier_reports_waiting", "Uses of certificates that the authority has not been told yet.", z.reports(func(waiting, _ int64) int64 { return waiting })),
		boot.Gauge("jpki_verifier_reports_refused", "Uses of certificates that the authority refused for good.", z.reports(func(_, refused int64) int64 { return refused })))
	// 3.
	if c.Authority.Self == "" {
		return nil
	}
	pusher, err := c.tell(ctx, z, cfg, authority, follower, log)
	if err != nil {
		return err
	}
	z.loops = append(z.loops, pusher.Run)
	z.metrics = append(z.metrics, boot.Outcomes("jpki_verifier_deliveries_total", "Deliveries to tenants' endpoints, by outcome.", pusher.Outcomes))
	return nil
}

// tell opens the keys that sign events and receipts, and makes what tenants get signed.
func (c *config) tell(ctx context.Context, z *zone, cfg *api.Config, authority *client.Client, follower *push.Follower, log *slog.Logger) (*push.Pusher, error) {
	at := c.Authority
	key, err := c.key(ctx, at.Events)
	if err != nil {
		return nil, fmt.Errorf("authority.events: %w", err)
	}
	events, err := push.NewEvents(at.Self, key)
	if err != nil {
		return nil, fmt.Errorf("authority.events: %w", err)
	}
	if key, err = c.key(ctx, at.Receipts); err != nil {
		return nil, fmt.Errorf("authority.receipts: %w", err)
	}
	former, err := c.publicKeys(at.FormerReceipts)
	if err != nil {
		return nil, fmt.Errorf("authority.former_receipts: %w", err)
	}
	cfg.Watching = &api.Watching{Authority: authority, Events: events, Changed: follower.Changed, Private: at.Private}
	cfg.Consents = &api.Consents{Authority: authority, Issuer: at.Self, Key: key, FormerKeys: former}
	return push.New(push.Config{
		Store: z.store, Events: events, Now: time.Now, Rand: rand.Reader, Log: log, Wake: follower.Wake(), Private: at.Private, Workers: at.Workers,
	})
}

// publicKeys reads files with a public key each, in PEM.
func (c *config) publicKeys(paths []string) (out []crypto.PublicKey, err error) {
	for _, path := range paths {
		text, err := c.dir.Read(path)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is not PEM", path)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, key)
	}
	return out, nil
}

// forgetChanges deletes what tenants were told too long ago.
func (z *zone) forgetChanges(ctx context.Context) error {
	for {
		n, err := z.store.ForgetChanges(ctx, time.Now().Add(-store.ChangesKept))
		if n == 0 || err != nil {
			return err
		}
	}
}

// reports is a count of reports of uses; -1 if the database does not answer.
func (z *zone) reports(which func(waiting, refused int64) int64) func() float64 {
	return func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		waiting, refused, err := z.store.CountUseReports(ctx)
		if err != nil {
			return -1
		}
		return float64(which(waiting, refused))
	}
}
