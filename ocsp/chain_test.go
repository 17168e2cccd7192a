package ocsp_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// A key that counts, waits, fails or lies before it signs.
type key struct {
	crypto.Signer
	n     atomic.Int64
	wait  atomic.Pointer[chan struct{}]
	fails atomic.Bool
	lies  atomic.Bool
	panic atomic.Bool
}

func (k *key) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.n.Add(1)
	if c := k.wait.Load(); c != nil {
		<-*c
	}
	switch {
	case k.panic.Load():
		panic("an HSM's library")
	case k.fails.Load():
		return nil, errors.New("the HSM is away")
	case k.lies.Load():
		digest = bytes.Clone(digest)
		digest[0] ^= 1
	}
	return k.Signer.Sign(r, digest, opts)
}

func (k *key) hold() (release func()) {
	c := make(chan struct{})
	k.wait.Store(&c)
	return sync.OnceFunc(func() { k.wait.Store(nil); close(c) })
}

// exchange asks about one certificate of the first generation and checks a successful answer.
func (w *world) exchange(ctx context.Context, t testing.TB, hash crypto.Hash, nonce []byte, serials ...jpki.Serial) *ocsp.Response {
	t.Helper()
	der := must(must(ocsp.NewRequest(w.first.cert, hash, nonce, serials...)).Marshal())
	return w.check(t, w.responder.Exchange(ctx, &ocsp.Query{Request: der}), nonce)
}

func (w *world) check(t testing.TB, reply ocsp.Reply, nonce []byte) *ocsp.Response {
	t.Helper()
	if reply.Code != 200 || !strings.HasPrefix(string(reply.Head), "Content-Type: application/ocsp-response\r\n") || !bytes.HasSuffix(reply.Head, []byte("\r\n")) {
		t.Errorf("code %d, head %q", reply.Code, reply.Head)
	}
	r, err := ocsp.ParseResponse(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	if stored := strings.Contains(string(reply.Head), "no-store"); stored == (r.Status == ocsp.Successful) {
		t.Errorf("%v with head %q", r.Status, reply.Head)
	}
	if r.Status == ocsp.Successful {
		if err := r.Verify(ocsp.VerifyOptions{Issuer: w.first.cert, At: w.clock.now(), Nonce: nonce}); err != nil {
			t.Error(err)
		}
	}
	return r
}

func (w *world) says(t testing.TB, serial jpki.Serial) string {
	t.Helper()
	r := w.exchange(t.Context(), t, crypto.SHA256, nil, serial)
	if r.Status != ocsp.Successful {
		return r.Status.String()
	}
	return answer(must(r.Answer(w.first.cert, serial)))
}

func (w *world) sources(t testing.TB, want map[string]uint64) {
	t.Helper()
	if d := cmp.Diff(want, w.responder.Sources()); d != "" {
		t.Errorf("sources (-want +got):\n%s", d)
	}
}

// settle waits for what goes on in the background.
func settle(t testing.TB, done func() bool) {
	t.Helper()
	for range 5000 {
		if done() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it does not come to an end")
}

func withKey(k *key) option {
	return func(w *world, c *ocsp.Config) {
		c.Delegates[0] = w.first.delegate(k)
		w.delegates[0] = c.Delegates[0]
	}
}

// Whoever asks the same gets the same octets; whoever asks it in another way does not.
func TestKeptAnswers(t *testing.T) {
	near := new(shelf)
	w := newWorld(t, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Near = near })
	first := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good)
	if again := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good); !bytes.Equal(first.Raw, again.Raw) {
		t.Error("signed anew")
	}
	for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA384} {
		if r := w.exchange(t.Context(), t, hash, nil, w.good); r.Answers[0].CertID.Hash != hash {
			t.Errorf("asked with %v, answered with %v", hash, r.Answers[0].CertID.Hash)
		}
	}
	own := must(ocsp.NewCertID(w.first.cert, crypto.SHA1, w.good))
	bare := seq(seq(sha1OID), octets(own.NameHash), octets(own.KeyHash), integer(w.good.Bytes()...))
	r := w.check(t, w.responder.Exchange(t.Context(), &ocsp.Query{Request: request([][]byte{bare})}), nil)
	if !bytes.Equal(r.Answers[0].CertID.Raw, bare) {
		t.Error("the CertID without NULL is not echoed")
	}
	w.sources(t, map[string]uint64{"near": 1, "signed": 4})
	// Nothing is kept of what nobody else can use or what there is no end of.
	w.exchange(t.Context(), t, crypto.SHA256, []byte("nonce"), w.good)
	w.exchange(t.Context(), t, crypto.SHA256, nil, w.never)
	w.exchange(t.Context(), t, crypto.SHA256, nil, w.good, w.hold)
	if near.len() != 4 {
		t.Errorf("%d answers are kept", near.len())
	}
	w.sources(t, map[string]uint64{"near": 1, "signed": 7})
}

// A slow key of an earlier version ends its signature after the suspension is known: nobody ever sees it.
func TestSlowSignerOfAnEarlierVersion(t *testing.T) {
	k := &key{Signer: p256()}
	near, far := new(shelf), new(shelf)
	w := newWorld(t, p256(), p256(), p256(), now, withKey(k), func(_ *world, c *ocsp.Config) { c.Near, c.Far = near, []ocsp.Shelf{far} })
	release := k.hold()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	before := k.n.Load()
	wg.Go(func() {
		if r := w.exchange(ctx, t, crypto.SHA256, nil, w.good); r.Status != ocsp.TryLater {
			t.Errorf("given up: %v", r.Status)
		}
	})
	settle(t, func() bool { return k.n.Load() > before })
	cancel() // the client hangs up: the signature goes on
	wg.Wait()
	w.log.add(w.first, w.good, jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Since: now.Truncate(time.Second), Version: 2})
	w.clock.advance(1100 * time.Millisecond)
	var late sync.WaitGroup
	late.Go(func() {
		if s := w.says(t, w.good); s != "revoked" {
			t.Error(s)
		}
	})
	settle(t, func() bool { return k.n.Load() > before+1 })
	release()
	late.Wait()
	settle(t, func() bool { return near.len() == 2 && far.len() == 2 }) // the good one has landed too
	for range 3 {
		if s := w.says(t, w.good); s != "revoked" {
			t.Error(s)
		}
	}
}

// Every way in which a shelf outside can be wrong ends in a new signature, never in its answer.
func TestFarShelfLies(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	for _, mode := range []struct {
		name   string
		secret []byte
	}{{"MAC", secret}, {"signature", nil}} {
		t.Run(mode.name, func(t *testing.T) {
			for name, lie := range map[string]func(w *world, far *shelf, key string, value []byte) ([]byte, bool){
				"empty":     func(*world, *shelf, string, []byte) ([]byte, bool) { return nil, true },
				"truncated": func(_ *world, _ *shelf, _ string, v []byte) ([]byte, bool) { return v[:len(v)-1], true },
				"other certificate": func(_ *world, far *shelf, key string, v []byte) ([]byte, bool) {
					for k, other := range far.values {
						if k != key {
							return other, true
						}
					}
					return v, true
				},
				// Somebody who can write to the shelf puts the good answer where the one of the suspension is looked for.
				"other under this key": func(_ *world, far *shelf, key string, v []byte) ([]byte, bool) {
					for k, other := range far.values {
						if k != key {
							return append([]byte{2}, append([]byte(key), other[1+len(key):]...)...), true
						}
					}
					return v, true
				},
				"longer life": func(_ *world, _ *shelf, key string, v []byte) ([]byte, bool) {
					v = bytes.Clone(v)
					v[1+len(key)+8+5]++
					return v, true
				},
			} {
				far := new(shelf)
				w := newWorld(t, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Far, c.Secret = []ocsp.Shelf{far}, mode.secret })
				if w.says(t, w.good) != "good" || w.says(t, w.hold) != "revoked" {
					t.Fatal("no answers")
				}
				far.get = func(key string, v []byte, ok bool) ([]byte, bool) {
					if !ok {
						t.Error("the shelf is empty")
						return nil, false
					}
					return lie(w, far, key, v)
				}
				if g, h := w.says(t, w.good), w.says(t, w.hold); g != "good" || h != "revoked" {
					t.Errorf("%s: %s, %s", name, g, h)
				}
				w.sources(t, map[string]uint64{"signed": 4, "farRefused": 2})
			}
			// No octet may be changed.
			far := new(shelf)
			w := newWorld(t, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Far, c.Secret = []ocsp.Shelf{far}, mode.secret })
			first := w.exchange(t.Context(), t, crypto.SHA256, nil, w.hold)
			at, size := 0, 0
			far.get = func(_ string, v []byte, ok bool) ([]byte, bool) {
				v = bytes.Clone(v)
				size = len(v)
				v[at] ^= 1
				return v, ok
			}
			far.put = func(key string, _ []byte) []byte { return far.values[key] } // keeps the first
			for at = 0; at == 0 || at < size; at++ {
				if mode.secret == nil && at >= size-32 {
					break // where the MAC would be
				}
				if r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.hold); r.Status != ocsp.Successful || bytes.Equal(r.Raw, first.Raw) {
					t.Errorf("octet %d of %d: %v", at, size, r.Status)
				}
			}
			far.get, far.put = nil, nil
			if r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.hold); !bytes.Equal(r.Raw, first.Raw) {
				t.Error("what is right is not believed either")
			}
		})
	}
}

// Two responders share a key, a secret and a shelf; one with another secret is not believed.
func TestFarShelfIsShared(t *testing.T) {
	far := new(shelf)
	k := p256()
	w := newWorld(t, p256(), p256(), k, now, func(_ *world, c *ocsp.Config) { c.Far, c.Secret = []ocsp.Shelf{far}, bytes.Repeat([]byte{7}, 32) })
	one := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good)
	other := func(secret []byte) *ocsp.Responder {
		return must(ocsp.New(ocsp.Config{
			Delegates: w.delegates, Now: w.clock.now, Near: new(shelf), Far: []ocsp.Shelf{far}, Secret: secret,
			Statuses: statusesFunc(func(context.Context, jpki.CertID) (jpki.Status, time.Time, error) {
				return jpki.Status{State: jpki.Good, Since: now.Add(-3 * time.Hour), Version: 1}, now, nil
			}),
		}))
	}
	der := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal())
	friend := other(bytes.Repeat([]byte{7}, 32))
	for range 2 { // from outside, then from its own
		if r := friend.Exchange(t.Context(), &ocsp.Query{Request: der}); !bytes.Equal(r.Body, one.Raw) {
			t.Error("the shelf is not shared")
		}
	}
	if d := cmp.Diff(map[string]uint64{"far": 1, "near": 1}, friend.Sources()); d != "" {
		t.Error(d)
	}
	stranger := other(bytes.Repeat([]byte{8}, 32))
	if r := stranger.Exchange(t.Context(), &ocsp.Query{Request: der}); bytes.Equal(r.Body, one.Raw) || stranger.Sources()["farRefused"] != 1 {
		t.Error("a stranger's answer is served")
	}
}

// A shelf that hangs costs time, not the answer.
func TestFarShelfHangs(t *testing.T) {
	far := &shelf{slow: make(chan struct{})}
	w := newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) { c.Far, c.Late = []ocsp.Shelf{far}, 200*time.Millisecond })
	if s := w.says(t, w.good); s != "good" {
		t.Error(s)
	}
	w.sources(t, map[string]uint64{"signed": 1})
}

// A near shelf that mixes up its keys is not believed.
func TestNearShelfMixesUp(t *testing.T) {
	near := new(shelf)
	w := newWorld(t, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Near = near })
	w.says(t, w.good)
	var good []byte
	for _, v := range near.values {
		good = v
	}
	for name, v := range map[string][]byte{"another's": good, "empty": {}, "short": good[:80], "head beyond its end": append(bytes.Clone(good[:90]), 0xff, 0xff, 1)} {
		near.get = func(string, []byte, bool) ([]byte, bool) { return v, true }
		if s := w.says(t, w.hold); s != "revoked" {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// Many who ask the same at once share one signature.
func TestOneSignatureForAll(t *testing.T) {
	k := &key{Signer: p256()}
	w := newWorld(t, p256(), p256(), p256(), now, withKey(k), withNear, func(_ *world, c *ocsp.Config) { c.Late = time.Minute })
	release, before := k.hold(), k.n.Load()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if s := w.says(t, w.good); s != "good" {
				t.Error(s)
			}
		})
	}
	settle(t, func() bool { return w.responder.Sources()["shared"] == 49 })
	release()
	wg.Wait()
	if n := k.n.Load() - before; n != 1 {
		t.Errorf("%d signatures", n)
	}
}

// A key that hangs: what is kept is served, the rest is told to try later, at once when too many wait already.
func TestKeyHangs(t *testing.T) {
	k := &key{Signer: p256()}
	w := newWorld(t, p256(), p256(), p256(), now, withKey(k), withNear, func(_ *world, c *ocsp.Config) {
		c.MaxSigning, c.MaxWaiting, c.Late = 2, 4, 300*time.Millisecond
	})
	w.says(t, w.good)
	release := k.hold()
	defer release()
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			var nonce []byte
			if i%2 == 0 {
				nonce = []byte("nonce")
			}
			if r := w.exchange(t.Context(), t, crypto.SHA256, nonce, w.hold); r.Status != ocsp.TryLater {
				t.Error(r.Status)
			}
		})
	}
	wg.Wait()
	if s := w.says(t, w.good); s != "good" {
		t.Errorf("what is kept: %s", s)
	}
	out := w.responder.Outcomes()
	if out["tryLater"] != 12 || out["busy"] == 0 || out["late"] == 0 {
		t.Error(out)
	}
	release()
	settle(t, func() bool { return w.says(t, w.hold) == "revoked" })
}

func TestKeyFails(t *testing.T) {
	k := &key{Signer: p256()}
	w := newWorld(t, p256(), p256(), p256(), now, withKey(k), withNear)
	w.says(t, w.good)
	k.fails.Store(true)
	if s := w.says(t, w.hold); s != "tryLater" {
		t.Errorf("cannot sign: %s", s)
	}
	w.clock.advance(200 * time.Second) // the answer is to be signed anew, and there is time to try
	if s := w.says(t, w.good); s != "good" {
		t.Errorf("kept, to be renewed: %s", s)
	}
	w.clock.advance(95 * time.Second) // nobody may keep it any more, but it holds
	reply := w.responder.Exchange(t.Context(), &ocsp.Query{Request: must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.good)).Marshal())})
	if !strings.Contains(string(reply.Head), "max-age=2,") || statusOf(t, reply.Body) != ocsp.Successful {
		t.Errorf("in the last seconds: %q", reply.Head)
	}
	w.clock.advance(6 * time.Second)
	if s := w.says(t, w.good); s != "tryLater" {
		t.Errorf("ended: %s", s)
	}
	k.fails.Store(false)
	k.lies.Store(true)
	if s := w.says(t, w.hold); s != "internalError" {
		t.Errorf("a key that lies: %s", s)
	}
	k.lies.Store(false)
	k.panic.Store(true)
	if s := w.says(t, w.hold); s != "internalError" {
		t.Errorf("a key that panics: %s", s)
	}
	if r := w.exchange(t.Context(), t, crypto.SHA256, []byte("nonce"), w.hold); r.Status != ocsp.InternalError {
		t.Errorf("a key that panics, with a nonce: %v", r.Status)
	}
	k.panic.Store(false)
	if s := w.says(t, w.hold); s != "revoked" {
		t.Errorf("afterwards: %s", s)
	}
}

// A clock that was set back does not make answers of the future be served.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t, p256(), p256(), p256(), now, withNear)
	w.says(t, w.hold)
	w.clock.advance(-time.Minute)
	r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.hold)
	for _, a := range r.Answers {
		if a.ThisUpdate.After(w.clock.now()) {
			t.Error("of the future")
		}
	}
}

// manyStatuses counts how often the log would have been read: for what is not known yet at the time of arrival.
type manyStatuses struct {
	statusesFunc
	view  time.Time
	reads int
}

func (m *manyStatuses) StatusAt(ctx context.Context, id jpki.CertID, arrived time.Time) (jpki.Status, time.Time, error) {
	st, _, err := m.statusesFunc(ctx, id)
	if err != nil && m.view.Before(arrived) {
		m.view = arrived
		m.reads++
	}
	return st, m.view, err
}

func TestManyStatuses(t *testing.T) {
	var w *world
	many := &manyStatuses{view: now.Add(-time.Second), statusesFunc: func(_ context.Context, id jpki.CertID) (jpki.Status, time.Time, error) {
		switch id.Serial {
		case w.good:
			return jpki.Status{State: jpki.Good, Version: 1}, now, nil
		case w.hold:
			return jpki.Status{State: jpki.Suspended, Reason: jpki.CertificateHold, Since: w.sinceHold, Version: 2}, now, nil
		case w.discarded:
			return jpki.Status{State: "dormant"}, now, nil
		}
		return jpki.Status{}, now, jpki.UnknownCertificate
	}}
	w = newWorld(t, p256(), p256(), p256(), now, func(_ *world, c *ocsp.Config) { c.Statuses = many })
	r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good, w.never, w.hold, w.never, newSerial())
	var got []string
	for _, a := range r.Answers {
		got = append(got, answer(a))
		if want := now.Add(-time.Second).Truncate(time.Second); !a.ThisUpdate.Equal(want) {
			t.Errorf("this update %v", a.ThisUpdate)
		}
	}
	if d := cmp.Diff([]string{"good", "unknown", "revoked", "unknown", "unknown"}, got); d != "" || many.reads != 1 {
		t.Errorf("%d reads\n%s", many.reads, d)
	}
	if r := w.exchange(t.Context(), t, crypto.SHA256, nil, w.good, w.discarded); r.Status != ocsp.InternalError {
		t.Errorf("state of tomorrow: %v", r.Status)
	}
}

// Every signature of a key that is not in our own memory is checked.
func TestWrongSignaturesAreFound(t *testing.T) {
	k := &key{Signer: p256()}
	w := newWorld(t, p256(), p256(), p256(), now, withKey(k))
	k.lies.Store(true)
	for range 3 {
		if s := w.says(t, w.good); s != "internalError" {
			t.Error(s)
		}
	}
	if n := w.responder.Outcomes()["signedWrong"]; n != 3 {
		t.Errorf("signedWrong %d", n)
	}
}
