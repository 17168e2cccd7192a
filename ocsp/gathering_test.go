package ocsp_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openjpki/jpki/ocsp"
)

// Whoever comes goes, alone or among many; where all are asleep for ever, synctest says so.
func TestGathering(t *testing.T) {
	for _, n := range []int{1, 2, ocsp.Gathered, ocsp.Gathered + 1, 3*ocsp.Gathered + 2} {
		synctest.Test(t, func(t *testing.T) {
			pass := ocsp.Gatherer()
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					for range 200 {
						pass()
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestHTTPDate(t *testing.T) {
	at := time.Date(2024, 2, 28, 23, 59, 58, 999_999_999, time.FixedZone("", 9*3600))
	for range 800 {
		if ours, theirs := ocsp.HTTPDate(at); ours != theirs {
			t.Fatalf("%q, and net/http has %q", ours, theirs)
		}
		at = at.Add(37*time.Hour + 41*time.Minute + 7*time.Second)
	}
	for _, year := range []int{0, 9, 1970, 9999} {
		if ours, theirs := ocsp.HTTPDate(time.Date(year, 12, 31, 1, 2, 3, 0, time.UTC)); ours != theirs {
			t.Errorf("%q, and net/http has %q", ours, theirs)
		}
	}
}
