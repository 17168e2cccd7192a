package ca

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
)

// A Restored reconciles a database that was restored with what is known outside of the time after the backup, and opens it
// again. It signs nothing and needs no keys. Every field is required. Nothing else works on the database meanwhile: it is
// fenced.
//
// The order is: Advance beyond the highest position of the status log that anybody has read, Reconcile with every source
// there is, as often as one likes, then Lift.
type Restored struct {
	Store *store.Store
	Now   func() time.Time
	Rand  io.Reader  // for the numbers that mark a new timeline
	By    jpki.Actor // an operator
}

// A Sighting is what somebody outside the database knows of a certificate.
type Sighting struct {
	ID        jpki.CertID
	Status    jpki.Status // Good means no more than that it was issued, or may have been
	Partition string      // of its CRL; empty if not known
	NotAfter  time.Time   // zero if not known
	AsOf      time.Time   // when it was so; zero if not known
}

// Reconciled counts what came of sightings.
type Reconciled struct {
	Seen      int `json:"seen"`
	Agreed    int `json:"agreed"`    // the database knew
	Suspended int `json:"suspended"` // was good in the database, is held again
	Revoked   int `json:"revoked"`   // was good or suspended in the database, is revoked again
	Unknown   int `json:"unknown"`   // was not in the database, is revoked
	Followed  int `json:"followed"`  // hung on a certificate that is revoked again
}

func (r *Reconciled) add(o Reconciled) {
	r.Seen, r.Agreed, r.Suspended = r.Seen+o.Seen, r.Agreed+o.Agreed, r.Suspended+o.Suspended
	r.Revoked, r.Unknown, r.Followed = r.Revoked+o.Revoked, r.Unknown+o.Unknown, r.Followed+o.Followed
}

// What a sighting does to a certificate by what the database says of it. Who saw more wins, a certificate never becomes
// better, and what nobody can account for ends.
var sightings = map[[2]jpki.State]jpki.State{
	{"", jpki.Good}:                  jpki.Revoked, // issued after the backup: its contents are lost, and its holder gets another
	{"", jpki.Suspended}:             jpki.Revoked,
	{"", jpki.Revoked}:               jpki.Revoked,
	{jpki.Good, jpki.Suspended}:      jpki.Suspended,
	{jpki.Good, jpki.Revoked}:        jpki.Revoked,
	{jpki.Suspended, jpki.Revoked}:   jpki.Revoked,
	{jpki.Good, jpki.Good}:           jpki.Good,
	{jpki.Suspended, jpki.Good}:      jpki.Suspended, // a release that was lost is asked for again
	{jpki.Suspended, jpki.Suspended}: jpki.Suspended,
	{jpki.Revoked, jpki.Good}:        jpki.Revoked,
	{jpki.Revoked, jpki.Suspended}:   jpki.Revoked,
	{jpki.Revoked, jpki.Revoked}:     jpki.Revoked,
}

// restoredGroup is how many sightings, or positions of the log, share a transaction.
const restoredGroup = 500

func (r *Restored) check() error {
	switch {
	case r.Store == nil || r.Now == nil || r.Rand == nil:
		return errors.New("ca: Restored.Store, Now and Rand are required")
	case r.By.Role != jpki.System:
		return jpki.Errorf(jpki.Forbidden, "a %s does not reconcile a restored database", r.By.Role)
	}
	return checkIdentifier("operator", r.By.ID)
}

// Advance has the status log go on behind a position, the highest that anybody outside has seen: what was published is not
// published again with another meaning. Each position that this takes, one at least, gets a number that is drawn for it and
// burnt, see [jpki.StatusChange.NewTimeline]. It returns how many it took.
func (r *Restored) Advance(ctx context.Context, beyond int64, progress func(done, total int64)) (taken int64, err error) {
	if err := r.check(); err != nil {
		return 0, err
	}
	for {
		var end, more int64
		err := r.Store.UpdateFenced(ctx, func(tx *store.Tx) (err error) {
			if end, err = tx.StatusEnd(); err != nil {
				return err
			}
			for more = 0; more < restoredGroup && (taken+more == 0 || end+more <= beyond); more++ {
				if err := r.mark(tx); err != nil {
					return err
				}
			}
			if end += more; end <= beyond {
				return nil
			}
			return tx.Audit(r.Now(), r.By, "timeline", "status log", struct {
				Behind int64 `json:"behind"`
			}{end})
		})
		if err != nil {
			return taken, fmt.Errorf("advance status log: %w", err)
		}
		taken += more
		if progress != nil {
			progress(min(end, beyond), beyond)
		}
		if end > beyond {
			return taken, nil
		}
	}
}

// mark takes one position.
func (r *Restored) mark(tx *store.Tx) error {
	generations, err := tx.Generations()
	if err != nil {
		return err
	}
	if len(generations) == 0 {
		return jpki.Errorf(jpki.Conflict, "the database has no generation of a CA: nothing was ever published from it")
	}
	m := jpki.StatusChange{NotAfter: time.Unix(0, 0), Status: jpki.Status{State: jpki.Revoked, Reason: jpki.Unspecified, Cause: jpki.Abandoned, Version: 1}}
	m.ID.Issuer = generations[0].Issuer
	if m.ID.Serial, err = jpki.NewSerial(r.Rand); err != nil {
		return err
	}
	if m.Partition, err = tx.AnyPartition(m.ID.Issuer); err != nil {
		return err
	}
	now := r.Now()
	m.Status.Since = now.UTC().Truncate(time.Second)
	if err := tx.AddStatus(m); err != nil {
		return err
	}
	return tx.Audit(now, r.By, "issue.abandoned", m.ID.String(), statusDetail("", m.Status))
}

// Reconcile makes the database say at least what others have seen, by the table of sightings: at the end no certificate is
// better than it was seen, and none is unknown that was seen. Issuances that were under way at the backup are ended first.
// The source and the counts go into the audit record; what it is repeated with is counted as agreed.
func (r *Restored) Reconcile(ctx context.Context, source string, seen iter.Seq2[Sighting, error]) (sum Reconciled, err error) {
	if err := r.check(); err != nil {
		return sum, err
	}
	if err := r.abandonOpen(ctx); err != nil {
		return sum, fmt.Errorf("end issuances that were under way: %w", err)
	}
	var group []Sighting
	flush := func() error {
		if len(group) == 0 {
			return nil
		}
		var some Reconciled
		err := r.Store.UpdateFenced(ctx, func(tx *store.Tx) error {
			some = Reconciled{}
			for _, s := range group {
				if err := r.reconcile(tx, s, &some); err != nil {
					return fmt.Errorf("%s: %w", s.ID, err)
				}
			}
			return nil
		})
		if err == nil {
			sum.add(some)
		}
		group = group[:0]
		return err
	}
	known := map[jpki.CertID]bool{} // of the group: a second sighting sees what the first did
	for s, err := range seen {
		if err != nil {
			return sum, fmt.Errorf("read %s: %w", source, err)
		}
		if known[s.ID] || len(group) == restoredGroup {
			if err := flush(); err != nil {
				return sum, err
			}
			clear(known)
		}
		group, known[s.ID] = append(group, s), true
	}
	if err := flush(); err != nil {
		return sum, err
	}
	return sum, r.Store.UpdateFenced(ctx, func(tx *store.Tx) error { return tx.Audit(r.Now(), r.By, "reconcile", source, sum) })
}

// RestoredTo returns where the records ended when the fence was raised.
func (r *Restored) RestoredTo(ctx context.Context) (end store.Position, err error) {
	err = r.Store.View(ctx, func(tx *store.Tx) error { _, end, err = tx.FenceRaised(); return err })
	return end, err
}

// abandonOpen burns the numbers of issuances that were under way: whoever did that is gone.
func (r *Restored) abandonOpen(ctx context.Context) error {
	for {
		var open []store.Intent
		if err := r.Store.View(ctx, func(tx *store.Tx) (err error) {
			open, err = tx.OpenIntents(time.UnixMicro(1<<63-1), restoredGroup)
			return err
		}); err != nil {
			return err
		}
		if len(open) == 0 {
			return nil
		}
		if err := r.Store.UpdateFenced(ctx, func(tx *store.Tx) error { return abandon(tx, open, r.Now()) }); err != nil {
			return err
		}
	}
}

// reconcile applies the table to one sighting.
func (r *Restored) reconcile(tx *store.Tx, s Sighting, sum *Reconciled) error {
	sum.Seen++
	now := r.Now()
	have, err := tx.Status(s.ID)
	missing := errors.Is(err, jpki.UnknownCertificate)
	if err != nil && !missing {
		return err
	}
	if missing {
		have.Status.State = ""
	}
	to, ok := sightings[[2]jpki.State{have.Status.State, s.Status.State}]
	if !ok {
		return fmt.Errorf("seen as %q", s.Status.State)
	}
	// Good in the backup after a suspension that was seen before it.
	released := have.Status.State == jpki.Good && to == jpki.Suspended && have.Status.Version > 1 &&
		(!s.AsOf.IsZero() && have.Status.Since.After(s.AsOf) || s.Status.Version > 0 && have.Status.Version > s.Status.Version)
	if to == have.Status.State || released {
		sum.Agreed++
		return nil
	}
	next := jpki.StatusChange{ID: s.ID, Partition: have.Partition, NotAfter: have.NotAfter, Status: s.Status}
	next.Status.State, next.Status.Version = to, have.Status.Version+1
	if s.Status.State != to { // seen as better than it becomes
		next.Status.Reason, next.Status.Cause, next.Status.Since = jpki.Unspecified, jpki.Abandoned, now
	}
	if to == jpki.Suspended {
		next.Status.Reason = jpki.CertificateHold
	}
	if next.Status.Cause == jpki.NoCause { // a CRL tells none
		next.Status.Cause = causeOf(next.Status.Reason)
	}
	if next.Status.Since = next.Status.Since.UTC().Truncate(time.Second); next.Status.Since.Before(have.Status.Since) {
		next.Status.Since = have.Status.Since
	}
	self, action := jpki.Actor{Role: jpki.System, ID: "restore"}, "revoke"
	switch {
	case missing:
		if err := r.complete(tx, &next, s, now); err != nil {
			return err
		}
		sum.Unknown++
		next.Status.Cause = jpki.Abandoned
		if err := tx.AddStatus(next); err != nil {
			return err
		}
		action = "issue.abandoned"
	case to == jpki.Suspended:
		sum.Suspended++
		action = "suspend"
		fallthrough
	default:
		if to == jpki.Revoked {
			sum.Revoked++
		}
		if err := tx.SetStatus(next); err != nil {
			return err
		}
	}
	c, err := tx.Certificate(s.ID)
	if err != nil && !errors.Is(err, jpki.UnknownCertificate) {
		return err
	}
	if err := tx.Audit(now, self, action, s.ID.String(), statusDetail(c.Kind, next.Status)); err != nil {
		return err
	}
	if err != nil || to != jpki.Revoked {
		return nil
	}
	return r.cascade(tx, c, next.Status, now, sum)
}

// cascade ends what hangs on a certificate that is revoked again.
func (r *Restored) cascade(tx *store.Tx, c store.Certificate, status jpki.Status, now time.Time, sum *Reconciled) error {
	for _, row := range cascades {
		if row.parent != c.Kind {
			continue
		}
		tokens, err := tx.TokensUnder(c.ID)
		if err != nil {
			return err
		}
		for _, token := range tokens {
			children, err := tx.CertificatesOn(token.ID)
			if err != nil {
				return err
			}
			for _, child := range children {
				if child.Kind != row.child || !child.Live(now) {
					continue
				}
				next := jpki.StatusChange{ID: child.ID, Partition: child.Partition, NotAfter: child.NotAfter, Status: status}
				if next.Status.Version = child.Status.Version + 1; next.Status.Since.Before(child.Status.Since) {
					next.Status.Since = child.Status.Since
				}
				if err := tx.SetStatus(next); err != nil {
					return err
				}
				if err := tx.Audit(now, jpki.Actor{Role: jpki.System, ID: "cascade"}, "revoke", child.ID.String(), statusDetail(child.Kind, next.Status)); err != nil {
					return err
				}
				sum.Followed++
			}
		}
	}
	return nil
}

// complete finds what must be known of a number that is not in the database. A certificate ends with its CA at the latest;
// without a partition it is listed in one of its issuer's, and in the full CRL.
func (r *Restored) complete(tx *store.Tx, c *jpki.StatusChange, s Sighting, now time.Time) error {
	c.Partition, c.NotAfter = s.Partition, s.NotAfter
	generations, err := tx.Generations()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(generations, func(g store.Generation) bool { return g.Issuer == s.ID.Issuer })
	if i < 0 {
		return jpki.Errorf(jpki.NotFound, "generation %s is not recorded: record it before its certificates are", s.ID.Issuer)
	}
	if c.NotAfter.IsZero() {
		cert, err := x509.ParseCertificate(generations[i].Certificate)
		if err != nil {
			return fmt.Errorf("read CA certificate: %w", err)
		}
		c.NotAfter = cert.NotAfter
	}
	if c.Partition == "" {
		c.Partition, err = tx.AnyPartition(s.ID.Issuer)
	}
	if c.Status.Since.IsZero() {
		c.Status.Since = now.UTC().Truncate(time.Second)
	}
	return err
}

// causeOf is a cause for a reason of which no more is known.
func causeOf(reason jpki.Reason) jpki.Cause {
	for _, c := range []jpki.Cause{jpki.Lost, jpki.RecordError, jpki.HolderRequest, jpki.TokenReplaced, jpki.KeyCompromised, jpki.CAKeyLeak} {
		if known, _ := c.Reason(); known == reason {
			return c
		}
	}
	return jpki.Abandoned
}

// A Lifted says how a fence was lifted.
type Lifted struct {
	Restored time.Time // when the fence was raised
	Sources  []string  // reconciled with, in order, each with its counts
	Sum      Reconciled
	Position int64 // of the status log, which goes on from there
	Feeds    int64 // of changes for relying parties, whose positions jumped: their followers have to look at all users anew
}

// ErrNotReconciled is why a fence stays: nothing was reconciled since it was raised.
var ErrNotReconciled = errors.New("the database has not been reconciled with anything since it was restored")

// Lift takes the fence away and says what was reconciled, as the audit record has it since the fence was raised. Without
// any source it refuses, unless that is what the operator wants: then nobody has seen anything since the backup.
//
// The positions of relying parties' feeds jump to the time in microseconds: nobody was ever told a million changes a second, so that is behind
// all that anybody was told, in every earlier life of this database too.
func (r *Restored) Lift(ctx context.Context, withoutSources bool) (l Lifted, err error) {
	if err := r.check(); err != nil {
		return l, err
	}
	err = r.Store.UpdateFenced(ctx, func(tx *store.Tx) error {
		raised, _, err := tx.FenceRaised()
		if err != nil {
			return fmt.Errorf("find when the fence was raised: %w", err)
		}
		l = Lifted{Restored: raised.At}
		advanced := false
		for e, err := range tx.AuditEntriesAfter(raised.Seq) {
			if err != nil {
				return err
			}
			switch e.Action {
			case "timeline":
				advanced = true
			case "reconcile":
				var counts Reconciled
				if json.Unmarshal([]byte(e.Detail), &counts) != nil {
					return &audit.BrokenChainError{Seq: e.Seq, Reason: "no counts in it"}
				}
				l.Sources = append(l.Sources, fmt.Sprintf("%s: %d seen, %d agreed, %d suspended, %d revoked, %d unknown, %d followed",
					e.Subject, counts.Seen, counts.Agreed, counts.Suspended, counts.Revoked, counts.Unknown, counts.Followed))
				l.Sum.add(counts)
			}
		}
		if !advanced {
			return errors.New("the status log has not been advanced beyond what was published")
		}
		if len(l.Sources) == 0 && !withoutSources {
			return jpki.WrapError(jpki.Conflict, ErrNotReconciled, ErrNotReconciled.Error())
		}
		if l.Position, err = tx.StatusEnd(); err != nil {
			return err
		}
		now := r.Now()
		if l.Feeds, err = tx.JumpFeeds(now.UnixMicro()); err != nil {
			return err
		}
		if err := tx.Audit(now, r.By, "fence.lifted", "restored", struct {
			Sources int   `json:"sources"`
			Feeds   int64 `json:"feeds"`
			Reconciled
		}{len(l.Sources), l.Feeds, l.Sum}); err != nil {
			return err
		}
		return tx.LiftFence()
	})
	return l, err
}
