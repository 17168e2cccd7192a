package jws

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
)

// What can be wrong with a signature. The errors of a Verdict wrap one of these.
var (
	ErrMalformed   = errors.New("signature is malformed")
	ErrUnsupported = errors.New("signature wants what is not supported")
	ErrNotFound    = errors.New("what was signed is not there")
	ErrDigest      = errors.New("what was signed has been changed")
	ErrNoKey       = errors.New("signature brings no certificate, and no key was given")
	ErrValue       = errors.New("signature value is wrong")
	ErrCertificate = errors.New("signing certificate is not the one that was signed") // TS 119 182-1 §5.1.7
)

// Options are what Read may be told; the zero value will do.
type Options struct {
	// Payload is what a detached signature is about; empty but not nil if it is about nothing. A signature that brings a payload
	// of its own, or names its objects (sigD), is then refused: it is about something else.
	Payload []byte
	// Resolve returns the octets of an object that a signature names by sigD; without it none is found. The name is an outsider's, and
	// nothing of the signature has been checked: look it up in a list, open nothing by it.
	Resolve func(uri string) ([]byte, bool)
	// Fields returns the values of an HTTP field, by its name in lower case, or of "(request-target)", for signatures over an
	// HTTP message. That a signed Digest field is that of the body is for the caller to check.
	Fields func(name string) ([]string, bool)
	// Certificates, DER, are where to look for the signer's if a signature only names it.
	Certificates [][]byte
	// Key, if set, alone says by which key a signature must be, and certificates that it brings are not used. KeyID is an
	// outsider's text: look it up in a list, open nothing by it.
	Key func(*Signature) *primitive.Key
}

// A Signature is one signature of a JWS.
type Signature struct {
	Algorithm primitive.Algorithm
	Value     []byte
	Header    Header // of the signer: covered by the signature if its verdict is good
	// KeyID is the header parameter kid, signed or not. A hint.
	KeyID   string
	Payload []byte // that the JWS brings; nil if it is detached
	// Mechanism and Objects say what is covered instead of a payload (sigD).
	Mechanism string
	Objects   []Object

	// Of whoever came later (etsiU): added by anybody and to be judged by what they contain.
	Stamps            []Stamp
	CertificateValues [][]byte // DER
	CRLs, OCSPs       [][]byte // DER

	// Inside says that the signature countersigns the one at CountersignedAt in the list that Read returns.
	Inside          bool
	CountersignedAt int

	options   Options
	protected string   // as it was signed
	signature string   // as it is written
	payload   *string  // as it is written; nil if there is none
	unsigned  []string // properties, as they are written; empty where they are written as JSON
	outer     *Signature
	malformed error
}

// Read returns the signatures of a JWS, counter-signatures after those that they countersign. One that cannot be read is
// among them and fails Verify. An error means that this is no JWS or goes beyond a limit.
func Read(data []byte, o Options) ([]*Signature, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: more than %d octets", ErrUnsupported, MaxBytes)
	}
	r := &reader{options: o}
	data = bytes.TrimSpace(data)
	if !bytes.HasPrefix(data, []byte("{")) {
		err := r.compact(string(data), nil, 0)
		return r.out, err
	}
	top, err := parseObject(data)
	if err == nil {
		err = r.json(top, nil, 0)
	}
	if err != nil {
		return nil, err
	}
	return r.out, nil
}

// A reader collects signatures.
type reader struct {
	options Options
	out     []*Signature
}

// compact reads the compact serialization (RFC 7515 §7.1).
func (r *reader) compact(text string, outer *Signature, at int) error {
	if strings.Count(text, ".") != 2 {
		return fmt.Errorf("%w: neither a JSON object nor three parts with dots between", ErrMalformed)
	}
	parts := strings.Split(text, ".")
	payload := &parts[1]
	if *payload == "" { // detached (RFC 7515 appendix F)
		payload = nil
	}
	return r.add(parts[0], parts[2], payload, nil, outer, at)
}

// json reads the general and the flattened JSON serialization (RFC 7515 §7.2). Members that are not known are passed over, as
// it demands.
func (r *reader) json(top object, outer *Signature, at int) error {
	var payload *string
	if text, there, err := get[string](top, "payload"); err != nil {
		return err
	} else if there {
		payload = &text
	}
	list, general, err := get[array](top, "signatures")
	if err != nil {
		return err
	}
	if !general {
		return r.entry(top, payload, outer, at)
	}
	for _, name := range []string{"protected", "header", "signature"} {
		if _, both := top[name]; both {
			return fmt.Errorf("%w: both general and flattened", ErrMalformed)
		}
	}
	if len(list) == 0 || outer != nil {
		return fmt.Errorf("%w: no signatures, or several where one belongs", ErrMalformed)
	}
	first := len(r.out)
	for _, item := range list {
		entry, ok := item.(object)
		if !ok {
			return fmt.Errorf("%w: what is no object among the signatures", ErrMalformed)
		}
		if err := r.entry(entry, payload, nil, 0); err != nil {
			return err
		}
	}
	for _, s := range r.out[first:] { // RFC 7797 §3
		if !s.Inside && s.malformed == nil && s.Header.Unencoded != r.out[first].Header.Unencoded {
			return fmt.Errorf("%w: signatures differ on whether the payload is encoded", ErrMalformed)
		}
	}
	return nil
}

func (r *reader) entry(o object, payload *string, outer *Signature, at int) error {
	protected, _, err := get[string](o, "protected")
	if err != nil {
		return err
	}
	value, there, err := get[string](o, "signature")
	if err != nil {
		return err
	}
	header, _, err := get[object](o, "header")
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("%w: no signature", ErrMalformed)
	}
	return r.add(protected, value, payload, header, outer, at)
}

// add reads one signature, keeps it and then reads those that countersign it.
func (r *reader) add(protected, value string, payload *string, header object, outer *Signature, at int) error {
	if len(r.out) == maxSignatures {
		return fmt.Errorf("%w: more than %d signatures", ErrUnsupported, maxSignatures)
	}
	s := &Signature{options: r.options, protected: protected, signature: value, payload: payload, outer: outer, Inside: outer != nil, CountersignedAt: at}
	at = len(r.out)
	r.out = append(r.out, s)
	counters, err := s.read(header)
	if err != nil {
		s.malformed = err
		return nil
	}
	for _, c := range counters {
		if depth := s.depth(); depth > maxDepth {
			return fmt.Errorf("%w: counter-signatures inside each other", ErrUnsupported)
		}
		switch c := c.(type) {
		case string:
			err = r.compact(c, s, at)
		case object:
			err = r.json(c, s, at)
		default:
			err = fmt.Errorf("%w: what is no JWS as a counter-signature", ErrMalformed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Signature) depth() (n int) {
	for o := s.outer; o != nil; o = o.outer {
		n++
	}
	return n
}

// read takes a signature apart and returns its counter-signatures. Steps:
//  1. the protected header, with the algorithm
//  2. the unprotected header, which may hold a hint and what others added
//  3. value and payload
func (s *Signature) read(unprotected object) ([]any, error) {
	text, err := decode(s.protected)
	if err != nil {
		return nil, err
	}
	protected, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	for name := range unprotected {
		_, twice := protected[name]
		switch {
		case twice: // RFC 7515 §7.2.1
			return nil, fmt.Errorf("%w: a header parameter both protected and not", ErrMalformed)
		case parameters[name].signed: // where anybody can change it
			return nil, fmt.Errorf("%w: a header parameter that must be protected is not", ErrMalformed)
		}
	}
	if err := s.readHeader(protected, unprotected); err != nil {
		return nil, err
	}
	if s.Value, err = decode(s.signature); err != nil {
		return nil, err
	}
	if err := s.readPayload(); err != nil {
		return nil, err
	}
	return s.readUnsigned(unprotected)
}

func (s *Signature) readPayload() (err error) {
	switch {
	case s.payload != nil && *s.payload != "" && s.Mechanism != "":
		return fmt.Errorf("%w: a payload beside named objects", ErrMalformed)
	case s.payload == nil, s.Mechanism != "":
	case s.Header.Unencoded:
		s.Payload = []byte(*s.payload)
	default:
		s.Payload, err = decode(*s.payload)
	}
	return err
}
