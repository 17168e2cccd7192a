package store_test

import (
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// What is walked is what is listed, in order; and of the log, what was suspended, revoked or released behind a position.
func TestEachListedAndChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		world(t, s)
		set := func(c store.Certificate, version int64, state jpki.State) {
			st := jpki.Status{State: state, Since: now, Version: version}
			if state == jpki.Suspended {
				st.Reason, st.Cause = jpki.CertificateHold, jpki.Lost
			}
			update(t, s, func(tx *store.Tx) error {
				return tx.SetStatus(jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: st})
			})
		}
		for n := 5; n >= 0; n-- {
			c := certificate(n)
			c.Partition = []string{"99101", "99202"}[n%2]
			update(t, s, func(tx *store.Tx) error { return tx.AddCertificate(c) })
			set(c, 2, jpki.Suspended)
			if n == 2 {
				set(c, 3, jpki.Good)
			}
		}
		for partition, want := range map[string][]int{"99101": {0, 4}, "99202": {1, 3, 5}, "": {0, 1, 3, 4, 5}, "99303": nil} {
			if diff := cmp.Diff(serials(want...), walked(t, s.EachListed(t.Context(), sign1, partition))); diff != "" {
				t.Errorf("partition %q (-want +got)\n%s", partition, diff)
			}
		}
		end, err := s.StatusPosition(t.Context())
		if err != nil || end != 13 { // six issued, six suspended, one released
			t.Fatalf("position %d, %v", end, err)
		}
		for _, c := range []struct {
			partition  string
			after, end int64
			want       []int
		}{
			{"", 0, end, []int{5, 4, 3, 2, 2, 1, 0}},
			{"99101", 0, end, []int{4, 2, 2, 0}},
			{"", 4, end, []int{3, 2, 2, 1, 0}},
			{"", 0, 4, []int{5, 4}},
			{"", end, end, nil},
		} {
			if diff := cmp.Diff(serials(c.want...), walked(t, s.EachChanged(t.Context(), sign1, c.partition, c.after, c.end))); diff != "" {
				t.Errorf("%+v (-want +got)\n%s", c, diff)
			}
		}
		for _, err := range s.EachListed(t.Context(), sign1, "") { // may be left in the middle
			if err != nil {
				t.Error(err)
			}
			break
		}
	})
}

func serials(numbers ...int) (out []string) {
	for _, n := range numbers {
		out = append(out, certificate(n).ID.Serial.String())
	}
	return out
}

func walked(t *testing.T, seq iter.Seq2[jpki.StatusChange, error]) (out []string) {
	t.Helper()
	for c, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.ID.Serial.String())
	}
	return out
}
