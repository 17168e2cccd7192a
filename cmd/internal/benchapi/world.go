package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/store"
)

// messages is how many different signatures take turns, by signers keys. Nobody's certificate is remembered by the raw verification.
const (
	messages = 64
	signers  = 4
)

// The tokens of two tenants, for one of which nothing is kept.
const (
	keepsToken = "bench-keeps"
	plainToken = "bench-plain"
)

// A world is an authority and what its subscribers signed.
type world struct {
	anchor, list []byte
	inputs       []verifier.SignatureInput
	documents    [][]byte
}

func newWorld() (*world, error) {
	w := &world{}
	now := time.Now()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"JPKI-SANDBOX"}}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(9, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	if w.anchor, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key); err != nil {
		return nil, err
	}
	anchor, err := x509.ParseCertificate(w.anchor)
	if err != nil {
		return nil, err
	}
	if w.list, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}, anchor, key); err != nil {
		return nil, err
	}
	content := []byte(strings.Repeat("I open an account. ", 90))
	for s := range signers {
		subscriber, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		for i := range messages / signers {
			der, err := issue(anchor, key, subscriber.Public(), int64(2+s*messages+i))
			if err != nil {
				return nil, err
			}
			digest := sha256.Sum256(fmt.Append(nil, s, i))
			value, err := subscriber.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				return nil, err
			}
			w.inputs = append(w.inputs, verifier.SignatureInput{Certificate: der, Digest: digest[:], Hash: crypto.SHA256, Signature: value})
			doc, err := cms.Sign(bytes.NewReader(content), cms.SignConfig{Certificate: der, Signer: subscriber, Rand: rand.Reader, SigningTime: now, Attached: true})
			if err != nil {
				return nil, err
			}
			w.documents = append(w.documents, doc)
		}
	}
	return w, nil
}

// issue makes a signature certificate of the sandbox's kind.
func issue(anchor *x509.Certificate, key crypto.Signer, public crypto.PublicKey, serial int64) ([]byte, error) {
	type info struct{ ID asn1.ObjectIdentifier }
	type otherName struct {
		ID    asn1.ObjectIdentifier
		Value string `asn1:"utf8,explicit,tag:0"`
	}
	var names []asn1.RawValue
	for _, a := range []struct {
		n    int
		text string
	}{{1, "試験　太郎"}, {4, "319800217"}, {3, "1"}, {5, "砂箱県青葉市一丁目"}} {
		der, err := asn1.MarshalWithParams(otherName{asn1.ObjectIdentifier{1, 2, 392, 200149, 8, 5, 5, a.n}, a.text}, "tag:0")
		if err != nil {
			return nil, err
		}
		names = append(names, asn1.RawValue{FullBytes: der})
	}
	san, err := asn1.Marshal(names)
	if err != nil {
		return nil, err
	}
	policies, err := asn1.Marshal([]info{{asn1.ObjectIdentifier{2, 999, 8, 5, 1, 1, 20}}})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 120), big.NewInt(serial)), Subject: pkix.Name{Country: []string{"JP"}, CommonName: fmt.Sprint(serial)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(4, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Critical: true, Value: policies}, {Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}},
	}, anchor, public, key)
}

func (w *world) raw(i int) verifier.SignatureInput { return w.inputs[i%messages] }

func (w *world) rawLine(i int) []byte {
	in := w.raw(i)
	return line(map[string]string{"certificate": b64(in.Certificate), "digest": b64(in.Digest), "hash": "sha256", "signature": b64(in.Signature), "user": "customer"})
}

func (w *world) cmsLine(i int) []byte {
	return line(map[string]string{"document": b64(w.documents[i%messages]), "user": "customer"})
}

// save writes what the server's process needs.
func (w *world) save(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "anchor"), w.anchor, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "list"), w.list, 0o600)
}

// evidence is about as long as an OCSP answer with its responder's certificate, and claims to be none.
var evidence = make([]byte, 1500)

// fromMemory establishes statuses at no cost.
type fromMemory struct{}

func (fromMemory) Check(context.Context, *x509.Certificate, *x509.Certificate, time.Time) (verifier.Revocation, error) {
	now := time.Now()
	return verifier.Revocation{State: jpki.Good, Source: "memory", ThisUpdate: now, CheckedAt: now, Evidence: evidence, Format: "application/octet-stream"}, nil
}

// verifier makes the verifier that both sides use.
func (w *world) verifier() (*verifier.Verifier, error) {
	anchor, err := x509.ParseCertificate(w.anchor)
	if err != nil {
		return nil, err
	}
	list, err := path.ParseCRL(w.list)
	if err != nil {
		return nil, err
	}
	policy, err := verifier.FindDocumentPolicy("sandbox-signature-2026")
	if err != nil {
		return nil, err
	}
	challenges, err := verifier.NewChallenges(verifier.ChallengesConfig{Now: time.Now, Rand: rand.Reader})
	if err != nil {
		return nil, err
	}
	anchors := []*x509.Certificate{anchor}
	return verifier.New(verifier.Config{
		Anchors: anchors, Policies: verifier.SandboxPolicies(), Revocation: fromMemory{}, Challenges: challenges, Now: time.Now, Rand: rand.Reader,
		Documents: &verifier.DocumentConfig{Policy: policy, Anchors: anchors, Sources: []verifier.RevocationSource{verifier.StoredSource("memory", []*path.CRL{list}, nil)}},
	})
}

// serve is the server's process. It prints its address and answers until it is told to stop.
func serve(ctx context.Context, dir, database, profile string) (err error) {
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return errors.Join(err, f.Close())
		}
		defer func() { pprof.StopCPUProfile(); err = errors.Join(err, f.Close()) }()
	}
	w := &world{}
	if w.anchor, err = os.ReadFile(filepath.Join(dir, "anchor")); err != nil {
		return err
	}
	if w.list, err = os.ReadFile(filepath.Join(dir, "list")); err != nil {
		return err
	}
	v, err := w.verifier()
	if err != nil {
		return err
	}
	s, err := store.Create(ctx, store.Config{Database: database, MasterKey: make([]byte, 32)})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	for token, t := range map[string]store.Tenant{
		keepsToken: {ID: "9999999999999", Name: "keeps", RetentionDays: 7}, plainToken: {ID: "5835678256246", Name: "plain"},
	} {
		if err := s.AddTenant(ctx, t, time.Now()); jpki.ProblemOf(err) == jpki.Conflict { // of a run before, in a database that stays
			continue
		} else if err != nil {
			return err
		}
		c := store.Credential{Kind: store.BearerToken, Hash: sha256.Sum256([]byte(token))}
		if _, err := s.AddCredential(ctx, t.ID, c, store.Scopes(), time.Time{}, time.Now()); err != nil {
			return err
		}
	}
	a, err := api.New(api.Config{Verifier: v, Challenges: v.Challenges(), Store: s, Now: time.Now, Rate: 1_000_000})
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	server := &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
