package verifier_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

const origin = "https://bank.example"

func session(s string) []byte { return sha256sum([]byte(s)) }

// answer makes what a holder's software sends after it was given a challenge.
func (l leaf) answer(t *testing.T, ch verifier.Challenge) verifier.LoginInput {
	t.Helper()
	hash := crypto.SHA256
	if c := must(x509.ParseCertificate(l.der)); c.PublicKeyAlgorithm == x509.ECDSA && len(c.RawSubjectPublicKeyInfo) > 100 {
		hash = crypto.SHA384
	}
	_, signature := l.sign(t, hash, ch.Message)
	return verifier.LoginInput{ChallengeID: ch.ID, Audience: origin, Binding: session("s"), Certificate: l.der, Signature: signature}
}

func challenge(t *testing.T, v *verifier.Verifier) verifier.Challenge {
	t.Helper()
	ch, err := v.Challenges().NewChallenge(t.Context(), origin, session("s"))
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func TestLogin(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(*testing.T, *world) leaf
		code verifier.Code
		ind  verifier.Indication
		sub  verifier.SubIndication
	}{
		{"good", func(t *testing.T, w *world) leaf { return w.authCert(t) }, verifier.OK, verifier.TotalPassed, ""},
		{"P-256", func(t *testing.T, w *world) leaf { return w.issue(t, w.auth[0], ecKey(elliptic.P256()), likeAuth) }, verifier.OK, verifier.TotalPassed, ""},
		{"P-384", func(t *testing.T, w *world) leaf { return w.issue(t, w.auth[0], ecKey(elliptic.P384()), likeAuth) }, verifier.OK, verifier.TotalPassed, ""},
		{"no extended key usage", func(t *testing.T, w *world) leaf {
			return w.authCert(t, func(c *x509.Certificate) { c.ExtKeyUsage = nil })
		}, verifier.OK, verifier.TotalPassed, ""},
		{"extended key usage without client authentication", func(t *testing.T, w *world) leaf {
			return w.authCert(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} })
		}, verifier.WrongKeyUsage, verifier.Indeterminate, verifier.SubChainConstraintsFailure},
		{"nonRepudiation", func(t *testing.T, w *world) leaf {
			return w.authCert(t, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageContentCommitment })
		}, verifier.WrongKeyUsage, verifier.Indeterminate, verifier.SubChainConstraintsFailure},
		{"signature certificate", func(t *testing.T, w *world) leaf { return w.signCert(t) }, verifier.WrongPurpose, verifier.Indeterminate, verifier.SubChainConstraintsFailure},
		{"revoked", func(t *testing.T, w *world) leaf {
			l := w.authCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.CessationOfOperation, at: t0.Add(-time.Hour)}
			return l
		}, verifier.RevokedCeased, verifier.TotalFailed, verifier.SubRevoked},
		{"suspended", func(t *testing.T, w *world) leaf {
			l := w.authCert(t)
			w.ocsp.statuses[l.serial()] = status{reason: jpki.CertificateHold, at: t0.Add(-time.Hour)}
			return l
		}, verifier.Suspended, verifier.Indeterminate, verifier.SubTryLater},
		{"expired", func(t *testing.T, w *world) leaf {
			return w.authCert(t, func(c *x509.Certificate) { c.NotAfter = t0.Add(-time.Hour) })
		}, verifier.Expired, verifier.TotalFailed, verifier.SubExpired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			v := w.verifier(t)
			res, err := v.Login(t.Context(), tc.make(t, w).answer(t, challenge(t, v)))
			if err != nil {
				t.Fatal(err)
			}
			if res.Code != tc.code || res.Indication != tc.ind || res.SubIndication != tc.sub {
				t.Errorf("verdict %s %s/%s: %+v", res.Code, res.Indication, res.SubIndication, res.Checks)
			}
			if res.Attributes != nil || res.Policy.Name != "jpki-authentication" {
				t.Errorf("attributes %t, policy %s", res.Attributes != nil, res.Policy.Name)
			}
		})
	}
}

// TestLoginAlgorithmEnded: at a log-in it is known that the key was used after its algorithm's end.
func TestLoginAlgorithmEnded(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t, func(c *verifier.Config) { c.Policies[1].Algorithms[0].Until = t0.Add(-time.Second) })
	res, err := v.Login(t.Context(), w.authCert(t).answer(t, challenge(t, v)))
	if err != nil || res.Code != verifier.AlgorithmExpired || res.Indication != verifier.Indeterminate || res.SubIndication != verifier.SubCryptoConstraintsFailure {
		t.Errorf("%v: %s %s/%s", err, res.Code, res.Indication, res.SubIndication)
	}
}

func likeAuth(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtraExtensions = append(c.ExtraExtensions, policiesExtension(cardAuth))
}

// TestLoginSignatures: only a signature over this challenge's message is an answer.
func TestLoginSignatures(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	l := w.authCert(t)
	for name, message := range map[string]func(verifier.Challenge) []byte{
		"another challenge": func(verifier.Challenge) []byte { return challenge(t, v).Message },
		"the nonce alone":   func(ch verifier.Challenge) []byte { return ch.Nonce },
		"without prefix":    func(ch verifier.Challenge) []byte { return bytes.TrimLeft(ch.Message, " ") },
	} {
		ch := challenge(t, v)
		in := l.answer(t, verifier.Challenge{ID: ch.ID, Message: message(ch)})
		res, err := v.Login(t.Context(), in)
		if err != nil || res.Code != verifier.DigestMismatch {
			t.Errorf("%s: %v %+v", name, err, res)
		}
	}
	// What a caller does to its copy does not change what is expected.
	ch := challenge(t, v)
	in := l.answer(t, ch)
	clear(ch.Message)
	if res, err := v.Login(t.Context(), in); err != nil || !res.OK() {
		t.Errorf("after the caller's change: %v %+v", err, res)
	}
}

func TestChallengeUse(t *testing.T) {
	w := newWorld(t)
	l := w.authCert(t)
	for _, tc := range []struct {
		name  string
		spoil func(*verifier.LoginInput)
		wait  time.Duration
		ok    bool
	}{
		{"in time", func(*verifier.LoginInput) {}, 59 * time.Second, true},
		{"late", func(*verifier.LoginInput) {}, time.Minute, false},
		{"other audience", func(in *verifier.LoginInput) { in.Audience = "https://bank.example.evil" }, 0, false},
		{"other session", func(in *verifier.LoginInput) { in.Binding = session("t") }, 0, false},
		{"no session", func(in *verifier.LoginInput) { in.Binding = nil }, 0, false},
		{"unknown", func(in *verifier.LoginInput) { in.ChallengeID = "AAAAAAAAAAAAAAAAAAAAAA" }, 0, false},
		{"empty", func(in *verifier.LoginInput) { in.ChallengeID = "" }, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.now = t0
			v := w.verifier(t)
			good := l.answer(t, challenge(t, v))
			in := good
			tc.spoil(&in)
			w.now = t0.Add(tc.wait)
			res, err := v.Login(t.Context(), in)
			if tc.ok != (err == nil && res.OK()) || !tc.ok && !errors.Is(err, jpki.ChallengeInvalid) {
				t.Errorf("result %+v, error %v", res, err)
			}
			// A second use fails, even with everything right this time.
			if in.ChallengeID != good.ChallengeID {
				return
			}
			if res, err := v.Login(t.Context(), good); !errors.Is(err, jpki.ChallengeInvalid) {
				t.Errorf("second use: result %+v, error %v", res, err)
			}
		})
	}
	v := w.verifier(t)
	for _, in := range []verifier.LoginInput{{Certificate: []byte{1}}, {Signature: []byte{1}}} {
		if _, err := v.Login(t.Context(), in); !errors.Is(err, jpki.Malformed) {
			t.Errorf("misuse: %v", err)
		}
	}
	none := w.verifier(t, func(c *verifier.Config) { c.Challenges = nil })
	if _, err := none.Login(t.Context(), verifier.LoginInput{Certificate: []byte{1}, Signature: []byte{1}}); err == nil {
		t.Error("no store, no error")
	}
}

// TestChallengeOnce: of many simultaneous uses, one succeeds.
func TestChallengeOnce(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t, func(c *verifier.Config) {
		c.Revocation = checkerFunc(func() (verifier.Revocation, error) {
			return verifier.Revocation{State: jpki.Good, ThisUpdate: t0, CheckedAt: t0}, nil
		})
	})
	in := w.authCert(t).answer(t, challenge(t, v))
	var good, refused atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			switch res, err := v.Login(context.Background(), in); {
			case err == nil && res.OK():
				good.Add(1)
			case errors.Is(err, jpki.ChallengeInvalid):
				refused.Add(1)
			}
		})
	}
	wg.Wait()
	if good.Load() != 1 || refused.Load() != 31 {
		t.Errorf("%d good, %d refused", good.Load(), refused.Load())
	}
}

func TestChallengeMessage(t *testing.T) {
	w := newWorld(t)
	ch := challenge(t, w.verifier(t))
	rest, ok := bytes.CutPrefix(ch.Message, []byte(strings.Repeat(" ", 64)+"JPKI log-in challenge, version 1\x00"))
	if !ok {
		t.Fatalf("prefix of %q", ch.Message)
	}
	s := cryptobyte.String(rest)
	var audience, id, nonce, binding cryptobyte.String
	var expires uint64
	if !s.ReadUint16LengthPrefixed(&audience) || !s.ReadUint16LengthPrefixed(&id) || !s.ReadUint16LengthPrefixed(&nonce) ||
		!s.ReadUint16LengthPrefixed(&binding) || !s.ReadUint64(&expires) || !s.Empty() {
		t.Fatal("not of the documented form")
	}
	if string(audience) != origin || string(id) != ch.ID || !bytes.Equal(nonce, ch.Nonce) || len(nonce) != 32 || !bytes.Equal(binding, session("s")) ||
		!time.Unix(int64(expires), 0).Equal(ch.ExpiresAt) || !ch.ExpiresAt.Equal(t0.Add(time.Minute)) {
		t.Errorf("audience %s, id %s, expires %d", audience, id, expires)
	}
}

func TestChallengesBounded(t *testing.T) {
	now := t0
	c, err := verifier.NewChallenges(verifier.ChallengesConfig{Now: func() time.Time { return now }, Rand: rand.Reader, Max: 3})
	if err != nil {
		t.Fatal(err)
	}
	open := func() error { _, err := c.NewChallenge(t.Context(), origin, nil); return err }
	for range 3 {
		if err := open(); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(); !errors.Is(err, jpki.RateLimited) {
		t.Errorf("fourth: %v", err)
	}
	now = now.Add(time.Minute)
	if err := open(); err != nil {
		t.Errorf("after the others expired: %v", err)
	}
	for name, err := range map[string]error{
		"empty audience": second(c.NewChallenge(t.Context(), "", nil)),
		"long audience":  second(c.NewChallenge(t.Context(), strings.Repeat("a", 256), nil)),
		"line in it":     second(c.NewChallenge(t.Context(), "a\nb", nil)),
		"Japanese in it": second(c.NewChallenge(t.Context(), "銀行", nil)),
		"binding of 31":  second(c.NewChallenge(t.Context(), origin, make([]byte, 31))),
	} {
		if !errors.Is(err, jpki.Malformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.NewChallenge(ctx, origin, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for name, cfg := range map[string]verifier.ChallengesConfig{
		"Now": {Rand: rand.Reader}, "Rand": {Now: time.Now}, "TTL": {Now: time.Now, Rand: rand.Reader, TTL: time.Hour}, "Max": {Now: time.Now, Rand: rand.Reader, Max: -1},
	} {
		if _, err := verifier.NewChallenges(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
