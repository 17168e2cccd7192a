package sandbox

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/seed"
	"github.com/openjpki/jpki/hsm/card"
)

// SeedOptions say what to add to a sandbox for load and scale tests.
type SeedOptions struct {
	Dir        string
	Count      int     // certificates, half of them signature certificates
	Revoked    float64 // share of them that is revoked, 0 to 1
	StatusOnly bool    // numbers and statuses without certificates
	Progress   func(done int)
}

// seedBatch is how many certificates one transaction adds.
const seedBatch = 500

// MaxStatusRows is how many statuses without certificates still go through the database. More are written into the status
// index's snapshot, at a thousand times the speed, and are in no log: only this sandbox's responder knows of them.
const MaxStatusRows = 100_000

// Seed adds certificates of nobody to the sandbox in opt.Dir, whether it runs or not. Their keys are moduli that nobody
// knows the factors of, for nothing can be signed with them; all else is real: profile, signatures, statuses, audit record.
// For more than [MaxStatusRows] statuses the sandbox must not run; see package seed for what they are.
func Seed(ctx context.Context, opt SeedOptions) error {
	if opt.Count < 1 || opt.Revoked < 0 || opt.Revoked > 1 {
		return errors.New("want at least one certificate and a share of revoked ones between 0 and 1")
	}
	abs, err := filepath.Abs(opt.Dir)
	if err != nil {
		return err
	}
	d := dir(abs)
	db, err := store.Open(ctx, "sqlite:"+d.path("authority", "ca.db"))
	if err != nil {
		return fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	defer func() { _ = db.Close() }()
	_, issuers, err := openGenerations(ctx, db, d)
	if err != nil {
		return err
	}
	if opt.StatusOnly && opt.Count > MaxStatusRows {
		return seedSnapshot(d, issuers, opt)
	}
	profile, err := d.chooseProfile("")
	if err != nil {
		return err
	}
	statusURL := "http://127.0.0.1:8080"
	if env, err := Load(abs); err == nil {
		statusURL = env.StatusURL()
	}
	minter, err := ca.NewMinter(profile.Profile, issuers, statusURL, rand.Reader)
	if err != nil {
		return err
	}
	for done := 0; done < opt.Count; {
		n := min(seedBatch, opt.Count-done)
		certs, err := mint(ctx, minter, profile, opt, done, n)
		if err != nil {
			return err
		}
		if err := db.Update(ctx, func(tx *store.Tx) error { return addSeeds(tx, certs, opt.StatusOnly) }); err != nil {
			return fmt.Errorf("add certificates: %w", err)
		}
		done += n
		if opt.Progress != nil {
			opt.Progress(done)
		}
	}
	return nil
}

// seedSnapshot writes a plan's statuses into the snapshot and the plan into the list beside it.
func seedSnapshot(d dir, issuers []ca.Issuer, opt SeedOptions) error {
	unlock, err := d.lock()
	if err != nil {
		return fmt.Errorf("so many statuses go into its snapshot, stop it first: %w", err)
	}
	defer unlock()
	now := time.Now().UTC().Truncate(time.Second)
	number := mathrand.Uint64() //nolint:gosec // only tells plans apart
	plan := seed.Plan{Number: number, Count: opt.Count, Revoked: opt.Revoked, Since: now, NotAfter: now.AddDate(5, 0, 0)}
	for _, i := range issuers {
		plan.Issuers = append(plan.Issuers, i.ID)
	}
	return plan.Add(d.snapshot(), SeedPlans(string(d)), now, opt.Progress)
}

// snapshot is the status index's file.
func (d dir) snapshot() string { return d.path("status.snapshot") }

// SeedPlans is where a sandbox keeps the plans of the statuses that only its snapshot has: [seed.Read] reads them.
func SeedPlans(path string) string { return dir(path).path("status.seeds") }

// seedHolder and seedToken are whom and what the seeded certificates belong to.
const (
	seedHolder = "seed-holder"
	seedToken  = "seed-token"
)

// mint makes n certificates on all processors.
func mint(ctx context.Context, minter *ca.Minter, profile ruleSet, opt SeedOptions, from, n int) ([]store.Certificate, error) {
	out := make([]store.Certificate, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	now := time.Now().UTC().Truncate(time.Second)
	for i := range out {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			c := store.Certificate{
				Kind: []jpki.Kind{jpki.CardSign, jpki.CardAuth}[(from+i)%2], Holder: seedHolder, Token: seedToken, Partition: []string{"99101", "99202", "99303"}[(from+i)%3],
				NotBefore: now, NotAfter: now.AddDate(5, 0, 0), IssuedAt: now, Status: jpki.Status{State: jpki.Good, Since: now},
			}
			// Revoked ones are spread evenly, the same for every run.
			if seed.IsRevoked(from+i, opt.Revoked) {
				c.Status = jpki.Status{State: jpki.Revoked, Reason: jpki.AffiliationChanged, Cause: jpki.Moved, Since: now}
			}
			var spki []byte
			var err error
			if !opt.StatusOnly {
				if spki, err = nobodysKey(profile.cards); err != nil {
					return err
				}
			}
			out[i], err = minter.Mint(c, seedAttributes, spki)
			return err
		})
	}
	return out, g.Wait()
}

var seedAttributes = jpki.Attributes{Name: "試験　多数", NameSubstitutes: "00000", Sex: jpki.SexUnknown, BirthDate: "400000000", Address: "砂箱県青葉市", AddressSubstitutes: "000000"}

// nobodysKey returns a public key, DER: an RSA modulus that is a random number, or a point whose private key is forgotten.
func nobodysKey(of card.KeyType) ([]byte, error) {
	if of == card.P384 {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKIXPublicKey(&key.PublicKey)
	}
	b := make([]byte, 256)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] |= 0x80
	b[255] |= 1
	return x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537})
}

func addSeeds(tx *store.Tx, certs []store.Certificate, statusOnly bool) error {
	now := certs[0].IssuedAt
	if _, err := tx.Token(seedToken); errors.Is(err, jpki.UnknownToken) {
		if err := errors.Join(
			tx.PutHolder(store.Holder{ID: seedHolder, Municipality: "99101", Attributes: seedAttributes}, now),
			tx.AddToken(store.Token{ID: seedToken, Type: jpki.Card, Holder: seedHolder, ValidUntil: now.AddDate(10, 0, 0)}, now)); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	changes := make([]jpki.StatusChange, len(certs))
	for i, c := range certs {
		changes[i] = jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: c.Status}
		var err error
		if statusOnly {
			err = tx.AddStatus(changes[i])
		} else {
			err = tx.AddCertificate(c)
		}
		if err != nil {
			return err
		}
	}
	return tx.Audit(now, system, "seed", certs[0].ID.String(), SeedRecord{len(certs), SeedDigest(changes)})
}

// A SeedRecord is what the audit record says of one batch: how many certificates, and a digest of them in the status log's
// order.
type SeedRecord struct {
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"`
}

// SeedDigest returns the SHA-256 of what a batch put into the status log, hexadecimal.
func SeedDigest(changes []jpki.StatusChange) string {
	h := sha256.New()
	for _, c := range changes {
		fmt.Fprintln(h, c.ID, c.Status.State, int(c.Status.Reason), c.Status.Cause, c.Partition, c.NotAfter.Unix())
	}
	return hex.EncodeToString(h.Sum(nil))
}
