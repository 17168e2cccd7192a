//go:build crashtest

// Crashtest is an authority and a phone that enrols with it, in one process that may be killed by itself on the way.
//
// It reads an order, JSON, from its standard input and goes on where an earlier process of the same order was killed: with the
// same account key and phone's key, and with what that one had told on its standard output, which is all that a phone
// remembers. The places where it can die are those of ca/crashtest: before and after every write, commit and signature of the
// authority. It exists only under the build tag crashtest, for package ca/acme's tests.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"
	xacme "golang.org/x/crypto/acme"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/acme"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
)

// An order says what is to be done, where, and how far it came.
type order struct {
	Database    string
	Issuers     []struct{ Certificate, Key []byte } // DER, PKCS #8; sign, auth
	Infra       struct{ Certificate, Key []byte }
	Maker       struct{ Certificate, Key []byte }
	Provisioner []byte // public key
	Account     []byte // the phone's keys, PKCS #8
	Phone       []byte
	Holder      string
	Token       string
	Parent      jpki.CertID
	Told
}

// Told is what a phone remembers.
type Told struct {
	KeyID       string
	Key         []byte
	Order       string // its URL
	Certificate []byte // in the end
}

// host is where the authority is, whatever port it got.
const host = "ca.test"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	ctx := context.Background()
	db, err := store.Open(ctx, o.Database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	authority, enrolment, transport, stop, err := serve(db, o)
	if err != nil {
		return err
	}
	defer stop()
	if _, err := authority.Reconcile(ctx, 0); err != nil {
		return err
	}
	return enrol(ctx, o, enrolment, transport)
}

// enrol is the phone, as often as it takes.
func enrol(ctx context.Context, o order, e *acme.Enrolment, transport *http.Transport) error {
	account, err := parseKey(o.Account)
	if err != nil {
		return err
	}
	key, err := parseKey(o.Phone)
	if err != nil {
		return err
	}
	c := &xacme.Client{Key: account, HTTPClient: &http.Client{Transport: transport}, DirectoryURL: "https://" + host + "/acme/phone-step/directory"}
	if o.KeyID == "" {
		i, err := e.BeginPhone(ctx, jpki.Actor{Role: jpki.Holder, ID: o.Holder}, ca.PhoneEnrolmentRequest{Holder: o.Holder, Token: o.Token, Parent: o.Parent, Kinds: []jpki.Kind{jpki.PhoneAuth}})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		o.KeyID, o.Key = i.KeyID, i.Key
		if err := tell(o.Told); err != nil {
			return err
		}
	}
	_, err = c.Register(ctx, &xacme.Account{ExternalAccountBinding: &xacme.ExternalAccountBinding{KID: o.KeyID, Key: o.Key}}, xacme.AcceptTOS)
	if err != nil && !errors.Is(err, xacme.ErrAccountAlreadyExists) {
		return fmt.Errorf("register: %w", err)
	}
	if o.Order == "" {
		made, err := c.AuthorizeOrder(ctx, []xacme.AuthzID{{Type: "permanent-identifier", Value: "app-1"}})
		if err != nil {
			return fmt.Errorf("order: %w", err)
		}
		o.Order = made.URI
		if err := tell(o.Told); err != nil {
			return err
		}
	}
	made, err := c.GetOrder(ctx, o.Order)
	if err != nil {
		return fmt.Errorf("fetch order: %w", err)
	}
	az, err := c.GetAuthorization(ctx, made.AuthzURLs[0])
	if err != nil {
		return fmt.Errorf("fetch authorization: %w", err)
	}
	if az.Status == xacme.StatusPending {
		ch := az.Challenges[0]
		if ch.Payload, err = attest(o, account, key, ch.Token); err != nil {
			return err
		}
		if _, err := c.Accept(ctx, ch); err != nil {
			return fmt.Errorf("challenge: %w", err)
		}
		if _, err := c.WaitAuthorization(ctx, az.URI); err != nil {
			return fmt.Errorf("authorization: %w", err)
		}
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	chain, _, err := c.CreateCertFromOrder(ctx, made, request, true)
	if err != nil {
		return fmt.Errorf("finalize: %w", err)
	}
	o.Certificate = chain[0]
	return tell(o.Told)
}

func tell(t Told) error { return json.NewEncoder(os.Stdout).Encode(t) }

func parseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	return key.(crypto.Signer), nil
}

// serve starts the authority on a listener of its own.
func serve(db *store.Store, o order) (*ca.Authority, *acme.Enrolment, *http.Transport, func(), error) {
	fail := func(err error) (*ca.Authority, *acme.Enrolment, *http.Transport, func(), error) {
		return nil, nil, nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg := ca.Config{Store: db, Profile: ca.Sandbox(), StatusURL: "http://status.example", Now: time.Now, Rand: rand.Reader, Log: log}
	for i, name := range jpki.CAs {
		cert, err := x509.ParseCertificate(o.Issuers[i].Certificate)
		if err != nil {
			return fail(err)
		}
		key, err := parseKey(o.Issuers[i].Key)
		if err != nil {
			return fail(err)
		}
		cfg.Issuers = append(cfg.Issuers, ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: 1}, Certificate: cert, Signer: mortal{key}})
	}
	authority, err := ca.New(cfg)
	if err != nil {
		return fail(err)
	}
	infra, err := x509.ParseCertificate(o.Infra.Certificate)
	if err != nil {
		return fail(err)
	}
	infraKey, err := parseKey(o.Infra.Key)
	if err != nil {
		return fail(err)
	}
	maker, err := x509.ParseCertificate(o.Maker.Certificate)
	if err != nil {
		return fail(err)
	}
	signer, err := ceremony.NewSigner(infra, infraKey, time.Now)
	if err != nil {
		return fail(err)
	}
	enrolment, err := acme.New(acme.Config{
		Authority: authority, Store: db, Root: infra, Certify: signer.CertifyStation, Hosts: []string{host}, Provisioners: []acme.Provisioner{{Name: "helpdesk", Key: o.Provisioner}},
		Stations: []acme.Station{{Actor: jpki.Actor{Role: jpki.Counter, ID: "aoba-counter-2", Municipality: "99101"}, Provisioner: "helpdesk"}},
		Phones:   []acme.Attestation{{Format: "step", Roots: []*x509.Certificate{maker}}}, NewID: rand.Text, Now: time.Now, Log: log,
	})
	if err != nil {
		return fail(err)
	}
	srv := httptest.NewUnstartedServer(enrolment)
	server, err := signer.Server(infraKey, "authority", host) // one key for both will do here
	if err != nil {
		return fail(err)
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: infraKey}}, MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(infra)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		},
	}
	return authority, enrolment, transport, srv.Close, nil
}

// attest is the maker's word for the phone's key, in the step format.
func attest(o order, account, key crypto.Signer, token string) (json.RawMessage, error) {
	maker, err := x509.ParseCertificate(o.Maker.Certificate)
	if err != nil {
		return nil, err
	}
	makerKey, err := parseKey(o.Maker.Key)
	if err != nil {
		return nil, err
	}
	device, err := asn1.Marshal(struct{ DeviceID string }{"app-1"})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "attested key"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 37476, 9000, 64, 4}, Value: device}},
	}, maker, key.Public(), makerKey)
	if err != nil {
		return nil, err
	}
	thumbprint, err := xacme.JWKThumbprint(account.(*ecdsa.PrivateKey).Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(token + "." + thumbprint))
	signature, err := rsa.SignPKCS1v15(nil, key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
	if err != nil {
		return nil, err
	}
	sig, err := cbor.Marshal(signature)
	if err != nil {
		return nil, err
	}
	object, err := cbor.Marshal(map[string]any{"fmt": "step", "attStmt": map[string]any{"x5c": [][]byte{leaf}, "sig": sig}})
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(object)})
}

// A mortal signer can die before and after it signs.
type mortal struct{ crypto.Signer }

func (m mortal) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	store.CrashPoint("before", "signature")
	sig, err := m.Signer.Sign(r, digest, o)
	store.CrashPoint("after", "signature")
	return sig, err
}
