package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
)

// WithAuthority gives f an authority on the database of the sandbox in path, whether that runs or not: for operators, who have
// the database and no station's certificate. A sandbox that runs follows what changes, as it follows its own authority.
func WithAuthority(ctx context.Context, path string, f func(*ca.Authority) error) (err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	d := dir(abs)
	profile, err := d.chooseProfile("")
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, "sqlite:"+d.path("authority", "ca.db"))
	if err != nil {
		return fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, active, err := openGenerations(ctx, db, d)
	if err != nil {
		return err
	}
	authority, err := ca.New(ca.Config{Store: db, Profile: profile.Profile, Issuers: active, StatusURL: "http://127.0.0.1", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	return f(authority)
}
