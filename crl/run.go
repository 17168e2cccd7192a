package crl

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

const (
	debounce   = 200 * time.Millisecond // so that the changes of one command share a publication
	firstRetry = time.Second            // after a failure; doubled up to lastRetry
	lastRetry  = time.Minute
)

// A schedule says when each CRL is due and why.
type schedule map[ID]*appointment

type appointment struct {
	at       time.Time
	dirty    bool // something changed: due even if the file is fresh
	failures int  // in a row
}

// Run publishes until ctx ends: at once every CRL that is missing or older than the period, afterwards each once a period,
// and soon after it comes through dirty a changed partition together with the full CRL of its issuer. A failure is logged
// and counted and tried again; meanwhile the published file stays. Who writes to dirty may have to wait for a publication in
// progress. Several processes may run on one directory: a CRL that another has just published is not published again.
func (p *Publisher) Run(ctx context.Context, dirty <-chan ID) {
	due := schedule{}
	p.enter(due)
	for {
		id := due.first()
		timer := time.NewTimer(due[id].at.Sub(p.cfg.Now()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.added:
			timer.Stop()
			p.enter(due)
		case changed, ok := <-dirty:
			timer.Stop()
			p.enter(due) // of an issuer added just now
			if !ok {
				dirty = nil
				continue
			}
			if due[changed] == nil {
				p.Outcomes.Add("failed")
				p.cfg.Log.ErrorContext(ctx, "a change in a CRL that is not published", slog.String("issuer", changed.Issuer.String()), slog.String("shard", changed.Partition))
				changed.Partition = ""
			}
			for _, k := range []ID{changed, {Issuer: changed.Issuer}} {
				due.mark(k, p.cfg.Now().Add(debounce))
			}
		case <-timer.C:
			p.keep(ctx, id, due[id])
		}
	}
}

// enter makes an appointment for every CRL that has none.
func (p *Publisher) enter(due schedule) {
	for id := range p.all() {
		if due[id] == nil {
			due[id] = &appointment{at: p.dueAt(id)}
		}
	}
}

// mark makes a CRL due at a time, unless it is so earlier or waits after a failure.
func (s schedule) mark(id ID, at time.Time) {
	a := s[id]
	if a == nil { // of an issuer that is not ours
		return
	}
	a.dirty = true
	if a.failures == 0 && at.Before(a.at) {
		a.at = at
	}
}

// first returns what is due next; among equals always the same.
func (s schedule) first() (first ID) {
	var found *appointment
	for id, a := range s {
		if found == nil || a.at.Before(found.at) || a.at.Equal(found.at) && id.String() < first.String() {
			first, found = id, a
		}
	}
	return first
}

// keep keeps an appointment and makes the next.
func (p *Publisher) keep(ctx context.Context, id ID, a *appointment) {
	now := p.cfg.Now()
	make := p.Update
	if !a.dirty {
		if at := p.dueAt(id); at.After(now) { // another process was here
			a.at = at
			return
		}
		make = p.Publish
	}
	if err := make(ctx, id); err != nil {
		if ctx.Err() != nil {
			return
		}
		a.at = p.cfg.Now().Add(min(firstRetry<<min(a.failures, 16), lastRetry))
		a.failures++
		p.cfg.Log.ErrorContext(ctx, "CRL not published", slog.String("issuer", id.Issuer.String()), slog.String("shard", id.Partition),
			slog.Int("failures", a.failures), slog.Any("error", err))
		return
	}
	*a = appointment{at: p.dueAt(id)}
	if !a.at.After(now) { // the source is behind
		a.at = now.Add(p.period(id))
	}
}

func (p *Publisher) period(id ID) time.Duration {
	if id.Delta {
		return p.cfg.DeltaPeriod
	}
	return p.cfg.Period
}

// dueAt returns when the period of the published CRL ends; the zero time, long past, if there is none that can be read.
func (p *Publisher) dueAt(id ID) time.Time {
	f, err := os.Open(filepath.Join(p.cfg.Dir, filepath.FromSlash(id.Path())))
	if err != nil {
		return time.Time{}
	}
	defer f.Close()
	this, _, err := headTimes(f)
	if err != nil {
		return time.Time{}
	}
	return this.Add(p.period(id))
}
