package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// byHTTP asks with nothing but HTTP and JSON: what this does can be written in any language.
type byHTTP struct {
	url, token string
	web        *http.Client
}

func withHTTP(url, token string) byHTTP {
	// A redirect would carry the token elsewhere.
	return byHTTP{url, token, &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b byHTTP) verify(ctx context.Context, a application) (answer, error) {
	sum, hash := digest(a)
	var v struct {
		ID         string      `json:"id"`
		Indication string      `json:"indication"`
		Code       string      `json:"code"`
		Attributes *attributes `json:"attributes"`
		User       struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	problem, err := b.post(ctx, "verifications", map[string]any{ // octets become base64
		"certificate": a.certificate, "digest": sum, "hash": hash, "signature": a.signature, "user": a.customer, "identify_user": true, "purpose": purpose,
	}, &v)
	if err != nil || problem != "" {
		return answer{code: problem}, err
	}
	return answer{ok: v.Indication == "TOTAL-PASSED" && v.Code == "ok", code: v.Code, evidence: v.ID, user: v.User.ID, attributes: v.Attributes}, nil
}

func (b byHTTP) follow(ctx context.Context, user string) (code string, err error) {
	var out struct {
		Unknown []string `json:"unknown"`
	}
	code, err = b.post(ctx, "watches", map[string]any{"watches": []map[string]string{{"user": user, "purpose": purpose}}}, &out)
	if err == nil && len(out.Unknown) > 0 {
		code = "unknown-user"
	}
	return code, err
}

// post sends JSON and reads the answer, or the name of a problem (RFC 9457).
func (b byHTTP) post(ctx context.Context, path string, in, out any) (problem string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.url+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+b.token)
	req.Header.Set("Idempotency-Key", rand.Text()) // who repeats what broke off sends the same key
	resp, err := b.web.Do(req)
	if err != nil {
		return "unavailable", nil //nolint:nilerr // that nobody answers is an answer: the customer may come again
	}
	defer func() { _ = resp.Body.Close() }()
	limited := json.NewDecoder(io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode == http.StatusOK {
		return "", limited.Decode(out)
	}
	var p struct {
		Type string `json:"type"`
	}
	if err := limited.Decode(&p); err != nil {
		return "", fmt.Errorf("read the verifier's answer, status %d: %w", resp.StatusCode, err)
	}
	_, problem, _ = strings.Cut(p.Type, "#")
	return problem, nil
}
