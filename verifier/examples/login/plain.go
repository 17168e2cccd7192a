package main

import (
	"bytes"
	"context"
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

func (b byHTTP) challenge(ctx context.Context, origin, binding string) (challenge, error) {
	var out struct {
		ID      string `json:"challenge_id"`
		Message []byte `json:"message"`
	}
	problem, err := b.post(ctx, "challenges", map[string]any{"audience": origin, "binding": binding}, &out)
	if err == nil && problem != "" {
		err = fmt.Errorf("no challenge: %s", problem)
	}
	return challenge{out.ID, out.Message}, err
}

func (b byHTTP) login(ctx context.Context, id string, certificate, signature []byte, origin, binding string) (answer, error) {
	var v struct {
		Indication string `json:"indication"`
		Code       string `json:"code"`
		User       struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	problem, err := b.post(ctx, "authentications", map[string]any{"challenge_id": id, "certificate": certificate, "signature": signature, "audience": origin, "binding": binding, "identify_user": true}, &v)
	if err != nil || problem != "" {
		return answer{code: problem}, err
	}
	return answer{v.Indication == "TOTAL-PASSED" && v.Code == "ok", v.Code, v.User.ID}, nil
}

// post sends JSON, in which octets are base64, and reads the answer, or the name of a problem (RFC 9457). It repeats nothing: a
// challenge serves once, and the customer gets a new one.
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
	resp, err := b.web.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	limited := json.NewDecoder(io.LimitReader(resp.Body, 1<<20))
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusCreated {
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
