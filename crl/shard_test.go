package crl_test

import (
	"math/rand/v2"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

func TestParseShard(t *testing.T) {
	for s, want := range map[string]int{
		"h0": 0, "h7": 7, "h999": 999,
		"h1000": -1, "h": -1, "h07": -1, "h+7": -1, "h-1": -1, "H7": -1, "7": -1, "h7 ": -1, "h0x7": -1, "": -1,
	} {
		if n, ok := crl.ParseShard(s); ok != (want >= 0) || ok && (n != want || crl.Shard(n) != s) {
			t.Errorf("%q: %d, %v", s, n, ok)
		}
		id, err := crl.ParsePath("auth-1/" + s + ".crl")
		if (err == nil) != (want >= 0) || err == nil && id.Partition != s {
			t.Errorf("path of %q: %v, %v", s, id, err)
		}
	}
	if id, err := crl.ParsePath("auth-1/h7-delta.crl"); err != nil || !id.Delta || id.Partition != "h7" {
		t.Errorf("%v, %v", id, err)
	}
}

// Each shard gets its share: with 16,000 numbers in 16 shards, a thousand each, give or take six standard deviations.
func TestShardOf(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	got := map[string]int{}
	for range 16_000 {
		serial, err := jpki.NewSerial(random)
		if err != nil {
			t.Fatal(err)
		}
		got[crl.ShardOf(serial, 16)]++
	}
	for n := range 16 {
		if count := got[crl.Shard(n)]; count < 1000-6*31 || count > 1000+6*31 {
			t.Errorf("%d numbers in shard %d", count, n)
		}
	}
}
