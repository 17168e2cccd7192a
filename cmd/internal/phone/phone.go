// Package phone is a phone in software, for trials: keys that it makes, a maker who attests them, certificates by ACME.
//
// [Enrol] does all that a phone does once its enrolment was begun: an account under the external account binding, an order for
// each kind, the challenge device-attest-01, a certification request. The maker's key is at hand, as it is in a sandbox only.
// It speaks RFC 8555 by golang.org/x/crypto/acme and draft-ietf-acme-device-attest, and nothing of it is secret but the keys
// it returns. Start at Enrol.
package phone

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/acme"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
)

// Config is what a phone is made of; every field is required.
type Config struct {
	Directory string            // the ACME directory's URL
	Format    string            // of its maker's attestations: step; apple, android-key and apple-appattest, of which P-384 keys need one
	KeyID     string            // the external account binding, with its key
	Key       []byte            // for HS256
	Device    string            // what the maker calls the phone
	Maker     *x509.Certificate // who attests the phone's keys
	MakerKey  crypto.Signer
	Keys      card.KeyType // which keys the profile admits
	HTTP      *http.Client // trusts the directory's server
	Now       func() time.Time
}

// A Certificate is what a phone got for a key of its own.
type Certificate struct {
	Kind   jpki.Kind
	Key    crypto.Signer
	DER    []byte
	Issuer []byte // DER
}

// Enrol gets a certificate of each kind. Steps, from the second on for each kind:
//  1. an account of its own, bound to the enrolment
//  2. a key, and an order for the device
//  3. the maker attests that the key is in the phone, freshly
//  4. a certification request for the key, that says what for
func Enrol(ctx context.Context, c Config, kinds ...jpki.Kind) ([]Certificate, error) {
	// 1.
	account, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make account key: %w", err)
	}
	client := &acme.Client{Key: account, HTTPClient: c.HTTP, DirectoryURL: c.Directory, RetryBackoff: backoff}
	binding := &acme.ExternalAccountBinding{KID: c.KeyID, Key: c.Key}
	if _, err := client.Register(ctx, &acme.Account{ExternalAccountBinding: binding}, acme.AcceptTOS); err != nil {
		return nil, explain("open an account", err)
	}
	var out []Certificate
	for _, kind := range kinds {
		got, err := c.obtain(ctx, client, kind)
		if err != nil {
			return out, fmt.Errorf("%s: %w", kind, err)
		}
		out = append(out, got)
	}
	return out, nil
}

// backoff has a request that was refused for now made again a few times; by itself the client would go on for ever.
func backoff(n int, _ *http.Request, _ *http.Response) time.Duration {
	const tries = 4
	if n > tries {
		return -1
	}
	return 50 * time.Millisecond << n
}

func (c Config) obtain(ctx context.Context, client *acme.Client, kind jpki.Kind) (out Certificate, err error) {
	// 2.
	out.Kind = kind
	if out.Key, err = newKey(c.Keys); err != nil {
		return out, fmt.Errorf("make key: %w", err)
	}
	order, err := client.AuthorizeOrder(ctx, []acme.AuthzID{{Type: "permanent-identifier", Value: c.Device}})
	if err != nil {
		return out, explain("order", err)
	}
	if len(order.AuthzURLs) != 1 {
		return out, errors.New("the order has not one authorization")
	}
	az, err := client.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		return out, explain("fetch authorization", err)
	}
	// 3.
	for _, ch := range az.Challenges {
		if ch.Type != "device-attest-01" {
			continue
		}
		if ch.Payload, err = c.attest(client, out.Key, ch.Token); err != nil {
			return out, fmt.Errorf("attest key: %w", err)
		}
		if _, err := client.Accept(ctx, ch); err != nil {
			return out, explain("answer challenge", err)
		}
	}
	if _, err := client.WaitAuthorization(ctx, az.URI); err != nil {
		return out, explain("prove the key", err)
	}
	// 4.
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: keyUsage(kind)}},
	}, out.Key)
	if err != nil {
		return out, fmt.Errorf("make request: %w", err)
	}
	chain, _, err := client.CreateCertFromOrder(ctx, order, request, true)
	if err != nil {
		return out, explain("finalize", err)
	}
	if len(chain) != 2 {
		return out, fmt.Errorf("a chain of %d certificates, want the certificate and its issuer's", len(chain))
	}
	out.DER, out.Issuer = chain[0], chain[1]
	return out, nil
}

func newKey(t card.KeyType) (crypto.Signer, error) {
	if t == card.P384 {
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

// keyUsage is a BIT STRING: digitalSignature, and nonRepudiation for the signature certificate (RFC 5280 §4.2.1.3).
func keyUsage(kind jpki.Kind) []byte {
	if kind == jpki.PhoneSign {
		return []byte{0x03, 0x02, 0x06, 0xc0}
	}
	return []byte{0x03, 0x02, 0x07, 0x80}
}

// Where an attestation certificate says which device it is of, and that it is fresh.
var (
	oidStepDevice = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 37476, 9000, 64, 4}
	oidAppleUDID  = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 9, 2}
	oidAppleNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 11, 1}
)

// attest is what the maker's part of a phone says about a key, as the response to a challenge.
func (c Config) attest(client *acme.Client, key crypto.Signer, token string) (json.RawMessage, error) {
	statement := map[string]any{}
	var extensions []pkix.Extension
	switch c.Format {
	case "step":
		device, err := asn1.Marshal(struct{ DeviceID string }{c.Device})
		if err != nil {
			return nil, err
		}
		extensions = []pkix.Extension{{Id: oidStepDevice, Value: device}}
		thumbprint, err := acme.JWKThumbprint(client.Key.Public())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(token + "." + thumbprint)) // RFC 8555 §8.1
		signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		if statement["sig"], err = cbor.Marshal(signature); err != nil {
			return nil, err
		}
	case "apple":
		sum := sha256.Sum256([]byte(token))
		extensions = []pkix.Extension{{Id: oidAppleUDID, Value: []byte(c.Device)}, {Id: oidAppleNonce, Value: sum[:]}}
	case "android-key":
		thumbprint, err := acme.JWKThumbprint(client.Key.Public())
		if err != nil {
			return nil, err
		}
		authorization := token + "." + thumbprint // RFC 8555 §8.1
		description, err := describe(key.Public(), []byte(authorization))
		if err != nil {
			return nil, err
		}
		extensions = []pkix.Extension{description}
		if statement["alg"], statement["sig"], err = signChallenge(key, authorization); err != nil {
			return nil, err
		}
	case "apple-appattest":
		thumbprint, err := acme.JWKThumbprint(client.Key.Public())
		if err != nil {
			return nil, err
		}
		return c.vouch(key, token+"."+thumbprint)
	default:
		return nil, fmt.Errorf("the format is step, apple, android-key or apple-appattest, not %q", c.Format)
	}
	leaf, err := c.certify(key.Public(), extensions...)
	if err != nil {
		return nil, err
	}
	statement["x5c"] = [][]byte{leaf}
	object, err := cbor.Marshal(map[string]any{"fmt": c.Format, "attStmt": statement})
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"attObj": base64.RawURLEncoding.EncodeToString(object)})
}

// certify makes the maker's certificate for a key that is in the phone.
func (c Config) certify(key crypto.PublicKey, extensions ...pkix.Extension) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: pkix.Name{Organization: c.Maker.Subject.Organization, CommonName: "attested key"},
		NotBefore: c.Now().Add(-time.Minute), NotAfter: c.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, ExtraExtensions: extensions,
	}, c.Maker, key, c.MakerKey)
}

// explain puts a refusal of the directory into our words where it is one of ours.
func explain(what string, err error) error {
	cause := err
	if a, ok := errors.AsType[*acme.AuthorizationError](err); ok && len(a.Errors) > 0 {
		cause = a.Errors[0]
	}
	if e, ok := errors.AsType[*acme.Error](cause); ok {
		if name, ours := strings.CutPrefix(e.ProblemType, jpki.ProblemBase); ours {
			return &jpki.Error{Problem: jpki.Problem(name), Detail: what}
		}
		return fmt.Errorf("%s: %s: %s", what, e.ProblemType[strings.LastIndex(e.ProblemType, ":")+1:], e.Detail)
	}
	return fmt.Errorf("%s: %w", what, err)
}
