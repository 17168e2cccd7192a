package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// What a status server can say, besides a refusal.
const (
	sayGood      = "good"
	saySuspended = "suspended"
	sayRevoked   = "revoked"
	sayUnknown   = "unknown"
)

// question is a request about a certificate, as it is sent.
func (y *city) question(id jpki.CertID) ([]byte, error) {
	q, err := ocsp.NewRequest(y.c.issuers[id.Issuer.CA], crypto.SHA256, nil, id.Serial)
	if err != nil {
		return nil, err
	}
	return q.Marshal()
}

// unissued is a certificate that the authority never issued.
func (y *city) unissued() (*subject, error) {
	serial, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		return nil, err
	}
	s := &subject{id: jpki.CertID{Issuer: y.c.generations[0], Serial: serial}}
	s.question, err = y.question(s.id)
	return s, err
}

// A responder is a status server that is asked. Its clock may be wrong by an offset.
type responder struct {
	*server
	client *http.Client
	offset atomic.Int64
}

func (c *cluster) asked() (out []*responder) {
	for _, s := range c.responders {
		out = append(out, &responder{server: s, client: &http.Client{
			Timeout:   15 * time.Second, // longer than any fault: an answer that comes late is judged, too
			Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		}})
	}
	return out
}

// ask asks and verifies the answer, as a relying party does whose clock agrees with the server's. An error is a refusal.
func (r *responder) ask(ctx context.Context, y *city, s *subject) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/ocsp", bytes.NewReader(s.question)) //nolint:gosec // to a server of ours
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := r.client.Do(req) //nolint:gosec // likewise
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	der, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	answer, err := ocsp.ParseResponse(der)
	if err != nil {
		return "", err
	}
	if answer.Status != ocsp.Successful {
		return "", fmt.Errorf("%s", answer.Status)
	}
	one, err := r.believe(y, s, answer)
	if err != nil {
		return "", err
	}
	switch {
	case one.Unknown:
		return sayUnknown, nil
	case one.Revoked && one.Reason == jpki.CertificateHold:
		return saySuspended, nil
	case one.Revoked:
		return sayRevoked, nil
	}
	return sayGood, nil
}

func (r *responder) believe(y *city, s *subject, answer *ocsp.Response) (one ocsp.Answer, err error) {
	issuer := y.c.issuers[s.id.Issuer.CA]
	for _, by := range []time.Duration{0, time.Duration(r.offset.Load())} {
		at := time.Now().Add(by)
		if err = answer.Verify(ocsp.VerifyOptions{Issuer: issuer, At: at, Skew: time.Second}); err != nil {
			continue
		}
		if one, err = answer.Answer(issuer, s.id.Serial); err != nil {
			continue
		}
		if err = one.Fresh(at, time.Second, 0); err == nil {
			return one, nil
		}
	}
	return one, err
}

// A bank asks the verifier.
type bank struct {
	c      *cluster
	client *http.Client
}

func newBank(c *cluster) (*bank, error) {
	pool, err := readPool(c.path("infrastructure", "ca.crt"))
	if err != nil {
		return nil, err
	}
	return &bank{c: c, client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, MaxIdleConnsPerHost: 64,
	}}}, nil
}

// What the verifier says of a signature that may be relied upon.
const passed = "TOTAL-PASSED"

// A verdict is the verifier's, as far as it is of interest here.
type verdict struct {
	Indication    string `json:"indication"`
	SubIndication string `json:"sub_indication"`
	Revocation    struct {
		State string `json:"state"`
	} `json:"revocation"`
}

// verify has a holder sign something and asks the verifier about it. An error is no verdict.
func (b *bank) verify(ctx context.Context, k *card) (v verdict, err error) {
	digest := sha512.Sum384([]byte("I open an account."))
	signature, err := ecdsa.SignASN1(rand.Reader, k.keys[0], digest[:])
	if err != nil {
		return v, err
	}
	body, err := json.Marshal(map[string]any{"certificate": k.certificates[0].der, "digest": digest[:], "hash": "sha384", "signature": signature, "user": k.name})
	if err != nil {
		return v, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.c.verifier.url+"/v1/verifications", bytes.NewReader(body)) //nolint:gosec // to a server of ours
	if err != nil {
		return v, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+b.c.token)
	resp, err := b.client.Do(req) //nolint:gosec // likewise
	if err != nil {
		return v, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return v, err
	}
	if resp.StatusCode != http.StatusOK {
		var problem jpki.ProblemDetails
		if json.Unmarshal(text, &problem) != nil {
			return v, fmt.Errorf("HTTP %d", resp.StatusCode)
		}
		return v, jpki.Errorf(problem.Problem(), "HTTP %d", resp.StatusCode)
	}
	return v, json.Unmarshal(text, &v)
}
