package cms_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/verifier/cms"
)

// TestCache: with a cache everything comes out as without, from octets that the caller uses for something else afterwards, and
// it forgets.
func TestCache(t *testing.T) {
	cache, err := cms.NewCache(2)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(id *identity) []byte {
		der, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{Certificate: id.der, Signer: id.key, Rand: rand.Reader, SigningTime: noon, Attached: true})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for round := range 3 {
		for _, id := range []*identity{rsaID, ecID, ec384ID, edID} {
			der := sign(id)
			buffer := bytes.Clone(der)
			got := one(t, buffer, cms.Input{Cache: cache})
			want := one(t, der, cms.Input{})
			if got.Integrity != cms.Intact || got.Level != want.Level || got.Key.String() != want.Key.String() || got.Serial.Cmp(want.Serial) != 0 {
				t.Errorf("round %d: %s %s", round, got.Integrity, got.Detail)
			}
			if diff := cmp.Diff(want.Certificate, got.Certificate); diff != "" {
				t.Error(diff)
			}
			clear(buffer)
		}
	}
	if n := cms.Remembered(cache); n > 2 {
		t.Errorf("%d entries, 2 admitted", n)
	}
	for _, n := range []int{-1, 0, 1, 1<<24 + 1} {
		if _, err := cms.NewCache(n); err == nil {
			t.Errorf("a cache of %d", n)
		}
	}
}
