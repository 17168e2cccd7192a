package jws

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
)

// The kinds of time-stamps that are checked; others are recognised.
const (
	SignatureStamp = "sigTst"
	ArchiveStamp   = "arcTst"
	ContentStamp   = "adoTst" // made before the signature and covered by it
)

// stamps are the members of etsiU that hold time-stamps (TS 119 182-1 §5.3).
var stamps = map[string]bool{SignatureStamp: true, ArchiveStamp: true, "sigRTst": true, "rfsTst": true}

// A Stamp is a time-stamp on parts of the signature.
type Stamp struct {
	Kind  string // as in SignatureStamp
	Token []byte // RFC 3161, DER

	s      *Signature
	before int // how many properties stand before it, which an archive time-stamp covers
}

// readUnsigned takes what it understands of etsiU and returns the counter-signatures. Nothing here can make a signature better
// than it is.
func (s *Signature) readUnsigned(unprotected object) (counters []any, err error) {
	list, _, err := get[array](unprotected, "etsiU")
	if err != nil {
		return nil, err
	}
	if len(list) > maxMaterial {
		return nil, fmt.Errorf("%w: more than %d unsigned properties", ErrUnsupported, maxMaterial)
	}
	for i, item := range list {
		property, ok := item.(object)
		text, encoded := item.(string)
		if encoded {
			octets, err := decode(text)
			if err != nil {
				return nil, err
			}
			if property, err = parseObject(octets); err != nil {
				return nil, err
			}
		} else if !ok {
			return nil, fmt.Errorf("%w: unsigned property", ErrMalformed)
		}
		s.unsigned = append(s.unsigned, text)
		for name, v := range property {
			switch {
			case name == "cSig":
				counters = append(counters, v)
			case name == "sigPSt":
				s.addPolicy(v)
			case stamps[name]:
				about, _ := v.(object)
				s.addStamps(Stamp{Kind: name, s: s, before: i}, about)
			default:
				s.addValues(name, v)
			}
		}
		if len(s.Stamps)+len(s.CertificateValues)+len(s.CRLs)+len(s.OCSPs) > maxMaterial {
			return nil, fmt.Errorf("%w: more than %d values and time-stamps", ErrUnsupported, maxMaterial)
		}
	}
	return counters, nil
}

// addPolicy takes a document of the signature policy (TS 119 182-1 §5.3.3), in base64 of either alphabet.
func (s *Signature) addPolicy(v any) {
	about, _ := v.(object)
	text, _ := about["sigPolDoc"].(string)
	document, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		document, err = decode(text)
	}
	if err == nil && len(document) > 0 && s.Header.Policy != nil {
		s.Header.Policy.Store(document)
	}
}

// addStamps takes the tokens of a time-stamp container (TS 119 182-1 §5.4.3.3).
func (s *Signature) addStamps(t Stamp, about object) {
	for _, token := range values(about["tstTokens"], "") {
		t.Token = token
		s.Stamps = append(s.Stamps, t)
	}
}

func readContentStamps(s *Signature, o object, name string) error {
	about, _, err := get[object](o, name)
	s.addStamps(Stamp{Kind: name, s: s}, about)
	return err
}

// addValues takes certificates and what tells of their status.
func (s *Signature) addValues(name string, v any) {
	switch name {
	case "xVals", "axVals", "anyValData", "tstVD":
		s.CertificateValues = append(s.CertificateValues, values(v, "x509Cert")...)
	}
	about, _ := v.(object)
	switch name {
	case "rVals", "arVals":
		s.CRLs = append(s.CRLs, values(about["crlVals"], "")...)
		s.OCSPs = append(s.OCSPs, values(about["ocspVals"], "")...)
	case "tstVD", "anyValData":
		for _, inner := range []string{"xVals", "axVals", "rVals", "arVals"} {
			s.addValues(inner, about[inner])
		}
	}
}

// values returns the DER in a list of objects with a member val, which each stand below a member called inner, if it has a name.
func values(v any, inner string) (out [][]byte) {
	list, _ := v.(array)
	for _, item := range list {
		o, _ := item.(object)
		if inner != "" {
			o, _ = o[inner].(object)
		}
		text, _ := o["val"].(string)
		if der, err := base64.StdEncoding.DecodeString(text); err == nil && len(der) > 0 {
			out = append(out, der)
		}
	}
	return out
}

// Imprint returns the digest a time-stamp must be over: of the signature value as it is written (TS 119 182-1 §5.3.4) or, for an
// archive, of payload, protected header, signature and the properties before it (§5.3.6.2). Other kinds are not supported, nor
// are archives of properties that are not base64url.
func (t *Stamp) Imprint(h crypto.Hash) ([]byte, error) {
	input := t.s.signature
	switch {
	case t.Kind == ArchiveStamp && !slices.Contains(t.s.unsigned[:t.before], ""):
		payload, err := t.s.archived()
		if err != nil {
			return nil, err
		}
		input = payload + "." + t.s.protected + "." + t.s.signature + "." + strings.Join(t.s.unsigned[:t.before], "")
	case t.Kind != SignatureStamp:
		return nil, fmt.Errorf("%w: time-stamp %q", ErrUnsupported, t.Kind)
	}
	sum := primitive.Digest(h, []byte(input))
	if sum == nil {
		return nil, fmt.Errorf("%w: hash function", ErrUnsupported)
	}
	return sum, nil
}

// archived is the payload, or the objects in its place, even where the signature covers their digests only.
func (s *Signature) archived() (string, error) {
	if s.Mechanism != ObjectsHash {
		return s.covered()
	}
	all, err := s.objects()
	return s.encoded(all), err
}
