package cms_test

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/verifier/cms"
)

// Cards of both generations sign what verifies here and at openssl, by the algorithm that Sign chooses for them.
func TestCardSigns(t *testing.T) {
	file := needOpenSSL(t)
	for _, of := range []card.KeyType{card.RSA2048, card.P384} {
		c, err := card.New(card.Config{Dir: t.TempDir(), ID: "TEST-0001", SignPIN: "ABC123", AuthPIN: "1234", Keys: of, Rand: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		signer, err := c.Signer(jpki.CardSign, "ABC123")
		if err != nil {
			t.Fatal(err)
		}
		holder := newIdentity(signer)
		der, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{Certificate: holder.der, Signer: signer, Rand: rand.Reader, SigningTime: noon, Attached: true})
		if err != nil {
			t.Fatal(err)
		}
		if s := one(t, der, cms.Input{}); s.Integrity != cms.Intact || s.Level != cms.LevelB || s.Digest != card.HashFor(signer.Public()) {
			t.Errorf("%s: %s %s at %s", of, s.Integrity, s.Detail, s.Level)
		}
		write(t, file("sig"), der)
		openssl(t, "cms", "-verify", "-noverify", "-binary", "-inform", "DER", "-in", file("sig"), "-out", file("out"))
	}
}
