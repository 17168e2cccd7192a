package jws

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
)

// A SignConfig says who signs and how.
type SignConfig struct {
	// Certificate is the signer's, DER. Required. It goes into the header, with its digest.
	Certificate []byte
	// Signer makes the signature value, by the key in Certificate: a card, for example. Required.
	Signer crypto.Signer
	// Rand is given to Signer. Required; most signers ignore it.
	Rand io.Reader
	// Algorithm is how to sign, by its name in JOSE, such as "ES256". Required.
	Algorithm string
	// Chain are further certificates to put into the header.
	Chain [][]byte
	// SigningTime is claimed as the time of signing, in whole seconds. Zero leaves it out, which JAdES B-B does not allow.
	SigningTime time.Time
	// Type says what the JWS is (typ). Empty means "jose"; "JWT" for a token of claims (RFC 7519 §5.1).
	Type string
	// ContentType says what the payload is (cty). Empty leaves it out.
	ContentType string
	// Detached leaves the payload out of the JWS.
	Detached bool
}

// Sign makes a JWS in the compact serialization: JAdES B-B if it has a signing time. The time is a sigT, which verifiers of both
// editions of TS 119 182-1 know. Steps:
//  1. make the header
//  2. have header and payload signed
//  3. check that the signature is right
func Sign(payload []byte, c SignConfig) ([]byte, error) {
	if payload == nil || c.Signer == nil || c.Rand == nil || c.Certificate == nil {
		return nil, errors.New("jws: sign: payload, Certificate, Signer and Rand are required")
	}
	alg, err := primitive.FromJOSE(c.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("jws: sign: %w", err)
	}
	key, err := primitive.CertificateKey(c.Certificate)
	if err != nil {
		return nil, fmt.Errorf("jws: the signer's certificate: %w", err)
	}
	header, err := c.header()
	if err != nil {
		return nil, fmt.Errorf("jws: header: %w", err)
	}
	protected, text := strict.EncodeToString(header), strict.EncodeToString(payload)
	input := []byte(protected + "." + text)
	digest := input
	if alg.Scheme != primitive.Ed25519 {
		digest = primitive.Digest(alg.Hash, input)
	}
	value, err := c.Signer.Sign(c.Rand, digest, alg.SignerOpts())
	if err != nil {
		return nil, fmt.Errorf("jws: sign: %w", err)
	}
	if alg.Raw {
		if value, err = raw(value, (key.Bits+7)/8); err != nil {
			return nil, err
		}
	}
	if err := primitive.VerifyMessage(key, alg, input, value); err != nil {
		return nil, fmt.Errorf("jws: the signer's key is not that of the certificate, or it signed something else: %w", err)
	}
	if c.Detached {
		text = ""
	}
	return []byte(protected + "." + text + "." + strict.EncodeToString(value)), nil
}

func (c *SignConfig) header() ([]byte, error) {
	digest := sha256.Sum256(c.Certificate)
	h := struct {
		Alg  string   `json:"alg"`
		Typ  string   `json:"typ"`
		Cty  string   `json:"cty,omitempty"`
		X5t  string   `json:"x5t#S256"`
		X5c  []string `json:"x5c"`
		SigT string   `json:"sigT,omitempty"`
		Crit []string `json:"crit,omitempty"`
	}{Alg: c.Algorithm, Typ: cmp.Or(c.Type, "jose"), Cty: c.ContentType, X5t: strict.EncodeToString(digest[:]), X5c: []string{base64.StdEncoding.EncodeToString(c.Certificate)}}
	for _, der := range c.Chain {
		h.X5c = append(h.X5c, base64.StdEncoding.EncodeToString(der))
	}
	if !c.SigningTime.IsZero() {
		h.SigT, h.Crit = c.SigningTime.UTC().Format("2006-01-02T15:04:05Z"), []string{"sigT"}
	}
	return json.Marshal(h)
}

// raw puts the two numbers of an ECDSA signature side by side (RFC 7518 §3.4). The signer is ours, so its DER is not an outsider's.
func raw(der []byte, size int) ([]byte, error) {
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 || v.R.Sign() < 0 || v.S.Sign() < 0 || v.R.BitLen() > size*8 || v.S.BitLen() > size*8 {
		return nil, errors.New("jws: the signer made no ECDSA signature in DER for a key of this size")
	}
	return append(v.R.FillBytes(make([]byte, size)), v.S.FillBytes(make([]byte, size))...), nil
}
