package sandbox

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/openjpki/jpki"
)

// A Bank is a relying party that calls the verifier's API.
type Bank struct {
	url, token string
	http       *http.Client
}

// Bank returns the relying party of the sandbox.
func (e Env) Bank() *Bank {
	return &Bank{e.VerifierURL, e.VerifierToken, &http.Client{Timeout: 30 * time.Second}}
}

// A Verdict is what the story and the tools read of a result.
type Verdict struct {
	Indication    string           `json:"indication"`
	SubIndication string           `json:"sub_indication"`
	Code          string           `json:"code"`
	Message       Text             `json:"message"`
	Action        Text             `json:"action"`
	Attributes    *jpki.Attributes `json:"attributes"`
	Revocation    *struct {
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"revocation"`
	Raw json.RawMessage `json:"-"`
}

// A Text is a sentence in both languages.
type Text struct {
	EN string `json:"en"`
	JA string `json:"ja"`
}

// In returns the sentence in a language.
func (t Text) In(lang string) string {
	if lang == "ja" {
		return t.JA
	}
	return t.EN
}

// VerifySignature asks about a signature over a digest.
func (b *Bank) VerifySignature(ctx context.Context, certificate, digest []byte, hash crypto.Hash, signature []byte) (v Verdict, err error) {
	name := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}[hash]
	return v, b.ask(ctx, "/v1/verifications", map[string]any{"certificate": certificate, "digest": digest, "hash": name, "signature": signature}, &v)
}

// Status checks a certificate again.
func (b *Bank) Status(ctx context.Context, certificate []byte) (v Verdict, err error) {
	return v, b.ask(ctx, "/v1/certificate-status", map[string]any{"certificate": certificate}, &v)
}

// A LoginChallenge is what a card answers to log in.
type LoginChallenge struct {
	ID      string `json:"challenge_id"`
	Message []byte `json:"message"`
}

// Challenge begins a log-in.
func (b *Bank) Challenge(ctx context.Context) (c LoginChallenge, err error) {
	return c, b.ask(ctx, "/v1/challenges", map[string]any{}, &c)
}

// Login ends a log-in.
func (b *Bank) Login(ctx context.Context, challenge string, certificate, signature []byte) (v Verdict, err error) {
	return v, b.ask(ctx, "/v1/authentications", map[string]any{"challenge_id": challenge, "certificate": certificate, "signature": signature}, &v)
}

func (b *Bank) ask(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		var p jpki.ProblemDetails
		if json.Unmarshal(answer, &p) == nil && p.Type != "" {
			return &jpki.Error{Problem: p.Problem(), Detail: p.Detail}
		}
		return fmt.Errorf("verifier answered with HTTP status %d", resp.StatusCode)
	}
	if v, ok := out.(*Verdict); ok {
		v.Raw = answer
	}
	return json.Unmarshal(answer, out)
}
