package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A Ref is what a signer URI names: signer:///run/jpki/signer.sock?key=sign-1&purpose=certificate.
type Ref struct {
	Socket  string        // absolute path
	Key     string        // see ValidName
	Purpose Purpose       // ForOther if the URI names none
	Wait    time.Duration // how long Sign may wait: 1 ms to a minute; 10 s if the URI names none
}

const defaultWait = 10 * time.Second

// ParseRef parses a signer URI strictly: parameters other than key, purpose and wait (such as 2500ms) are refused, and so
// are repeated ones.
func ParseRef(uri string) (Ref, error) {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > 1024 {
		return Ref{}, errors.New("key URI is not a URI")
	}
	if u.Scheme != "signer" || u.User != nil || u.Host != "" || u.Opaque != "" || u.Fragment != "" || !filepath.IsAbs(u.Path) {
		return Ref{}, errors.New("key URI is not signer:///path?key=NAME")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Ref{}, errors.New("key URI has a malformed query")
	}
	r := Ref{Socket: filepath.Clean(u.Path), Purpose: ForOther, Wait: defaultWait}
	for name, values := range query {
		if len(values) != 1 {
			return Ref{}, fmt.Errorf("key URI has the parameter %q twice", name)
		}
		switch v := values[0]; name {
		case "key":
			r.Key = v
		case "purpose":
			r.Purpose, err = ParsePurpose(v)
		case "wait":
			if r.Wait, err = time.ParseDuration(v); err == nil && (r.Wait < time.Millisecond || r.Wait > maxWait) {
				err = errors.New("wait is not between 1ms and 1m")
			}
		default:
			err = fmt.Errorf("key URI has the unknown parameter %q", name)
		}
		if err != nil {
			return Ref{}, err
		}
	}
	if !ValidName(r.Key) {
		return Ref{}, errors.New("key URI names no key, as ?key=NAME does, of letters, digits, and - _ . alone")
	}
	return r, nil
}

// String returns the URI.
func (r Ref) String() string {
	q := url.Values{"key": {r.Key}, "purpose": {r.Purpose.String()}}
	if r.Wait != defaultWait {
		q.Set("wait", strconv.FormatInt(r.Wait.Milliseconds(), 10)+"ms")
	}
	return (&url.URL{Scheme: "signer", Path: r.Socket, RawQuery: q.Encode()}).String()
}

// A Client reaches one jpki-signer. It connects when there is something to ask, and anew when the connection was lost.
type Client struct {
	socket string
	mu     sync.Mutex
	link   *Link
}

// NewClient returns a client of the signer that listens on a socket. It does not connect yet.
func NewClient(socket string) *Client { return &Client{socket: socket} }

// Close ends the connection.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil {
		c.link.Close()
		c.link = nil
	}
}

func (c *Client) connect(ctx context.Context) (*Link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil {
		select {
		case <-c.link.Done():
		default:
			return c.link, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second) // a socket answers at once or its process is stuck
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, err
	}
	c.link = NewLink(conn, nil)
	return c.link, nil
}

// again is after how long a client tries anew to reach a signer that is away.
const again = 25 * time.Millisecond

// Do asks until there is an answer or ctx ends: while the signer is away, it waits, and what was on its way when the
// connection was lost is asked again. The error has a jpki.Problem: Unavailable when time ran out, RateLimited, Forbidden
// when no rule admits this, Malformed when the key cannot sign so.
func (c *Client) Do(ctx context.Context, r Request) ([]byte, error) {
	if r.Op == OpSign && (r.Hash == 0 || hashNumber(r.Hash) == 0 || len(r.Digest) != r.Hash.Size()) {
		return nil, jpki.Errorf(jpki.Malformed, "the digest is none of SHA-256, SHA-384 and SHA-512")
	}
	deadline, limited := ctx.Deadline()
	var last error
	for {
		if err := ctx.Err(); err != nil {
			return nil, jpki.WrapError(jpki.Unavailable, errors.Join(err, last), "the signer did not answer in time")
		}
		r.Wait = maxWait
		if limited {
			r.Wait = time.Until(deadline)
		}
		link, err := c.connect(ctx)
		if err == nil {
			var resp Response
			if resp, err = link.Do(ctx, r); err == nil {
				if resp.Code == OK {
					return resp.Data, nil
				}
				return nil, problem(resp)
			}
		}
		last = err
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

// problem makes an error of a response that is none of success.
func problem(r Response) error {
	p := jpki.Internal
	switch r.Code {
	case Refused:
		p = jpki.Forbidden
	case Unsuited:
		p = jpki.Malformed
	case Limited, Busy:
		p = jpki.RateLimited
	case Unavailable:
		p = jpki.Unavailable
	}
	return jpki.WrapError(p, fmt.Errorf("the signer says: %q", r.Data), "no signature: "+r.Code.String())
}

// Usage returns the signer's signed-for counts, as JSON of a [Record].
func (c *Client) Usage(ctx context.Context) ([]byte, error) { return c.Do(ctx, Request{Op: OpUsage}) }

// Reload has the signer read its keys and rules again. An error says what is wrong with them, and the former are in force.
func (c *Client) Reload(ctx context.Context) error {
	_, err := c.Do(ctx, Request{Op: OpReload})
	return err
}

// Open asks for the key's public half and returns the key. Several keys of one client share its connection.
func (c *Client) Open(ctx context.Context, ref Ref) (*Key, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ref.Wait)
		defer cancel()
	}
	der, err := c.Do(ctx, Request{Op: OpPublic, Key: ref.Key})
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the signer's public key is malformed")
	}
	return &Key{client: c, ref: ref, public: pub}, nil
}

// A Key is a private key that a signer uses for us.
type Key struct {
	client *Client
	ref    Ref
	public crypto.PublicKey
}

// For returns the same key, used for another purpose.
func (k *Key) For(p Purpose) *Key {
	ref := k.ref
	ref.Purpose = p
	return &Key{client: k.client, ref: ref, public: k.public}
}

// Public returns the public key, as it was when the key was opened.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. It waits as long as the key's URI says; the randomness is the signer's.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), digest, opts)
}

// SignContext is Sign that also ends with ctx.
func (k *Key) SignContext(ctx context.Context, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, k.ref.Wait)
	defer cancel()
	r := Request{Op: OpSign, Key: k.ref.Key, Purpose: k.ref.Purpose, Digest: digest}
	var err error
	if r.Scheme, r.Hash, err = SchemeOf(k.public, opts); err != nil {
		return nil, err
	}
	return k.client.Do(ctx, r)
}

// SchemeOf translates what crypto.Signer is asked for. PSS salts must be as long as the hash.
func SchemeOf(pub crypto.PublicKey, opts crypto.SignerOpts) (Scheme, crypto.Hash, error) {
	switch pub.(type) {
	case *rsa.PublicKey:
		pss, ok := opts.(*rsa.PSSOptions)
		if !ok {
			return PKCS1v15, opts.HashFunc(), nil
		}
		if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != opts.HashFunc().Size() {
			return 0, 0, jpki.Errorf(jpki.Malformed, "a PSS salt must be as long as the hash")
		}
		return PSS, opts.HashFunc(), nil
	case *ecdsa.PublicKey:
		return ECDSA, opts.HashFunc(), nil
	}
	return 0, 0, jpki.Errorf(jpki.Malformed, "the key is neither RSA nor ECDSA")
}

// Verify reports whether a signature is one of the public key's over a digest.
func Verify(pub crypto.PublicKey, s Scheme, h crypto.Hash, digest, signature []byte) bool {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if s == PSS {
			return rsa.VerifyPSS(k, h, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return s == PKCS1v15 && rsa.VerifyPKCS1v15(k, h, digest, signature) == nil
	case *ecdsa.PublicKey:
		return s == ECDSA && ecdsa.VerifyASN1(k, digest, signature)
	}
	return false
}
