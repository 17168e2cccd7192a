package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openjpki/jpki"
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
	if s.tenants, err = store.Create(ctx, store.Config{Database: s.dir.verifierDatabase(), MasterKey: key}); err != nil {
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
