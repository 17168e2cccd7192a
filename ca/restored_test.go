package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/backup"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/status"
)

var drillmaster = ca.Operator("drill")

// A changingLog is the status log of whichever database is the present one, as for a responder whose database is restored.
type changingLog struct{ w *world }

func (l changingLog) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	return l.w.db.StatusChanges(ctx, after, limit)
}

// ask asks OCSP about one certificate: good, what it is revoked for, or the error status.
func (w *world) ask(id jpki.CertID) string {
	w.t.Helper()
	i := slices.IndexFunc(w.generations, func(i ca.Issuer) bool { return i.ID == id.Issuer })
	issuer := w.generations[i].Certificate
	req := must(must(ocsp.NewRequest(issuer, crypto.SHA256, nil, id.Serial)).Marshal())
	rec := httptest.NewRecorder()
	w.public.responder.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(req)).WithContext(w.t.Context()))
	resp, err := ocsp.ParseResponse(rec.Body.Bytes())
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.Status != ocsp.Successful {
		return fmt.Sprint(resp.Status)
	}
	switch a, err := resp.Answer(issuer, id.Serial); {
	case err != nil:
		w.t.Fatal(err)
		return ""
	case a.Unknown:
		return "unknown"
	case a.Revoked:
		return "revoked " + a.Reason.String()
	}
	return "good"
}

func (w *world) dump(key backup.Key, after *store.Position) ([]byte, *backup.Manifest) {
	w.t.Helper()
	var out bytes.Buffer
	m, err := backup.Write(w.t.Context(), &out, backup.Config{Store: w.db, Key: key, Now: func() time.Time { return w.now }, Rand: rand.Reader, After: after})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Bytes(), m
}

var errNoMore = errors.New("no more")

// lists are the sightings of every CRL published.
func (w *world) lists() iter.Seq2[ca.Sighting, error] {
	return func(yield func(ca.Sighting, error) bool) {
		for _, i := range w.generations {
			for _, partition := range append(w.profile.Partitions(i.ID.CA), "") {
				f := must(os.Open(filepath.Join(w.public.dir, (crl.ID{Issuer: i.ID, Partition: partition}).Path())))
				_, err := crl.Read(f, i.Certificate, func(e crl.Entry) error {
					s := ca.Sighting{ID: jpki.CertID{Issuer: i.ID, Serial: e.Serial}, Partition: partition, Status: jpki.Status{State: jpki.Revoked, Reason: e.Reason, Since: e.At}}
					if e.Reason == jpki.CertificateHold {
						s.Status.State = jpki.Suspended
					}
					if !yield(s, nil) {
						return errNoMore
					}
					return nil
				})
				_ = f.Close()
				if errors.Is(err, errNoMore) {
					return
				}
				if err != nil {
					yield(ca.Sighting{}, err)
					return
				}
			}
		}
	}
}

// What a drill did after the backup that is then lost.
type lostWork struct {
	held, revoked, kept, moved jpki.CertID // known to the backup
	issued                     []ca.Issued // not known to it
	log                        map[jpki.CertID]jpki.StatusChange
	position                   int64
	numbers                    map[crl.ID]string
}

// before makes what a backup will hold.
func (w *world) beforeBackup() (l lostWork) {
	w.t.Helper()
	w.register("h2", "99202", jpki.NewBirthDate(1990, 3, 4))
	w.register("h3", "99101", jpki.NewBirthDate(1991, 5, 6))
	a, b, c := w.issue("h1", "card-1", card...), w.issueAt(other, "h2", "card-2", card...), w.issue("h3", "card-3", card...)
	l.held, l.revoked, l.kept, l.moved = a[1].ID, b[0].ID, c[1].ID, c[0].ID
	w.public = &public{dir: w.t.TempDir(), keys: map[jpki.IssuerID]crypto.Signer{}}
	w.public.index = must(status.New(status.Config{Log: changingLog{w}, Now: func() time.Time { return w.now }, Pause: time.Nanosecond}))
	w.check()
	return l
}

func (w *world) issueAt(by jpki.Actor, holder, token string, kinds ...jpki.Kind) []ca.Issued {
	w.t.Helper()
	out, err := w.a.Issue(w.t.Context(), by, w.request(holder, token, kinds...))
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// afterBackup does what the backup will not know: certificates are issued, held and revoked, and all of it is published.
func (w *world) afterBackup(l *lostWork) {
	w.t.Helper()
	w.now = w.now.Add(time.Hour)
	w.register("h4", "99101", jpki.NewBirthDate(2000, 7, 8))
	l.issued = w.issue("h4", "card-4", card...)
	if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Certificate: &l.held, Cause: jpki.Lost}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.change(w.a.Revoke, other, ca.ChangeRequest{Certificate: &l.revoked, Cause: jpki.KeyCompromised}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.event(jpki.Event{Holder: "h3", Type: jpki.AddressChanged, Municipality: "99101", Attributes: with(func(a *jpki.Attributes) { a.Address += "の二" })}); err != nil {
		w.t.Fatal(err)
	}
	l.log = w.invariants()
	w.published(l.log)
	for _, c := range l.log {
		l.position = max(l.position, c.Seq)
	}
	l.numbers = w.crlNumbers()
	if got := w.ask(l.held); got != "revoked certificateHold" {
		w.t.Fatalf("before the disaster the held one is %s", got)
	}
}

func (w *world) crlNumbers() map[crl.ID]string {
	out := map[crl.ID]string{}
	for _, i := range w.generations {
		for _, partition := range append(w.profile.Partitions(i.ID.CA), "") {
			id := crl.ID{Issuer: i.ID, Partition: partition}
			f := must(os.Open(filepath.Join(w.public.dir, id.Path())))
			out[id] = fmt.Sprintf("%030d", must(crl.Read(f, i.Certificate, nil)).Number)
			_ = f.Close()
		}
	}
	return out
}

// restored is the drill from the moment at which the database is back: it must be fenced, is reconciled with sources and
// lifted, and then all must be right again.
func (w *world) restored(db *store.Store, l lostWork, records iter.Seq2[ca.Sighting, error]) {
	t := w.t
	w.db = db
	w.restart(w.issuers)
	w.now = w.now.Add(time.Hour)
	behind := must(status.New(status.Config{Log: changingLog{w}, Now: func() time.Time { return w.now }})) // knows nothing yet

	// The fence holds: nothing is issued, changed or published, and nobody is told good; as often as one tries.
	for range 2 {
		if _, err := w.a.Issue(t.Context(), counter, w.request("h1", w.name(), card...)); !errors.Is(err, store.ErrFenced) || !errors.Is(err, jpki.Unavailable) {
			t.Errorf("issue behind the fence: %v", err)
		}
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Certificate: &l.kept, Cause: jpki.Lost}); !errors.Is(err, store.ErrFenced) {
			t.Errorf("suspend behind the fence: %v", err)
		}
		if err := w.public.lists.Publish(t.Context(), crl.ID{Issuer: l.held.Issuer}); err == nil {
			t.Error("a CRL was published behind the fence")
		}
		for _, id := range []jpki.CertID{l.held, l.revoked, l.kept, l.issued[0].ID} {
			if got := w.ask(id); got != fmt.Sprint(ocsp.TryLater) {
				t.Errorf("behind the fence %s is %s", id, got)
			}
			if _, _, err := behind.Status(t.Context(), id); !errors.Is(err, jpki.Unavailable) {
				t.Errorf("a new index says of %s: %v", id, err)
			}
		}
	}

	// Nobody but an operator lifts it, and not before it is reconciled.
	r := &ca.Restored{Store: db, Now: func() time.Time { return w.now }, Rand: rand.Reader, By: counter}
	if _, err := r.Lift(t.Context(), true); !errors.Is(err, jpki.Forbidden) {
		t.Errorf("a counter lifts: %v", err)
	}
	r.By = drillmaster
	if _, err := r.Lift(t.Context(), false); err == nil {
		t.Error("lifted at once")
	}
	if _, err := r.Advance(t.Context(), l.position, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lift(t.Context(), false); !errors.Is(err, ca.ErrNotReconciled) {
		t.Errorf("lifted without a source: %v", err)
	}
	reconcile := func(name string, seen iter.Seq2[ca.Sighting, error]) ca.Reconciled {
		t.Helper()
		sum, err := r.Reconcile(t.Context(), name, seen)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", name, sum)
		return sum
	}
	if sum := reconcile("CRLs", w.lists()); sum.Suspended != 1 || sum.Revoked != 2 || sum.Unknown != 0 {
		t.Errorf("CRLs: %+v", sum)
	}
	if sum := reconcile("records", records); sum.Unknown != 2 || sum.Suspended+sum.Revoked != 0 {
		t.Errorf("records: %+v", sum)
	}
	if sum := reconcile("CRLs", w.lists()); sum.Agreed != sum.Seen || sum.Seen == 0 {
		t.Errorf("once more: %+v", sum)
	}
	if _, err := w.a.Issue(t.Context(), counter, w.request("h1", w.name(), card...)); !errors.Is(err, store.ErrFenced) {
		t.Errorf("issue before the fence is lifted: %v", err)
	}
	lifted, err := r.Lift(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	if len(lifted.Sources) != 3 || lifted.Sum.Unknown != 2 || lifted.Position <= l.position {
		t.Errorf("lifted: %+v", lifted)
	}
	if _, err := r.Reconcile(t.Context(), "late", w.lists()); !errors.Is(err, jpki.Conflict) {
		t.Errorf("reconciled without a fence: %v", err)
	}

	// The responder that ran through all of it follows by itself, and everything published agrees.
	for id, want := range map[jpki.CertID]string{
		l.held: "revoked certificateHold", l.revoked: "revoked keyCompromise", l.moved: "revoked affiliationChanged", l.kept: "good",
		l.issued[0].ID: "revoked unspecified", l.issued[1].ID: "revoked unspecified",
	} {
		if got := w.ask(id); got != want {
			t.Errorf("afterwards %s is %s, want %s", id, got, want)
		}
	}
	w.people = slices.DeleteFunc(w.people, func(h string) bool { return h == "h4" }) // lost with the database; the register tells again
	log := w.invariants()
	for id, before := range l.log {
		after, known := log[id]
		switch {
		case !known:
			t.Errorf("%s was issued and is forgotten", id)
		case before.Status.State != jpki.Good && after.Status.State == jpki.Good, before.Status.State == jpki.Revoked && after.Status.State != jpki.Revoked:
			t.Errorf("%s was %s and is %s", id, before.Status.State, after.Status.State)
		case before.Status.State != jpki.Good && (after.Status.Reason != before.Status.Reason || !after.Status.Since.Equal(before.Status.Since)):
			t.Errorf("%s was published as %+v, and now is %+v", id, before.Status, after.Status)
		case after.Seq <= l.position && after.Status != before.Status:
			t.Errorf("%s changed at position %d, which was published", id, after.Seq)
		}
	}
	w.published(log)
	for id, number := range w.crlNumbers() {
		if number <= l.numbers[id] {
			t.Errorf("CRL %s has number %s after %s", id, number, l.numbers[id])
		}
	}

	// Life goes on.
	w.register("h4", "99101", jpki.NewBirthDate(2000, 7, 8))
	again := w.issue("h4", "card-4", card...)
	if got := w.ask(again[0].ID); got != "good" {
		t.Errorf("a new certificate is %s", got)
	}
	w.check()
}

// The drill: a backup, more work, the database is destroyed, restored from the backup and the records since, reconciled.
func TestRestoreDrill(t *testing.T) {
	t.Parallel()
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		w := newWorld(t, storetest.Create(t, fresh(t)))
		l := w.beforeBackup()
		key := must(backup.NewKey(rand.Reader))
		whole, m := w.dump(key, nil)
		w.afterBackup(&l)
		recorded, _ := w.dump(key, &m.End)
		_ = w.db.Close()

		db := storetest.Create(t, fresh(t))
		got, err := backup.Restore(t.Context(), db, bytes.NewReader(whole), key, drillmaster, w.now)
		if err != nil {
			t.Fatal(err)
		}
		if got.AuditHash != m.AuditHash || got.End != m.End {
			t.Errorf("restored %+v of %+v", got, m)
		}
		if _, err := backup.Restore(t.Context(), db, bytes.NewReader(whole), key, drillmaster, w.now); !errors.Is(err, jpki.Conflict) {
			t.Errorf("restored into a database that is not empty: %v", err)
		}
		if _, err := backup.Write(t.Context(), new(bytes.Buffer), backup.Config{Store: db, Key: key, Now: time.Now, Rand: rand.Reader}); !errors.Is(err, store.ErrFenced) {
			t.Errorf("backup of a fenced database: %v", err)
		}
		w.restored(db, l, recordsOf(t, recorded, key))
	})
}

// recordsOf are the sightings of a backup of records.
func recordsOf(t *testing.T, recorded []byte, key backup.Key) iter.Seq2[ca.Sighting, error] {
	newest := map[jpki.CertID]jpki.StatusChange{}
	if _, err := backup.Read(t.Context(), bytes.NewReader(recorded), key, backup.Visitor{Change: func(c jpki.StatusChange) error { newest[c.ID] = c; return nil }}); err != nil {
		t.Fatal(err)
	}
	return func(yield func(ca.Sighting, error) bool) {
		for id, c := range newest {
			if !yield(ca.Sighting{ID: id, Status: c.Status, Partition: c.Partition, NotAfter: c.NotAfter}, nil) {
				return
			}
		}
	}
}

// The same with PostgreSQL's own means: a base backup, the archived log, and recovery to a point in time.
func TestRecoveryToAPointInTime(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t)
	c.Archive()
	c.Database("ca")
	w := newWorld(t, storetest.Create(t, c.URL("ca")))
	c.BaseBackup()
	l := w.beforeBackup()
	until := c.Now() // what comes later is not to be recovered
	key := must(backup.NewKey(rand.Reader))
	var end store.Position
	err := w.db.View(t.Context(), func(tx *store.Tx) error {
		head, err := tx.AuditHead()
		end.Audit = head.Seq
		if err == nil {
			end.Status, err = tx.StatusEnd()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.afterBackup(&l)
	recorded, _ := w.dump(key, &end)
	c.SwitchLog()
	_ = w.db.Close()
	c.Stop()

	c.Recover(until)
	db := storetest.Open(t, c.URL("ca"))
	if err := db.Fence(t.Context(), w.now, drillmaster, "recovered"); err != nil {
		t.Fatal(err)
	}
	var raised store.Position
	if raised, err = (&ca.Restored{Store: db}).RestoredTo(t.Context()); err != nil || raised != end {
		t.Fatalf("recovered to %+v, want %+v (%v)", raised, end, err)
	}
	w.restored(db, l, recordsOf(t, recorded, key))
}
