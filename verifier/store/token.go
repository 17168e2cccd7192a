package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A Scope is something a token may be used for.
type Scope string

// The scopes. Whoever may do something may also read policies and trust anchors.
const (
	Verify   Scope = "verify"   // verifications, challenges and log-ins
	Status   Scope = "status"   // certificates' statuses
	Evidence Scope = "evidence" // reading, evaluating anew and deleting evidence
	Watch    Scope = "watch"    // following users
	Consent  Scope = "consent"  // consents, and attributes by consent
	Holder   Scope = "holder"   // holders' records of who used their certificates
)

// Scopes lists every scope.
func Scopes() []Scope { return []Scope{Verify, Status, Evidence, Watch, Consent, Holder} }

// A Credential is what a caller shows, as its SHA-256: a bearer token, or the subject public key info of a TLS client certificate.
type Credential struct {
	Kind string // BearerToken or ClientCertificate
	Hash [sha256.Size]byte
}

// The kinds of credentials.
const (
	BearerToken       = "bearer"
	ClientCertificate = "certificate"
)

// A Token is a credential that a tenant was given. The secret itself is kept nowhere.
type Token struct {
	ID        string // 16 hexadecimal digits, for commands and logs
	Kind      string
	Tenant    jpki.CorporateNumber
	Scopes    []Scope
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
	RevokedAt time.Time // zero: not
}

// Allows reports whether the token has a scope.
func (t *Token) Allows(s Scope) bool { return slices.Contains(t.Scopes, s) }

const selectTokens = `SELECT id, hash, kind, tenant, scopes, created_at, expires_at, revoked_at FROM token` //nolint:gosec // G101: no secret

func scanToken(r scanner) (t Token, err error) {
	var hash []byte
	return scanHashed(r, &hash)
}

func scanHashed(r scanner, hash *[]byte) (t Token, err error) {
	var scopes string
	var created int64
	var expires, revoked sql.NullInt64
	err = r.Scan(&t.ID, hash, &t.Kind, &t.Tenant, &scopes, &created, &expires, &revoked)
	for name := range strings.FieldsSeq(scopes) {
		t.Scopes = append(t.Scopes, Scope(name))
	}
	t.CreatedAt, t.ExpiresAt, t.RevokedAt = fromMicros(created), fromOptional(expires), fromOptional(revoked)
	return t, err
}

// AddToken draws a bearer token for a tenant and returns it with its secret, which is shown this once: 43 characters of base64url
// after "jpki_". expires may be zero. [jpki.Malformed] if a scope is none or expires lies in the past, [jpki.NotFound] if
// there is no such tenant.
func (s *Store) AddToken(ctx context.Context, tenant jpki.CorporateNumber, scopes []Scope, expires, now time.Time) (t Token, secret string, err error) {
	var random [32]byte
	if _, err := io.ReadFull(s.rand, random[:]); err != nil {
		return t, "", fmt.Errorf("draw token: %w", err)
	}
	secret = "jpki_" + base64.RawURLEncoding.EncodeToString(random[:])
	t, err = s.AddCredential(ctx, tenant, Credential{BearerToken, sha256.Sum256([]byte(secret))}, scopes, expires, now)
	return t, secret, err
}

// AddCredential makes what the tenant already holds a token: the key of a client certificate, or a bearer token that was drawn
// elsewhere. One that is known already is a [jpki.Conflict].
func (s *Store) AddCredential(ctx context.Context, tenant jpki.CorporateNumber, c Credential, scopes []Scope, expires, now time.Time) (Token, error) {
	names, err := joinScopes(scopes)
	switch {
	case err != nil:
		return Token{}, err
	case c.Kind != BearerToken && c.Kind != ClientCertificate:
		return Token{}, jpki.Errorf(jpki.Malformed, "a credential is a bearer token or a client certificate")
	case !expires.IsZero() && !expires.After(now):
		return Token{}, jpki.Errorf(jpki.Malformed, "the token would have expired already")
	}
	var id [8]byte
	if _, err := io.ReadFull(s.rand, id[:]); err != nil {
		return Token{}, fmt.Errorf("draw token's identifier: %w", err)
	}
	t := Token{ID: hex.EncodeToString(id[:]), Kind: c.Kind, Tenant: tenant, Scopes: scopes, CreatedAt: now.UTC().Truncate(time.Microsecond), ExpiresAt: expires}
	return t, s.Update(ctx, func(tx *Tx) error {
		switch in, err := tx.Tenant(tenant); {
		case err != nil:
			return err
		case !in.RevokedAt.IsZero():
			return jpki.Errorf(jpki.NotFound, "the tenant is revoked")
		}
		_, err := tx.exec(`INSERT INTO token (id, hash, kind, tenant, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			t.ID, c.Hash[:], c.Kind, string(tenant), names, micros(now), optional(expires))
		if err != nil && s.d.unique(err) {
			return jpki.Errorf(jpki.Conflict, "the token is known already")
		}
		return err
	})
}

// joinScopes writes scopes as they are stored; [jpki.Malformed] if one is none or occurs twice, or there is none.
func joinScopes(scopes []Scope) (string, error) {
	var names []string
	for _, scope := range scopes {
		if !slices.Contains(Scopes(), scope) || slices.Contains(names, string(scope)) {
			return "", jpki.Errorf(jpki.Malformed, "scopes are some of %v, each once", Scopes())
		}
		names = append(names, string(scope))
	}
	if len(names) == 0 {
		return "", jpki.Errorf(jpki.Malformed, "a token has at least one scope")
	}
	return strings.Join(names, " "), nil
}

// SetScopes replaces what a token may be used for; [jpki.NotFound] if there is none that is not revoked.
func (s *Store) SetScopes(ctx context.Context, id string, scopes []Scope) error {
	names, err := joinScopes(scopes)
	if err != nil {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error {
		n, err := tx.exec(`UPDATE token SET scopes = $1 WHERE id = $2 AND revoked_at IS NULL`, names, id)
		if err == nil && n == 0 {
			err = jpki.Errorf(jpki.NotFound, "there is no such token")
		}
		return err
	})
}

// Tokens returns a tenant's tokens, oldest first, revoked and expired ones among them.
func (s *Store) Tokens(ctx context.Context, tenant jpki.CorporateNumber) (out []Token, err error) {
	err = s.View(ctx, func(tx *Tx) (err error) {
		out, err = queryAll(tx, scanToken, selectTokens+` WHERE tenant = $1 ORDER BY created_at, id`, string(tenant))
		return err
	})
	return out, err
}

// RevokeToken ends a token; [jpki.NotFound] if there is none that is not revoked.
func (s *Store) RevokeToken(ctx context.Context, id string, now time.Time) error {
	return s.Update(ctx, func(tx *Tx) error {
		n, err := tx.exec(`UPDATE token SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL`, micros(now), id)
		if err == nil && n == 0 {
			err = jpki.Errorf(jpki.NotFound, "there is no such token")
		}
		return err
	})
}

// Access is what a credential opens: the tenant with its key. It holds until the tenant or the token is revoked or the token
// expires, of which who keeps it learns nothing: keep it for a second.
type Access struct {
	Tenant Tenant
	Token  Token
	key    key
}

// Access returns what a credential opens. [jpki.Unauthorized], without a reason, if it opens nothing.
func (s *Store) Access(ctx context.Context, c Credential, now time.Time) (*Access, error) {
	refused := jpki.Errorf(jpki.Unauthorized, "the token is not known, or is revoked or expired")
	a := &Access{}
	err := s.View(ctx, func(tx *Tx) (err error) {
		// An index finds the digest of what was sent; how long that takes tells nothing about a token.
		var hash []byte
		a.Token, err = scanHashed(tx.q.QueryRowContext(tx.ctx, selectTokens+` WHERE hash = $1 AND kind = $2`, c.Hash[:], c.Kind), &hash)
		if err != nil {
			return notFound(err, jpki.Unauthorized, "the token is not known, or is revoked or expired")
		}
		if subtle.ConstantTimeCompare(hash, c.Hash[:]) != 1 || !a.Token.RevokedAt.IsZero() || !a.Token.ExpiresAt.IsZero() && !now.Before(a.Token.ExpiresAt) {
			return refused
		}
		a.Tenant, err = tx.Tenant(a.Token.Tenant)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !a.Tenant.RevokedAt.IsZero() {
		return nil, refused
	}
	if a.key, _, err = s.unwrap(labelOf(a.Tenant.ID), a.Tenant.sealed); err != nil {
		return nil, fmt.Errorf("open tenant's key: %w", err)
	}
	return a, nil
}
