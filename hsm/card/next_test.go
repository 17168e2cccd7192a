package card_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
)

// A card of the next generation: OpenSSL reads its requests and verifies its signatures, it takes certificates for its own
// keys only, and a key made anew is of the same type.
func TestACardWithP384Keys(t *testing.T) {
	openssl := tool(t, "openssl")
	dir := t.TempDir()
	c, err := card.New(card.Config{Dir: dir, ID: "NEXT-0001", SignPIN: signPIN, AuthPIN: authPIN, Keys: card.P384, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(openssl, args...).CombinedOutput()
		if err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	text := []byte("口座開設申込書")
	message, pub := file("m", text), filepath.Join(dir, "pub.pem")
	s256, s384, s512 := sha256.Sum256(text), sha512.Sum384(text), sha512.Sum512(text)
	for kind, pin := range pins {
		csr, err := c.CertificateRequest(kind, pin)
		if err != nil {
			t.Fatal(err)
		}
		request := file("csr.der", csr)
		if out := run("req", "-inform", "DER", "-in", request, "-verify", "-noout", "-text"); !strings.Contains(out, "verify OK") || !strings.Contains(out, "secp384r1") || !strings.Contains(out, "ecdsa-with-SHA384") {
			t.Errorf("openssl req says\n%s", out)
		}
		run("req", "-inform", "DER", "-in", request, "-pubkey", "-noout", "-out", pub)
		signer, err := c.Signer(kind, pin)
		if err != nil {
			t.Fatal(err)
		}
		if card.HashFor(signer.Public()) != crypto.SHA384 {
			t.Error("the key is not used with SHA-384")
		}
		for _, s := range []struct {
			flag   string
			digest []byte
			hash   crypto.Hash
		}{{"-sha256", s256[:], crypto.SHA256}, {"-sha384", s384[:], crypto.SHA384}, {"-sha512", s512[:], crypto.SHA512}, {"-sha384", s384[:], 0}} {
			sig, err := c.Sign(kind, pin, s.digest, s.hash)
			if err != nil {
				t.Fatal(err)
			}
			run("dgst", s.flag, "-verify", pub, "-signature", file("sig", sig), message)
			if sig, err = signer.Sign(nil, s.digest, s.hash); err != nil {
				t.Fatal(err)
			}
			run("dgst", s.flag, "-verify", pub, "-signature", file("sig", sig), message)
		}
		for _, bad := range []struct {
			n    int
			hash crypto.Hash
		}{{32, crypto.SHA384}, {20, crypto.SHA1}, {51, 0}, {0, 0}} {
			if _, err := c.Sign(kind, pin, make([]byte, bad.n), bad.hash); err == nil {
				t.Errorf("%d octets with %v: signed", bad.n, bad.hash)
			}
		}

		foreign, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.WriteCertificate(kind, certify(t, foreign.Public(), 1, false)); err == nil {
			t.Error("took a certificate for another key")
		}
		if err := c.WriteCertificate(kind, certify(t, signer.Public(), 2, false)); err != nil {
			t.Error(err)
		}
		if err := c.RegenerateKey(kind, pin); err != nil {
			t.Fatal(err)
		}
		if _, err := signer.Sign(nil, s384[:], crypto.SHA384); err == nil {
			t.Error("a session signs with a key made after it")
		}
		again, err := c.Signer(kind, pin)
		if err != nil {
			t.Fatal(err)
		}
		if k, ok := again.Public().(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() || k.Equal(signer.Public()) {
			t.Errorf("the key made anew is %T", again.Public())
		}
	}

	// A key of no card's type is damage, not a key.
	stored, err := os.ReadFile(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(foreign)
	if err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := json.Unmarshal(stored, &content); err != nil {
		t.Fatal(err)
	}
	content["auth"].(map[string]any)["key"] = der
	if stored, err = json.Marshal(content); err != nil {
		t.Fatal(err)
	}
	file(filepath.Base(c.Path()), stored)
	if _, err := c.Signer(jpki.CardAuth, authPIN); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a P-521 key: %v", err)
	}
	if _, err := card.New(card.Config{Dir: dir, ID: "NEXT-0002", SignPIN: signPIN, AuthPIN: authPIN, Keys: "p-521", Rand: rand.Reader}); err == nil || !strings.Contains(err.Error(), "card.Config.Keys") {
		t.Errorf("a card with keys of an unknown type: %v", err)
	}
}
