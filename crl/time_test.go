package crl_test

import (
	"encoding/asn1"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/crl"
)

// Times are encoded by hand; encoding/asn1 says the same of every day that there is and at both ends of UTCTime.
func TestAppendTime(t *testing.T) {
	check := func(at time.Time) {
		t.Helper()
		got, err := crl.AppendTime(nil, at)
		form := "generalized"
		if at.UTC().Year() < 2050 {
			form = "utc"
		}
		want, err2 := asn1.MarshalWithParams(at.UTC(), form)
		if err != nil || err2 != nil || !cmp.Equal(got, want) {
			t.Fatalf("%s: % x, want % x; %v, %v", at, got, want, err, err2)
		}
	}
	for at := time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC); at.Year() < 2101; at = at.Add(24*time.Hour - 61*time.Second) {
		check(at)
	}
	for _, at := range []time.Time{
		time.Date(2049, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Date(2050, 1, 1, 8, 59, 59, 0, time.FixedZone("", 9*3600)), time.Date(1950, 1, 1, 9, 0, 0, 0, time.FixedZone("", 9*3600)),
	} {
		check(at)
	}
	for _, at := range []time.Time{{}, time.Date(1949, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if got, err := crl.AppendTime(nil, at); err == nil {
			t.Errorf("%s: % x", at, got)
		}
	}
}
