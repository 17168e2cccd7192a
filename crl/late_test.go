package crl_test

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// A slow is a source that takes a second to be asked, and says so: its look is of the second after the one in which a publication began.
type slow struct{ *world }

func (s slow) Revoked(ctx context.Context, issuer jpki.IssuerID, partition string) (iter.Seq2[crl.Entry, error], crl.Mark, error) {
	s.set(func() { s.now = s.now.Add(time.Second) })
	return s.world.Revoked(ctx, issuer, partition)
}

func (s slow) Changes(ctx context.Context, issuer jpki.IssuerID, partition string, after int64, limit int) ([]crl.Change, crl.Mark, error) {
	s.set(func() { s.now = s.now.Add(time.Second) })
	return s.world.Changes(ctx, issuer, partition, after, limit)
}

// A list is of the time at which its source was asked; that is not the future because the publication began a second earlier.
func TestPublishAcrossASecond(t *testing.T) {
	w := &world{now: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)}
	dir := t.TempDir()
	cfg := config(t, w, dir)
	cfg.Source, cfg.Changes = slow{w}, slow{w}
	cfg.Issuers[0].DeltaURL = host + "/crl/sign-1/full-delta.crl"
	p := newPublisher(t, cfg)
	for range 3 {
		if err := p.Publish(t.Context(), keyFull); err != nil {
			t.Fatal(err)
		}
		if err := p.Update(t.Context(), keyFull); err != nil {
			t.Fatal(err)
		}
		if this := parsed(t, dir, keyFull).ThisUpdate; this.After(w.Now()) {
			t.Errorf("thisUpdate %v is later than %v", this, w.Now())
		}
	}
	// A source from the future is refused as before.
	w.set(func() { w.asOf = w.now.Add(time.Hour) })
	if err := p.Publish(t.Context(), keyFull); err == nil {
		t.Error("a list of the future is published")
	}
}
