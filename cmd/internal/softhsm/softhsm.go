// Package softhsm sets up SoftHSM tokens, for the sandbox, tests and benchmarks: nothing here is for production.
//
// A [Store] is a folder with SoftHSM's configuration and tokens, which softhsm2-util makes. It signs nothing (see hsm/pkcs11).
// Start at Make.
package softhsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// modules are where distributions put the library; SOFTHSM2_MODULE in the environment comes first.
var modules = []string{
	"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/usr/lib/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so",
}

// ErrMissing says that SoftHSM is not installed.
var ErrMissing = errors.New("SoftHSM is not installed (Debian: softhsm2)")

// Module returns the path of the library.
func Module() (string, error) {
	if _, err := exec.LookPath("softhsm2-util"); err != nil {
		return "", ErrMissing
	}
	for _, path := range append([]string{os.Getenv("SOFTHSM2_MODULE")}, modules...) {
		if _, err := os.Stat(path); path != "" && err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// A Store is a folder with tokens.
type Store struct {
	Folder string // absolute
	Module string // the library's path
}

// Make makes a store in a folder, or finds the one that is there.
func Make(folder string) (Store, error) {
	module, err := Module()
	if err != nil {
		return Store{}, err
	}
	s := Store{Folder: folder, Module: module}
	if err := os.MkdirAll(s.Tokens(), 0o700); err != nil {
		return Store{}, err
	}
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", s.Tokens())
	return s, os.WriteFile(s.config(), []byte(text), 0o600)
}

func (s Store) config() string { return filepath.Join(s.Folder, "softhsm2.conf") }

// Tokens is the folder in which each token has one of its own.
func (s Store) Tokens() string { return filepath.Join(s.Folder, "tokens") }

// Env is what processes that load the library need in their environment.
func (s Store) Env() string { return "SOFTHSM2_CONF=" + s.config() }

func (s Store) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "softhsm2-util", args...) //nolint:gosec // fixed arguments and names of our own
	cmd.Env = append(os.Environ(), s.Env())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("softhsm2-util %s: %w: %s", args[0], err, out)
	}
	return nil
}

// Init makes a token and the file that holds its PIN, with the token's label as its name.
func (s Store) Init(ctx context.Context, label, pin string) error {
	if err := s.run(ctx, "--init-token", "--free", "--label", label, "--so-pin", pin, "--pin", pin); err != nil {
		return err
	}
	return os.WriteFile(s.PINFile(label), []byte(pin+"\n"), 0o600)
}

// PINFile is the file with a token's PIN.
func (s Store) PINFile(label string) string { return filepath.Join(s.Folder, label+".pin") }

// Import puts a key of a PKCS #8 file onto a token.
func (s Store) Import(ctx context.Context, label, pin, file, name, id string) error {
	return s.run(ctx, "--import", file, "--token", label, "--pin", pin, "--label", name, "--id", id)
}

// URI is the PKCS #11 URI of a key.
func (s Store) URI(label, name string) string {
	return fmt.Sprintf("pkcs11:token=%s;object=%s?module-path=%s&pin-source=file:%s", label, name, s.Module, s.PINFile(label))
}
