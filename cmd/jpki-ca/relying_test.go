package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm/signer"
)

// A softKey is a key that signs in memory.
type softKey struct{ *ecdsa.PrivateKey }

func (k softKey) Public() crypto.PublicKey { return k.PrivateKey.Public() }

func (k softKey) Sign(_ context.Context, _ signer.Scheme, h crypto.Hash, digest []byte) ([]byte, error) {
	return k.PrivateKey.Sign(rand.Reader, digest, h)
}

// TestKeysUsed: what the signer counted is put into the audit record each time that it has changed, and only then.
func TestKeysUsed(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "keys") // short: a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	meter, err := signer.OpenMeter(filepath.Join(dir, "usage"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = meter.Close() }()
	uid := uint32(os.Getuid())
	server, err := signer.New(signer.Config{Now: time.Now, Usage: meter, Keys: []signer.KeyConfig{{
		Name: "sign-1", Backend: softKey{key}, AtOnce: 1, PerPeer: 10, Verified: 1, Rules: []signer.Rule{{UID: &uid, Purposes: []signer.Purpose{signer.ForOther}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	c := &config{Keys: keys{Certificates: "signer://" + filepath.Join(dir, "s.sock") + "?key={}"}}
	socket, err := c.socket()
	if err != nil || socket != filepath.Join(dir, "s.sock") {
		t.Fatal(socket, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { _, _ = server.Close(), <-served }()
	db, err := store.Create(t.Context(), "sqlite:"+filepath.Join(dir, "ca.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	a := &alone{c: c, db: db, log: slog.New(slog.DiscardHandler), signer: signer.NewClient(socket)}
	defer a.signer.Close()
	audited := func() (n int, ceiling float64) {
		t.Helper()
		for e, err := range db.AuditEntries(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Action == "keys.used" {
				n++
				var detail map[string]any
				if err := json.Unmarshal([]byte(e.Detail), &detail); err != nil {
					t.Fatal(err)
				}
				ceiling, _ = detail["sign_1"].(float64)
			}
		}
		return n, ceiling
	}
	look := func() {
		t.Helper()
		for range 2 {
			if err := a.auditKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	k, err := a.signer.Open(t.Context(), signer.Ref{Socket: socket, Key: "sign-1", Purpose: signer.ForOther, Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("a certificate"))
	if _, err := k.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	look()
	n, ceiling := audited()
	if n != 1 || ceiling < 1 {
		t.Fatalf("%d entries, ceiling %v", n, ceiling)
	}
	if err := meter.Keep(); err != nil {
		t.Fatal(err)
	}
	look()
	if again, _ := audited(); again != 2 {
		t.Errorf("%d entries", again)
	}
	a.signer = nil // keys in files
	look()
}

// TestSocket: which keys have a signer.
func TestSocket(t *testing.T) {
	for uri, want := range map[string]string{"file:/keys/{}.key": "", "signer:///run/s.sock?key={}&purpose=certificate": "/run/s.sock"} {
		if got, err := (&config{Keys: keys{Certificates: uri}}).socket(); got != want || err != nil {
			t.Error(uri, got, err)
		}
	}
	if _, err := (&config{Keys: keys{Certificates: "signer:s.sock?key={}"}}).socket(); err == nil {
		t.Error("no socket, and no error")
	}
}
