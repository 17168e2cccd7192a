// Package client is how others speak with the authority: the JSON shapes of its APIs and a [Client] for them.
//
// It owns the wire types of the station and the register API, which ca/api serves and ca/api/openapi.yaml describes, and
// knows none of the authority's rules. Refusals come back as *jpki.Error with the problem's stable name. Commands are
// repeated safely: each carries an idempotency key, drawn by the caller. A Client is safe for concurrent use.
// Start at New.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A CertificateOrder asks for one or two certificates for keys on one token: a new issue, or a renewal.
type CertificateOrder struct {
	Holder   string       `json:"holder"`
	Token    string       `json:"token"`
	Requests []KeyRequest `json:"requests"`
	Parent   *jpki.CertID `json:"parent,omitempty"` // of a phone
}

// A KeyRequest is a PKCS #10 certification request for one kind of certificate.
type KeyRequest struct {
	Kind    jpki.Kind `json:"kind"`
	Request string    `json:"request"` // PEM, or the DER in base64
}

// Certificates answers an order.
type Certificates struct {
	Certificates []Certificate `json:"certificates"`
}

// A Certificate is an issued certificate. State, Reason and Since are given when a token is looked up.
type Certificate struct {
	ID          jpki.CertID  `json:"id"`
	Kind        jpki.Kind    `json:"kind"`
	Holder      string       `json:"holder,omitempty"` // in searches
	Token       string       `json:"token,omitempty"`  // in searches
	Certificate string       `json:"certificate"`      // PEM
	Issuer      string       `json:"issuer,omitempty"`
	NotAfter    time.Time    `json:"not_after"`
	Replaces    *jpki.CertID `json:"replaces,omitempty"`
	State       jpki.State   `json:"state,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Since       *time.Time   `json:"since,omitempty"`
	DeliveredAt *time.Time   `json:"delivered_at,omitempty"`
}

// A Change gives a command to a token or to one certificate.
type Change struct {
	Token       string       `json:"token,omitempty"`
	Certificate *jpki.CertID `json:"certificate,omitempty"`
	Cause       jpki.Cause   `json:"cause"`
}

// Changes answers a change.
type Changes struct {
	Changed []Changed `json:"changed"`
}

// A Changed is a certificate whose status changed.
type Changed struct {
	Certificate jpki.CertID `json:"certificate"`
	Kind        jpki.Kind   `json:"kind"`
	State       jpki.State  `json:"state"`
	Reason      string      `json:"reason,omitempty"`
	Since       time.Time   `json:"since"`
}

// A Delivery reports that a token reached its holder.
type Delivery struct {
	Token string `json:"token"`
}

// Delivered answers a delivery.
type Delivered struct {
	Delivered []jpki.CertID `json:"delivered"`
}

// An EventOutcome answers a register event.
type EventOutcome struct {
	Applied bool      `json:"applied"` // false: recorded, waits until it is effective
	Changed []Changed `json:"changed"`
}

// A ResponderOrder asks for a certificate for a status server's new OCSP key.
type ResponderOrder struct {
	Issuer  jpki.IssuerID `json:"issuer"`  // in whose name it is to answer
	Request string        `json:"request"` // PKCS #10 without extensions: PEM, or the DER in base64
}

// A ResponderCertificate answers that.
type ResponderCertificate struct {
	Certificate string    `json:"certificate"` // PEM
	NotAfter    time.Time `json:"not_after"`
}

// A Client speaks with one authority as one station, as the register or as a status server.
type Client struct {
	base string
	http *http.Client
}

// New returns a client of the authority at base, an https URL, that presents the certificate in cfg.
func New(base string, cfg *tls.Config) *Client {
	return &Client{strings.TrimSuffix(base, "/"), &http.Client{
		Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16}, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Through returns the same client with its requests passed through what wrap makes of its connections, as for traces.
func (c *Client) Through(wrap func(http.RoundTripper) http.RoundTripper) *Client {
	through := *c.http
	through.Transport = wrap(through.Transport)
	return &Client{c.base, &through}
}

// Issue orders certificates.
func (c *Client) Issue(ctx context.Context, key string, o CertificateOrder) (out Certificates, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/certificates", key, o, &out)
}

// Renew orders certificates in the place of ones that end soon.
func (c *Client) Renew(ctx context.Context, key string, o CertificateOrder) (out Certificates, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/renewals", key, o, &out)
}

// Deliver records that a token reached its holder.
func (c *Client) Deliver(ctx context.Context, key, token string) (out Delivered, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/deliveries", key, Delivery{token}, &out)
}

// Suspend holds certificates.
func (c *Client) Suspend(ctx context.Context, key string, ch Change) (out Changes, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/suspensions", key, ch, &out)
}

// Resume ends a suspension well.
func (c *Client) Resume(ctx context.Context, key string, ch Change) (out Changes, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/resumptions", key, ch, &out)
}

// Revoke ends certificates.
func (c *Client) Revoke(ctx context.Context, key string, ch Change) (out Changes, err error) {
	return out, c.do(ctx, http.MethodPost, "/station/v1/revocations", key, ch, &out)
}

// Token looks up the certificates of a token.
func (c *Client) Token(ctx context.Context, token string) (out Certificates, err error) {
	return out, c.do(ctx, http.MethodGet, "/station/v1/tokens/"+url.PathEscape(token), "", nil, &out)
}

// ReportEvent reports an event of the resident register.
func (c *Client) ReportEvent(ctx context.Context, e jpki.Event) (out EventOutcome, err error) {
	return out, c.do(ctx, http.MethodPost, "/registry/v1/events", "", e, &out)
}

// CloseIdle ends connections that nothing uses now: the next call presents the certificate that is in force then.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// CertifyResponder has a status server's OCSP key certified. Repeated, it makes another certificate.
func (c *Client) CertifyResponder(ctx context.Context, o ResponderOrder) (out ResponderCertificate, err error) {
	return out, c.do(ctx, http.MethodPost, "/responder/v1/certificates", "", o, &out)
}

// maxAnswer bounds what is read of an answer, in octets.
const maxAnswer = 4 << 20

func (c *Client) do(ctx context.Context, method, path, key string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return jpki.WrapError(jpki.Unavailable, err, "the authority does not answer")
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return jpki.WrapError(jpki.Unavailable, err, "the authority's answer broke off")
	}
	if resp.StatusCode/100 != 2 {
		return problemOf(resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// PEM encodes a certificate.
func PEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// RequestPEM encodes a certification request.
func RequestPEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// DER decodes a certificate that PEM encoded.
func DER(text string) ([]byte, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one certificate in PEM")
	}
	return block.Bytes, nil
}
