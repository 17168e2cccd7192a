package jws_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/primitive"
)

func vectors(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS names no folder of vectors")
	}
	return filepath.Join(dir, name)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// An identity is a key with a certificate of its own making.
type identity struct {
	alg  string
	key  crypto.Signer
	cert []byte
}

func newIdentity(t testing.TB, alg string) identity {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test " + alg}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{alg, key, der}
}

func (id identity) config() jws.SignConfig {
	return jws.SignConfig{Certificate: id.cert, Signer: id.key, Rand: rand.Reader, Algorithm: id.alg, SigningTime: time.Unix(1_700_000_000, 0)}
}

func (id identity) sign(t testing.TB, payload string) string {
	t.Helper()
	out, err := jws.Sign([]byte(payload), id.config())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func b64(data string) string { return base64.RawURLEncoding.EncodeToString([]byte(data)) }

// compact signs any header over any payload text, as a signer might who keeps to no rule. payload is as it is to be signed.
func (id identity) compact(t testing.TB, header, payload, shown string) string {
	t.Helper()
	return b64(header) + "." + shown + "." + id.value(t, b64(header)+"."+payload)
}

// value signs a text and writes the value as a JWS does.
func (id identity) value(t testing.TB, input string) string {
	t.Helper()
	alg, err := primitive.FromJOSE(id.alg)
	if err != nil {
		t.Fatal(err)
	}
	digest := []byte(input)
	if alg.Hash != 0 {
		digest = primitive.Digest(alg.Hash, digest)
	}
	key, isECDSA := id.key.(*ecdsa.PrivateKey)
	if !isECDSA {
		value, err := id.key.Sign(rand.Reader, digest, alg.SignerOpts())
		if err != nil {
			t.Fatal(err)
		}
		return b64(string(value))
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		t.Fatal(err)
	}
	size := (key.Params().BitSize + 7) / 8
	return b64(string(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)))
}

// header returns a header with more than alg and x5c.
func (id identity) header(t testing.TB, more map[string]any) string {
	t.Helper()
	h := map[string]any{"alg": id.alg, "x5c": []string{base64.StdEncoding.EncodeToString(id.cert)}}
	for name, v := range more {
		if h[name] = v; v == nil {
			delete(h, name)
		}
	}
	out, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// verdict returns nil if all signatures of a JWS hold.
func verdict(data string, o jws.Options) error {
	all, err := jws.Read([]byte(data), o)
	if err != nil {
		return err
	}
	for _, s := range all {
		if v := s.Verify(); v.Err != nil {
			return v.Err
		}
	}
	return nil
}
