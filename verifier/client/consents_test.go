package client_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/client"
)

// signedReceipt makes a receipt as RFC 7515 says, and the set with its key.
func signedReceipt(header, claims string) (set []byte, receipt string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	point, err := key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	set = fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","kid":"other","x":"","y":""},{"kty":"EC","crv":"P-256","kid":"k","x":"%s","y":"%s"}]}`, encode(point[1:33]), encode(point[33:]))
	text := encode([]byte(header)) + "." + encode([]byte(claims))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		panic(err)
	}
	return set, text + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

const receiptHeader = `{"alg":"ES256","typ":"consent-receipt+jwt","kid":"k"}`

func TestVerifyReceipt(t *testing.T) {
	set, receipt := signedReceipt(receiptHeader, `{"record_id":"c"}`)
	claims, err := client.VerifyReceipt(set, receipt)
	if err != nil || string(claims) != `{"record_id":"c"}` {
		t.Fatal(string(claims), err)
	}
	other, _ := signedReceipt(receiptHeader, `{}`)
	if _, err := client.VerifyReceipt(other, receipt); !errors.Is(err, jpki.Forbidden) {
		t.Error("another's key:", err)
	}
	parts := strings.Split(receipt, ".")
	for name, bad := range map[string]string{
		"other claims":     parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"record_id":"d"}`)) + "." + parts[2],
		"no signature":     parts[0] + "." + parts[1] + ".",
		"two parts":        parts[0] + "." + parts[1],
		"padding":          receipt + "=",
		"something behind": receipt + ".e30",
	} {
		if _, err := client.VerifyReceipt(set, bad); err == nil {
			t.Error(name, "verified")
		}
	}
	for _, header := range []string{`{"alg":"none","typ":"consent-receipt+jwt","kid":"k"}`, `{"alg":"ES256","typ":"secevent+jwt","kid":"k"}`, `{"alg":"ES256","typ":"consent-receipt+jwt","kid":"other"}`} {
		set, receipt := signedReceipt(header, `{}`)
		if _, err := client.VerifyReceipt(set, receipt); err == nil {
			t.Error(header, "verified")
		}
	}
}

// FuzzVerifyReceipt: what verifies is exactly what was signed, and says JSON.
func FuzzVerifyReceipt(f *testing.F) {
	set, receipt := signedReceipt(receiptHeader, `{"record_id":"c"}`)
	f.Add(set, receipt)
	f.Add([]byte(`{}`), "..")
	f.Add(set, receipt[:len(receipt)-1])
	f.Fuzz(func(t *testing.T, keys []byte, text string) {
		claims, err := client.VerifyReceipt(keys, text)
		if err == nil && !json.Valid(claims) {
			t.Error("claims are no JSON")
		}
		if got, err := client.VerifyReceipt(set, text); err == nil && (text != receipt || string(got) != `{"record_id":"c"}`) {
			t.Errorf("%q verifies", text)
		}
	})
}
