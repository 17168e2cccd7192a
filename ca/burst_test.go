package ca_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// A night of moves (JPKI_BURST_ON=sqlite or postgres chooses an engine): JPKI_BURST watched certificates (default 2000) end, then all is derived and read, in order. What is
// measured is logged: changes a second, how the heap grows, and how long a single change takes from its commit until a reader
// who waits has it.
func TestBurstOfChanges(t *testing.T) {
	burst := 2000
	if s := os.Getenv("JPKI_BURST"); s != "" {
		burst, _ = strconv.Atoi(s)
	}
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) { // without the checks of worlds: these certificates are none
		w := newWorld(t, db)
		if only := os.Getenv("JPKI_BURST_ON"); only != "" && !strings.HasSuffix(w.t.Name(), only) {
			w.t.Skip("not asked for")
		}
		w.relying()
		card := w.issue("h1", "card-1", jpki.CardSign)
		certs := make([]jpki.StatusChange, 0, burst)
		user := func(n int) string {
			var b [20]byte
			binary.BigEndian.PutUint64(b[:], uint64(n))
			return strings.Map(func(r rune) rune { return 'a' + rune(strings.IndexRune("0123456789abcdef", r)) }, hex.EncodeToString(b[:])[:32])
		}
		for from := 0; from < burst; from += 500 {
			err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
				var holders []store.Holder
				var watches []store.Watch
				certs = certs[:from]
				for n := from; n < min(from+500, burst); n++ {
					holders = append(holders, store.Holder{ID: fmt.Sprint("b", n), Municipality: "99101", Attributes: *attributes(jpki.NewBirthDate(1980, 2, 17))})
				}
				if err := tx.PutHolders(holders, w.now); err != nil {
					return err
				}
				if err := tx.ReadAhead(store.Ahead{}); err != nil { // rows are written together
					return err
				}
				for n := from; n < min(from+500, burst); n++ {
					h := fmt.Sprint("b", n)
					var raw [16]byte
					raw[0] = 0x40
					binary.BigEndian.PutUint64(raw[8:], uint64(n))
					serial := must(jpki.SerialFromBytes(raw[:]))
					c := store.Certificate{
						ID: jpki.CertID{Issuer: card[0].ID.Issuer, Serial: serial}, Kind: jpki.CardSign, Holder: h, Token: "t" + h, Partition: "99101", KeyHash: h, DER: card[0].Certificate,
						NotBefore: w.now, NotAfter: w.now.AddDate(5, 0, 0), IssuedAt: w.now, Status: jpki.Status{State: jpki.Good, Since: w.now},
					}
					if err := tx.AddToken(store.Token{ID: "t" + h, Type: jpki.Card, Holder: h, ValidUntil: c.NotAfter}, w.now); err != nil {
						return err
					}
					if err := tx.AddCertificate(c); err != nil {
						return err
					}
					certs = append(certs, jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: jpki.Status{State: jpki.Revoked, Cause: jpki.Moved, Reason: jpki.AffiliationChanged, Since: w.now, Version: 2}})
				}
				if _, err := tx.KeyCertified("none"); err != nil { // has them written
					return err
				}
				for n := from; n < min(from+500, burst); n++ {
					u := store.User{Tenant: bank, ID: user(n), Holder: fmt.Sprint("b", n), Kinds: store.KindSet(0).With(jpki.CardSign)}
					if _, err := tx.AddUser(u, w.now); err != nil {
						return err
					}
					if err := tx.SetUser(u); err != nil {
						return err
					}
					watches = append(watches, store.Watch{User: u.ID, Purpose: "address-upkeep"})
				}
				_, err := tx.AddWatches(bank, watches, 0, w.now)
				return err
			})
			if err != nil {
				w.t.Fatal(err)
			}
		}
		w.derive()
		var first int64
		if f := must(w.a.Changes(w.t.Context(), platform, 0, 1, 0)); len(f.Changes) > 0 { // issued once watched
			for n := 1; n > 0; {
				f := must(w.a.Changes(w.t.Context(), platform, first, 0, 0))
				n, first = len(f.Changes), f.Next
			}
		}
		for part := range slices.Chunk(certs, 500) {
			if err := w.db.Update(w.t.Context(), func(tx *store.Tx) error {
				for _, c := range part {
					if err := tx.SetStatus(c); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				w.t.Fatal(err)
			}
		}
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before, begin, most := heap(), time.Now(), uint64(0)
		for some, n := true, 0; some; n++ {
			some = must(w.a.DeriveChanges(w.t.Context()))
			if n%10 == 0 {
				most = max(most, heap())
			}
		}
		derived := time.Since(begin)
		begin = time.Now()
		read, after := 0, first
		for {
			f := must(w.a.Changes(w.t.Context(), platform, after, 0, 0))
			if len(f.Changes) == 0 {
				break
			}
			for i, c := range f.Changes {
				if c.Seq != after+int64(i)+1 || c.User != user(read+i) || c.Class != jpki.AttributesChanged {
					w.t.Fatalf("change %d: %+v", read+i, c)
				}
			}
			read, after = read+len(f.Changes), f.Next
		}
		if read != burst {
			w.t.Errorf("%d changes of %d", read, burst)
		}
		w.t.Logf("%d changes derived in %s (%.0f a second), read in %s (%.0f a second); heap grew by at most %d KiB",
			burst, derived, float64(burst)/derived.Seconds(), time.Since(begin), float64(burst)/time.Since(begin).Seconds(), (max(most, before)-before)>>10)

		// One at a time, while a reader waits.
		u := w.identify(platform, bank, card[0].ID).User
		w.watch(platform, bank, u)
		go func() { _ = w.a.FollowChanges(w.t.Context()) }()
		var took []time.Duration
		for i := range 20 {
			done := make(chan time.Time, 1)
			go func() {
				if f, err := w.a.Changes(w.t.Context(), platform, after, 0, 20*time.Second); err == nil && len(f.Changes) > 0 {
					after = f.Next
				}
				done <- time.Now()
			}()
			status, state := must(w.db.StatusOf(w.t.Context(), card[0].ID)), jpki.Status{State: jpki.Suspended, Cause: jpki.Lost, Reason: jpki.CertificateHold}
			if i%2 == 1 {
				state = jpki.Status{State: jpki.Good, Cause: jpki.Found}
			}
			state.Since, state.Version = w.now, status.Status.Version+1
			status.Status = state
			if err := w.db.Update(w.t.Context(), func(tx *store.Tx) error { return tx.SetStatus(status) }); err != nil {
				w.t.Fatal(err)
			}
			committed := time.Now()
			took = append(took, max(0, (<-done).Sub(committed)))
		}
		slices.Sort(took)
		w.t.Logf("from commit to the reader: median %s, slowest of %d %s", took[len(took)/2], len(took), took[len(took)-1])
	})
}
