package path

import (
	"crypto"
	"crypto/sha1" //nolint:gosec // a name for a key (RFC 6960 §4.2.1), not a proof
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// Limits on an OCSP response.
const (
	MaxOCSPBytes     = 256 << 10
	maxOCSPAnswers   = 256
	maxOCSPEmbedded  = 16
	oidOCSPBasic     = "\x2b\x06\x01\x05\x05\x07\x30\x01\x01"
	oidOCSPNonce     = "\x2b\x06\x01\x05\x05\x07\x30\x01\x02"
	oidOCSPCRL       = "\x2b\x06\x01\x05\x05\x07\x30\x01\x03"
	oidOCSPCutoff    = "\x2b\x06\x01\x05\x05\x07\x30\x01\x06"
	oidOCSPExtended  = "\x2b\x06\x01\x05\x05\x07\x30\x01\x09"
	ocspUndetermined = 2
)

// An OCSP is a successful OCSP response (RFC 6960 §4.2.1). Package ocsp's Response is for our own status service, with
// crypto/x509's idea of a certificate; this one reads what any authority sends.
type OCSP struct {
	Raw        []byte
	SHA256     [32]byte
	ProducedAt time.Time
	Nonce      []byte // contents of the extension; nil if absent
	Answers    []OCSPAnswer

	responderName Name
	responderKey  []byte // SHA-1 of the key's bits; nil if named by name
	certificates  []*Certificate
	tbs           []byte
	algorithm     []byte
	signature     []byte
	fault         string
}

// An OCSPAnswer is what a response says of one certificate.
type OCSPAnswer struct {
	Serial []byte
	State  State // Undetermined if the responder does not know it
	Reason jpki.Reason
	Since  time.Time
	// InvalidSince is the answer's invalidityDate (RFC 5280 §5.3.2, RFC 6960 §4.4.5); zero if absent
	InvalidSince time.Time
	ThisUpdate   time.Time
	NextUpdate   time.Time // zero if absent
	Cutoff       time.Time // RFC 6960 §4.4.4; zero if absent

	hash              crypto.Hash // 0 if it is none we know
	nameHash, keyHash []byte
}

// ParseOCSP reads a response. One that does not say successful proves nothing and is an error.
func ParseOCSP(raw []byte) (*OCSP, error) {
	if len(raw) > MaxOCSPBytes {
		return nil, fmt.Errorf("parse OCSP response: longer than %d octets", MaxOCSPBytes)
	}
	o := &OCSP{Raw: raw, SHA256: sha256.Sum256(raw)}
	if err := o.parse(); err != nil {
		return nil, fmt.Errorf("parse OCSP response: %w", err)
	}
	return o, nil
}

func (o *OCSP) parse() error {
	var wrapped, octets, tbs, alg, list der
	var present bool
	body, ok := sequence(o.Raw)
	if !ok {
		return errDER
	}
	status, ok := readCount(&body, tagEnumerated)
	if !ok || !body.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) || !body.Empty() {
		return errDER
	}
	switch {
	case status != 0:
		return fmt.Errorf("response status %d, which proves nothing", status)
	case !present:
		return errors.New("successful without an answer")
	}
	bytes, ok := sequence(wrapped)
	if !ok {
		return errDER
	}
	if kind, ok := readOID(&bytes); !ok || kind != oidOCSPBasic {
		return errors.New("response type is not id-pkix-ocsp-basic")
	}
	if !bytes.ReadASN1(&octets, tagOctets) || !bytes.Empty() {
		return errDER
	}
	basic, ok := sequence(octets)
	if !ok || !basic.ReadASN1Element(&tbs, tagSequence) || !basic.ReadASN1Element(&alg, tagSequence) || !readSignature(&basic, &o.signature) ||
		!basic.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) || !basic.Empty() {
		return errDER
	}
	o.tbs, o.algorithm = tbs, alg
	if present {
		if list, ok = sequence(wrapped); !ok {
			return errDER
		}
	}
	for !list.Empty() {
		var one der
		if !list.ReadASN1Element(&one, tagSequence) {
			return errDER
		}
		if len(o.certificates) == maxOCSPEmbedded {
			return errors.New("more certificates than admitted")
		}
		if c, err := ParseCertificate(one); err == nil { // what is no certificate signed nothing
			o.certificates = append(o.certificates, c)
		}
	}
	return o.parseData()
}

func (o *OCSP) parseData() (err error) {
	in, _ := sequence(o.tbs)
	var id, list, wrapped der
	var present bool
	if !in.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) {
		return errDER
	}
	if present { // DER leaves out version 1, and there is no other
		if version, ok := readCount(&wrapped, tagInteger); !ok || !wrapped.Empty() || version != 0 {
			return errors.New("not of version 1")
		}
	}
	switch {
	case in.PeekASN1Tag(tagged(1, true)):
		if !in.ReadASN1(&id, tagged(1, true)) {
			return errDER
		}
		if o.responderName, err = readName(&id); err != nil || !id.Empty() {
			return errDER
		}
	case in.PeekASN1Tag(tagged(2, true)):
		var key der
		if !in.ReadASN1(&id, tagged(2, true)) || !id.ReadASN1(&key, tagOctets) || !id.Empty() || len(key) != sha1.Size {
			return errDER
		}
		o.responderKey = key
	default:
		return errDER
	}
	if !readGeneralizedTime(&in, &o.ProducedAt) || !in.ReadASN1(&list, tagSequence) || list.Empty() {
		return errDER
	}
	for !list.Empty() {
		var one der
		if !list.ReadASN1(&one, tagSequence) {
			return errDER
		}
		if len(o.Answers) == maxOCSPAnswers {
			return errors.New("more answers than admitted")
		}
		a, err := o.readAnswer(one)
		if err != nil {
			return err
		}
		o.Answers = append(o.Answers, a)
	}
	return o.readExtensions(&in, func(e extension) bool {
		if e.oid == oidOCSPNonce {
			o.Nonce = e.value
		}
		return e.oid == oidOCSPNonce || e.oid == oidOCSPExtended
	})
}

// readExtensions reads the [1] EXPLICIT Extensions that end a structure. known says what is understood.
func (o *OCSP) readExtensions(in *der, known func(extension) bool) error {
	var wrapped der
	var present bool
	if !in.ReadOptionalASN1(&wrapped, &present, tagged(1, true)) || !in.Empty() {
		return errDER
	}
	if !present {
		return nil
	}
	all, err := readExtensions(wrapped)
	for _, e := range all {
		if !known(e) && e.critical && o.fault == "" {
			o.fault = "critical extension " + dotted(e.oid)
		}
	}
	return err
}

func (o *OCSP) readAnswer(in der) (a OCSPAnswer, err error) {
	var id, alg, name, key, wrapped, revoked der
	var present, ok bool
	if !in.ReadASN1(&id, tagSequence) || !id.ReadASN1Element(&alg, tagSequence) || !id.ReadASN1(&name, tagOctets) || !id.ReadASN1(&key, tagOctets) {
		return a, errDER
	}
	if a.Serial, ok = readInteger(&id); !ok || !id.Empty() {
		return a, errDER
	}
	a.nameHash, a.keyHash = name, key
	if a.hash, err = primitive.ParseHash(alg); err != nil {
		a.hash = 0
	}
	switch {
	case in.PeekASN1Tag(tagged(0, false)):
		var null der
		if !in.ReadASN1(&null, tagged(0, false)) || !null.Empty() {
			return a, errDER
		}
		a.State = Good
	case in.PeekASN1Tag(tagged(1, true)):
		a.State = IsRevoked
		if !in.ReadASN1(&revoked, tagged(1, true)) || !readGeneralizedTime(&revoked, &a.Since) ||
			!revoked.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) || !revoked.Empty() {
			return a, errDER
		}
		if present {
			code, ok := readCount(&wrapped, tagEnumerated)
			if !ok || !wrapped.Empty() || code > 10 || code == 7 {
				return a, errDER
			}
			a.Reason = jpki.Reason(code)
		}
	case in.PeekASN1Tag(tagged(ocspUndetermined, false)):
		var null der
		if !in.ReadASN1(&null, tagged(ocspUndetermined, false)) || !null.Empty() {
			return a, errDER
		}
		a.State = Undetermined
	default:
		return a, errDER
	}
	if !readGeneralizedTime(&in, &a.ThisUpdate) || !in.ReadOptionalASN1(&wrapped, &present, tagged(0, true)) {
		return a, errDER
	}
	if present && (!readGeneralizedTime(&wrapped, &a.NextUpdate) || !wrapped.Empty()) {
		return a, errDER
	}
	err = o.readExtensions(&in, func(e extension) bool {
		switch e.oid {
		case oidOCSPCutoff:
			value := der(e.value)
			return readGeneralizedTime(&value, &a.Cutoff) && value.Empty()
		case extInvalidityDate:
			value := der(e.value)
			if a.State != IsRevoked || !readGeneralizedTime(&value, &a.InvalidSince) || !value.Empty() {
				a.InvalidSince = time.Time{}
				o.fault = "invalidityDate: " + errDER.Error()
			}
			return true
		case oidOCSPCRL, extReasonCode, extCertIssuer: // RFC 6960 §4.4.2, §4.4.5: repeat or refine what is said
			return e.oid != extCertIssuer || !e.critical
		}
		return false
	})
	return a, err
}

// Fault returns why nobody's status may be taken from the response; "" if nothing is wrong.
func (o *OCSP) Fault() string { return o.fault }

// answer returns what the response says of the certificate with a serial that the holder of issuer's key issued under
// name, nil if it says nothing. CertIDs hash the issuer's name as the certificate has it (RFC 6960 §4.1.1). misnamed says
// that there is an answer about this number with only one of the two hashes.
func (o *OCSP) answer(c, issuer *Certificate) (newest *OCSPAnswer, misnamed bool) {
	for i := range o.Answers {
		a := &o.Answers[i]
		if a.hash == 0 || string(a.Serial) != string(c.Serial) {
			continue
		}
		key := string(a.keyHash) == string(primitive.Digest(a.hash, issuer.keyBits))
		name := string(a.nameHash) == string(primitive.Digest(a.hash, c.Issuer.Raw)) || string(a.nameHash) == string(primitive.Digest(a.hash, issuer.Subject.Raw))
		switch {
		case key != name:
			misnamed = true
		case key && (newest == nil || a.ThisUpdate.After(newest.ThisUpdate) || a.ThisUpdate.Equal(newest.ThisUpdate) && a.State == IsRevoked):
			newest = a
		}
	}
	return newest, misnamed
}

// names reports whether the responder's identifier is that of a certificate.
func (o *OCSP) names(c *Certificate) bool {
	if o.responderKey == nil {
		return c.Subject.Equal(o.responderName)
	}
	sum := sha1.Sum(c.keyBits) //nolint:gosec // see the import
	return string(sum[:]) == string(o.responderKey)
}

// SignedBy is a key and an algorithm that something was signed with.
type SignedBy struct {
	What      string // "response" or "responder's certificate"
	Key       *primitive.Key
	Algorithm primitive.Algorithm
}

// SignedBy returns with which keys and algorithms a response is signed: its own signature and, if another key than issuer's made
// that, the one by issuer under the responder's certificate, which must be among those that came along. Both are checked. That the
// responder may speak for issuer, and the strength of any of it, are not: see [Validator.Validate].
func (o *OCSP) SignedBy(issuer *Certificate) ([]SignedBy, error) {
	answer := o.signedPart()
	if answer.err != nil {
		return nil, answer.err
	}
	for i, c := range append([]*Certificate{issuer}, o.certificates...) {
		if !o.names(c) {
			continue
		}
		key, err := c.Key()
		if err != nil || primitive.VerifyMessage(key, answer.algorithm, answer.message, answer.signature) != nil {
			continue
		}
		out := []SignedBy{{"response", key, answer.algorithm}}
		if i == 0 || c.SPKISHA256 == issuer.SPKISHA256 {
			return out, nil
		}
		own := c.signedPart()
		if own.err != nil {
			return nil, own.err
		}
		if key, err = issuer.Key(); err != nil {
			return nil, err
		}
		if primitive.VerifyMessage(key, own.algorithm, own.message, own.signature) == nil {
			return append(out, SignedBy{"responder's certificate", key, own.algorithm}), nil
		}
	}
	return nil, errors.New("OCSP response: signed by nobody at hand for this issuer")
}

// signedPart returns what the responder signed.
func (o *OCSP) signedPart() signed {
	alg, err := primitive.ParseAlgorithm(o.algorithm)
	return signed{sum: o.SHA256, message: o.tbs, algorithm: alg, err: err, signature: o.signature}
}
