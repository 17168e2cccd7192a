package relay_test

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
)

var key = bytes.Repeat([]byte("secret! "), 4)

// changes draws entries as the store returns them, without a cause.
func changes(t *rapid.T) jpki.StatusChange {
	serial, err := jpki.SerialFromBytes(append([]byte{1}, rapid.SliceOfN(rapid.Byte(), 0, 19).Draw(t, "serial")...))
	if err != nil {
		t.Fatal(err)
	}
	when := func(label string) time.Time {
		return time.UnixMicro(rapid.Int64Range(-1<<55, 1<<55).Draw(t, label)).UTC()
	}
	return jpki.StatusChange{
		ID: jpki.CertID{
			Issuer: jpki.IssuerID{CA: rapid.SampledFrom(jpki.CAs).Draw(t, "CA"), Generation: rapid.IntRange(1, math.MaxInt32).Draw(t, "generation")},
			Serial: serial,
		},
		Partition: rapid.StringN(0, -1, 64).Draw(t, "partition"),
		NotAfter:  when("not after"),
		Status: jpki.Status{
			State:   rapid.SampledFrom([]jpki.State{jpki.Good, jpki.Suspended, jpki.Revoked}).Draw(t, "state"),
			Reason:  jpki.Reason(rapid.IntRange(0, 255).Draw(t, "reason")),
			Since:   when("since"),
			Version: rapid.Int64Range(0, math.MaxInt64).Draw(t, "version"),
		},
	}
}

func TestEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := changes(t)
		told := want
		told.Status.Cause = jpki.Moved // stays where it is
		told.Seq = 7                   // is the stream's
		b, err := relay.MarshalEntry(told)
		if err != nil {
			t.Fatal(err)
		}
		got, err := relay.ParseEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(jpki.Serial{})); diff != "" {
			t.Fatal(diff)
		}
		for i := range b {
			if _, err := relay.ParseEntry(b[:i]); err == nil {
				t.Fatalf("cut after %d octets and accepted", i)
			}
		}
		if _, err := relay.ParseEntry(append(b, 0)); err == nil {
			t.Fatal("accepted with an octet more")
		}
	})
}

func TestEntriesWithoutEncoding(t *testing.T) {
	for name, spoil := range map[string]func(*jpki.StatusChange){
		"no CA":         func(c *jpki.StatusChange) { c.ID.Issuer.CA = "" },
		"no generation": func(c *jpki.StatusChange) { c.ID.Issuer.Generation = 0 },
		"no serial":     func(c *jpki.StatusChange) { c.ID.Serial = jpki.Serial{} },
		"no state":      func(c *jpki.StatusChange) { c.Status.State = "" },
		"reason":        func(c *jpki.StatusChange) { c.Status.Reason = 256 },
		"version":       func(c *jpki.StatusChange) { c.Status.Version = -1 },
		"partition":     func(c *jpki.StatusChange) { c.Partition = string(make([]byte, 65)) },
	} {
		c := entry(1)
		if _, err := relay.MarshalEntry(c); err != nil {
			t.Fatal(err)
		}
		if spoil(&c); name != "" {
			if _, err := relay.MarshalEntry(c); err == nil {
				t.Errorf("%s: encoded", name)
			}
		}
	}
}

// Nothing that a relay wrote can be changed or put elsewhere.
func TestMACs(t *testing.T) {
	e, n := [16]byte{1, 2}, [16]byte{3}
	body, err := relay.MarshalEntry(entry(5))
	if err != nil {
		t.Fatal(err)
	}
	sealed := relay.Seal(key, e, 5, body)
	if got, err := relay.Unseal(key, e, 5, sealed); err != nil || !bytes.Equal(got, body) {
		t.Fatal(got, err)
	}
	other := bytes.Repeat([]byte("another "), 4)
	for name, try := range map[string]func() error{
		"key":    func() error { _, err := relay.Unseal(other, e, 5, sealed); return err },
		"epoch":  func() error { _, err := relay.Unseal(key, [16]byte{1, 3}, 5, sealed); return err },
		"number": func() error { _, err := relay.Unseal(key, e, 6, sealed); return err },
		"empty":  func() error { _, err := relay.Unseal(key, e, 5, nil); return err },
	} {
		if try() == nil {
			t.Errorf("another %s is accepted", name)
		}
	}
	for i := range sealed {
		spoilt := bytes.Clone(sealed)
		spoilt[i] ^= 1
		if _, err := relay.Unseal(key, e, 5, spoilt); err == nil {
			t.Errorf("octet %d changed and accepted", i)
		}
	}
	b := relay.Beat(key, e, 5, n, e)
	if gotE, position, nonces, err := relay.ParseBeat(key, b); err != nil || gotE != e || position != 5 || !cmp.Equal(nonces, [][16]byte{n, e}) {
		t.Fatal(gotE, position, nonces, err)
	}
	if _, _, _, err := relay.ParseBeat(other, b); err == nil {
		t.Error("a beat under another key is accepted")
	}
	for i := range b {
		spoilt := bytes.Clone(b)
		spoilt[i] ^= 1
		if _, _, _, err := relay.ParseBeat(key, spoilt); err == nil {
			t.Errorf("octet %d changed and accepted", i)
		}
		if _, _, _, err := relay.ParseBeat(key, b[:i]); err == nil {
			t.Errorf("cut after %d octets and accepted", i)
		}
	}
}

func FuzzParseEntry(f *testing.F) {
	b, err := relay.MarshalEntry(entry(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := relay.ParseEntry(in)
		if err != nil {
			return
		}
		if again, err := relay.MarshalEntry(c); err != nil || !bytes.Equal(again, in) {
			t.Errorf("%x is read as %+v, which is written as %x (%v)", in, c, again, err)
		}
	})
}

func FuzzParseBeat(f *testing.F) {
	f.Add(relay.Beat(nil, [16]byte{1}, 5, [16]byte{2}), true)
	f.Add(relay.Beat(nil, [16]byte{1}, 0)[:25], false)
	f.Fuzz(func(t *testing.T, in []byte, whole bool) {
		if !whole { // the fuzzer does not guess MACs
			if len(in) < 25 {
				return
			}
			in = append(in, relay.Beat(nil, [16]byte{}, 0)[25:]...)
		}
		e, position, nonces, err := relay.ParseBeat(nil, in)
		if err != nil {
			return
		}
		if again := relay.Beat(nil, e, position, nonces...); !bytes.Equal(again, in) {
			t.Errorf("%x is read, and written as %x", in, again)
		}
	})
}
