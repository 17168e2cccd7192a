package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var (
	now = time.Date(2026, 4, 1, 3, 0, 0, 0, time.UTC)
	by  = jpki.Actor{Role: jpki.Counter, ID: "c1", Municipality: "99101"}
)

func onBoth(t *testing.T, f func(t *testing.T, s *store.Store)) { storetest.OnBoth(t, f) }

func update(t *testing.T, s *store.Store, f func(*store.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), f); err != nil {
		t.Fatal(err)
	}
}

func holder(id string) store.Holder {
	return store.Holder{ID: id, Municipality: "99101", Attributes: jpki.Attributes{
		Name: "砂場　花子", NameSubstitutes: "00000", Sex: jpki.Female, BirthDate: "319800217", Address: "砂箱県青葉市中央一丁目2番3号", AddressSubstitutes: strings.Repeat("0", 15),
	}}
}

func serial(n int) jpki.Serial {
	s, _ := jpki.SerialFromBytes([]byte{0x40, byte(n >> 8), byte(n)})
	return s
}

var sign1 = jpki.IssuerID{CA: jpki.SignCA, Generation: 1}

func world(t *testing.T, s *store.Store) {
	update(t, s, func(tx *store.Tx) error {
		return errors.Join(
			tx.AddGeneration(store.Generation{Issuer: sign1, Certificate: []byte{0x30}, Active: true}, now),
			tx.PutHolder(holder("h1"), now),
			tx.AddToken(store.Token{ID: "card1", Type: jpki.Card, Holder: "h1", ValidUntil: now.AddDate(10, 0, 0)}, now))
	})
}

func certificate(n int) store.Certificate {
	return store.Certificate{
		ID: jpki.CertID{Issuer: sign1, Serial: serial(n)}, Kind: jpki.CardSign, Holder: "h1", Token: "card1", Partition: "99101", KeyHash: fmt.Sprint("key", n), DER: []byte{0x30, byte(n)},
		NotBefore: now, NotAfter: now.AddDate(5, 0, 0), IssuedAt: now, Status: jpki.Status{State: jpki.Good, Since: now},
	}
}

func TestRowsComeBackAsWritten(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		stay := now.AddDate(1, 0, 0)
		h := holder("h2")
		h.StayUntil, h.Guardianship = &stay, true
		c1, c2 := certificate(1), certificate(2)
		c2.Replaces = &c1.ID
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(tx.PutHolder(h, now), tx.AddCertificate(c1), tx.AddCertificate(c2), tx.SetDelivered(c1.ID, now.Add(time.Hour)))
		})
		h.Version, c1.Status.Version, c2.Status.Version = 1, 1, 1
		delivered := now.Add(time.Hour)
		c1.DeliveredAt = &delivered
		var gotH store.Holder
		var certs []store.Certificate
		if err := s.View(t.Context(), func(tx *store.Tx) (err error) {
			if gotH, err = tx.Holder("h2"); err != nil {
				return err
			}
			certs, err = tx.CertificatesOn("card1")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if gotH.Attributes != h.Attributes || !gotH.StayUntil.Equal(stay) || gotH.Version != 1 || !gotH.Guardianship {
			t.Error("the holder came back changed")
		}
		if diff := cmp.Diff([]store.Certificate{c1, c2}, certs, cmp.AllowUnexported(jpki.Serial{})); diff != "" {
			t.Errorf("certificates (-written +read):\n%s", diff)
		}
		for want, f := range map[jpki.Problem]func(*store.Tx) error{
			jpki.UnknownHolder:      func(tx *store.Tx) error { _, err := tx.Holder("nobody"); return err },
			jpki.UnknownToken:       func(tx *store.Tx) error { _, err := tx.Token("none"); return err },
			jpki.UnknownCertificate: func(tx *store.Tx) error { _, err := tx.Certificate(certificate(9).ID); return err },
			jpki.UnknownStation:     func(tx *store.Tx) error { _, err := tx.Station("none"); return err },
			jpki.KeyReused:          func(tx *store.Tx) error { c := certificate(3); c.KeyHash = "key1"; return tx.AddCertificate(c) },
		} {
			if err := s.Update(t.Context(), f); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
	})
}

func TestStatusChangesAreGuardedByVersion(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		update(t, s, func(tx *store.Tx) error { return tx.AddCertificate(certificate(1)) })
		revoke := func(version int64) error {
			return s.Update(t.Context(), func(tx *store.Tx) error {
				return tx.SetStatus(jpki.StatusChange{ID: certificate(1).ID, Partition: "99101", NotAfter: now, Status: jpki.Status{State: jpki.Revoked, Reason: jpki.Superseded, Since: now, Version: version}})
			})
		}
		if err := revoke(3); !errors.Is(err, jpki.Conflict) {
			t.Errorf("a change over a version never seen: %v", err)
		}
		if err := revoke(2); err != nil {
			t.Error(err)
		}
		if err := revoke(2); !errors.Is(err, jpki.Conflict) {
			t.Errorf("the second of two equal changes: %v", err)
		}
		log, err := s.StatusChanges(t.Context(), 0, 10)
		if err != nil || len(log) != 2 || log[1].Status.State != jpki.Revoked {
			t.Errorf("a refused change left a trace in the status log: %v %v", log, err)
		}
	})
}

func TestARefusedTransactionLeavesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		boom := errors.New("boom")
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			return errors.Join(tx.AddCertificate(certificate(1)), tx.Audit(now, by, "issue", "x", nil), boom)
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if log, _ := s.StatusChanges(t.Context(), 0, 10); len(log) != 0 {
			t.Error("status log was written")
		}
		if head, err := audit.Verify(s.AuditEntries(t.Context()), nil); err != nil || head.Seq != 0 {
			t.Error("audit record was written", head, err)
		}
	})
}

// A number taken in a transaction that commits late must not become visible behind larger ones: a follower that reads
// while transactions are held open sees every entry exactly once and in order.
func TestStatusLogHasNoGapsWhileTransactionsAreHeldOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		const writers, each = 8, 12
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					err := s.Update(context.Background(), func(tx *store.Tx) error {
						if err := tx.AddCertificate(certificate(w*100 + i)); err != nil {
							return err
						}
						time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond) // held open
						return tx.Audit(now, by, "issue", certificate(w*100+i).ID.String(), nil)
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		var last int64
		seen := map[jpki.CertID]bool{}
		for finished := false; ; {
			changes, err := s.StatusChanges(t.Context(), last, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range changes {
				if c.Seq != last+1 || seen[c.ID] {
					t.Fatalf("entry %d follows entry %d", c.Seq, last)
				}
				last, seen[c.ID] = c.Seq, true
			}
			if finished && len(changes) == 0 {
				break
			}
			select {
			case <-done:
				finished = true
			default:
			}
		}
		if len(seen) != writers*each {
			t.Errorf("the follower saw %d of %d changes", len(seen), writers*each)
		}
		if head, err := audit.Verify(s.AuditEntries(t.Context()), nil); err != nil || head.Seq != writers*each {
			t.Errorf("audit record: %v %v", head, err)
		}
	})
}

func TestIdempotencyKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		begin := func(hash string) (result string, done bool, err error) {
			err = s.Update(t.Context(), func(tx *store.Tx) (err error) {
				result, done, err = tx.BeginOnce("counter:c1", "k", hash, now)
				return err
			})
			return result, done, err
		}
		if _, done, err := begin("a"); done || err != nil {
			t.Fatal(done, err)
		}
		if _, _, err := begin("a"); !errors.Is(err, jpki.InProgress) {
			t.Errorf("repeated while in progress: %v", err)
		}
		update(t, s, func(tx *store.Tx) error { return tx.ForgetOnce("counter:c1", "k") })
		if _, done, err := begin("a"); done || err != nil {
			t.Errorf("after it came to nothing: %v %v", done, err)
		}
		update(t, s, func(tx *store.Tx) error { return tx.EndOnce("counter:c1", "k", "result") })
		update(t, s, func(tx *store.Tx) error { return tx.ForgetOnce("counter:c1", "k") })
		if r, done, err := begin("a"); r != "result" || !done || err != nil {
			t.Errorf("repeated when done: %q %v %v", r, done, err)
		}
		if _, _, err := begin("b"); !errors.Is(err, jpki.IdempotencyReused) {
			t.Errorf("another request: %v", err)
		}
	})
}

func TestIntentsEndOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		i := store.Intent{ID: certificate(1).ID, Kind: jpki.CardSign, Holder: "h1", Token: "card1", Partition: "99101", NotAfter: now, Actor: "counter:c1", IdemKey: "k", CreatedAt: now}
		update(t, s, func(tx *store.Tx) error { return tx.AddIntent(i) })
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.AddIntent(i) }); err == nil {
			t.Error("one serial number was given out twice")
		}
		open := func(before time.Time) (list []store.Intent) {
			if err := s.View(t.Context(), func(tx *store.Tx) (err error) { list, err = tx.OpenIntents(before, 10); return err }); err != nil {
				t.Fatal(err)
			}
			return list
		}
		if len(open(now.Add(-time.Second))) != 0 || len(open(now)) != 1 {
			t.Error("open intents by age")
		}
		update(t, s, func(tx *store.Tx) error { return tx.EndIntent(i.ID, false, now) })
		if err := s.Update(t.Context(), func(tx *store.Tx) error { return tx.EndIntent(i.ID, true, now) }); !errors.Is(err, jpki.Conflict) {
			t.Errorf("an abandoned intent was issued after all: %v", err)
		}
		if len(open(now)) != 0 {
			t.Error("an ended intent is still open")
		}
	})
}

func TestListedIsPerPartitionAndIssuer(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		for n, partition := range []string{"99101", "99202", "99101"} {
			c := certificate(n)
			c.Partition = partition
			update(t, s, func(tx *store.Tx) error { return tx.AddCertificate(c) })
			if n < 2 {
				update(t, s, func(tx *store.Tx) error {
					return tx.SetStatus(jpki.StatusChange{ID: c.ID, Partition: partition, NotAfter: c.NotAfter, Status: jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Cause: jpki.Lost, Since: now, Version: 2}})
				})
			}
		}
		for partition, want := range map[string]int{"99101": 1, "99202": 1, "": 2, "99303": 0} {
			if got, err := s.Listed(t.Context(), sign1, partition); err != nil || len(got) != want {
				t.Errorf("partition %q: %d entries, want %d (%v)", partition, len(got), want, err)
			}
		}
		if got, _ := s.Partitions(t.Context(), sign1); !cmp.Equal(got, []string{"99101", "99202"}) {
			t.Error(got)
		}
		if _, err := s.StatusOf(t.Context(), jpki.CertID{Issuer: sign1, Serial: serial(77)}); !errors.Is(err, jpki.UnknownCertificate) {
			t.Error(err)
		}
	})
}

func TestOpenRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, name := range []string{"", "mysql://x", "sqlite:" + filepath.Join(t.TempDir(), "missing.db")} {
		if s, err := store.Open(t.Context(), name); err == nil {
			_ = s.Close()
			t.Errorf("%q opened", name)
		}
	}
	onBoth(t, func(t *testing.T, s *store.Store) {
		update(t, s, func(tx *store.Tx) error { return nil })
	})
}

func TestChangesAnnouncesOnlyStatusCommits(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		c := s.Changes()
		world(t, s)
		select {
		case <-c:
			t.Error("announced a commit without a status change")
		default:
		}
		update(t, s, func(tx *store.Tx) error { return tx.AddCertificate(certificate(1)) })
		<-c
	})
}
