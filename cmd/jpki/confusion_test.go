package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// Tokens of the enrolment whose header says how they are to be believed: without a signature, by an HMAC whose key everybody can
// read, by a key that comes along, or by one in a file of the token's choice.
func TestTokenConfusion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, env := start(t, dir, 0)
	if err := p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }); err != nil {
		t.Fatal(err)
	}
	root, err := sandbox.ReadCertificate(env.StationCA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	c := newClient(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
	public := fileText(t, filepath.Join(dir, "infrastructure", "helpdesk.pub"))
	var jwk map[string]any
	if err := json.Unmarshal(public, &jwk); err != nil {
		t.Fatal(err)
	}
	kid, _ := jwk["kid"].(string)
	if kid == "" {
		t.Fatalf("the provisioner's key has no identifier: %s", public)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "helpdesk", "sub": "aoba-counter-1", "aud": env.EnrolmentURL + "/1.0/sign", "sans": []string{"aoba-counter-1"}, "jti": "confusion",
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(4 * time.Minute).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	token := func(header map[string]any, key []byte) string {
		h, err := json.Marshal(header)
		if err != nil {
			t.Fatal(err)
		}
		input := b64(h) + "." + b64(claims)
		if key == nil {
			return input + "."
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil))
	}
	csr := certificationRequest(t, "aoba-counter-1")
	for name, ott := range map[string]string{
		"none":                   token(map[string]any{"alg": "none", "kid": kid}, nil),
		"nOnE":                   token(map[string]any{"alg": "nOnE", "kid": kid}, nil),
		"no signature":           token(map[string]any{"alg": "ES256", "kid": kid}, nil),
		"HMAC by the public key": token(map[string]any{"alg": "HS256", "kid": kid}, public),
		"HMAC by nothing":        token(map[string]any{"alg": "HS256", "kid": kid}, []byte{}),
		"a key that comes along": token(map[string]any{"alg": "HS256", "kid": kid, "jwk": map[string]any{"kty": "oct", "k": "AA"}}, []byte{0}),
		"a key by its path":      token(map[string]any{"alg": "HS256", "kid": "../../../../../../dev/null"}, []byte{}),
		"a key by its address":   token(map[string]any{"alg": "HS256", "kid": kid, "jku": env.AdminURL + "/metrics"}, []byte{}),
	} {
		body, err := json.Marshal(map[string]any{"csr": csr, "ott": ott})
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/sign", "/1.0/sign"} {
			if a := send(t, c, "POST", env.EnrolmentURL+path, "application/json", body); a.status != 401 {
				t.Errorf("%s at %s: HTTP status %d, %s", name, path, a.status, cut(a.body))
			}
		}
	}
	p.end(t)
}
