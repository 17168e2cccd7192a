package verifier_test

import (
	"crypto"
	"crypto/elliptic"
	_ "crypto/sha512" // for the vectors' hash functions
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/openjpki/jpki/verifier"
)

// TestWycheproof runs C2SP's Wycheproof vectors (Apache-2.0): RSA PKCS#1 v1.5 with 2048 bits, P-256 and P-384, the kinds
// of signature that policies admit. "acceptable" marks a legacy encoding, which is refused here.
func TestWycheproof(t *testing.T) {
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "vectors")
	}
	dir = filepath.Join(dir, "wycheproof")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no vectors: %v", err)
	}
	for _, tc := range []struct {
		file  string
		hash  crypto.Hash
		valid int // so that a change of the file's form cannot pass unnoticed
	}{
		{"rsa_signature_2048_sha256_test.json", crypto.SHA256, 9},
		{"rsa_signature_2048_sha512_test.json", crypto.SHA512, 8},
		{"ecdsa_secp256r1_sha256_test.json", crypto.SHA256, 174},
		{"ecdsa_secp384r1_sha384_test.json", crypto.SHA384, 194},
	} {
		t.Run(tc.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, tc.file))
			if err != nil {
				t.Fatal(err)
			}
			var suite struct {
				TestGroups []struct {
					PublicKeyDer string
					Tests        []struct {
						TcID                      int
						Comment, Msg, Sig, Result string
					}
				}
			}
			if err := json.Unmarshal(data, &suite); err != nil {
				t.Fatal(err)
			}
			valid := 0
			for _, g := range suite.TestGroups {
				key, err := x509.ParsePKIXPublicKey(unhex(t, g.PublicKeyDer))
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range g.Tests {
					h := tc.hash.New()
					h.Write(unhex(t, v.Msg))
					want := v.Result == "valid"
					if want {
						valid++
					}
					if got := verifier.VerifyDigest(key, tc.hash, h.Sum(nil), unhex(t, v.Sig)); got != want {
						t.Errorf("%d (%s): %t, want %s", v.TcID, v.Comment, got, v.Result)
					}
				}
			}
			if valid != tc.valid {
				t.Errorf("%d valid vectors, want %d", valid, tc.valid)
			}
		})
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOpenSSLSignature: what another implementation signs, we verify.
func TestOpenSSLSignature(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	dir := t.TempDir()
	doc := filepath.Join(dir, "application.txt")
	if err := os.WriteFile(doc, []byte("口座開設申込書"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		hash crypto.Hash
		key  crypto.Signer
	}{
		{"sha256", crypto.SHA256, rsaKey()},
		{"sha384", crypto.SHA384, rsaKey()},
		{"sha512", crypto.SHA512, rsaKey()},
		{"sha256", crypto.SHA256, ecKey(elliptic.P256())},
		{"sha384", crypto.SHA384, ecKey(elliptic.P384())},
	} {
		key := writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(tc.key)))
		l := w.issue(t, w.sign[1], tc.key, likeSign)
		signature := openssl(t, "dgst", "-"+tc.name, "-sign", key, doc)
		h := tc.hash.New()
		h.Write([]byte("口座開設申込書"))
		hash, err := verifier.ParseHash(tc.name)
		if err != nil {
			t.Fatal(err)
		}
		res, err := v.Signature(t.Context(), verifier.SignatureInput{Certificate: l.der, Digest: h.Sum(nil), Hash: hash, Signature: signature})
		if err != nil || !res.OK() {
			t.Errorf("%T with %s: %v %+v", tc.key, tc.name, err, res)
		}
	}
}
