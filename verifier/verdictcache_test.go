package verifier_test

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

// A teller is a checker that says what it is told, and counts.
type teller struct {
	mu    sync.Mutex
	says  func(leaf, issuer *x509.Certificate) (verifier.Revocation, error)
	asked atomic.Int64
}

func (c *teller) Check(_ context.Context, leaf, issuer *x509.Certificate, _ time.Time) (verifier.Revocation, error) {
	c.asked.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.says(leaf, issuer)
}

// TestVerdictCache: each row asks, changes something, and asks again. The source has changed its mind in between; who hears
// the old answer must be entitled to it.
func TestVerdictCache(t *testing.T) {
	w := newWorld(t)
	issuer, other := w.sign[0].cert, w.sign[1].cert
	leaf := must(x509.ParseCertificate(w.signCert(t).der))
	// The other generation, of the same name, issued another certificate under the same number.
	twin := must(x509.ParseCertificate(w.issue(t, w.sign[0], rsaKey(), func(c *x509.Certificate) { likeSign(c); c.SerialNumber = leaf.SerialNumber }).der))

	now := t0
	says := func(state jpki.State, age, left time.Duration) func(*x509.Certificate, *x509.Certificate) (verifier.Revocation, error) {
		return func(*x509.Certificate, *x509.Certificate) (verifier.Revocation, error) {
			r := verifier.Revocation{State: state, ThisUpdate: now.Add(-age), CheckedAt: now, Evidence: []byte("proof")}
			if left != 0 {
				r.NextUpdate = now.Add(left)
			}
			if state == jpki.Revoked {
				at := now.Add(-time.Minute)
				r.Reason, r.RevokedAt = jpki.KeyCompromise, &at
			}
			return r, nil
		}
	}
	good := says(jpki.Good, time.Minute, time.Hour)
	type question struct {
		leaf, issuer *x509.Certificate
		at           time.Duration // from now
		maxAge       time.Duration
	}
	same := question{leaf: leaf, issuer: issuer}
	for _, r := range []struct {
		name   string
		first  func(leaf, issuer *x509.Certificate) (verifier.Revocation, error)
		passes time.Duration // between the questions
		again  question
		asked  int64
	}{
		{"at once", good, 0, same, 1},
		{"just before its time is over", good, 10*time.Minute - 1, same, 1},
		{"when its time is over", good, 10 * time.Minute, same, 2},
		{"the clock was set back", good, -1, same, 2},
		{"the clock was set back a day", good, -24 * time.Hour, same, 2},
		{"nextUpdate has come", says(jpki.Good, time.Minute, 5*time.Minute), 5 * time.Minute, same, 2},
		{"just before nextUpdate", says(jpki.Good, time.Minute, 5*time.Minute), 5*time.Minute - 1, same, 1},
		{"no nextUpdate", says(jpki.Good, time.Minute, 0), 0, same, 2},
		{"the policy wants it fresher", good, time.Minute, question{leaf: leaf, issuer: issuer, maxAge: 90 * time.Second}, 2},
		{"the policy wants it that fresh", good, time.Minute, question{leaf: leaf, issuer: issuer, maxAge: 2 * time.Minute}, 1},
		{"another issuer's key", good, 0, question{leaf: leaf, issuer: other}, 2},
		{"another issuer's certificate of that number", good, 0, question{leaf: twin, issuer: other}, 2},
		{"another certificate of that number", good, 0, question{leaf: twin, issuer: issuer}, 2},
		{"a time in the past", good, 0, question{leaf: leaf, issuer: issuer, at: -time.Hour}, 2},
		{"revoked, for as long as that is kept", says(jpki.Revoked, time.Minute, time.Hour), time.Minute - 1, same, 1},
		{"revoked, and longer", says(jpki.Revoked, time.Minute, time.Hour), time.Minute, same, 2},
		{"unknown, and longer", says(verifier.Unknown, time.Minute, time.Hour), time.Minute, same, 2},
		{"an error", func(*x509.Certificate, *x509.Certificate) (verifier.Revocation, error) {
			return verifier.Revocation{}, errors.New("no answer")
		}, 0, same, 2},
	} {
		t.Run(r.name, func(t *testing.T) {
			now = t0
			source := &teller{says: r.first}
			c := must(verifier.NewVerdictCache(verifier.VerdictCacheConfig{
				Checker: source, Now: func() time.Time { return now }, GoodFor: 10 * time.Minute, BadFor: time.Minute,
			}))
			before, firstErr := c.Check(t.Context(), leaf, issuer, now)
			if firstErr == nil {
				before.Evidence[0]++ // whose copy it is
			}
			now = now.Add(r.passes)
			source.says = says(jpki.Suspended, 0, time.Hour)
			maxAge := r.again.maxAge
			if maxAge == 0 {
				maxAge = time.Hour
			}
			after, err := verifier.CheckFresh(t.Context(), c, r.again.leaf, r.again.issuer, now.Add(r.again.at), maxAge)
			if err != nil {
				t.Fatal(err)
			}
			if n := source.asked.Load(); n != r.asked {
				t.Fatalf("asked %d times, want %d", n, r.asked)
			}
			if want := map[int64]jpki.State{1: before.State, 2: jpki.Suspended}[r.asked]; after.State != want || string(after.Evidence) != "proof" {
				t.Errorf("%s by %q, want %s", after.State, after.Evidence, want)
			}
		})
	}
}

// TestVerdictCachePolicies: policies with another idea of freshness share a cache and each gets what it wants.
func TestVerdictCachePolicies(t *testing.T) {
	w := newWorld(t)
	cache := must(verifier.NewVerdictCache(verifier.VerdictCacheConfig{Checker: w.checker(t), Now: func() time.Time { return w.now }, GoodFor: 30 * time.Minute}))
	easy := w.verifier(t, func(c *verifier.Config) { c.Revocation = cache })
	strict := w.verifier(t, func(c *verifier.Config) {
		c.Revocation = cache
		c.Policies[0].MaxRevocationAge = 15 * 60 // answers are ten minutes old
	})
	l := w.signCert(t)
	in := l.input(t)
	ask := func(v *verifier.Verifier, want verifier.Code, asked int) {
		t.Helper()
		res, err := v.Signature(t.Context(), in)
		if err != nil || res.Code != want || w.ocsp.asked != asked {
			t.Errorf("%v: %s after %d questions, want %s after %d", err, res.Code, w.ocsp.asked, want, asked)
		}
	}
	ask(easy, verifier.OK, 1)
	w.ocsp.statuses[l.serial()] = status{reason: jpki.CertificateHold, at: t0}
	w.now = w.now.Add(5 * time.Minute)
	ask(strict, verifier.OK, 1)
	w.now = w.now.Add(time.Minute)
	ask(strict, verifier.Suspended, 2)
	ask(easy, verifier.Suspended, 3) // what one has learnt, the other hears: the good is gone, and bad is not kept here
	w.ocsp.server.Close()
	ask(easy, verifier.StatusNotEstablished, 3)
}

// TestVerdictCacheWaits: many who ask at once are one question; who leaves does not take the answer from the others; and an
// answer that nobody waited for is not remembered over a later one.
func TestVerdictCacheWaits(t *testing.T) {
	issuer := newAuthority(t, "sign", ecKey(elliptic.P256()), t0).cert
	leaf := issuer
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		slow := askFunc(func(ctx context.Context, _, _ *x509.Certificate, _ time.Time) (verifier.Revocation, error) {
			n := asked.Add(1)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				time.Sleep(time.Minute) // one that does not listen
			}
			r := verifier.Revocation{State: jpki.Good, ThisUpdate: time.Now(), CheckedAt: time.Now(), NextUpdate: time.Now().Add(time.Hour), Source: "first"}
			if n > 1 {
				since := time.Now()
				r.State, r.Reason, r.RevokedAt = jpki.Suspended, jpki.CertificateHold, &since
			}
			return r, nil
		})
		c := must(verifier.NewVerdictCache(verifier.VerdictCacheConfig{Checker: slow, Now: time.Now, GoodFor: time.Hour, BadFor: time.Hour}))
		first, leave := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		var left error
		wait.Go(func() { _, left = c.Check(first, leaf, issuer, time.Now()) })
		synctest.Wait()
		for range 50 {
			wait.Go(func() {
				if r, err := c.Check(t.Context(), leaf, issuer, time.Now()); err != nil || r.State != jpki.Good {
					t.Errorf("%v %v", r.State, err)
				}
			})
		}
		synctest.Wait()
		leave()
		wait.Wait()
		if asked.Load() != 1 || !errors.Is(left, context.Canceled) {
			t.Errorf("asked %d times; who left got %v", asked.Load(), left)
		}

		// Nobody waits any more for the second question; the third overtakes it.
		time.Sleep(2 * time.Hour)
		alone, leave := context.WithCancel(t.Context())
		asked.Store(0)
		wait.Go(func() { _, _ = c.Check(alone, leaf, issuer, time.Now()) })
		synctest.Wait()
		leave()
		wait.Wait()
		if r, err := c.Check(t.Context(), leaf, issuer, time.Now()); err != nil || r.State != jpki.Suspended {
			t.Errorf("%v %v", r.State, err)
		}
		time.Sleep(2 * time.Minute) // the abandoned answer has come: good
		if r, err := c.Check(t.Context(), leaf, issuer, time.Now()); err != nil || r.State != jpki.Suspended || asked.Load() != 2 {
			t.Errorf("an abandoned answer was remembered: %v %v, asked %d times", r.State, err, asked.Load())
		}
		if n := c.Counts(); n["asked"] != 3 || n["waited"] != 50 || n["remembered"] != 1 {
			t.Errorf("counted %v", n)
		}
	})
}

type askFunc func(context.Context, *x509.Certificate, *x509.Certificate, time.Time) (verifier.Revocation, error)

func (f askFunc) Check(ctx context.Context, leaf, issuer *x509.Certificate, at time.Time) (verifier.Revocation, error) {
	return f(ctx, leaf, issuer, at)
}

// TestVerdictCacheBounds: it forgets, and a checker that breaks is an error.
func TestVerdictCacheBounds(t *testing.T) {
	w := newWorld(t)
	issuer := w.sign[1].cert
	source := &teller{says: func(leaf, _ *x509.Certificate) (verifier.Revocation, error) {
		if leaf.SerialNumber.Cmp(big.NewInt(0)) == 0 {
			panic("broken")
		}
		return verifier.Revocation{State: jpki.Good, ThisUpdate: t0, CheckedAt: t0, NextUpdate: t0.Add(time.Hour)}, nil
	}}
	c := must(verifier.NewVerdictCache(verifier.VerdictCacheConfig{Checker: source, Now: func() time.Time { return t0 }, GoodFor: time.Hour, Entries: 8}))
	ask := func(n byte) {
		t.Helper()
		leaf := &x509.Certificate{Raw: []byte{n}, SerialNumber: big.NewInt(int64(n))}
		if _, err := c.Check(t.Context(), leaf, issuer, t0); (err != nil) != (n == 0) {
			t.Errorf("%d: %v", n, err)
		}
	}
	for n := range byte(100) {
		ask(n)
	}
	if verifier.Remembered(c) > 8 {
		t.Errorf("%d entries, 8 admitted", verifier.Remembered(c))
	}
	source.asked.Store(0)
	if ask(99); source.asked.Load() != 0 {
		t.Error("forgot the latest")
	}
	if ask(1); source.asked.Load() != 1 {
		t.Error("remembers the first")
	}
	for name, cfg := range map[string]verifier.VerdictCacheConfig{
		"no checker": {Now: time.Now, GoodFor: 1}, "no clock": {Checker: source, GoodFor: 1}, "no time": {Checker: source, Now: time.Now},
		"two days": {Checker: source, Now: time.Now, GoodFor: 48 * time.Hour}, "bad longer": {Checker: source, Now: time.Now, GoodFor: 1, BadFor: 2},
		"one entry": {Checker: source, Now: time.Now, GoodFor: 1, Entries: 1},
	} {
		if _, err := verifier.NewVerdictCache(cfg); err == nil {
			t.Error(name)
		}
	}
}
