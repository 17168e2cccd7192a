package jws

import (
	"bytes"
	"crypto"
	"fmt"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
)

// The ways in which a signature names what it covers (sigD, TS 119 182-1 §5.2.8.3).
const (
	HTTPFields  = "http://uri.etsi.org/19182/HttpHeaders"
	ObjectsURI  = "http://uri.etsi.org/19182/ObjectIdByURI"     // covers the objects, one after the other
	ObjectsHash = "http://uri.etsi.org/19182/ObjectIdByURIHash" // covers their digests
)

// An Object is something outside the JWS that a signature covers.
type Object struct {
	URI         string // or the name of an HTTP field
	ContentType string
	Hash        crypto.Hash // zero unless it is covered by its digest
	Digest      []byte
}

func readObjects(s *Signature, o object, name string) error {
	about, _, err := get[object](o, name)
	if err != nil {
		return err
	}
	if s.Mechanism, _, err = get[string](about, "mId"); err != nil {
		return err
	}
	if s.Mechanism != HTTPFields && s.Mechanism != ObjectsURI && s.Mechanism != ObjectsHash {
		s.Mechanism = ""
		return fmt.Errorf("%w: a way to name what is signed that is not known", ErrUnsupported)
	}
	uris, err := stringsOf(about, "pars")
	if err != nil {
		return err
	}
	types, err := stringsOf(about, "ctys")
	if err != nil {
		return err
	}
	digests, err := stringsOf(about, "hashV")
	if err != nil {
		return err
	}
	byHash := s.Mechanism == ObjectsHash
	if len(uris) == 0 || types != nil && len(types) != len(uris) || byHash != (digests != nil) || byHash && len(digests) != len(uris) {
		return fmt.Errorf("%w: sigD names nothing, or lists of different length", ErrMalformed)
	}
	for i, uri := range uris {
		x := Object{URI: uri}
		if types != nil {
			x.ContentType = types[i]
		}
		if byHash {
			if x.Hash, err = hashOf(about, "hashM"); err != nil {
				return err
			}
			if x.Digest, err = decode(digests[i]); err != nil {
				return err
			}
		}
		s.Objects = append(s.Objects, x)
	}
	return nil
}

// stringsOf returns a member that is a list of texts; nil if it is not there.
func stringsOf(o object, name string) ([]string, error) {
	list, there, err := get[array](o, name)
	if err != nil || !there {
		return nil, err
	}
	out := make([]string, 0, min(len(list), maxMaterial))
	for _, item := range list {
		text, ok := item.(string)
		if !ok || len(out) == maxMaterial {
			return nil, fmt.Errorf("%w: %q is no list of at most %d texts", ErrMalformed, name, maxMaterial)
		}
		out = append(out, text)
	}
	return out, nil
}

// covered returns the payload as it goes into the signature. Steps:
//  1. what was countersigned, for a counter-signature
//  2. what sigD names
//  3. the payload, its own or the one given: never one in place of the other
func (s *Signature) covered() (string, error) {
	switch {
	case s.outer != nil:
		if s.Mechanism != "" || s.Payload != nil && !bytes.Equal(s.Payload, s.outer.Value) {
			return "", fmt.Errorf("%w: a counter-signature over something else", ErrDigest)
		}
		return s.encoded(s.outer.Value), nil
	case s.Mechanism != "" && s.options.Payload != nil, s.Payload != nil && s.options.Payload != nil:
		return "", fmt.Errorf("%w: it is not about the payload that was given", ErrMalformed)
	case s.Mechanism != "":
		return s.named()
	case s.payload != nil && s.options.Payload == nil:
		return *s.payload, nil
	case s.options.Payload == nil:
		return "", fmt.Errorf("%w: the payload is detached", ErrNotFound)
	}
	return s.encoded(s.options.Payload), nil
}

func (s *Signature) encoded(data []byte) string {
	if s.Header.Unencoded {
		return string(data)
	}
	return strict.EncodeToString(data)
}

// named returns what stands for the objects that sigD names, after it has checked their digests.
func (s *Signature) named() (string, error) {
	switch s.Mechanism {
	case HTTPFields:
		return s.fields()
	case ObjectsURI:
		all, err := s.objects()
		return s.encoded(all), err
	}
	for _, x := range s.Objects {
		data, err := s.resolve(x)
		if err != nil {
			return "", err
		}
		sum := primitive.Digest(x.Hash, []byte(s.encoded(data)))
		if sum == nil || !bytes.Equal(sum, x.Digest) {
			return "", fmt.Errorf("%w: %.60q", ErrDigest, x.URI)
		}
	}
	return "", nil
}

func (s *Signature) resolve(x Object) ([]byte, error) {
	if s.options.Resolve != nil {
		if data, ok := s.options.Resolve(x.URI); ok {
			return data, nil
		}
	}
	return nil, fmt.Errorf("%w: %.60q", ErrNotFound, x.URI)
}

// objects returns all objects, one after the other.
func (s *Signature) objects() ([]byte, error) {
	var all []byte
	for _, x := range s.Objects {
		data, err := s.resolve(x)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

// fields writes HTTP fields as they are signed: a line for each, its values with commas between (TS 119 182-1 §5.2.8.3.2).
func (s *Signature) fields() (string, error) {
	if !s.Header.Unencoded {
		return "", fmt.Errorf("%w: HTTP fields are signed unencoded", ErrMalformed)
	}
	lines := make([]string, 0, len(s.Objects))
	for _, x := range s.Objects {
		name := strings.ToLower(x.URI)
		if s.options.Fields == nil {
			return "", fmt.Errorf("%w: an HTTP message", ErrNotFound)
		}
		values, ok := s.options.Fields(name)
		if !ok {
			return "", fmt.Errorf("%w: HTTP field %.40q", ErrNotFound, name)
		}
		line := name + ": " + strings.Join(values, ", ")
		if strings.ContainsAny(line, "\r\n") {
			return "", fmt.Errorf("%w: HTTP field of more than a line", ErrMalformed)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n"), nil
}
