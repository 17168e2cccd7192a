package crl_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/openjpki/jpki/crl"
)

// The notes beside published lists tell how far in the log anybody can have read.
func TestPositions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if p, err := crl.Positions(dir); p != 0 || err != nil {
		t.Errorf("of nothing: %d %v", p, err)
	}
	for name, text := range map[string]string{
		"sign-1/.99101.crl.state": "number 5 position 70 base 3 position 2 of 100\n", "sign-1/.full.crl.state": "number 6 position 68 base 3 position 68 of 100\n",
		"auth-1/.h7.crl.state": "number 9 position 71 base 9 position 71 of 100\n", "sign-1/99101.crl": "not a note",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := crl.Positions(dir); p != 71 || err != nil {
		t.Errorf("%d %v, want 71", p, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sign-1", ".x.crl.state"), []byte("who knows"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := crl.Positions(dir); err == nil {
		t.Errorf("%d of a note that is none", p)
	}
}
