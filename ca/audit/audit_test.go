package audit_test

import (
	"crypto/ed25519"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/openjpki/jpki/ca/audit"
)

func chain(n int) []audit.Entry {
	var head audit.Head
	var out []audit.Entry
	for i := range n {
		var e audit.Entry
		e, head = head.Append(audit.Entry{At: time.UnixMicro(int64(i) * 1e6), Actor: "counter:c1", Action: "suspend", Subject: "sign-1/52", Detail: `{"version":2}`})
		out = append(out, e)
	}
	return out
}

func seq(entries []audit.Entry) iter.Seq2[audit.Entry, error] {
	return func(yield func(audit.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestVerifyFindsEveryKindOfTampering(t *testing.T) {
	whole := chain(5)
	head, err := audit.Verify(seq(whole), nil)
	if err != nil || head.Seq != 5 || head.Hash != whole[4].Hash {
		t.Fatalf("sound chain: head %v, error %v", head, err)
	}
	edit := func(f func([]audit.Entry) []audit.Entry) []audit.Entry {
		return f(append([]audit.Entry(nil), whole...))
	}
	for name, c := range map[string]struct {
		entries []audit.Entry
		at      int64
	}{
		"removed first":  {edit(func(e []audit.Entry) []audit.Entry { return e[1:] }), 1},
		"removed middle": {edit(func(e []audit.Entry) []audit.Entry { return append(e[:2:2], e[3:]...) }), 3},
		"reordered":      {edit(func(e []audit.Entry) []audit.Entry { e[1], e[2] = e[2], e[1]; return e }), 2},
		"repeated":       {edit(func(e []audit.Entry) []audit.Entry { return append(e[:2:2], e[1:]...) }), 3},
		"actor":          {edit(func(e []audit.Entry) []audit.Entry { e[3].Actor = "counter:c2"; return e }), 4},
		"time":           {edit(func(e []audit.Entry) []audit.Entry { e[3].At = e[3].At.Add(time.Microsecond); return e }), 4},
		"moved boundary": {edit(func(e []audit.Entry) []audit.Entry {
			e[2].Action, e[2].Subject = e[2].Action+e[2].Subject[:1], e[2].Subject[1:]
			return e
		}), 3},
		"altered and rehashed": {edit(func(e []audit.Entry) []audit.Entry { e[2].Detail = "x"; e[2].Hash = e[2].Sum(); return e }), 4},
	} {
		_, err := audit.Verify(seq(c.entries), nil)
		var broken *audit.BrokenChainError
		if !errors.As(err, &broken) || broken.Seq != c.at {
			t.Errorf("%s: got %v, want a break at entry %d", name, err, c.at)
		}
	}
}

func TestCheckpointRoundTripAndForgery(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(nil)
	entries := chain(3)
	c := audit.Sign(audit.Head{Seq: 3, Hash: entries[2].Hash}, time.Unix(1_800_000_000, 0), key)
	back, err := audit.ParseCheckpoint(c.String())
	if err != nil || !back.Valid(pub) || back.Head != c.Head {
		t.Fatalf("round trip: %v %v", back, err)
	}
	back.Seq = 2
	if back.Valid(pub) {
		t.Error("a checkpoint moved to another position is still valid")
	}
	if _, other, _ := ed25519.GenerateKey(nil); audit.Sign(c.Head, c.At, other).Valid(pub) {
		t.Error("a checkpoint of another key is valid")
	}
	for _, bad := range []string{"", "1 2 3", "x " + entries[0].Hash.String() + " 2026-01-01T00:00:00Z AA==", "1 zz 2026-01-01T00:00:00Z AA=="} {
		if _, err := audit.ParseCheckpoint(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}
