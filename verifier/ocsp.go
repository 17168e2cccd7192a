package verifier

import (
	"bytes"
	"context"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// OCSPConfig is what [NewOCSP] wants.
type OCSPConfig struct {
	// URL is asked about every certificate if it is set. Otherwise the certificate's authorityInfoAccess says whom to ask,
	// within Allowed. One of the two is required: a certificate alone must not make the relying party fetch anything.
	URL string
	// Allowed lists the responders that a certificate may name: "http://ocsp.example.jp" admits every path of that host
	// and port, "http://ocsp.example.jp/sign" exactly that address.
	Allowed []string

	Now  func() time.Time // required
	Rand io.Reader        // required; for nonces; must be safe for concurrent use
	// Client makes the requests; nil means one of our own. Its redirect policy and cookies are not used.
	Client  *http.Client
	Timeout time.Duration // of one request, 0 means 5 s; ctx may end it sooner
	Skew    time.Duration // tolerated difference between clocks, 0 means DefaultSkew
	// Hash is for the CertID: 0 means SHA-256; old responders want crypto.SHA1.
	Hash crypto.Hash
}

// OCSP is the [StatusChecker] that asks an OCSP responder (RFC 6960): one POST with a fresh nonce (RFC 9654) of which
// nothing is cached. It believes an answer only if the issuer or its delegate signed it, it is about this certificate,
// echoes the nonce and is current.
type OCSP struct {
	url     *url.URL
	allowed []*url.URL
	now     func() time.Time
	rand    io.Reader
	client  *http.Client
	timeout time.Duration
	skew    time.Duration
	hash    crypto.Hash
}

const (
	maxOCSPBytes   = 64 << 10
	maxOCSPSources = 8 // looked at in one certificate
	nonceBytes     = 32
	maxRetry       = time.Hour
	mediaRequest   = "application/ocsp-request"
	mediaResponse  = "application/ocsp-response"
)

// NewOCSP checks the configuration.
func NewOCSP(cfg OCSPConfig) (*OCSP, error) {
	o := &OCSP{now: cfg.Now, rand: cfg.Rand, timeout: cfg.Timeout, skew: cfg.Skew, hash: cfg.Hash}
	switch {
	case cfg.Now == nil:
		return nil, errors.New("OCSP checker: Now is required")
	case cfg.Rand == nil:
		return nil, errors.New("OCSP checker: Rand is required")
	case cfg.URL == "" && len(cfg.Allowed) == 0:
		return nil, errors.New("OCSP checker: URL or Allowed is required")
	case cfg.Timeout < 0 || cfg.Skew < 0 || cfg.Skew > maxSkew:
		return nil, fmt.Errorf("OCSP checker: Timeout is negative or Skew not between 0 and %s", maxSkew)
	}
	if cfg.URL != "" {
		u, err := parseSource(cfg.URL)
		if err != nil {
			return nil, fmt.Errorf("OCSP checker: URL: %w", err)
		}
		o.url = u
	}
	for _, s := range cfg.Allowed {
		u, err := parseSource(s)
		if err != nil {
			return nil, fmt.Errorf("OCSP checker: Allowed: %w", err)
		}
		o.allowed = append(o.allowed, u)
	}
	if o.timeout == 0 {
		o.timeout = 5 * time.Second
	}
	if o.skew == 0 {
		o.skew = DefaultSkew
	}
	switch o.hash {
	case 0:
		o.hash = crypto.SHA256
	case crypto.SHA1, crypto.SHA256, crypto.SHA384:
	default:
		return nil, errors.New("OCSP checker: Hash is not SHA-1, SHA-256 or SHA-384")
	}
	var client http.Client
	if cfg.Client != nil {
		client = *cfg.Client
	} else if t, ok := http.DefaultTransport.(*http.Transport); ok {
		t = t.Clone()
		t.MaxResponseHeaderBytes, t.DisableCompression = maxOCSPBytes, true
		client.Transport = t
	}
	client.Jar = nil
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.client = &client
	return o, nil
}

// parseSource reads an absolute HTTP URL without user, query and fragment.
func parseSource(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || len(s) > 2048 {
		return nil, errors.New("not a URL")
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("not an absolute http or https URL without user, query and fragment")
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// source chooses whom to ask about leaf.
func (o *OCSP) source(leaf *x509.Certificate) (*url.URL, error) {
	if o.url != nil {
		return o.url, nil
	}
	if len(leaf.OCSPServer) == 0 {
		return nil, &StatusError{Failure: NoSource}
	}
	for _, s := range leaf.OCSPServer[:min(len(leaf.OCSPServer), maxOCSPSources)] {
		u, err := parseSource(s)
		if err != nil {
			continue
		}
		for _, a := range o.allowed {
			if u.Scheme == a.Scheme && u.Host == a.Host && (a.Path == "" || u.EscapedPath() == a.EscapedPath()) {
				return u, nil
			}
		}
	}
	return nil, &StatusError{Failure: SourceNotAllowed}
}

// Check asks for the present state of leaf; at is not needed for that. Steps:
//  1. choose the source
//  2. ask, with a fresh nonce
//  3. believe the answer only if it is signed by or for this very issuer and echoes the nonce
//  4. find what it says of this certificate, and that it is current
func (o *OCSP) Check(ctx context.Context, leaf, issuer *x509.Certificate, _ time.Time) (Revocation, error) {
	// 1. Source.
	source, err := o.source(leaf)
	if err != nil {
		return Revocation{}, err
	}
	// 2. Question and answer.
	serial, err := jpki.SerialFromBig(leaf.SerialNumber)
	if err != nil {
		return Revocation{}, fmt.Errorf("ask OCSP: %w", err)
	}
	nonce := make([]byte, nonceBytes)
	if _, err := io.ReadFull(o.rand, nonce); err != nil {
		return Revocation{}, fmt.Errorf("draw OCSP nonce: %w", err)
	}
	req, err := ocsp.NewRequest(issuer, o.hash, nonce, serial)
	if err != nil {
		return Revocation{}, fmt.Errorf("ask OCSP: %w", err)
	}
	question, err := req.Marshal()
	if err != nil {
		return Revocation{}, fmt.Errorf("ask OCSP: %w", err)
	}
	der, err := o.post(ctx, source, question)
	if err != nil {
		return Revocation{}, err
	}
	resp, err := ocsp.ParseResponse(der)
	if err != nil {
		return Revocation{}, &StatusError{Failure: AnswerMalformed, Err: err}
	}
	if resp.Status != ocsp.Successful {
		return Revocation{}, &StatusError{Failure: SourceRefused, Err: fmt.Errorf("responder answered %s", resp.Status)}
	}
	// 3 and 4.
	return revocationIn(resp, serial, issuer, nonce, o.now(), o.skew, source.String())
}

// revocationIn is what a response says of a certificate, if it may be believed: steps 3 and 4 of [OCSP.Check]. A stored response has no nonce to
// be held against, and is believed as of when it was got.
func revocationIn(resp *ocsp.Response, serial jpki.Serial, issuer *x509.Certificate, nonce []byte, now time.Time, skew time.Duration, source string) (Revocation, error) {
	// 3. Who says so, and in answer to us?
	if err := resp.Verify(ocsp.VerifyOptions{Issuer: issuer, At: now, Nonce: nonce, Skew: skew}); err != nil {
		failure := ResponderWrong
		if nonce != nil && subtle.ConstantTimeCompare(nonce, resp.Nonce) != 1 {
			failure = NonceWrong
		}
		return Revocation{}, &StatusError{Failure: failure, Err: err}
	}
	// 4. Of whom, and how recently?
	answer, err := resp.Answer(issuer, serial)
	if err != nil {
		return Revocation{}, &StatusError{Failure: OtherCertificate, Err: err}
	}
	if err := answer.Fresh(now, skew, maxStatusAge); err != nil {
		return Revocation{}, &StatusError{Failure: AnswerNotCurrent, Err: err}
	}
	rev := Revocation{
		State: jpki.Good, Source: source, ThisUpdate: answer.ThisUpdate, NextUpdate: answer.NextUpdate,
		CheckedAt: now, Evidence: resp.Raw, Format: mediaResponse,
	}
	if rev.signed, err = proofOf(resp.Raw, issuer); err != nil { // two readers, and one of them is wrong
		return Revocation{}, &StatusError{Failure: ResponderWrong, Err: err}
	}
	switch {
	case answer.Unknown:
		rev.State = Unknown
	case answer.Revoked:
		rev.State, rev.Reason, rev.RevokedAt = jpki.Revoked, answer.Reason, &answer.RevokedAt
		if answer.Reason == jpki.CertificateHold {
			rev.State = jpki.Suspended
		}
	}
	return rev, nil
}

// post sends the question and returns the octets of the answer.
func (o *OCSP) post(ctx context.Context, to *url.URL, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	broken := func(err error) error {
		if timeout, ok := errors.AsType[net.Error](err); ctx.Err() != nil || ok && timeout.Timeout() {
			return &StatusError{Failure: TimedOut, Err: err}
		}
		return &StatusError{Failure: Unreachable, Err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(question))
	if err != nil {
		return nil, broken(err)
	}
	req.Header.Set("Content-Type", mediaRequest)
	req.Header.Set("Accept", mediaResponse)
	resp, err := o.client.Do(req)
	if err != nil {
		return nil, broken(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, &StatusError{Failure: Redirected, Err: fmt.Errorf("HTTP status %d", resp.StatusCode)}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{Failure: HTTPFailure, RetryAfter: retryAfter(resp.Header), Err: fmt.Errorf("HTTP status %d", resp.StatusCode)}
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != mediaResponse {
		return nil, &StatusError{Failure: HTTPFailure, Err: errors.New("media type is not " + mediaResponse)}
	}
	der, err := io.ReadAll(io.LimitReader(resp.Body, maxOCSPBytes+1))
	if err != nil {
		return nil, broken(err)
	}
	if len(der) > maxOCSPBytes {
		return nil, &StatusError{Failure: AnswerTooLarge, Err: fmt.Errorf("more than %d octets", maxOCSPBytes)}
	}
	return der, nil
}

// retryAfter reads the header's form in seconds (RFC 9110 §10.2.3), within an hour; zero if there is none.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, int(maxRetry/time.Second)))*time.Second, maxRetry)
}
