package sandbox

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

// The relying party of the sandbox. No organisation has the number.
const (
	bankNumber jpki.CorporateNumber = "9999999999999"
	bankName   string               = "sunabako-bank"
)

// sandboxRate lets load tests through, in requests a second.
const sandboxRate = 1_000_000

// openTenants opens the verifier's store, makes the bank a tenant if it is none, and lets it in with the token in its file, which a
// sandbox of before may have drawn.
func (s *System) openTenants(ctx context.Context) error {
	token, err := openToken(s.dir.path("verifier", "token"))
	if err != nil {
		return err
	}
	s.env.VerifierToken = token
	key, err := s.dir.masterKey()
	if err != nil {
		return err
	}
	database := s.dir.verifierDatabase()
	if s.opt.VerifierDatabase != "" {
		database = s.opt.VerifierDatabase
	}
	if s.tenants, err = store.Create(ctx, store.Config{Database: database, MasterKey: key}); err != nil {
		return err
	}
	err = s.tenants.AddTenant(ctx, store.Tenant{ID: bankNumber, Name: bankName, RetentionDays: store.RetentionDays}, time.Now())
	if err != nil && !errors.Is(err, jpki.Conflict) {
		return err
	}
	c := store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(token))}
	if _, err := s.tenants.AddCredential(ctx, bankNumber, c, store.Scopes(), time.Time{}, time.Now()); err != nil && !errors.Is(err, jpki.Conflict) {
		return err
	}
	return nil
}

// sweepEvidence deletes what is kept no longer.
func (s *System) sweepEvidence(ctx context.Context) error {
	n, err := s.tenants.Sweep(ctx, time.Now())
	if n > 0 {
		s.log.InfoContext(ctx, "evidence deleted, its time being over", slog.Int64("count", n))
	}
	return err
}

func (d dir) verifierDatabase() string { return "sqlite:" + d.path("verifier", "verifier.db") }

// openWatching makes what follows the authority's feed and delivers to the tenants' endpoints.
func (s *System) openWatching() error {
	authority, err := s.env.RelyingParty()
	if err != nil {
		return err
	}
	key, err := s.dir.eventKey()
	if err != nil {
		return err
	}
	events, err := push.NewEvents(s.env.VerifierURL, key)
	if err != nil {
		return err
	}
	if s.follower, err = push.NewFollower(push.FollowerConfig{Store: s.tenants, Feed: authority, Now: time.Now, Log: s.log, Rand: rand.Reader}); err != nil {
		return err
	}
	// The bank's receiver is on this machine.
	if s.pusher, err = push.New(push.Config{Store: s.tenants, Events: events, Now: time.Now, Rand: rand.Reader, Log: s.log, Wake: s.follower.Wake(), Private: true}); err != nil {
		return err
	}
	s.watching = &api.Watching{Authority: authority, Events: events, Changed: s.follower.Changed, Private: true}
	return nil
}

// forgetChanges deletes what tenants were told too long ago.
func (s *System) forgetChanges(ctx context.Context) error {
	for {
		n, err := s.tenants.ForgetChanges(ctx, time.Now().Add(-store.ChangesKept))
		if n == 0 || err != nil {
			return err
		}
	}
}

// eventKey reads the key that signs events, or draws it.
func (d dir) eventKey() (*ecdsa.PrivateKey, error) {
	path := d.path("verifier", "events.key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is no key", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s is no key of events", path)
	}
	return key, nil
}

// masterKey reads the key under which tenants' keys are sealed, or draws it.
func (d dir) masterKey() ([]byte, error) {
	path := d.path("verifier", "master.key")
	key, err := ReadMasterKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		return key, writeFile(path, []byte(hex.EncodeToString(key)+"\n"), 0o600)
	}
	return key, err
}

// ReadMasterKey reads a verifier's master key: a file with 64 hexadecimal digits.
func ReadMasterKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%s does not hold 64 hexadecimal digits", path)
	}
	return key, nil
}

// OpenTenants opens the store of the verifier in the sandbox's directory, whether that runs or not.
func OpenTenants(ctx context.Context, path string) (*store.Store, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d := dir(abs)
	key, err := ReadMasterKey(d.path("verifier", "master.key"))
	if err != nil {
		return nil, fmt.Errorf("read the master key (has the sandbox been started once?): %w", err)
	}
	return store.Open(ctx, store.Config{Database: d.verifierDatabase(), MasterKey: key})
}
