package jws

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
)

// A Header is what the signer says of the signature.
type Header struct {
	Type, ContentType string
	Certificates      [][]byte            // DER; the first is claimed to be the signer's (RFC 7515 §4.1.6)
	References        []CertificateDigest // each must be of the signer's certificate
	SigningTime       time.Time           // claimed (sigT or iat), zero if absent
	// NotBefore and Expires bound when the signature is to be relied upon; zero if absent. This package asks no clock: who has one
	// must compare.
	NotBefore, Expires time.Time
	PolicyID           string                     // of an explicit signature policy
	Policy             *primitive.PolicyReference // what is said of that policy's document; nil without PolicyID
	Commitments        []string                   // identifiers
	ClaimsRoles        bool                       // the signer says who else she is; nothing proves it
	Critical           []string                   // what must be understood, and is
	Unencoded          bool                       // b64 is false: the payload was signed as it is (RFC 7797)
}

// A CertificateDigest names a certificate.
type CertificateDigest struct {
	Hash  crypto.Hash
	Value []byte
}

// Matches reports whether the digest is that of a certificate.
func (d CertificateDigest) Matches(der []byte) bool {
	sum := primitive.Digest(d.Hash, der)
	return sum != nil && bytes.Equal(sum, d.Value)
}

// A parameter is one that is understood here.
type parameter struct {
	signed   bool // to be protected, else refused
	critical bool // may be listed in crit: an extension (RFC 7515 §4.1.11)
	read     func(s *Signature, o object, name string) error
}

// parameters lists what is understood. That jku, jwk and x5u are not is on purpose: a key is not to be used for being sent along,
// nor an address opened for being named.
var parameters = map[string]parameter{
	"alg":      {signed: true, read: readAlgorithm}, // unprotected, anybody could choose it
	"crit":     {signed: true},                      // RFC 7515 §4.1.11
	"typ":      {read: func(s *Signature, o object, name string) error { return readString(o, name, &s.Header.Type) }},
	"cty":      {read: func(s *Signature, o object, name string) error { return readString(o, name, &s.Header.ContentType) }},
	"x5c":      {signed: true, read: readCertificates},
	"x5t":      {signed: true, read: readThumbprint(crypto.SHA1)},
	"x5t#S256": {signed: true, read: readThumbprint(crypto.SHA256)},
	"b64":      {signed: true, critical: true, read: readB64},
	"nbf":      {signed: true, critical: true, read: func(s *Signature, o object, name string) error { return readDate(o, name, &s.Header.NotBefore) }},
	"exp":      {signed: true, critical: true, read: func(s *Signature, o object, name string) error { return readDate(o, name, &s.Header.Expires) }},
	"iat":      {signed: true, critical: true, read: func(s *Signature, o object, name string) error { return readDate(o, name, &s.Header.SigningTime) }},
	// TS 119 182-1 §5.2
	"sigT":    {signed: true, critical: true, read: readSigT},
	"x5t#o":   {signed: true, critical: true, read: readOther},
	"sigX5ts": {signed: true, critical: true, read: readOthers},
	"srCms":   {signed: true, critical: true, read: readCommitments},
	"sigPId":  {signed: true, critical: true, read: readPolicy},
	"sigD":    {signed: true, critical: true, read: readObjects},
	"sigPl":   {signed: true, critical: true}, // where it was signed, who the signer is: claims that change no verdict
	"srAts": {signed: true, critical: true, read: func(s *Signature, _ object, _ string) error {
		s.Header.ClaimsRoles = true
		return nil
	}},
	"adoTst": {signed: true, critical: true, read: readContentStamps},
	"etsiU":  {critical: true}, // read by readUnsigned, wherever it stands
}

// readHeader reads the protected header, and kid from either.
func (s *Signature) readHeader(protected, unprotected object) error {
	if err := s.readCritical(protected, unprotected); err != nil {
		return err
	}
	if _, there := protected["alg"]; !there {
		return fmt.Errorf("%w: no alg in the protected header", ErrMalformed)
	}
	for _, name := range slices.Sorted(maps.Keys(protected)) {
		if p := parameters[name]; p.read != nil {
			if err := p.read(s, protected, name); err != nil {
				return err
			}
		}
	}
	if _, there := protected["kid"]; !there {
		protected = unprotected
	}
	return readString(protected, "kid", &s.KeyID)
}

// readCritical refuses what is critical and not understood, and lists that are not as RFC 7515 §4.1.11 wants them.
func (s *Signature) readCritical(protected, unprotected object) error {
	list, there, err := get[array](protected, "crit")
	if err != nil {
		return err
	}
	if there && len(list) == 0 {
		return fmt.Errorf("%w: crit is empty", ErrMalformed)
	}
	listed := map[string]bool{}
	for _, item := range list {
		name, ok := item.(string)
		p, known := parameters[name]
		_, inProtected := protected[name]
		_, inUnprotected := unprotected[name]
		switch {
		case !ok || listed[name] || !inProtected && !inUnprotected || known && !p.critical || registered[name]:
			return fmt.Errorf("%w: crit names what is not there, no extension, or the same twice", ErrMalformed)
		case !known:
			return fmt.Errorf("%w: a critical header parameter that is not known", ErrUnsupported)
		}
		listed[name] = true
		s.Header.Critical = append(s.Header.Critical, name)
	}
	// These change what the signature is over. A reader that does not know them must be stopped (RFC 7797 §6, TS 119 182-1
	// §5.1.9): not saying so is how two readers come to see two contents. A b64 that is true changes nothing.
	_, names := protected["sigD"]
	if b64, there := protected["b64"]; names && !listed["sigD"] || there && b64 != true && !listed["b64"] {
		return fmt.Errorf("%w: sigD or b64 is not marked critical", ErrMalformed)
	}
	return nil
}

// registered are parameters of RFC 7515 that are not understood; those that are, are in parameters. None belongs into crit.
var registered = map[string]bool{"jku": true, "jwk": true, "kid": true, "x5u": true}

func readString(o object, name string, into *string) error {
	v, there, err := get[string](o, name)
	if there {
		*into = v
	}
	return err
}

func readAlgorithm(s *Signature, o object, name string) error {
	alg, _, err := get[string](o, name)
	if err != nil {
		return err
	}
	if s.Algorithm, err = primitive.FromJOSE(alg); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return nil
}

func readB64(s *Signature, o object, name string) error {
	encoded, _, err := get[bool](o, name)
	s.Header.Unencoded = !encoded
	return err
}

// readDate reads a NumericDate (RFC 7519 §2), in whole seconds.
func readDate(o object, name string, into *time.Time) error {
	n, _, err := get[json.Number](o, name)
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil || seconds < 0 || seconds > 253402300799 { // the year 9999
		return fmt.Errorf("%w: %q is no time in seconds", ErrMalformed, name)
	}
	*into = time.Unix(seconds, 0).UTC()
	return nil
}

// readSigT reads the older way to claim a time (TS 119 182-1 §5.2.1). iat, which supersedes it, holds if both are there.
func readSigT(s *Signature, o object, name string) error {
	text, _, err := get[string](o, name)
	if err != nil {
		return err
	}
	t, err := time.Parse("2006-01-02T15:04:05Z", text)
	if err != nil {
		return fmt.Errorf("%w: sigT is no time", ErrMalformed)
	}
	if _, newer := o["iat"]; !newer {
		s.Header.SigningTime = t
	}
	return nil
}

// maxMaterial bounds the certificates, lists, objects and time-stamps of a signature, each.
const maxMaterial = 200

func readCertificates(s *Signature, o object, name string) error {
	list, _, err := get[array](o, name)
	if err != nil {
		return err
	}
	if len(list) == 0 || len(list) > maxMaterial {
		return fmt.Errorf("%w: no certificates or too many in x5c", ErrMalformed)
	}
	for _, item := range list {
		text, _ := item.(string)
		der, err := decodeAs(base64.StdEncoding.Strict(), text)
		if err != nil || len(der) == 0 {
			return fmt.Errorf("%w: certificate in x5c", ErrMalformed)
		}
		s.Header.Certificates = append(s.Header.Certificates, der)
	}
	return nil
}

func readThumbprint(h crypto.Hash) func(*Signature, object, string) error {
	return func(s *Signature, o object, name string) error {
		text, _, err := get[string](o, name)
		if err != nil {
			return err
		}
		return s.refer(h, text)
	}
}

func (s *Signature) refer(h crypto.Hash, text string) error {
	value, err := decode(text)
	if err != nil || len(value) != h.Size() {
		return fmt.Errorf("%w: digest of a certificate", ErrMalformed)
	}
	s.Header.References = append(s.Header.References, CertificateDigest{h, value})
	return nil
}

// hashes are the identifiers of hash functions in JAdES (TS 119 182-1 §5.2.2.2).
var hashes = map[string]crypto.Hash{
	"S224": crypto.SHA224, "S256": crypto.SHA256, "S384": crypto.SHA384, "S512": crypto.SHA512,
	"S3-224": crypto.SHA3_224, "S3-256": crypto.SHA3_256, "S3-384": crypto.SHA3_384, "S3-512": crypto.SHA3_512,
}

func hashOf(o object, name string) (crypto.Hash, error) {
	id, _, err := get[string](o, name)
	if err != nil {
		return 0, err
	}
	h, ok := hashes[id]
	if !ok {
		return 0, fmt.Errorf("%w: a hash function that is not known", ErrUnsupported)
	}
	return h, nil
}

// readOther reads x5t#o: a digest and what it was made with.
func readOther(s *Signature, o object, name string) error {
	ref, _, err := get[object](o, name)
	if err != nil {
		return err
	}
	return s.referBy(ref)
}

func (s *Signature) referBy(ref object) error {
	h, err := hashOf(ref, "digAlg")
	if err != nil {
		return err
	}
	text, _, err := get[string](ref, "digVal")
	if err != nil {
		return err
	}
	return s.refer(h, text)
}

// readOthers reads sigX5ts, of which the first is the signer's certificate and the others are of its path.
func readOthers(s *Signature, o object, name string) error {
	list, _, err := get[array](o, name)
	if err != nil {
		return err
	}
	if len(list) == 0 || len(list) > maxMaterial {
		return fmt.Errorf("%w: no references or too many in sigX5ts", ErrMalformed)
	}
	first, ok := list[0].(object)
	if !ok {
		return fmt.Errorf("%w: reference in sigX5ts", ErrMalformed)
	}
	return s.referBy(first)
}

func readCommitments(s *Signature, o object, name string) error {
	list, _, err := get[array](o, name)
	if err != nil {
		return err
	}
	for _, item := range list {
		about, _ := item.(object)
		id, err := identifier(about, "commId")
		if err != nil || len(s.Header.Commitments) == maxMaterial {
			return fmt.Errorf("%w: commitments", ErrMalformed)
		}
		s.Header.Commitments = append(s.Header.Commitments, id)
	}
	return nil
}

// readPolicy reads sigPId (TS 119 182-1 §5.2.7). A policy without a name must not be taken for none.
func readPolicy(s *Signature, o object, name string) error {
	about, _, err := get[object](o, name)
	if err != nil {
		return err
	}
	id, err := identifier(about, "id")
	if err != nil {
		return err
	}
	if id == "" {
		return fmt.Errorf("%w: a signature policy without identifier", ErrMalformed)
	}
	ref := &primitive.PolicyReference{}
	if ref.Specified, _, err = get[bool](about, "digPSp"); err != nil {
		return err
	}
	text, there, err := get[string](about, "digVal")
	if err != nil {
		return err
	}
	if there {
		if ref.Digest, err = decode(text); err != nil {
			return err
		}
		if ref.Hash, err = hashOf(about, "digAlg"); err != nil && !errors.Is(err, ErrUnsupported) {
			return err // one that is not known is found out when it is wanted
		}
	}
	qualifiers, _, err := get[array](about, "sigPQuals")
	if err != nil {
		return err
	}
	for _, item := range qualifiers {
		if q, ok := item.(object); ok {
			uri, _, _ := get[string](q, "spURI") // to be shown, and no more
			ref.At(uri)
		}
	}
	s.Header.PolicyID, s.Header.Policy = id, ref
	return nil
}

// identifier reads the id of an oId object (TS 119 182-1 §5.4.1).
func identifier(about object, name string) (id string, err error) {
	holder, _, err := get[object](about, name)
	if err == nil {
		id, _, err = get[string](holder, "id")
	}
	return id, err
}
