// Package client asks a verifier over its API, for relying parties that do not link the library.
//
// It owns [Client] and the answers' types, which have the names of openapi.yaml. It decides nothing and keeps nothing.
// It needs nothing but the standard library. A refusal is a [*jpki.Error] with the problem that the server named; a negative verdict is no error: ask
// [Verdict.OK]. What cannot be reached is [jpki.Unavailable].
// A Client is safe for concurrent use.
// Start at New and Client.VerifySignature.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// Config is what [New] wants.
type Config struct {
	URL   string       // required: of the server, without a path of the API
	Token string       // the tenant's; empty if HTTP shows a client certificate instead
	HTTP  *http.Client // nil means one with a timeout of 30 s, which follows no redirect
}

// A Client asks one server as one tenant.
type Client struct {
	base, token string
	http        *http.Client
}

// New checks the configuration.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("verifier's client: URL is not an http or https URL")
	}
	c := &Client{base: strings.TrimSuffix(cfg.URL, "/"), token: cfg.Token, http: cfg.HTTP}
	if c.http == nil {
		// A redirect would carry the token elsewhere.
		c.http = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return c, nil
}

// Text is a sentence in both languages.
type Text struct {
	EN string `json:"en"`
	JA string `json:"ja"`
}

// A Verdict is a result. Raw has all of it, as it came.
type Verdict struct {
	ID             string           `json:"id"` // of the evidence, too
	Indication     string           `json:"indication"`
	SubIndication  string           `json:"sub_indication"`
	Code           string           `json:"code"`
	Message        Text             `json:"message"`             // what the code means
	Action         Text             `json:"action"`              // what to do next
	RetryAfter     int              `json:"retry_after_seconds"` // when to ask again, if that may help; else 0
	Signer         *Signer          `json:"signer"`              // nil if the certificate could not be read, and for documents
	Attributes     *jpki.Attributes `json:"attributes"`          // only if OK; for documents see Signatures
	Revocation     *Revocation      `json:"revocation"`          // nil if the status was not established
	Policy         Policy           `json:"policy"`
	ValidationTime time.Time        `json:"validation_time"`

	Format     string      `json:"format"`          // of a document: cms, pdf, xml or json
	SHA256     string      `json:"document_sha256"` // of a document
	Signatures []Signature `json:"signatures"`      // of a document

	User *IdentifiedUser `json:"user"` // if it was asked for, and the verdict is good

	CheckPurpose    string    `json:"check_purpose"`     // of a status
	SourceUpdatedAt time.Time `json:"source_updated_at"` // of a status: as of when it is known

	Raw json.RawMessage `json:"-"`
}

// OK reports whether the verdict may be relied upon. It is the only value to decide by.
func (v *Verdict) OK() bool { return v != nil && v.Indication == "TOTAL-PASSED" && v.Code == "ok" }

// A Signer says which certificate it was.
type Signer struct {
	Kind      jpki.Kind `json:"kind"`
	Serial    string    `json:"serial"`
	SHA256    string    `json:"certificate_sha256"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// A Revocation is what the authority said.
type Revocation struct {
	State     string     `json:"state"`
	Reason    string     `json:"reason"`
	RevokedAt *time.Time `json:"revoked_at"`
	AsOf      time.Time  `json:"status_as_of"`
}

// A Policy names what was demanded.
type Policy struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// A Signature is one of a document.
type Signature struct {
	Indication string           `json:"indication"`
	Code       string           `json:"code"`
	Signer     *Signer          `json:"signer"`
	Attributes *jpki.Attributes `json:"attributes"`
	Level      string           `json:"level"`
	BestTime   time.Time        `json:"best_time"`
}

// Keep says how the evidence of a verdict is kept.
type Keep struct {
	User            string `json:"user,omitempty"`             // your own name for the user
	StoreAttributes *bool  `json:"store_attributes,omitempty"` // nil leaves it to the tenant's setting
	Identify
}

// Identify asks whose certificate it is. Purpose is what the holder reads about it; both may be left out.
type Identify struct {
	IdentifyUser bool   `json:"identify_user,omitempty"`
	Purpose      string `json:"purpose,omitempty"` // 1 to 64 of a-z, 0-9 and hyphen; "verification" or "log-in" if it is empty
}

// SignatureRequest is a signature over a digest.
type SignatureRequest struct {
	Certificate []byte     `json:"certificate"`
	Digest      []byte     `json:"digest"`
	Hash        string     `json:"hash"` // sha256, sha384 or sha512
	Signature   []byte     `json:"signature"`
	At          *time.Time `json:"at,omitempty"` // nil means now
	Keep
}

// VerifySignature asks about a signature over a digest. It is sent with an idempotency key, so that nothing is done twice.
func (c *Client) VerifySignature(ctx context.Context, in SignatureRequest) (*Verdict, error) {
	return c.verdict(ctx, "/v1/verifications", in)
}

// DocumentRequest is a signed document.
type DocumentRequest struct {
	Document []byte
	Detached []byte     // what is signed, if it is not in the document
	Existed  *time.Time // a time at which you know that the document existed
	Keep
}

// VerifyDocument asks about a signed document: CMS, PDF, XML or JSON.
func (c *Client) VerifyDocument(ctx context.Context, in DocumentRequest) (*Verdict, error) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	parts := []struct {
		name  string
		value []byte
	}{{"document", in.Document}, {"detached", in.Detached}, {"user", []byte(in.User)}}
	if in.Existed != nil {
		parts = append(parts, struct {
			name  string
			value []byte
		}{"existed", []byte(in.Existed.Format(time.RFC3339))})
	}
	if in.StoreAttributes != nil {
		parts = append(parts, struct {
			name  string
			value []byte
		}{"store_attributes", strconv.AppendBool(nil, *in.StoreAttributes)})
	}
	if in.IdentifyUser {
		parts = append(parts, struct {
			name  string
			value []byte
		}{"identify_user", []byte("true")}, struct {
			name  string
			value []byte
		}{"purpose", []byte(in.Purpose)})
	}
	for _, p := range parts {
		if len(p.value) == 0 {
			continue
		}
		w, err := form.CreateFormField(p.name)
		if err == nil {
			_, err = w.Write(p.value)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := form.Close(); err != nil {
		return nil, err
	}
	v := &Verdict{}
	return v, c.do(ctx, http.MethodPost, "/v1/verifications", form.FormDataContentType(), body.Bytes(), v)
}

// StatusRequest asks about a certificate met before.
type StatusRequest struct {
	Certificate []byte `json:"certificate"`
	Purpose     string `json:"purpose,omitempty"` // liveness_check, which is meant if it is empty, or signature_verification
}

// Status says whether a certificate met before is still good.
func (c *Client) Status(ctx context.Context, in StatusRequest) (*Verdict, error) {
	return c.verdict(ctx, "/v1/certificate-status", in)
}

// A Challenge is what a card answers to log in.
type Challenge struct {
	ID        string    `json:"challenge_id"`
	Nonce     []byte    `json:"nonce"`
	Message   []byte    `json:"message"` // what the card signs
	ExpiresAt time.Time `json:"expires_at"`
}

// Session ties a log-in to an audience and a session; both may be empty, and are the same at its beginning and end.
type Session struct {
	Audience string `json:"audience,omitempty"`
	Binding  string `json:"binding,omitempty"`
}

// Challenge begins a log-in.
func (c *Client) Challenge(ctx context.Context, s Session) (*Challenge, error) {
	out := &Challenge{}
	return out, c.post(ctx, "/v1/challenges", s, out)
}

// LoginRequest is what a card answered.
type LoginRequest struct {
	ChallengeID string `json:"challenge_id"`
	Certificate []byte `json:"certificate"`
	Signature   []byte `json:"signature"`
	User        string `json:"user,omitempty"`
	Session
	Identify
}

// Login ends a log-in.
func (c *Client) Login(ctx context.Context, in LoginRequest) (*Verdict, error) {
	return c.verdict(ctx, "/v1/authentications", in)
}

// Evidence is what was kept of a verdict.
type Evidence struct {
	ID               string          `json:"id"`
	Kind             string          `json:"kind"` // signature, document or authentication
	CreatedAt        time.Time       `json:"created_at"`
	DeleteAfter      time.Time       `json:"delete_after"`
	AttributesStored bool            `json:"attributes_stored"`
	Result           Verdict         `json:"result"`
	Evidence         json.RawMessage `json:"evidence"` // of a document, if attributes are stored: for the Go library
}

// Evidence returns what was kept of a verdict.
func (c *Client) Evidence(ctx context.Context, id string) (*Evidence, error) {
	out := &Evidence{}
	return out, c.do(ctx, http.MethodGet, "/v1/evidence/"+url.PathEscape(id), "", nil, out)
}

// Reevaluate judges a document or a signature again under a policy of the server's, named as in its document.
func (c *Client) Reevaluate(ctx context.Context, id, policy string) (*Verdict, error) {
	return c.verdict(ctx, "/v1/evidence/"+url.PathEscape(id)+"/reevaluations", map[string]string{"policy": policy})
}

// DeleteEvidence deletes what was kept of a verdict.
func (c *Client) DeleteEvidence(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/evidence/"+url.PathEscape(id), "", nil, nil)
}

// DeleteEvidenceOfUser deletes all that was kept under your name for a user and returns how much that was.
func (c *Client) DeleteEvidenceOfUser(ctx context.Context, user string) (int, error) {
	var out struct {
		Deleted int `json:"deleted"`
	}
	err := c.post(ctx, "/v1/evidence-deletions", map[string]string{"user": user}, &out)
	return out.Deleted, err
}

func (c *Client) verdict(ctx context.Context, path string, in any) (*Verdict, error) {
	v := &Verdict{}
	return v, c.post(ctx, path, in, v)
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, "application/json", body, out)
}

// maxAnswer bounds an answer, in octets: evidence may hold lists.
const maxAnswer = 64 << 20

// attempts is how often a request that is safe to repeat is sent.
const attempts = 3

// do sends a request and reads its answer. What broke off is sent again: a POST has an idempotency key for that.
func (c *Client) do(ctx context.Context, method, path, media string, body []byte, out any) error {
	return c.doUnder(ctx, rand.Text(), method, path, media, body, out)
}

// doUnder is do with an idempotency key of the caller's.
func (c *Client) doUnder(ctx context.Context, key, method, path, media string, body []byte, out any) error {
	for try := 1; ; try++ {
		answer, status, err := c.send(ctx, method, path, media, key, body)
		if err == nil && status/100 == 2 {
			return read(answer, out)
		}
		if err == nil {
			err = problemOf(status, answer)
		}
		p := jpki.ProblemOf(err)
		if try == attempts || p != jpki.Unavailable && p != jpki.InProgress {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try*try) * 100 * time.Millisecond):
		}
	}
}

func (c *Client) send(ctx context.Context, method, path, media, key string, body []byte) (answer []byte, status int, err error) {
	req, err := c.request(ctx, method, path, media, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, jpki.WrapError(jpki.Unavailable, err, "the verifier does not answer")
	}
	defer func() { _ = resp.Body.Close() }()
	if answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return nil, 0, jpki.WrapError(jpki.Unavailable, err, "the verifier's answer broke off")
	}
	return answer, resp.StatusCode, nil
}

func (c *Client) request(ctx context.Context, method, path, media string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

func read(answer []byte, out any) error {
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return jpki.WrapError(jpki.Internal, fmt.Errorf("read answer: %w", err), "")
	}
	if v, ok := out.(*Verdict); ok {
		v.Raw = answer
	}
	return nil
}

// problemOf reads a refusal.
func problemOf(status int, answer []byte) error {
	var p jpki.ProblemDetails
	if json.Unmarshal(answer, &p) != nil || p.Type == "" {
		return jpki.WrapError(jpki.Internal, fmt.Errorf("HTTP status %d", status), "")
	}
	return &jpki.Error{Problem: p.Problem(), Detail: p.Detail}
}
