package sandbox

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/hsm"
)

// The sandbox's stations. Names double as file names.
var (
	counterActor  = jpki.Actor{Role: jpki.Counter, ID: "aoba-counter-1", Municipality: "99101"}
	minatoActor   = jpki.Actor{Role: jpki.Counter, ID: "minato-counter-1", Municipality: "99202"}
	hotlineActor  = jpki.Actor{Role: jpki.CallCentre, ID: "hotline"}
	registerActor = jpki.Actor{Role: jpki.Register, ID: "register"}
	serverActor   = jpki.Actor{Role: jpki.Responder, ID: "status-1"}   // for a status server beside the sandbox
	verifierActor = jpki.Actor{Role: jpki.Verifying, ID: "verifier-1"} // the operator of the sandbox's verifier, who acts for the bank
	stationActors = []jpki.Actor{counterActor, minatoActor, hotlineActor, registerActor, serverActor, verifierActor}
)

// A hierarchy is every key and certificate above the subscribers'.
type hierarchy struct {
	issuers  atomic.Pointer[[]ca.Issuer] // see all
	active   []ca.Issuer                 // those that issued at the start, in the order of jpki.CAs
	infra    *x509.Certificate
	server   tls.Certificate
	station  *ceremony.Signer // certifies stations
	stations map[string]*x509.Certificate
	audit    ed25519.PrivateKey
}

// all returns every generation, oldest first: their CRLs and OCSP answers go on. There may be more the next time.
func (h *hierarchy) all() []ca.Issuer { return *h.issuers.Load() }

// renewBefore is how much of an infrastructure certificate's life may be left before a start replaces it.
const renewBefore = 20 * 24 * time.Hour

// openHierarchy opens what is there and makes what is missing, so a start that was cut short is completed by the next.
func (s *System) openHierarchy(ctx context.Context) (*hierarchy, error) {
	h := &hierarchy{stations: map[string]*x509.Certificate{}}
	for _, name := range jpki.CAs {
		if err := s.firstGeneration(ctx, name); err != nil {
			return nil, err
		}
	}
	all, active, err := openGenerations(ctx, s.db, s.dir)
	if err != nil {
		return nil, err
	}
	h.active = active
	h.issuers.Store(&all)
	infraKey, err := openKey(ctx, s.dir.path("infrastructure", "ca.key"), hsm.P256)
	if err != nil {
		return nil, err
	}
	if h.infra, err = openCertificate(s.dir.path("infrastructure", "ca.crt"), 0, func() (*x509.Certificate, error) {
		serial, err := newSerial()
		if err != nil {
			return nil, err
		}
		return ceremony.NewInfrastructure(infraKey, serial, time.Now())
	}); err != nil {
		return nil, err
	}
	infra, err := ceremony.NewSigner(h.infra, infraKey, time.Now)
	if err != nil {
		return nil, err
	}
	h.station = infra
	serverKey, err := openKey(ctx, s.dir.path("infrastructure", "server.key"), hsm.P256)
	if err != nil {
		return nil, err
	}
	server, err := openCertificate(s.dir.path("infrastructure", "server.crt"), renewBefore, func() (*x509.Certificate, error) {
		return infra.Server(serverKey, "JPKI-SANDBOX authority", "127.0.0.1", "localhost")
	})
	if err != nil {
		return nil, err
	}
	h.server = tls.Certificate{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey, Leaf: server}
	for _, actor := range stationActors {
		key, err := openKey(ctx, s.dir.path("infrastructure", actor.ID+".key"), hsm.P256)
		if err != nil {
			return nil, err
		}
		if h.stations[actor.ID], err = openCertificate(s.dir.path("infrastructure", actor.ID+".crt"), renewBefore, func() (*x509.Certificate, error) { return infra.Station(key, actor.ID) }); err != nil {
			return nil, err
		}
	}
	h.audit, err = openAuditKey(s.dir.path("authority", "audit.key"), s.dir.path("public", "audit.pub"))
	return h, err
}

// firstGeneration makes and records the first generation of a CA if there is none.
func (s *System) firstGeneration(ctx context.Context, name jpki.CA) error {
	id := jpki.IssuerID{CA: name, Generation: 1}
	issuer, err := makeGeneration(ctx, s.dir, s.profile.Profile, id, s.profile.authority)
	if err != nil {
		return err
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Generations()
		if err != nil || slices.ContainsFunc(known, func(g store.Generation) bool { return g.Issuer == id }) {
			return err
		}
		if err := tx.AddGeneration(store.Generation{Issuer: id, Certificate: issuer.Certificate.Raw, Active: true}, time.Now()); err != nil {
			return err
		}
		return tx.Audit(time.Now(), system, "generation.added", id.String(), map[string]any{"serial": fmt.Sprintf("%X", issuer.Certificate.SerialNumber), "not_after": issuer.Certificate.NotAfter})
	})
	return err
}

// openKey opens a key file, or makes it when there is none.
func openKey(ctx context.Context, path string, alg hsm.Algorithm) (crypto.Signer, error) {
	key, err := hsm.Open(ctx, hsm.FileURI(path))
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = hsm.Create(ctx, hsm.FileURI(path), alg); errors.Is(err, fs.ErrExist) { // another process was quicker
			key, err = hsm.Open(ctx, hsm.FileURI(path))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", filepath.Base(path), err)
	}
	return key, nil
}

// openCertificate reads a certificate file, or makes it when there is none or what is there ends within before.
func openCertificate(path string, before time.Duration, issue func() (*x509.Certificate, error)) (c *x509.Certificate, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is not PEM", path)
		}
		if c, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if before == 0 || time.Until(c.NotAfter) > before {
			return c, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if c, err = issue(); err != nil {
		return nil, fmt.Errorf("make %s: %w", filepath.Base(path), err)
	}
	return c, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o644)
}

// openAuditKey opens the key that signs the audit record's checkpoints, or makes it.
func openAuditKey(path, public string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if err := writeFile(path, []byte(base64.StdEncoding.EncodeToString(key.Seed())+"\n"), 0o600); err != nil {
			return nil, err
		}
		return key, writePublic(public, key)
	}
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is not an audit key", path)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return key, writePublic(public, key)
}

func writePublic(path string, key ed25519.PrivateKey) error {
	public, _ := key.Public().(ed25519.PublicKey)
	return writeFile(path, []byte(base64.StdEncoding.EncodeToString(public)+"\n"), 0o644)
}

// writeFile replaces a file whole and durably.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if err := errors.Join(f.Chmod(mode), write(f, text), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func write(f *os.File, text []byte) error { _, err := f.Write(text); return err }
