package bucket

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A Config says which bucket is meant and who we are there. All but SessionToken and Client are required.
type Config struct {
	Endpoint  string // http or https, host and port: https://s3.example
	Region    string // us-east-1, if the store knows none
	Name      string
	AccessKey string
	SecretKey string
	Now       func() time.Time // requests are good for minutes

	SessionToken string       // of credentials that are lent for a time
	Client       *http.Client // nil: one that gives up after five minutes
}

// A Bucket makes requests to one bucket, with the bucket's name in the path.
type Bucket struct {
	cfg  Config
	host string
}

// New checks the configuration.
func New(cfg Config) (*Bucket, error) {
	for field, s := range map[string]string{"Region": cfg.Region, "AccessKey": cfg.AccessKey, "SecretKey": cfg.SecretKey} {
		if s == "" {
			return nil, fmt.Errorf("bucket.Config.%s is missing", field)
		}
	}
	u, err := url.Parse(cfg.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.TrimSuffix(cfg.Endpoint, "/") != u.Scheme+"://"+u.Host:
		return nil, errors.New("bucket.Config.Endpoint is not like https://s3.example")
	case !plain(cfg.Name) || strings.Contains(cfg.Name, "/"):
		return nil, errors.New("bucket.Config.Name is not a bucket's name")
	case cfg.Now == nil:
		return nil, errors.New("bucket.Config.Now is missing")
	}
	cfg.Endpoint = u.Scheme + "://" + u.Host
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: 5 * time.Minute}
	}
	return &Bucket{cfg, u.Host}, nil
}

// plain reports whether a name is written in a URL, and in what is signed, as it is (RFC 3986 §2.3).
func plain(s string) bool {
	return s != "" && !strings.HasPrefix(s, "/") && !slices.Contains(strings.Split(s, "/"), "..") && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/") == "" && !strings.Contains(s, "//")
}

// A Content is what is put, and what is said of it.
type Content struct {
	Body         io.ReaderAt
	Octets       int64
	Type         string
	CacheControl string // may be empty
}

// Look returns the tag of the object under a key, with its quotes; [jpki.NotFound] if there is none.
func (b *Bucket) Look(ctx context.Context, key string) (tag string, err error) {
	resp, err := b.do(ctx, http.MethodHead, key, nil, nil)
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close()
	return tagOf(resp)
}

// Get returns the content of an object, which the caller closes, and its tag; [jpki.NotFound] if there is none.
func (b *Bucket) Get(ctx context.Context, key string) (body io.ReadCloser, tag string, err error) {
	resp, err := b.do(ctx, http.MethodGet, key, nil, nil)
	if err != nil {
		return nil, "", err
	}
	if tag, err = tagOf(resp); err != nil {
		_ = resp.Body.Close()
		return nil, "", err
	}
	return resp.Body, tag, nil
}

// Put puts an object in the place of the one that has a tag, or with an empty tag where there is none, and returns its own.
// [jpki.Conflict] means that there is another, or none any more: nothing was changed.
func (b *Bucket) Put(ctx context.Context, key string, c Content, replaces string) (tag string, err error) {
	header := map[string]string{"content-type": c.Type}
	if c.CacheControl != "" {
		header["cache-control"] = c.CacheControl
	}
	if replaces == "" {
		header["if-none-match"] = "*"
	} else {
		header["if-match"] = replaces
	}
	resp, err := b.do(ctx, http.MethodPut, key, header, &c)
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close()
	return tagOf(resp)
}

// tagOf returns an answer's tag, without which nothing can be put in the place of an object.
func tagOf(resp *http.Response) (string, error) {
	tag := resp.Header.Get("ETag")
	if len(tag) < 3 || tag[0] != '"' {
		return "", jpki.Errorf(jpki.Unavailable, "the bucket gives its objects no strong tags")
	}
	return tag, nil
}

// do makes one signed request and returns its answer if that is a good one.
func (b *Bucket) do(ctx context.Context, method, key string, header map[string]string, c *Content) (*http.Response, error) {
	if !plain(key) {
		return nil, jpki.Errorf(jpki.Malformed, "%q is not a key that we write", key)
	}
	var body io.Reader
	sum := sha256.New()
	if c != nil {
		if _, err := io.Copy(sum, io.NewSectionReader(c.Body, 0, c.Octets)); err != nil {
			return nil, err
		}
		body = io.NewSectionReader(c.Body, 0, c.Octets)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.cfg.Endpoint+"/"+b.cfg.Name+"/"+key, body)
	if err != nil {
		return nil, err
	}
	if c != nil {
		req.ContentLength = c.Octets
		if c.Octets == 0 {
			req.Body = http.NoBody
		}
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	b.sign(req, header, hex.EncodeToString(sum.Sum(nil)))
	resp, err := b.cfg.Client.Do(req)
	if err != nil {
		return nil, jpki.WrapError(jpki.Unavailable, err, "the bucket does not answer")
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, refusal(method, resp)
}

// refusal says what an answer that is no good one means.
func refusal(method string, resp *http.Response) error {
	var said struct{ Code string }
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = xml.Unmarshal(text, &said) // a proxy's page has no code
	if len(said.Code) > 64 || strings.ContainsFunc(said.Code, func(r rune) bool { return r <= ' ' || r > '~' }) {
		said.Code = ""
	}
	problem := jpki.Unavailable
	switch {
	case method == http.MethodPut && (resp.StatusCode == http.StatusPreconditionFailed || resp.StatusCode == http.StatusConflict || resp.StatusCode == http.StatusNotFound && said.Code != "NoSuchBucket"):
		problem = jpki.Conflict // 409: somebody writes at this moment; 404: what was to be replaced is gone
	case method != http.MethodPut && resp.StatusCode == http.StatusNotFound && said.Code != "NoSuchBucket":
		problem = jpki.NotFound
	case resp.StatusCode == http.StatusForbidden:
		problem = jpki.Forbidden
	}
	return jpki.Errorf(problem, "the bucket answered %s with status %d %s", method, resp.StatusCode, said.Code)
}

// sign adds what proves who asks (AWS Signature Version 4): a MAC over method, path, every header of ours and the body's hash.
func (b *Bucket) sign(req *http.Request, header map[string]string, bodyHash string) {
	now := b.cfg.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	signed := maps.Clone(header)
	if signed == nil {
		signed = map[string]string{}
	}
	signed["x-amz-date"], signed["x-amz-content-sha256"] = stamp, bodyHash
	if b.cfg.SessionToken != "" {
		signed["x-amz-security-token"] = b.cfg.SessionToken
	}
	for name, value := range signed {
		req.Header.Set(name, value)
	}
	signed["host"] = b.host
	if req.ContentLength > 0 {
		signed["content-length"] = strconv.FormatInt(req.ContentLength, 10)
	}
	names := slices.Sorted(maps.Keys(signed))
	var canonical strings.Builder
	fmt.Fprintf(&canonical, "%s\n%s\n\n", req.Method, req.URL.EscapedPath())
	for _, name := range names {
		fmt.Fprintf(&canonical, "%s:%s\n", name, strings.Join(strings.Fields(signed[name]), " "))
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", strings.Join(names, ";"), bodyHash)
	hash := sha256.Sum256([]byte(canonical.String()))
	scope := day + "/" + b.cfg.Region + "/s3/aws4_request"
	key := []byte("AWS4" + b.cfg.SecretKey)
	for _, part := range []string{day, b.cfg.Region, "s3", "aws4_request"} {
		key = mac(key, part)
	}
	signature := mac(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(hash[:]))
	req.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x", b.cfg.AccessKey, scope, strings.Join(names, ";"), signature))
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, text) // never fails
	return h.Sum(nil)
}
