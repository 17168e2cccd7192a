package ca

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// A telling says of which class a cause is to relying parties: for a card's signature certificate, for any other kind, and
// for whatever kind while the holder is protected. Nobody is told what has no class.
type telling struct {
	cause            jpki.Cause
	cardSign, others jpki.ChangeClass
	protected        jpki.ChangeClass
	unlessReplaced   bool // nothing, if another certificate took the place of this one: its issuance tells
}

// tellings has every cause that changes a status. Death and guardianship, a returned card and a leaked key are one class: which
// it was is nobody's business. Changed attributes are told once, with the card's certificate, on which a phone's hangs; of a
// protected person they look like any other end, so that nobody goes and asks where they live now.
var tellings = func() []telling {
	const (
		nobody                               = jpki.ChangeClass("")
		changed, held, resumed, ended, fresh = jpki.AttributesChanged, jpki.CredentialHeld, jpki.CredentialResumed, jpki.CredentialEnded, jpki.CredentialRenewed
	)
	return []telling{
		{jpki.NoCause, fresh, fresh, fresh, false}, // issued
		{jpki.Moved, changed, nobody, ended, false},
		{jpki.Renamed, changed, nobody, ended, false},
		{jpki.BirthDateChanged, changed, nobody, ended, false},
		{jpki.SexChanged, changed, nobody, ended, false},
		{jpki.RecordError, changed, ended, ended, false},
		{jpki.Lost, held, held, held, false},
		{jpki.KeyDoubt, held, held, held, false},
		{jpki.Found, resumed, resumed, resumed, false},
		{jpki.Died, ended, ended, ended, false},
		{jpki.LeftRegister, ended, ended, ended, false},
		{jpki.Guardianship, ended, ended, ended, false},
		{jpki.HolderRequest, ended, ended, ended, false},
		{jpki.CardReturned, ended, ended, ended, false},
		{jpki.KeyCompromised, ended, ended, ended, false},
		{jpki.CAKeyLeak, ended, ended, ended, false},
		{jpki.Discarded, ended, ended, ended, false},
		{jpki.Renewed, ended, ended, ended, true},
		{jpki.TokenReplaced, ended, ended, ended, true},
		{jpki.Abandoned, nobody, nobody, nobody, false}, // a number that never was a certificate
	}
}()

// classOf looks up what relying parties are told of an entry of the status log.
func classOf(s store.LoggedStatus) jpki.ChangeClass {
	i := slices.IndexFunc(tellings, func(t telling) bool { return t.cause == s.Cause })
	if i < 0 || tellings[i].unlessReplaced && s.Succeeded || (s.Cause == jpki.NoCause) != s.First {
		return ""
	}
	switch t := tellings[i]; {
	case s.Protected:
		return t.protected
	case s.Kind == jpki.CardSign:
		return t.cardSign
	default:
		return t.others
	}
}

// toldTo reports whether a watcher is told: a tenant is told of kinds of which it has seen a certificate, for uses to which it
// is entitled. The card's signature certificate is the one from which a phone's comes, so its content and renewal concern
// whoever knows a signature certificate.
func toldTo(w store.Watcher, s store.LoggedStatus, class jpki.ChangeClass) bool {
	if s.Seq <= w.After || !slices.Contains(strings.Fields(w.Uses), string(s.Kind.Use())) {
		return false
	}
	if s.Kind == jpki.CardSign && (class == jpki.AttributesChanged || class == jpki.CredentialRenewed) && w.Kinds.Has(jpki.PhoneSign) {
		return true
	}
	return w.Kinds.Has(s.Kind)
}

// derivedAtOnce is how many positions of the status log are derived from in a transaction: it bounds memory, too.
const derivedAtOnce = 1000

// DeriveChanges adds to the operators' feeds what the next part of the status log means to relying parties, and says whether
// there was a part. Positions in a feed are given here, after the status change has committed, under a lock: they have no
// gaps and become visible in order, and each entry is derived once, whoever else derives. Steps:
//  1. is there anything? and then, under the lock, read the next entries and who watches
//  2. look each up in the table of tellings
//  3. append to the feeds and move on, in the same transaction; wake who waits
func (a *Authority) DeriveChanges(ctx context.Context) (some bool, err error) {
	// 1.
	if due, err := a.store.ChangesDue(ctx); err != nil || !due {
		return false, err
	}
	now := a.now()
	var changes []store.UserChange
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		changes, some = nil, false
		after, err := tx.LockChanges()
		if err != nil {
			return err
		}
		log, last, err := tx.StatusesBehind(after, derivedAtOnce)
		if err != nil || last == after {
			return err
		}
		some = true
		holders := make([]string, len(log))
		for i, s := range log {
			holders[i] = s.Holder
		}
		watchers, err := tx.Watchers(holders)
		if err != nil {
			return fmt.Errorf("find watches: %w", err)
		}
		// 2.
		for _, s := range log {
			class := classOf(s)
			if class == "" {
				continue
			}
			for _, w := range watchers[s.Holder] {
				if toldTo(w, s, class) {
					changes = append(changes, store.UserChange{
						Operator: w.Operator, Tenant: w.Tenant, User: w.User, Purpose: w.Purpose, Class: class, Kind: s.Kind, At: s.Since,
						Correction: class == jpki.AttributesChanged && s.Cause == jpki.RecordError,
					})
				}
			}
		}
		// 3.
		return tx.AppendChanges(changes, last, now)
	})
	if err == nil && len(changes) > 0 {
		a.told.ring()
	}
	return some, err
}

// How long at most until changes of another process are noticed.
const followPause = 100 * time.Millisecond

// FollowChanges derives changes as soon as there is anything to derive, until ctx ends. Several processes may do so: they take
// turns.
func (a *Authority) FollowChanges(ctx context.Context) error {
	wake := a.store.Changes()
	for {
		some, err := a.DeriveChanges(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := followPause
		if err != nil {
			a.log.ErrorContext(ctx, "changes for relying parties cannot be derived", slog.Any("error", err))
			pause = time.Second
		} else if some {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wake:
		case <-time.After(pause):
		}
	}
}

// Bounds of a read of a feed.
const (
	MaxChanges    = 1000
	MaxChangeWait = 30 * time.Second
)

// A Feed is a part of an operator's changes.
type Feed struct {
	Name    string // of the feed, for ever
	Changes []store.UserChange
	Next    int64
}

// Changes returns up to limit changes of the operator's feed behind a position, in order. Without any it waits for one, up to
// wait. Positions whose changes are not kept any more are [jpki.CursorExpired], positions that never were [jpki.Malformed].
func (a *Authority) Changes(ctx context.Context, by jpki.Actor, after int64, limit int, wait time.Duration) (f Feed, err error) {
	switch {
	case by.Role != jpki.Verifying:
		return f, jpki.Errorf(jpki.Forbidden, "a %s has no feed of changes", by.Role)
	case after < 0, limit < 0 || limit > MaxChanges, wait < 0 || wait > MaxChangeWait:
		return f, jpki.Errorf(jpki.Malformed, "after is a position, limit 0 to %d, wait 0 to %d seconds", MaxChanges, MaxChangeWait/time.Second)
	}
	if limit == 0 {
		limit = MaxChanges
	}
	ended := time.NewTimer(wait)
	defer ended.Stop()
	for {
		rung := a.told.next() // before the read, so that nothing falls between
		err := a.store.View(ctx, func(tx *store.Tx) error {
			o, err := tx.Operator(by.ID)
			if err != nil {
				return err
			}
			if after < o.Forgotten {
				return jpki.Errorf(jpki.CursorExpired, "changes up to %d are not kept any more", o.Forgotten)
			}
			if after > o.Position {
				return jpki.Errorf(jpki.Malformed, "the feed ends at %d", o.Position)
			}
			f = Feed{Name: o.Feed, Next: after}
			f.Changes, err = tx.UserChanges(by.ID, after, limit)
			return err
		})
		if err != nil {
			return f, err
		}
		if n := len(f.Changes); n > 0 {
			f.Next = f.Changes[n-1].Seq
			return f, nil
		}
		if wait == 0 {
			return f, nil
		}
		select {
		case <-rung:
		case <-time.After(followPause): // changes derived by other processes are not announced
		case <-ended.C:
			return f, nil
		case <-ctx.Done():
			return f, jpki.WrapError(jpki.Unavailable, ctx.Err(), "the caller went away")
		}
	}
}

// FeedBounds returns the position behind which all changes of the operator's feed are kept, and the feed's last: where somebody who
// comes with another position can go on.
func (a *Authority) FeedBounds(ctx context.Context, by jpki.Actor) (start, end int64, err error) {
	if by.Role != jpki.Verifying {
		return 0, 0, jpki.Errorf(jpki.Forbidden, "a %s has no feed of changes", by.Role)
	}
	err = a.store.View(ctx, func(tx *store.Tx) error {
		o, err := tx.Operator(by.ID)
		start, end = o.Forgotten, o.Position
		return err
	})
	return start, end, err
}

// ForgetChanges removes changes that were derived longer ago than keep, and returns how many. Who comes with an older position is
// told so.
func (a *Authority) ForgetChanges(ctx context.Context, keep time.Duration) (removed int64, err error) {
	before := a.now().Add(-keep)
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		removed, err = tx.ForgetChanges(before)
		return err
	})
	return removed, err
}

// A bell wakes everybody who waits for it.
type bell struct {
	mu sync.Mutex
	c  chan struct{}
}

// next returns what is closed when the bell rings next.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		b.c = make(chan struct{})
	}
	return b.c
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c != nil {
		close(b.c)
		b.c = nil
	}
}
