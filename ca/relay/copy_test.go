package relay_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

// What a relay has copied is all there for who has lost the log, and nothing is believed without the key.
func TestCopied(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := newBook(2500)
	_, stop := relays(t, relay.Config{Server: at(s), Log: b, Wake: b.wake})
	f := follows(t, at(s))
	sees(t, f, b, 0)
	stop()
	read := func(key []byte) (got []jpki.StatusChange, err error) {
		for c, err := range relay.Copied(t.Context(), relay.FollowerConfig{Server: at(s), Key: key}) {
			if err != nil {
				return got, err
			}
			got = append(got, c)
		}
		return got, nil
	}
	want := make([]jpki.StatusChange, 2500)
	for i := range want {
		want[i] = entry(int64(i + 1))
		want[i].Status.Cause = jpki.NoCause
	}
	got, err := read(key)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(jpki.Serial{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	other := append([]byte{key[0] ^ 1}, key[1:]...)
	if got, err := read(other); err == nil || len(got) > 0 {
		t.Errorf("with another key %d entries, %v", len(got), err)
	}
	if _, err := read(key[:8]); err == nil {
		t.Error("a short key")
	}
	for c, err := range relay.Copied(t.Context(), relay.FollowerConfig{Server: at(s), Key: key}) {
		if err != nil || c.Seq != 1 {
			t.Errorf("the first is %d (%v)", c.Seq, err)
		}
		break // who wants no more gets no more
	}
	s.Do("FLUSHALL")
	if got, err := read(key); err == nil {
		t.Errorf("out of nothing %d entries", len(got))
	}
	none := relay.FollowerConfig{Server: relay.Server{Addrs: []string{"127.0.0.1:1"}}, Key: key, Patience: 50 * time.Millisecond}
	for _, err = range relay.Copied(t.Context(), none) {
	}
	if err == nil || errors.Is(err, t.Context().Err()) && t.Context().Err() != nil {
		t.Errorf("without a server: %v", err)
	}
}
