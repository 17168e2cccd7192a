package cms

import (
	"bytes"
	"crypto"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A TimeStampKind says what a time-stamp is to cover.
type TimeStampKind string

// The kinds of time-stamps, by names that are fit to be shown. Only the first three and DocumentTimeStamp are checked; the others are recognised.
const (
	ContentTimeStamp   TimeStampKind = "content"    // the content, before it was signed
	SignatureTimeStamp TimeStampKind = "signature"  // the signature value
	ArchiveTimeStamp   TimeStampKind = "archive-v3" // all there was (EN 319 122-1 §5.5.3)
	DocumentTimeStamp  TimeStampKind = "document"   // a document of another format, by its digest
	ReferenceTimeStamp TimeStampKind = "references" // references to certificates and revocations, CAdES-X type 2
	CompleteTimeStamp  TimeStampKind = "cades-c"    // signature, time-stamp and references, CAdES-X type 1
	ArchiveTimeStampV1 TimeStampKind = "archive-v1" // superseded, ambiguous
	ArchiveTimeStampV2 TimeStampKind = "archive-v2" // superseded
)

// stampKinds are the attributes that hold time-stamps.
var stampKinds = map[string]TimeStampKind{
	primitive.RawOID("1.2.840.113549.1.9.16.2.20"): ContentTimeStamp,
	primitive.RawOID("1.2.840.113549.1.9.16.2.14"): SignatureTimeStamp,
	primitive.RawOID("0.4.0.1733.2.4"):             ArchiveTimeStamp,
	primitive.RawOID("1.2.840.113549.1.9.16.2.26"): ReferenceTimeStamp,
	primitive.RawOID("1.2.840.113549.1.9.16.2.25"): CompleteTimeStamp,
	primitive.RawOID("1.2.840.113549.1.9.16.2.27"): ArchiveTimeStampV1,
	primitive.RawOID("1.2.840.113549.1.9.16.2.48"): ArchiveTimeStampV2,
}

// A TimeStamp is all that was found out about one time-stamp.
type TimeStamp struct {
	Kind TimeStampKind
	// Integrity is Intact if the token's signature is intact and the token covers what its kind says. Whether the authority
	// is to be believed, and whether Token.Time is, must be decided by whoever trusts it.
	Integrity Integrity
	Detail    string
	Token     *Token     // nil if it could not be read
	Authority *Signature // of the token, by the time-stamping authority; nil if Token is
	// OnlyTimeStamping says that the authority's certificate has extended key usage timeStamping, critical and alone, as
	// RFC 3161 §2.3 demands.
	OnlyTimeStamping bool
}

// A Token is a time-stamp token (RFC 3161 §2.4.2), about which nothing is established yet.
type Token struct {
	Time      time.Time
	Accuracy  time.Duration // either way; zero if not stated
	Hash      crypto.Hash   // of Imprint
	Imprint   []byte        // the digest that was stamped
	Policy    string        // OID, dotted
	Serial    *big.Int
	Nonce     *big.Int // nil if there is none
	Ordering  bool
	Authority []byte      // GeneralName of the authority, DER; nil if not stated
	Data      *SignedData // the token, with its certificates and revocation information
}

// ParseToken reads a time-stamp token: a SignedData, DER or BER, of one signer, with a TSTInfo inside.
func ParseToken(raw []byte) (*Token, error) {
	t, rest, err := parseToken(raw)
	if err == nil && len(rest) > 0 {
		return nil, jpki.Errorf(jpki.Malformed, "time-stamp: %d octets behind the end", len(rest))
	}
	return t, err
}

// ParsePaddedToken is ParseToken for places of fixed size, such as the Contents of a PDF's document time-stamp: octets 0
// may follow.
func ParsePaddedToken(raw []byte) (*Token, error) {
	t, rest, err := parseToken(raw)
	if err == nil && len(bytes.TrimRight(rest, "\x00")) > 0 {
		return nil, jpki.Errorf(jpki.Malformed, "time-stamp: octets other than 0 behind the end")
	}
	return t, err
}

func parseToken(raw []byte) (*Token, []byte, error) {
	if len(raw) > MaxBytes {
		return nil, nil, jpki.Errorf(jpki.TooLarge, "time-stamp: longer than %d octets", MaxBytes)
	}
	der, used, err := definite(raw)
	if err != nil {
		return nil, nil, jpki.WrapError(jpki.Malformed, err, "time-stamp: neither DER nor BER")
	}
	d := &SignedData{budget: budget{signers: MaxSigners, revocations: MaxRevocations}} // and no time-stamps inside time-stamps
	if err := d.parse(der); err != nil {
		return nil, nil, jpki.WrapError(jpki.Malformed, err, "time-stamp: no SignedData within the limits")
	}
	if d.contentType != oidTSTInfo || d.Detached || len(d.signers) != 1 {
		return nil, nil, jpki.Errorf(jpki.Malformed, "time-stamp: no TSTInfo signed by one authority")
	}
	t := &Token{Data: d, Serial: new(big.Int)}
	if !t.parse(d.Content) {
		return nil, nil, jpki.Errorf(jpki.Malformed, "time-stamp: no TSTInfo of version 1")
	}
	return t, raw[used:], nil
}

// parse reads TSTInfo.
func (t *Token) parse(der cryptobyte.String) bool {
	var in, policy, imprint, alg, digest, moment cryptobyte.String
	var version int
	if !der.ReadASN1(&in, cbasn1.SEQUENCE) || !der.Empty() || !in.ReadASN1Integer(&version) || version != 1 ||
		!in.ReadASN1(&policy, cbasn1.OBJECT_IDENTIFIER) || !in.ReadASN1(&imprint, cbasn1.SEQUENCE) ||
		!imprint.ReadASN1Element(&alg, cbasn1.SEQUENCE) || !imprint.ReadASN1(&digest, cbasn1.OCTET_STRING) || !imprint.Empty() ||
		!in.ReadASN1Integer(t.Serial) || !in.ReadASN1(&moment, cbasn1.GeneralizedTime) {
		return false
	}
	t.Policy, t.Imprint = primitive.DottedOID(string(policy)), digest
	t.Hash, _ = primitive.ParseHash(alg) // zero if it is one that is not known: then Verify says so
	if t.Hash != 0 && len(digest) != t.Hash.Size() {
		return false
	}
	var err error
	if t.Time, err = time.Parse("20060102150405Z", string(moment)); err != nil || len(moment) > 32 { // with a fraction of seconds or without
		return false
	}
	if in.PeekASN1Tag(cbasn1.SEQUENCE) && !t.parseAccuracy(&in) {
		return false
	}
	if !readFlag(&in, &t.Ordering) {
		return false
	}
	if in.PeekASN1Tag(cbasn1.INTEGER) {
		t.Nonce = new(big.Int)
		if !in.ReadASN1Integer(t.Nonce) {
			return false
		}
	}
	var name, extensions cryptobyte.String
	if !in.ReadOptionalASN1(&name, nil, context(0)) || !in.ReadOptionalASN1(&extensions, nil, context(1)) || !in.Empty() {
		return false
	}
	t.Authority = name
	return noCritical(extensions)
}

// noCritical reports whether a list of extensions has none that must be understood: none is.
func noCritical(list cryptobyte.String) bool {
	for !list.Empty() {
		var ext, oid cryptobyte.String
		var critical bool
		if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
			!readFlag(&ext, &critical) || critical {
			return false
		}
	}
	return true
}

func (t *Token) parseAccuracy(in *cryptobyte.String) bool {
	var seq cryptobyte.String
	var seconds, millis, micros int64
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || seq.PeekASN1Tag(cbasn1.INTEGER) && !seq.ReadASN1Integer(&seconds) ||
		!readTagged(&seq, 0, &millis) || !readTagged(&seq, 1, &micros) || !seq.Empty() ||
		seconds < 0 || seconds > 1<<31 || millis < 0 || millis > 999 || micros < 0 || micros > 999 {
		return false
	}
	t.Accuracy = time.Duration(seconds)*time.Second + time.Duration(millis)*time.Millisecond + time.Duration(micros)*time.Microsecond
	return true
}

// readTagged reads an INTEGER with an implicit tag, if it is there.
func readTagged(in *cryptobyte.String, n uint8, out *int64) bool {
	tag := cbasn1.Tag(n).ContextSpecific()
	return !in.PeekASN1Tag(tag) || in.ReadASN1Int64WithTag(out, tag)
}

// Verify checks the token's signature and compares what it stamped with digest, which is the digest, by t.Hash, of what it
// should have stamped. Certificates are where to look for the authority's, besides the token.
func (t *Token) Verify(digest []byte, certificates [][]byte) TimeStamp {
	out := TimeStamp{Kind: DocumentTimeStamp, Token: t, Integrity: Intact}
	signatures, err := t.Data.Verify(Input{Certificates: certificates})
	if err != nil || len(signatures) != 1 { // neither can be, after ParseToken
		out.Integrity, out.Detail = Malformed, "no token"
		return out
	}
	out.Authority = signatures[0]
	if c := parseCertificate(out.Authority.Certificate); c != nil {
		out.OnlyTimeStamping = c.onlyTimeStamping()
	}
	switch {
	case out.Authority.Integrity != Intact:
		out.Integrity, out.Detail = out.Authority.Integrity, "of the token: "+out.Authority.Detail
	case out.Authority.Reference == "": // RFC 3161 §2.4.2
		out.Integrity, out.Detail = AttributesMissing, "the token has no signed reference to the authority's certificate"
	case t.Hash == 0:
		out.Integrity, out.Detail = UnknownAlgorithm, "the token's imprint is by an unknown hash function"
	case digest == nil:
		out.Integrity, out.Detail = ContentMissing, "what the token covers is not at hand"
	case !bytes.Equal(digest, t.Imprint):
		out.Integrity, out.Detail = ContentMismatch, "the token covers something else"
	}
	return out
}

// onlyTimeStamping reports whether extKeyUsage is critical and names id-kp-timeStamping alone.
func (c *certificate) onlyTimeStamping() bool {
	return c.usageCritical && string(c.usage) == "\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x08"
}

// A stamp is a time-stamp as it stands in an attribute.
type stamp struct {
	kind  TimeStampKind
	token *Token
	err   error
}

func newStamp(kind TimeStampKind, value []byte) stamp {
	token, err := ParseToken(value)
	return stamp{kind, token, err}
}

// timeStamp checks one time-stamp of a signature.
func (v *verification) timeStamp(t stamp, s *signer, about *content, contentType string) TimeStamp {
	if t.err != nil {
		return TimeStamp{Kind: t.kind, Integrity: Malformed, Detail: t.err.Error()}
	}
	var digest []byte
	var err error
	switch t.kind {
	case ContentTimeStamp:
		digest = about.digest(t.token.Hash)
	case SignatureTimeStamp:
		digest = primitive.Digest(t.token.Hash, s.value)
	case ArchiveTimeStamp:
		digest, err = v.archived(t.token, s, about, contentType)
	}
	out := t.token.Verify(digest, v.certificates())
	out.Kind = t.kind
	switch {
	case out.Integrity != Intact && out.Integrity != ContentMissing && out.Integrity != ContentMismatch:
	case err != nil:
		out.Integrity, out.Detail = ContentMismatch, err.Error()
	case !slices.Contains([]TimeStampKind{ContentTimeStamp, SignatureTimeStamp, ArchiveTimeStamp}, t.kind):
		out.Integrity, out.Detail = NotChecked, "a time-stamp of this kind is recognised only"
	}
	return out
}

// certificates returns all certificates at hand.
func (v *verification) certificates() [][]byte {
	return append(slices.Clip(v.data.Certificates), v.given...)
}

// level says how far a signature has been prepared.
func (v *verification) level(s *Signature) Level {
	intact := func(kind TimeStampKind) bool {
		return slices.ContainsFunc(s.TimeStamps, func(t TimeStamp) bool { return t.Kind == kind && t.Integrity == Intact })
	}
	switch {
	case s.Reference == "":
		return LevelCMS
	case s.SigningTime.IsZero():
		return LevelBES
	case !intact(SignatureTimeStamp):
		return LevelB
	case len(v.data.CRLs)+len(v.data.OCSPs) == 0:
		return LevelT
	case !intact(ArchiveTimeStamp):
		return LevelLT
	}
	return LevelLTA
}
