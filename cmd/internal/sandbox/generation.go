package sandbox

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm"
)

// certificate is the file of a generation's CA certificate.
func (d dir) certificate(id jpki.IssuerID) string { return d.path("public", "ca", id.String()+".crt") }

// CertificateFile is where the sandbox in path publishes a generation's CA certificate.
func CertificateFile(path string, id jpki.IssuerID) string { return dir(path).certificate(id) }

// makeGeneration opens the key and the CA certificate of a generation, or makes what is missing. It records nothing.
func makeGeneration(ctx context.Context, d dir, p *ca.Profile, id jpki.IssuerID, alg hsm.Algorithm) (ca.Issuer, error) {
	var key crypto.Signer
	var err error
	if d.usesHSM() {
		key, err = d.openGeneration(ctx, id)
	} else {
		key, err = openKey(ctx, d.path("authority", id.String()+".key"), alg)
	}
	if err != nil {
		return ca.Issuer{}, err
	}
	cert, err := openCertificate(d.certificate(id), 0, func() (*x509.Certificate, error) {
		serial, err := newSerial()
		if err != nil {
			return nil, err
		}
		return ca.SelfSigned(p, id.CA, key, serial, time.Now())
	})
	return ca.Issuer{ID: id, Certificate: cert, Signer: key}, err
}

// openGenerations opens every recorded generation, and says which issue, in the order of jpki.CAs.
func openGenerations(ctx context.Context, db *store.Store, d dir) (all, active []ca.Issuer, err error) {
	var recorded []store.Generation
	if err := db.View(ctx, func(tx *store.Tx) (err error) { recorded, err = tx.Generations(); return err }); err != nil {
		return nil, nil, fmt.Errorf("read generations: %w", err)
	}
	active = make([]ca.Issuer, len(jpki.CAs))
	for _, g := range recorded {
		key, err := d.openGeneration(ctx, g.Issuer)
		if err != nil {
			return nil, nil, err
		}
		cert, err := x509.ParseCertificate(g.Certificate)
		if err != nil {
			return nil, nil, fmt.Errorf("read generation %s: %w", g.Issuer, err)
		}
		issuer := ca.Issuer{ID: g.Issuer, Certificate: cert, Signer: key}
		all = append(all, issuer)
		if g.Active {
			active[slices.Index(jpki.CAs, g.Issuer.CA)] = issuer
		}
	}
	if slices.ContainsFunc(active, func(i ca.Issuer) bool { return i.Certificate == nil }) {
		return nil, nil, errors.New("no generation of one of the authorities issues")
	}
	return all, active, nil
}

// Roll gives a CA of the sandbox in path a new key that issues from now on: its certificate carries the same name, an OCSP
// responder is certified under it, and the earlier generations stay in the service of their certificates. A sandbox that is
// running publishes what belongs to the new generation before it is activated, and follows within a second or so. With the
// CAs' keys in a token, the new one is made there; jpki-signer learns of it without a restart. A roll that was cut short is
// completed by the next. Steps:
//  1. make the key and its certificate, or open what an earlier roll made
//  2. record the generation, and have its responder certified
//  3. if the sandbox is running, wait until it serves the CA certificate and the CRL
//  4. activate the generation
func Roll(ctx context.Context, path string, name jpki.CA, alg hsm.Algorithm) (jpki.IssuerID, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return jpki.IssuerID{}, err
	}
	d := dir(abs)
	inToken, alone, end, err := d.keysInToken(ctx)
	if err != nil {
		return jpki.IssuerID{}, err
	}
	defer end()
	profile, err := d.chooseProfile("")
	if err != nil {
		return jpki.IssuerID{}, err
	}
	db, err := store.Open(ctx, "sqlite:"+d.path("authority", "ca.db"))
	if err != nil {
		return jpki.IssuerID{}, fmt.Errorf("open the sandbox's database (has the sandbox been started once?): %w", err)
	}
	defer func() { _ = db.Close() }()
	all, active, err := openGenerations(ctx, db, d)
	if err != nil {
		return jpki.IssuerID{}, err
	}
	newest := slices.MaxFunc(all, func(a, b ca.Issuer) int { return generationOf(a, name) - generationOf(b, name) })
	id := jpki.IssuerID{CA: name, Generation: newest.ID.Generation + 1}
	if i := slices.IndexFunc(active, func(i ca.Issuer) bool { return i.ID.CA == name }); generationOf(newest, name) > active[i].ID.Generation {
		id = newest.ID // recorded and not activated: what an earlier roll left
	}
	// 1.
	if inToken != nil {
		if err := inToken.addKey(ctx, id, alg); err != nil {
			return id, err
		}
	}
	issuer, err := makeGeneration(ctx, d, profile.Profile, id, alg)
	if err != nil {
		return id, err
	}
	if _, isRSA := issuer.Signer.Public().(*rsa.PublicKey); isRSA != (alg == hsm.RSA2048) {
		return id, fmt.Errorf("an earlier roll left a key for %s of another algorithm: finish with that one", id)
	}
	authority, err := ca.New(ca.Config{Store: db, Profile: profile.Profile, Issuers: active, StatusURL: "http://127.0.0.1", Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return id, err
	}
	// 2.
	if id != newest.ID {
		if err := authority.AddGeneration(ctx, system, issuer); err != nil {
			return id, err
		}
	}
	if err := makeDelegate(ctx, authority, d, issuer); err != nil {
		return id, err
	}
	// 3.
	if env, err := Load(abs); err == nil && d.inUse() && !alone {
		if err := awaitPublished(ctx, env, id); err != nil {
			return id, err
		}
	}
	// 4.
	return id, authority.Activate(ctx, system, issuer)
}

// keysInToken returns what makes keys in the token, or nil if keys are files. The sandbox's signer serves until end is called:
// that of a sandbox that runs, or else one started here; then alone is true, and no sandbox can start meanwhile.
func (d dir) keysInToken(ctx context.Context) (a *administration, alone bool, end func(), err error) {
	if !d.usesHSM() {
		return nil, false, func() {}, nil
	}
	found, err := d.signerAdministration()
	if err != nil {
		return nil, false, nil, err
	}
	unlock, err := d.lock()
	if err != nil {
		return &found, false, func() {}, nil // one runs
	}
	stop, err := found.serve(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		unlock()
		return nil, false, nil, err
	}
	return &found, true, func() { stop(); unlock() }, nil
}

// generationOf orders the generations of one CA and puts those of the other before them.
func generationOf(i ca.Issuer, name jpki.CA) int {
	if i.ID.CA != name {
		return 0
	}
	return i.ID.Generation
}
