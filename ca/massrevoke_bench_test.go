package ca_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

// TestMassRevocationScales measures, when JPKI_BENCH_REVOKE lists numbers of certificates, how long revoking all of them takes
// on PostgreSQL, and by how much each of more costs more.
func TestMassRevocationScales(t *testing.T) {
	sizes := os.Getenv("JPKI_BENCH_REVOKE")
	if sizes == "" {
		t.Skip("a measurement: JPKI_BENCH_REVOKE=10000,100000")
	}
	var first float64
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, storetest.Create(t, storetest.Postgres(t)))
		begun := time.Now()
		w.crowd(n, w.now.Add(-time.Hour))
		made := time.Since(begun)
		begun = time.Now()
		done, err := w.a.RevokeAll(t.Context(), operator, ca.MassRevocation{Name: "drill", Criteria: store.Criteria{KeyPrefix: "batch-"}, Cause: jpki.KeyCompromised, Expect: n})
		took := time.Since(begun)
		if err != nil || done != n {
			t.Fatalf("%d of %d: %v", done, n, err)
		}
		each := took.Seconds() / float64(n)
		if first == 0 {
			first = each
		}
		t.Logf("%d certificates made in %s, revoked in %s: %.0f µs each, %.2f times that of the first number", n, made.Round(time.Millisecond), took.Round(time.Millisecond), each*1e6, each/first)
	}
}
