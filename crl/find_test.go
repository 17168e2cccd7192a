package crl_test

import (
	"bytes"
	"crypto/x509"
	"math/big"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// finding is what FindAll says of one of many.
type finding struct {
	I     int
	Entry crl.Entry
}

// Many serials at once are found as one by one: in a list, a delta, and both combined, whatever is asked and how many.
func TestFindAll(t *testing.T) {
	a := newAuthority(t, "p-256")
	t0 := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	big20 := new(big.Int).Lsh(big.NewInt(0x7f), 19*8) // serials of 20 octets among short ones
	list := func(number, base int64, chance uint64, n int, reasons ...jpki.Reason) *crl.List {
		t.Helper()
		f := foreign{number: number, base: base, this: t0.Add(time.Duration(number) * time.Minute)}
		rnd := mrand.New(mrand.NewPCG(1, chance))
		for _, i := range rnd.Perm(2 * n)[:n] {
			entry := revoked(int64(i+1), reasons[i%len(reasons)])
			if i%5 == 0 {
				entry.SerialNumber.Add(entry.SerialNumber, big20)
			}
			f.entries = append(f.entries, entry)
		}
		l, err := crl.Load(bytes.NewReader(f.make(t, a)), a.cert)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	combine := func(complete, delta *crl.List) *crl.List {
		t.Helper()
		l, err := crl.Combine(complete, delta)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	full, empty := list(10, 0, 1, 300, jpki.KeyCompromise, jpki.CertificateHold), list(10, 0, 1, 0, jpki.KeyCompromise)
	delta := list(12, 9, 2, 200, jpki.RemoveFromCRL, jpki.Superseded, jpki.CertificateHold)
	both := combine(full, delta)
	lists := []*crl.List{full, empty, delta, both, combine(both, list(13, 12, 3, 150, jpki.RemoveFromCRL, jpki.CessationOfOperation)), combine(empty, delta)}

	rapid.Check(t, func(r *rapid.T) {
		l := rapid.SampledFrom(lists).Draw(r, "list")
		serials := make([]jpki.Serial, rapid.IntRange(0, 200).Draw(r, "serials"))
		rnd := mrand.New(mrand.NewPCG(2, rapid.Uint64().Draw(r, "chance")))
		for i := range serials {
			n := big.NewInt(rnd.Int64N(700))
			if rnd.IntN(4) == 0 {
				n.Add(n, big20)
			}
			if s, err := jpki.SerialFromBig(n); err == nil { // else the zero serial is asked about
				serials[i] = s
			}
		}
		var want, got []finding
		for i, s := range serials {
			if e, ok := l.Find(s); ok {
				want = append(want, finding{i, e})
			}
		}
		most := rapid.IntRange(1, 200).Draw(r, "most")
		want = want[:min(most, len(want))]
		for i, e := range l.FindAll(serials) {
			if got = append(got, finding{i, e}); len(got) == most {
				break
			}
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y crl.Entry) bool { return x == y })); diff != "" {
			r.Fatalf("found (-one by one +at once)\n%s", diff)
		}
	})

	// What the property compares is something, and right.
	parsed, err := x509.ParseRevocationList(foreign{number: 1, entries: []x509.RevocationListEntry{revoked(5, 1), revoked(9, 4)}}.make(t, a))
	if err != nil {
		t.Fatal(err)
	}
	l, err := crl.Load(bytes.NewReader(parsed.Raw), a.cert)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[int]jpki.Reason{}
	for i, e := range l.FindAll([]jpki.Serial{serial(t, "09"), serial(t, "06"), {}, serial(t, "05"), serial(t, "09")}) {
		reasons[i] = e.Reason
	}
	if diff := cmp.Diff(map[int]jpki.Reason{0: 4, 3: 1, 4: 4}, reasons); diff != "" {
		t.Errorf("found (-want +got)\n%s", diff)
	}
}
