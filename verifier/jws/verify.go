package jws

import (
	"fmt"
	"slices"

	"github.com/openjpki/jpki/verifier/primitive"
)

// A Verdict is what computing alone can say of a signature.
type Verdict struct {
	// Err is nil if the value is that of the key over header and payload, what sigD names is what was signed, and the certificate
	// is the one that the signer named. Otherwise it wraps one of the errors of this package.
	Err         error
	Key         *primitive.Key
	Certificate []byte // the signer's, DER; nil if the key was given by Options.Key
}

// maxTries bounds how many keys a signature is tried with.
const maxTries = 20

// Verify checks what was signed, the value, and what the signer said of the signing certificate. Steps:
//  1. the payload, and what sigD names
//  2. the key: the one given, else that of the certificate that x5c begins with, else of one that the signer named
//  3. the value
func (s *Signature) Verify() Verdict {
	if s.malformed != nil {
		return Verdict{Err: s.malformed}
	}
	payload, err := s.covered()
	if err != nil {
		return Verdict{Err: err}
	}
	input := s.protected + "." + payload
	v := Verdict{Err: ErrNoKey}
	for _, c := range s.candidates() {
		if v = c; v.Err != nil {
			continue
		}
		if err := primitive.VerifyMessage(c.Key, s.Algorithm, []byte(input), s.Value); err != nil {
			v.Err = fmt.Errorf("%w: %w", ErrValue, err)
			if len(s.Header.References) > 0 {
				return v // the signer said which
			}
			continue
		}
		return v
	}
	return v
}

// A Part is something that a signature covers: the payload, or what stands for it.
type Part struct {
	// Ref names it as RFC 9321 appendix C.2.3 does: "payload" for one that the JWS brings, "detached" for one that is elsewhere, else the
	// URI by which the signature names it.
	Ref    string
	Octets []byte
}

// Covered returns the octets that the value of a signature is over, and what they stand for. It checks neither.
func (s *Signature) Covered() (input []byte, parts []Part, err error) {
	if s.malformed != nil {
		return nil, nil, s.malformed
	}
	payload, err := s.covered()
	if err != nil {
		return nil, nil, err
	}
	input = []byte(s.protected + "." + payload)
	switch {
	case s.outer != nil:
		return input, []Part{{"detached", s.outer.Value}}, nil
	case s.Mechanism == HTTPFields:
		return input, []Part{{"detached", []byte(payload)}}, nil
	case s.Mechanism != "":
		for _, x := range s.Objects {
			data, err := s.resolve(x)
			if err != nil {
				return nil, nil, err
			}
			parts = append(parts, Part{x.URI, data})
		}
		return input, parts, nil
	case s.options.Payload != nil:
		return input, []Part{{"detached", s.options.Payload}}, nil
	}
	return input, []Part{{"payload", s.Payload}}, nil
}

// candidates lists the keys that may have made the value, as verdicts on what is known before it is tried.
func (s *Signature) candidates() (out []Verdict) {
	if s.options.Key != nil {
		if key := s.options.Key(s); key != nil {
			out = append(out, Verdict{Key: key})
		}
		return out
	}
	certificates, tries := s.Header.Certificates, 0
	switch {
	case len(certificates) > 0:
		certificates = certificates[:1] // RFC 7515 §4.1.6: it must be the signer's
	case len(s.Header.References) > 0:
		certificates = slices.Concat(s.options.Certificates, s.CertificateValues)
	default:
		certificates = s.options.Certificates
	}
	for _, der := range certificates {
		v := Verdict{Certificate: der}
		for _, ref := range s.Header.References {
			if !ref.Matches(der) {
				v.Err = ErrCertificate
			}
		}
		if v.Err == nil && tries < maxTries {
			tries++
			if v.Key, v.Err = primitive.CertificateKey(der); v.Err != nil {
				v.Err = fmt.Errorf("%w: %w", ErrUnsupported, v.Err)
			}
			out = append(out, v)
		} else if len(out) == 0 {
			out = append(out, v) // to say so
		}
	}
	return out
}
