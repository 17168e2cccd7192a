package ca_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

var operator = ca.Operator("sato")

// crowd adds n certificates of as many holders, without keys of their own, as if a station had had them issued under the
// keys batch-0, batch-1 …
func (w *world) crowd(n int, from time.Time) {
	w.t.Helper()
	ctx := w.t.Context()
	for start := 0; start < n; start += 500 {
		err := w.db.Update(ctx, func(tx *store.Tx) error {
			if err := tx.ReadAhead(store.Ahead{}); err != nil {
				return err
			}
			var holders []store.Holder
			for i := start; i < min(start+500, n); i++ {
				holders = append(holders, store.Holder{ID: fmt.Sprint("crowd-", i), Municipality: "99101", Attributes: *attributes(jpki.NewBirthDate(1980, 2, 17))})
			}
			for _, h := range holders {
				if err := tx.PutHolder(h, from); err != nil {
					return err
				}
			}
			if err := tx.ReadAhead(store.Ahead{}); err != nil {
				return err
			}
			for k, h := range holders {
				i := start + k
				serial, err := jpki.SerialFromBytes([]byte{0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
				if err != nil {
					return err
				}
				id := jpki.CertID{Issuer: w.issuers[i%2].ID, Serial: serial}
				kind := []jpki.Kind{jpki.CardSign, jpki.CardAuth}[i%2]
				place := []string{"99101", "99202"}[i/2%2]
				if err := tx.AddToken(store.Token{ID: "token-" + h.ID, Type: jpki.Card, Holder: h.ID, ValidUntil: from.AddDate(10, 0, 0)}, from); err != nil {
					return err
				}
				intent := store.Intent{ID: id, Kind: kind, Holder: h.ID, Token: "token-" + h.ID, Partition: place, NotAfter: from.AddDate(5, 0, 0), Actor: counter.String(), IdemKey: fmt.Sprint("batch-", i), CreatedAt: from}
				if err := tx.AddIntent(intent); err != nil {
					return err
				}
				c := store.Certificate{
					ID: id, Kind: kind, Holder: h.ID, Token: "token-" + h.ID, Partition: place, KeyHash: fmt.Sprintf("%064x", i), DER: []byte{0x30, 0},
					NotBefore: from, NotAfter: from.AddDate(5, 0, 0), IssuedAt: from, Status: jpki.Status{State: jpki.Good, Since: from.UTC().Truncate(time.Second), Version: 1},
				}
				if err := tx.AddCertificate(c); err != nil {
					return err
				}
				if err := tx.EndIntent(id, true, from); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// total is how many certificates a preview counts.
func total(counts []store.MatchCount) (n int) {
	for _, c := range counts {
		n += c.Count
	}
	return n
}

// Each criterion picks what it says, and several together what fits all of them.
func TestCriteria(t *testing.T) {
	onBoth(t, func(w *world) {
		first := w.issue("h1", "card-1", card...)
		begun := w.now
		w.now = w.now.Add(time.Hour)
		w.register("h2", "99101", jpki.NewBirthDate(1980, 2, 17))
		second := w.issue("h2", "card-2", card...)
		w.register("h3", "99202", jpki.NewBirthDate(1980, 2, 17))
		foreign, err := w.a.Issue(w.t.Context(), other, w.request("h3", "card-3", card...))
		if err != nil {
			w.t.Fatal(err)
		}
		var hash string
		err = w.db.View(w.t.Context(), func(tx *store.Tx) error {
			c, err := tx.Certificate(first[0].ID)
			hash = c.KeyHash
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		for name, row := range map[string]struct {
			c    store.Criteria
			want int
		}{
			"station":          {store.Criteria{Actor: counter.String()}, 4},
			"another station":  {store.Criteria{Actor: other.String()}, 2},
			"no station":       {store.Criteria{Actor: "counter:nobody"}, 0},
			"from":             {store.Criteria{From: w.now}, 4},
			"until":            {store.Criteria{Until: w.now}, 2},
			"range":            {store.Criteria{From: begun, Until: w.now}, 2},
			"generation":       {store.Criteria{Issuer: first[0].ID.Issuer}, 3},
			"key":              {store.Criteria{KeyHashes: []string{hash}}, 1},
			"key elsewhere":    {store.Criteria{KeyHashes: []string{hash}, Actor: other.String()}, 0},
			"prefix":           {store.Criteria{KeyPrefix: "k"}, 6},
			"no wildcards":     {store.Criteria{KeyPrefix: "k_"}, 0},
			"station and time": {store.Criteria{Actor: counter.String(), From: w.now}, 2},
		} {
			counts, err := w.a.PreviewRevocation(w.t.Context(), row.c)
			if err != nil || total(counts) != row.want {
				w.t.Errorf("%s: %v, %v, want %d", name, counts, err, row.want)
			}
		}
		counts, err := w.a.PreviewRevocation(w.t.Context(), store.Criteria{KeyPrefix: "k"})
		want := []store.MatchCount{
			{Kind: jpki.CardAuth, Municipality: "99101", State: jpki.Good, Count: 2},
			{Kind: jpki.CardAuth, Municipality: "99202", State: jpki.Good, Count: 1},
			{Kind: jpki.CardSign, Municipality: "99101", State: jpki.Good, Count: 2},
			{Kind: jpki.CardSign, Municipality: "99202", State: jpki.Good, Count: 1},
		}
		if diff := cmp.Diff(want, counts); err != nil || diff != "" {
			w.t.Errorf("%v (-want +got)\n%s", err, diff)
		}
		// What is ordered is done to these and to nobody else, with what hangs on them, and read from CRLs and OCSP (check).
		phone := w.request("h2", "phone-2", jpki.PhoneSign, jpki.PhoneAuth)
		phone.Parent = &second[0].ID
		phones, err := w.a.Issue(w.t.Context(), counter, phone)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.change(w.a.Suspend, centre, ca.ChangeRequest{Token: "card-1", Cause: jpki.Lost}); err != nil {
			w.t.Fatal(err)
		}
		m := ca.MassRevocation{Name: "drill-1", Criteria: store.Criteria{Issuer: first[0].ID.Issuer}, Cause: jpki.KeyCompromised, Expect: 4}
		if n, err := w.a.RevokeAll(w.t.Context(), operator, m); err != nil || n != 4 {
			w.t.Errorf("revoked %d, %v", n, err)
		}
		w.expect(map[jpki.CertID]string{
			first[0].ID: "revoked keyCompromise", second[0].ID: "revoked keyCompromise", foreign[0].ID: "revoked keyCompromise", phones[0].ID: "revoked keyCompromise",
			first[1].ID: "suspended certificateHold", second[1].ID: "good", foreign[1].ID: "good", phones[1].ID: "good",
		})
	})
}

func TestRevokeAllRefuses(t *testing.T) {
	onBoth(t, func(w *world) {
		ids := w.issue("h1", "card-1", card...)
		good := ca.MassRevocation{Name: "drill", Criteria: store.Criteria{Actor: counter.String()}, Cause: jpki.KeyCompromised, Expect: 2}
		for name, row := range map[string]struct {
			by     jpki.Actor
			change func(*ca.MassRevocation)
			want   jpki.Problem
		}{
			"a counter":     {counter, func(*ca.MassRevocation) {}, jpki.Forbidden},
			"no criterion":  {operator, func(m *ca.MassRevocation) { m.Criteria = store.Criteria{} }, jpki.Malformed},
			"empty range":   {operator, func(m *ca.MassRevocation) { m.Criteria.From, m.Criteria.Until = w.now, w.now }, jpki.Malformed},
			"no name":       {operator, func(m *ca.MassRevocation) { m.Name = "" }, jpki.MissingIdempotency},
			"holder's word": {operator, func(m *ca.MassRevocation) { m.Cause = jpki.HolderRequest }, jpki.Malformed},
			"too few":       {operator, func(m *ca.MassRevocation) { m.Expect = 3 }, jpki.Conflict},
			"too many":      {operator, func(m *ca.MassRevocation) { m.Expect = 1 }, jpki.Conflict},
			"many keys":     {operator, func(m *ca.MassRevocation) { m.Criteria.KeyHashes = make([]string, store.MaxKeyHashes+1) }, jpki.TooLarge},
			"negative rate": {operator, func(m *ca.MassRevocation) { m.PerSecond = -1 }, jpki.Malformed},
		} {
			m := good
			row.change(&m)
			if _, err := w.a.RevokeAll(w.t.Context(), row.by, m); !errors.Is(err, row.want) {
				w.t.Errorf("%s: %v, want %v", name, err, row.want)
			}
		}
		w.expect(map[jpki.CertID]string{ids[0].ID: "good", ids[1].ID: "good"})
		if _, err := w.a.RevokeAll(w.t.Context(), operator, good); err != nil {
			w.t.Error(err)
		}
		changed := good
		changed.Cause = jpki.RecordError
		if _, err := w.a.RevokeAll(w.t.Context(), operator, changed); !errors.Is(err, jpki.IdempotencyReused) {
			w.t.Errorf("another order under the same name: %v", err)
		}
		// Carried out is carried out: what fits later is not meant.
		w.register("h2", "99101", jpki.NewBirthDate(1980, 2, 17))
		later := w.issue("h2", "card-2", card...)
		if n, err := w.a.RevokeAll(w.t.Context(), operator, good); err != nil || n != 2 {
			w.t.Errorf("once more: %d, %v", n, err)
		}
		w.expect(map[jpki.CertID]string{ids[0].ID: "revoked keyCompromise", later[0].ID: "good"})
	})
}

// Interrupted again and again, an order ends with everything revoked exactly once. JPKI_REVOKE names another number of
// certificates, to see how long that takes.
func TestRevokeAllGoesOn(t *testing.T) {
	n := 1_050
	if many, err := strconv.Atoi(os.Getenv("JPKI_REVOKE")); err == nil {
		n = many
	}
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorld(t, db)
		w.crowd(n, w.now)
		m := ca.MassRevocation{Name: "drill", Criteria: store.Criteria{KeyPrefix: "batch-"}, Cause: jpki.CAKeyLeak, Expect: n}
		stops, start := 0, time.Now()
		for {
			ctx, cancel := context.WithCancel(t.Context())
			m.Progress = func(done, _ int) {
				if done >= n/4 {
					cancel()
				}
			}
			_, err := w.a.RevokeAll(ctx, operator, m)
			cancel()
			if err == nil {
				break
			}
			if stops++; stops > 10 || !errors.Is(err, context.Canceled) {
				t.Fatal(stops, err)
			}
			w.restart(w.issuers)
		}
		t.Logf("%d certificates in %v", n, time.Since(start))
		if stops < 3 {
			t.Errorf("interrupted %d times", stops)
		}
		w.revokedOnce(n, jpki.CAKeyLeak)
	})
}

// revokedOnce checks that the crowd is revoked, each once in the log and once in the record.
func (w *world) revokedOnce(n int, cause jpki.Cause) {
	w.t.Helper()
	log, record := map[jpki.CertID]int{}, map[string]int{}
	err := w.db.View(w.t.Context(), func(tx *store.Tx) error {
		for c, err := range tx.StatusLog() {
			if err != nil {
				return err
			}
			if c.Status.State == jpki.Revoked && c.Status.Cause == cause && c.Status.Version == 2 {
				log[c.ID]++
			}
		}
		for e, err := range tx.AuditEntries() {
			if err != nil {
				return err
			}
			if e.Action == "revoke" && e.Actor == operator.String() {
				record[e.Subject]++
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(log) != n || len(record) != n {
		w.t.Errorf("%d in the log, %d in the record, want %d", len(log), len(record), n)
	}
	for id, times := range log {
		if times != 1 || record[id.String()] != 1 {
			w.t.Errorf("%s was revoked %d times, recorded %d times", id, times, record[id.String()])
		}
	}
}
