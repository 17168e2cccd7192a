package ca_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/backup"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// What relying parties were told after the backup is lost with the database. Whoever comes with a position of any earlier life of the
// feed has to notice it, however far the feed has come again, and positions never get another meaning.
func TestFeedsOfARestoredDatabase(t *testing.T) {
	t.Parallel()
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		w := newWorld(t, storetest.Create(t, fresh(t)))
		w.relying()
		user := w.identify(platform, bank, w.issue("h1", "card-1", jpki.CardSign)[0].ID).User
		w.watch(platform, bank, user)
		var atBackup int64
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		if w.told(platform, &atBackup); atBackup == 0 {
			t.Fatal("nothing was told before the backup")
		}
		key := must(backup.NewKey(rand.Reader))
		whole, _ := w.dump(key, nil)

		// Two lives after the same backup: what is told in them is not told again by another life.
		told := map[int64]bool{}
		last, known := atBackup, []int64{0, atBackup}
		for life := range 3 {
			w.later(time.Hour)
			w.issue("h1", "card-1", jpki.CardSign)
			w.moves("h1", "砂箱県青葉市北町一丁目1番2号")
			w.derive()
			f, err := w.a.Changes(t.Context(), platform, last, 0, 0)
			if err != nil || len(f.Changes) == 0 {
				t.Fatalf("life %d: %d changes, %v", life, len(f.Changes), err)
			}
			for _, c := range f.Changes {
				if told[c.Seq] {
					t.Errorf("life %d tells anew under position %d", life, c.Seq)
				}
				told[c.Seq] = true
			}
			known = append(known, f.Next)

			w.later(time.Hour)
			_ = w.db.Close()
			w.db = storetest.Create(t, fresh(t))
			if _, err := backup.Restore(t.Context(), w.db, bytes.NewReader(whole), key, drillmaster, w.now); err != nil {
				t.Fatal(err)
			}
			r := &ca.Restored{Store: w.db, Now: func() time.Time { return w.now }, Rand: rand.Reader, By: drillmaster}
			if _, err := r.Advance(t.Context(), 1000, nil); err != nil {
				t.Fatal(err)
			}
			if l, err := r.Lift(t.Context(), true); err != nil || l.Feeds != 2 {
				t.Fatal(l, err)
			}
			w.restart(w.issuers)
			for _, position := range known {
				if f, err := w.a.Changes(t.Context(), platform, position, 0, 0); !errors.Is(err, jpki.CursorExpired) {
					t.Errorf("life %d, position %d of an earlier life: %d changes, %v", life, position, len(f.Changes), err)
				}
			}
			var o store.Operator
			if err := w.db.View(t.Context(), func(tx *store.Tx) (err error) { o, err = tx.Operator(platform.ID); return err }); err != nil {
				t.Fatal(err)
			}
			last = o.Position
		}
	})
}

// An operator who was registered after the backup, and followed, is a new one to the restored database: their feed begins behind all that
// they were told, so that they notice. Without a restore a new feed begins at 0.
func TestAnOperatorOfALostLife(t *testing.T) {
	t.Parallel()
	storetest.EachEngine(t, func(t *testing.T, fresh func(*testing.T) string) {
		w := newWorld(t, storetest.Create(t, fresh(t)))
		key := must(backup.NewKey(rand.Reader))
		whole, _ := w.dump(key, nil)
		w.relying()
		w.watch(platform, bank, w.identify(platform, bank, w.issue("h1", "card-1", jpki.CardSign)[0].ID).User)
		w.moves("h1", "砂箱県青葉市北町一丁目1番1号")
		var told int64
		if w.told(platform, &told); told == 0 || told > 100 {
			t.Fatalf("the first life's feed went to %d", told)
		}

		w.later(time.Hour)
		_ = w.db.Close()
		w.db = storetest.Create(t, fresh(t))
		if _, err := backup.Restore(t.Context(), w.db, bytes.NewReader(whole), key, drillmaster, w.now); err != nil {
			t.Fatal(err)
		}
		r := &ca.Restored{Store: w.db, Now: func() time.Time { return w.now }, Rand: rand.Reader, By: drillmaster}
		if _, err := r.Advance(t.Context(), 1000, nil); err != nil {
			t.Fatal(err)
		}
		if l, err := r.Lift(t.Context(), true); err != nil || l.Feeds != 0 {
			t.Fatal(l, err)
		}
		w.restart(w.issuers)
		w.relying()
		w.relying() // again changes nothing
		for _, position := range []int64{0, told} {
			if f, err := w.a.Changes(t.Context(), platform, position, 0, 0); !errors.Is(err, jpki.CursorExpired) {
				t.Errorf("position %d of the lost life: %d changes, %v", position, len(f.Changes), err)
			}
		}
		if f, err := w.a.Changes(t.Context(), platform, w.now.UnixMicro(), 0, 0); err != nil || len(f.Changes) != 0 || f.Next != w.now.UnixMicro() {
			t.Errorf("the new feed: %+v, %v", f, err)
		}
	})
}
