package main

import (
	"crypto"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/signer"
)

// When a token has been away for long, who asks hears so at once; who asked before goes on waiting, and is answered when
// the token is back, as everybody is then.
func TestTokenAwayForLong(t *testing.T) {
	s := newStage(t, "a")
	oneKey(t, "", s)
	path := filepath.Join(s.dir, "signer.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "give_up: 3s\n"+string(text))
	s.start()
	key, err := hsm.Open(t.Context(), s.uri("k", signer.ForCertificate, time.Minute))
	if err != nil {
		t.Fatalf("%v\n%s", err, s.logged())
	}
	sign := func(k crypto.Signer) error { _, err := k.Sign(rand.Reader, digest[:], crypto.SHA256); return err }
	first, err := hsm.Open(t.Context(), s.uri("k", signer.ForOther, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	counts := signer.NewClient(filepath.Join(s.dir, "s.sock"))
	defer counts.Close()
	begun := func() (n uint64) { // requests of first's that have a place at the token, as the record of use counts them
		var r signer.Record
		if text, err := counts.Usage(t.Context()); err != nil || json.Unmarshal(text, &r) != nil {
			t.Fatal(err)
		}
		return r.Keys["k"].Used["other"]
	}
	for round := range uint64(2) { // it opens, closes, and opens again
		rename(t, s.store.Tokens(), s.store.Tokens()+".away")
		s.eventually("notice", func() bool { code, _ := s.get("/readyz"); return code == 503 })
		early := make(chan error, 1)
		go func() { early <- sign(first) }()
		s.eventually("that it waits", func() bool { return begun() == round+1 })
		s.eventually("that waiting is given up", func() bool {
			impatient, err := hsm.Open(t.Context(), s.uri("k", signer.ForCertificate, 200*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err = sign(impatient)
			return jpki.ProblemOf(err) == jpki.Unavailable && time.Since(began) < 100*time.Millisecond
		})
		for range 10 { // each could wait for a minute: the test would not live to see it
			if err := sign(key); jpki.ProblemOf(err) != jpki.Unavailable || !strings.Contains(err.Error(), "unavailable") {
				t.Errorf("after the token was away for long: %v", err)
			}
		}
		select {
		case err := <-early:
			t.Errorf("a request that waited since before was given up: %v", err)
		default:
		}
		rename(t, s.store.Tokens()+".away", s.store.Tokens())
		if err := <-early; err != nil {
			t.Errorf("a request that waited since before: %v", err)
		}
		if err := sign(key); err != nil {
			t.Errorf("after the token's return: %v", err)
		}
	}
	s.stop()
}

// A token's key of another algorithm than the configuration's is not signed with, whoever asks, and one line says why.
func TestOtherAlgorithm(t *testing.T) {
	s := newStage(t, "a")
	oneKey(t, "", s)
	uri := s.store.URI("a", "k")
	s.configure(entry("k", "p-256", everything(), uri))
	s.start()
	right := s.open("k")
	// While the key is known: the configuration is refused, and the one before stays in force.
	s.configure(entry("k", "p-384", everything(), uri))
	config := filepath.Join(s.dir, "signer.yaml")
	if out, code := s.call("-config", config, "-reload"); code == 0 || !strings.Contains(out, "key k: it is p-256 and not p-384") {
		t.Errorf("-reload: %d %s", code, out)
	}
	if _, err := right.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Error(err)
	}
	s.stop()
	// From the start.
	out, code := s.call("-config", config, "-check")
	if code == 0 || strings.Count(strings.TrimSpace(out), "\n") != 0 || !strings.Contains(out, "key k: it is p-256 and not p-384") {
		t.Errorf("-check: %d %s", code, out)
	}
	s.start()
	s.eventually("notice", func() bool { return strings.Contains(s.logged(), "it is p-256 and not p-384") })
	s.eventually("unreadiness", func() bool {
		code, body := s.get("/readyz")
		return code == 503 && strings.Contains(body, "no token signs with k")
	})
	if _, err := hsm.Open(t.Context(), s.uri("k", signer.ForCertificate, 50*time.Millisecond)); jpki.ProblemOf(err) != jpki.Unavailable {
		t.Errorf("opened: %v", err)
	}
	s.stop()
	// Beside a key that is right.
	s.configure(entry("k", "p-384", everything(), uri), entry("l", "p-256", everything(), uri))
	s.start()
	if _, err := s.open("l").Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Error(err)
	}
	s.stop()
}
