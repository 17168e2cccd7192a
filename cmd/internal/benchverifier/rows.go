package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/jws"
	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig"
)

// What rows are called. A path is of three certificates; "with path" is a message and its signer's path.
const (
	rowRaw, rowRawPath     = "raw signature, 3 KB", "raw signature with path"
	rowCMS, rowCMSPath     = "CAdES B-B, 3 KB", "CAdES B-B with path"
	rowXAdES, rowXAdESPath = "XAdES enveloped, 5 KB", "XAdES enveloped with path"
	rowJWS, rowJWSPath     = "JAdES B-B, 3 KB", "JAdES B-B with path"
	rowPath                = "path of 3 certificates"
	rowOCSP                = "path and OCSP answer"
)

// A row is one kind of verification by one kind of key. Each function is one verification or one bound.
type row struct {
	what, key                                    string
	bound, cold, boundRemembered, cached, theirs func() error
	peer                                         string

	samples []sample
}

// A sample is what one round made of a row, in operations per processor second; 0 if not measured.
type sample struct {
	bound, cold, boundRemembered, cached, theirs float64
	allocations                                  float64 // of one cold verification
}

// measure adds a sample. What is compared is measured one right after the other.
func (r *row) measure(slice time.Duration) error {
	var s sample
	for _, m := range []struct {
		to   *float64
		work func() error
	}{{&s.bound, r.bound}, {&s.cold, r.cold}, {&s.theirs, r.theirs}, {&s.boundRemembered, r.boundRemembered}, {&s.cached, r.cached}} {
		if m.work == nil {
			continue
		}
		per, allocations, err := rate(slice, m.work)
		if err != nil {
			return err
		}
		if *m.to = per; m.to == &s.cold {
			s.allocations = allocations
		}
	}
	r.samples = append(r.samples, s)
	return nil
}

// makeRows makes rows and what they verify.
func (b *bench) makeRows(ctx context.Context) error {
	for _, kind := range kinds {
		w, err := newWorld(kind)
		if err != nil {
			return err
		}
		rows, err := w.rows(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		for _, r := range rows {
			if strings.Contains(r.what, b.only) {
				b.rows = append(b.rows, r)
			}
			if r.what == rowCMSPath {
				b.batches = append(b.batches, &batch{key: kind, work: r.cold})
			}
		}
	}
	return nil
}

// A checker validates paths of a world, with a cache or without.
type checker struct {
	w         *world
	cache     *path.Cache
	validator *path.Validator
}

func (w *world) checker(entries int) (*checker, error) {
	anchor, err := path.ParseCertificate(w.root.cert.Raw)
	if err != nil {
		return nil, err
	}
	c := &checker{w: w}
	if entries > 0 {
		if c.cache, err = path.NewCache(entries); err != nil {
			return nil, err
		}
	}
	c.validator, err = path.New(path.Config{Anchors: []*path.Certificate{anchor}, Cache: c.cache})
	return c, err
}

// path validates the subscriber's path with, if there is one, an OCSP answer, all read anew, except for what is in the cache.
func (c *checker) path(ctx context.Context, leaf, ocsp []byte) (*path.Certificate, error) {
	l, err := c.cache.Certificate(leaf)
	if err != nil {
		return nil, err
	}
	m, err := c.cache.Certificate(c.w.middle.cert.Raw)
	if err != nil {
		return nil, err
	}
	req := path.Request{Certificate: l, Certificates: []*path.Certificate{m}, At: noon, Revocation: path.RevocationOff}
	if ocsp != nil {
		answer, err := path.ParseOCSP(ocsp)
		if err != nil {
			return nil, err
		}
		req.Revocation, req.OCSP = path.RevocationIfOffered, []*path.OCSP{answer}
	}
	res, err := c.validator.Validate(ctx, req)
	if err != nil {
		return nil, err
	}
	if !res.OK() || ocsp != nil && res.Statuses[0].State != path.Good {
		return nil, fmt.Errorf("%w: %s: %s", errWrong, res.Code, res.Detail)
	}
	return l, nil
}

// cacheEntries is much more than a world has certificates, answers much less than there are of them.
const (
	cacheEntries   = 64
	answersOfBench = 512
)

// rows makes the rows of one kind of key.
func (w *world) rows(ctx context.Context) ([]*row, error) {
	cold, err := w.checker(0)
	if err != nil {
		return nil, err
	}
	warm, err := w.checker(cacheEntries)
	if err != nil {
		return nil, err
	}
	chain := []bare{bareOf(w.leaf, w.middle), bareOf(w.middle, w.root)}
	var out []*row
	// add makes the rows of a kind of message: alone, and with the path of its signer. verify returns the signer's certificate.
	add := func(alone, withPath string, verify func(remembers bool) ([]byte, error), signed int, digests ...[]byte) error {
		value, err := w.bareOver(signed)
		if err != nil {
			return err
		}
		with := func(c *checker) func() error {
			return func() error {
				leaf, err := verify(c.cache != nil)
				if err == nil {
					_, err = c.path(ctx, leaf, nil)
				}
				return err
			}
		}
		out = append(out,
			&row{what: alone, key: w.kind, bound: w.bound([]bare{value}, digests...), cold: func() error { _, err := verify(false); return err }},
			&row{
				what: withPath, key: w.kind, bound: w.bound(append([]bare{value}, chain...), digests...), cold: with(cold),
				boundRemembered: w.bound([]bare{value}, digests...), cached: with(warm),
			})
		return nil
	}
	if err := w.addRaw(ctx, &out, cold, warm, chain); err != nil {
		return nil, err
	}
	if err := w.addCMS(add); err != nil {
		return nil, err
	}
	out[len(out)-2].peer, out[len(out)-2].theirs = "pkcs7", w.pkcs7()
	if err := w.addXAdES(add); err != nil {
		return nil, err
	}
	if err := w.addJWS(add); err != nil {
		return nil, err
	}
	out = append(out, &row{
		what: rowPath, key: w.kind, bound: w.bound(chain), cold: func() error { _, err := cold.path(ctx, w.leaf.cert.Raw, nil); return err },
		boundRemembered: w.bound(nil, w.leaf.cert.Raw, w.middle.cert.Raw), cached: func() error { _, err := warm.path(ctx, w.leaf.cert.Raw, nil); return err },
		peer: "crypto/x509", theirs: w.x509(),
	})
	return out, w.addOCSP(ctx, &out, cold, warm, chain)
}

type adder func(alone, withPath string, verify func(remembers bool) ([]byte, error), signed int, digests ...[]byte) error

// addRaw is a signature value beside message and certificate: with a cache, the certificate's key is at hand, too.
func (w *world) addRaw(ctx context.Context, out *[]*row, cold, warm *checker, chain []bare) error {
	value, err := w.bareOver(3 << 10)
	if err != nil {
		return err
	}
	alg := primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: w.hash}
	if w.kind != rsa2048 {
		alg.Scheme = primitive.ECDSA
	}
	with := func(c *checker) func() error {
		return func() error {
			leaf, err := c.path(ctx, w.leaf.cert.Raw, nil)
			if err != nil {
				return err
			}
			key, err := leaf.Key()
			if err != nil {
				return err
			}
			return primitive.VerifyMessage(key, alg, value.message, value.value)
		}
	}
	alone := func() error {
		key, err := primitive.CertificateKey(w.leaf.cert.Raw)
		if err != nil {
			return err
		}
		return primitive.VerifyMessage(key, alg, value.message, value.value)
	}
	*out = append(*out, &row{what: rowRaw, key: w.kind, bound: w.bound([]bare{value}), cold: alone},
		&row{what: rowRawPath, key: w.kind, bound: w.bound(append([]bare{value}, chain...)), cold: with(cold), boundRemembered: w.bound([]bare{value}), cached: with(warm)})
	return nil
}

// message is content for a message of about so many octets.
func message(length int) []byte { return []byte(strings.Repeat("I open an account. ", length/19)) }

func (w *world) signCMS(content []byte) ([]byte, error) {
	return cms.Sign(bytes.NewReader(content), cms.SignConfig{
		Certificate: w.leaf.cert.Raw, Signer: w.leaf.key, Rand: rand.Reader, SigningTime: noon, Attached: true, Chain: [][]byte{w.middle.cert.Raw},
	})
}

func (w *world) addCMS(add adder) error {
	frame, err := w.signCMS(nil)
	if err != nil {
		return err
	}
	content := message(3<<10 - len(frame))
	der, err := w.signCMS(content)
	if err != nil {
		return err
	}
	cache, err := cms.NewCache(cacheEntries)
	if err != nil {
		return err
	}
	verify := func(remembers bool) ([]byte, error) {
		d, err := cms.Parse(der)
		if err != nil {
			return nil, err
		}
		in := cms.Input{}
		if remembers {
			in.Cache = cache
		}
		signatures, err := d.Verify(in)
		if err != nil {
			return nil, err
		}
		if len(signatures) != 1 || signatures[0].Integrity != cms.Intact || signatures[0].Level != cms.LevelB {
			return nil, errWrong
		}
		return signatures[0].Certificate, nil
	}
	w.der = der
	return add(rowCMS, rowCMSPath, verify, signedAttributes, content, w.leaf.cert.Raw)
}

// signedAttributes is about how long these are.
const signedAttributes = 260

// pkcs7 verifies the same message by github.com/smallstep/pkcs7, without a path.
func (w *world) pkcs7() func() error {
	return func() error {
		p, err := pkcs7.Parse(w.der)
		if err == nil {
			err = p.Verify()
		}
		return err
	}
}

func (w *world) addXAdES(add adder) error {
	document, covered, err := w.xades(5 << 10)
	if err != nil {
		return err
	}
	verify := func(bool) ([]byte, error) {
		all, err := xmldsig.Read(document, xmldsig.Options{})
		if err != nil {
			return nil, err
		}
		v := all[0].Verify()
		return v.Certificate, v.Err
	}
	return add(rowXAdES, rowXAdESPath, verify, covered[2], make([]byte, covered[0]), make([]byte, covered[1]), w.leaf.cert.Raw)
}

func (w *world) addJWS(add adder) error {
	c := jws.SignConfig{
		Certificate: w.leaf.cert.Raw, Signer: w.leaf.key, Rand: rand.Reader, SigningTime: noon,
		Algorithm: map[string]string{rsa2048: "RS256", p256: "ES256", p384: "ES384"}[w.kind],
	}
	frame, err := jws.Sign([]byte{}, c)
	if err != nil {
		return err
	}
	text, err := jws.Sign(message((3<<10-len(frame))*3/4), c)
	if err != nil {
		return err
	}
	verify := func(bool) ([]byte, error) {
		all, err := jws.Read(text, jws.Options{})
		if err != nil {
			return nil, err
		}
		v := all[0].Verify()
		return v.Certificate, v.Err
	}
	return add(rowJWS, rowJWSPath, verify, strings.LastIndexByte(string(text), '.'), w.leaf.cert.Raw)
}

// x509 validates the same path by crypto/x509, everything read anew.
func (w *world) x509() func() error {
	roots := x509.NewCertPool()
	roots.AddCert(w.root.cert)
	return func() error {
		leaf, err := x509.ParseCertificate(w.leaf.cert.Raw)
		if err != nil {
			return err
		}
		middle, err := x509.ParseCertificate(w.middle.cert.Raw)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AddCert(middle)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: pool, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
}

// addOCSP is a path with the status of its end. Each answer is another one, so that of answers nothing is remembered.
func (w *world) addOCSP(ctx context.Context, out *[]*row, cold, warm *checker, chain []bare) error {
	answers := make([][]byte, answersOfBench)
	for i := range answers {
		var err error
		if answers[i], err = w.answer(time.Duration(i+1) * time.Second); err != nil {
			return err
		}
	}
	response, err := xResponse(answers[0])
	if err != nil {
		return err
	}
	value, next := bare{w.responder.key.Public(), response.TBSResponseData, response.Signature}, 0
	with := func(c *checker) func() error {
		return func() error {
			next = (next + 1) % len(answers)
			_, err := c.path(ctx, w.leaf.cert.Raw, answers[next])
			return err
		}
	}
	delegation := bareOf(w.responder, w.middle)
	w.ocsp = answers[0]
	*out = append(*out, &row{
		what: rowOCSP, key: w.kind, bound: w.bound(append([]bare{value, delegation}, chain...)), cold: with(cold),
		boundRemembered: w.bound([]bare{value}), cached: with(warm),
	})
	return nil
}
