package cms

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"maps"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// An Input is what a file does not have itself.
type Input struct {
	// Content is what a detached signature is about. It is read once, in constant memory.
	Content io.Reader
	// Digests stand in for a Content that is elsewhere. They do for signatures with signed attributes only: a signature over
	// the content itself cannot be told from one over another signature's attributes by a digest.
	Digests map[crypto.Hash][]byte
	// Certificates are where to look for signers' certificates, DER, besides the file.
	Certificates [][]byte
	// Cache remembers certificates that come again and again; nil remembers none.
	Cache *Cache
	// Hashes are hash functions by which [Signature.Covered] will be asked, besides those that the file itself needs.
	Hashes []crypto.Hash
}

// A Signature is all that was found out about one signature.
type Signature struct {
	Integrity Integrity
	Detail    string // for people, in English; empty if Intact

	// Certificate is the signer's, DER: the one whose key made the signature if that is Intact, otherwise the one that is
	// claimed to be it. Nil if it is not at hand.
	Certificate []byte
	Issuer      []byte   // of the certificate, as the file names it: a DER Name; nil if it names a key
	Serial      *big.Int // likewise
	KeyID       []byte   // subject key identifier, if the file names a key

	Algorithm primitive.Algorithm // zero if it could not be read
	Digest    crypto.Hash         // of the content; zero if it could not be read
	Key       *primitive.Key      // of Certificate; nil if it could not be read
	Value     []byte              // the signature value

	// What the signer says, signed, without proof.
	SigningTime   time.Time                  // zero if not stated
	Reference     string                     // the attribute that names the certificate: "signingCertificateV2", "signingCertificate" or empty
	ReferenceHash crypto.Hash                // of that reference; zero without one
	PolicyID      string                     // OID of the signature policy, dotted, or PolicyImplied or PolicyUnreadable; empty if none
	Policy        *primitive.PolicyReference // what is said of that policy's document; nil without an identifier
	Commitments   []string                   // OIDs of what the signer commits to, dotted
	ClaimsRoles   bool                       // the signer says who else she is; nothing proves it
	MIMEType      string
	Hints         ContentHints
	Signed        []Attribute // all signed attributes; empty if the signature is over the content itself
	Unsigned      []Attribute

	Level             Level
	TimeStamps        []TimeStamp
	CounterSignatures []*Signature

	info  *signer
	about *content
}

// Covered returns the digests, by h, of the octets that the signature value is over, which are the signed attributes in DER or
// else the content, and of the content. Each is nil if what it is of is not at hand, or was not read with h in [Input.Hashes].
func (s *Signature) Covered(h crypto.Hash) (value, content []byte) {
	if s.about == nil {
		return nil, nil
	}
	content = s.about.digest(h)
	if s.info.signedRaw == nil {
		return content, content
	}
	set := slices.Clone(s.info.signedRaw)
	set[0] = 0x31
	return primitive.Digest(h, s.info.sorted(set)), content
}

// ContentHints say what the content is, for signatures within signatures (RFC 2634 §2.9).
type ContentHints struct {
	Description string
	Type        string // OID, dotted
}

// Verify checks every signature of the file, in its order. It returns an error only if Content cannot be read or was
// brought for a signature that has its content ([jpki.Malformed]).
func (d *SignedData) Verify(in Input) ([]*Signature, error) {
	if !d.Detached && (in.Content != nil || in.Digests != nil) {
		return nil, jpki.Errorf(jpki.Malformed, "CMS: content was brought for a signature that has its own")
	}
	v := &verification{data: d, given: in.Certificates, cache: in.Cache}
	switch {
	case !d.Detached:
		v.content.whole, v.content.size, v.content.there = d.Content, int64(len(d.Content)), true
	case in.Content != nil:
		if err := v.content.read(in.Content, d.hashes(in.Hashes), d.bare()); err != nil {
			return nil, err
		}
	default:
		v.content.digests = maps.Clone(in.Digests)
	}
	out := make([]*Signature, 0, len(d.signers))
	for _, s := range d.signers {
		out = append(out, v.signature(s, &v.content, d.contentType, false))
	}
	return out, nil
}

// bare reports whether a signature is over the content itself, whose first octets are then needed.
func (d *SignedData) bare() bool {
	return slices.ContainsFunc(d.signers, func(s *signer) bool { return s.signedRaw == nil })
}

// hashes returns the hash functions that content is needed in, with others that somebody asks for.
func (d *SignedData) hashes(others []crypto.Hash) []crypto.Hash {
	var out []crypto.Hash
	add := func(h crypto.Hash) {
		if h != 0 && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	for _, h := range others {
		add(h)
	}
	for _, s := range d.signers {
		h, _ := primitive.ParseHash(s.digestAlg)
		add(h)
		for _, t := range s.stamps {
			if t.token != nil {
				add(t.token.Hash)
			}
		}
	}
	return out
}

// content is what a signature is about, or as much of it as is needed.
type content struct {
	digests map[crypto.Hash][]byte
	whole   []byte // if it is at hand
	head    []byte // its first octets, if it went by
	size    int64
	there   bool // there is content, not only digests of it
	last    struct {
		of     crypto.Hash
		digest []byte
	}
}

// headBytes is how much of streamed content is looked at for signed attributes, and kept for Ed25519, which wants to have
// all of a message at once.
const headBytes = 1 << 20

func (c *content) read(r io.Reader, hashes []crypto.Hash, keep bool) error {
	var sinks []io.Writer
	sums := map[crypto.Hash]interface{ Sum([]byte) []byte }{}
	for _, h := range hashes {
		sum := primitive.NewHash(h)
		sums[h] = sum
		sinks = append(sinks, sum)
	}
	buf := make([]byte, 4<<10) // most of what is signed is small, or else it will be read in larger pieces
	for full := false; ; {
		if full && len(buf) < 64<<10 {
			buf = make([]byte, 64<<10)
		}
		n, err := r.Read(buf)
		full = n == len(buf)
		for _, w := range sinks {
			_, _ = w.Write(buf[:n])
		}
		c.size += int64(n)
		if room := headBytes - len(c.head); room > 0 && keep {
			c.head = append(c.head, buf[:min(n, room)]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return jpki.WrapError(jpki.Unavailable, err, "CMS: content cannot be read")
		}
	}
	c.digests = map[crypto.Hash][]byte{}
	for h, sum := range sums {
		c.digests[h] = sum.Sum(nil)
	}
	if c.there = true; c.size == int64(len(c.head)) {
		c.whole = c.head
	}
	return nil
}

// digest returns the content's digest; nil if it is not to be had.
func (c *content) digest(h crypto.Hash) []byte {
	if d := c.digests[h]; d != nil || !c.there || c.whole == nil && c.size > 0 {
		return d
	}
	if c.last.of != h || h == 0 { // nearly always there is one hash function
		c.last.of, c.last.digest = h, primitive.Digest(h, c.whole)
	}
	return c.last.digest
}

// isAttributes reports whether the content is the DER of signed attributes: then a signature over it may have been made
// over them, for another content (RFC 5652's signatures do not say which of the two they are over).
func (c *content) isAttributes() bool {
	head := c.whole
	if head == nil {
		head = c.head
	}
	h, ok := readHeaderOf(head, c.size)
	if !ok || h.tag != 0x31 || int64(h.len)+int64(h.content) != c.size {
		return false
	}
	first, ok := readHeaderOf(head[h.len:], c.size)
	if !ok || first.tag != 0x30 {
		return false
	}
	oid, ok := readHeaderOf(head[h.len+first.len:], c.size)
	return ok && oid.tag == 6
}

// readHeaderOf is readHeader for the beginning of something longer.
func readHeaderOf(head []byte, size int64) (header, bool) {
	h, ok := readHeader(head)
	return h, ok || h.len > 0 && h.content > 0 && int64(h.len)+int64(h.content) <= size
}

// A verification goes through the signatures of one file.
type verification struct {
	data   *SignedData
	given  [][]byte // besides the file's
	cache  *Cache
	hashed map[presence]map[string]bool // what hash indexes were compared with, so that it is hashed once
	content
}

// refusal carries a reason up.
type refusal struct {
	why    Integrity
	detail string
}

func (r *refusal) Error() string { return string(r.why) + ": " + r.detail }

// refused returns the refusal in an error, nil if there is none.
func refused(err error) *refusal {
	if err == nil {
		return nil
	}
	var r *refusal
	_ = errors.As(err, &r)
	return r
}

func refuse(why Integrity, detail string) error { return &refusal{why, detail} }

// fromPrimitive gives a reason to an error of package primitive.
func fromPrimitive(err error) error {
	switch {
	case errors.Is(err, primitive.ErrUnsupported):
		return refuse(UnknownAlgorithm, err.Error())
	case errors.Is(err, primitive.ErrMismatch):
		return refuse(AlgorithmMismatch, err.Error())
	case errors.Is(err, primitive.ErrMalformed):
		return refuse(Malformed, err.Error())
	}
	return refuse(SignatureWrong, err.Error())
}

// signature checks one SignerInfo over a content of the given type. Facts are collected first, so that a refusal has them too.
func (v *verification) signature(s *signer, about *content, contentType string, isCounter bool) *Signature {
	out := &Signature{
		Issuer: s.issuer, Serial: number(s.serial), KeyID: s.keyID, Value: s.value, Signed: s.signed, Unsigned: s.unsigned, Level: LevelCMS, info: s, about: about,
	}
	out.describe(s)
	err := v.check(s, about, contentType, isCounter, out)
	out.Integrity = Intact
	if r := refused(err); r != nil {
		out.Integrity, out.Detail = r.why, r.detail
	}
	for _, c := range s.counters {
		if c.err != nil {
			out.CounterSignatures = append(out.CounterSignatures, &Signature{Integrity: Malformed, Detail: c.err.Error(), Level: LevelCMS})
			continue
		}
		value := &content{whole: s.value, size: int64(len(s.value)), there: true}
		out.CounterSignatures = append(out.CounterSignatures, v.signature(c.signer, value, "", true))
	}
	for _, t := range s.stamps {
		out.TimeStamps = append(out.TimeStamps, v.timeStamp(t, s, about, contentType))
	}
	out.Level = v.level(out)
	return out
}

// check decides about one signature. Steps:
//  1. do the signed attributes, if there are any, name content type and digest, each once? (RFC 5652 §5.3, §11.1, §11.2)
//  2. do the algorithms agree with one another? (RFC 8933 §3, RFC 6211 §2)
//  3. which certificate is the signer's, and is it the one the signed reference names? (RFC 5035 §3)
//  4. is the signature by its key, over the attributes or the content? (RFC 5652 §5.4, §5.6)
//  5. is the content the one whose digest was signed?
func (v *verification) check(s *signer, about *content, contentType string, isCounter bool, out *Signature) error {
	var err error
	if err = s.checkAttributes(contentType, isCounter); err != nil {
		return err
	}
	if out.Digest, err = primitive.ParseHash(s.digestAlg); err != nil {
		return fromPrimitive(err)
	}
	if out.Algorithm, err = primitive.ParseAlgorithm(s.sigAlg); err != nil {
		return fromPrimitive(err)
	}
	if out.Algorithm, err = out.Algorithm.WithHash(out.Digest); err != nil {
		return fromPrimitive(err)
	}
	if err := s.checkProtection(); err != nil {
		return err
	}
	candidates, err := v.candidates(s, out)
	if err != nil {
		return err
	}
	digest := about.digest(out.Digest)
	if len(candidates) == 0 {
		return refuse(NoCertificate, "the signer's certificate is not at hand")
	}
	for _, c := range candidates {
		out.Certificate = c.raw
		key, keyErr := c.key()
		if keyErr != nil {
			err = fromPrimitive(keyErr)
			continue
		}
		if out.Key, err = key, s.checkValue(key, out.Algorithm, about, digest); err == nil {
			break
		}
	}
	if err != nil || s.signedRaw == nil {
		return err
	}
	signed, _ := single(s.signed, oidMessageDigest)
	switch {
	case digest == nil:
		return refuse(ContentMissing, "the signature is detached and the content was not brought")
	case !bytes.Equal(octets(signed), digest):
		return refuse(ContentMismatch, "the content is not what was signed")
	}
	return nil
}

// checkAttributes holds signed attributes to RFC 5652 §5.3 and §11: content type and message digest once each, and the
// content type that of the content. A counter-signature has no content type (§11.4).
func (s *signer) checkAttributes(contentType string, isCounter bool) error {
	if s.signedRaw == nil {
		if contentType != oidData && !isCounter {
			return refuse(AttributesMissing, "content other than plain data needs signed attributes")
		}
		return nil
	}
	for _, oid := range []string{oidContentType, oidMessageDigest, oidSigningTime, oidSigningCert, oidSigningCertV2, oidProtection} {
		if n := count(s.signed, oid); n > 1 {
			return refuse(AttributesAmbiguous, "signed attribute "+primitive.DottedOID(oid)+" has more than one value")
		}
	}
	for _, oid := range []string{oidContentType, oidMessageDigest, oidSigningTime, oidSigningCert, oidSigningCertV2, oidProtection} {
		if count(s.unsigned, oid) > 0 {
			return refuse(AttributesAmbiguous, "attribute "+primitive.DottedOID(oid)+" is not signed")
		}
	}
	if digest, ok := single(s.signed, oidMessageDigest); !ok || octets(digest) == nil {
		return refuse(AttributesMissing, "no message digest among the signed attributes")
	}
	signed, ok := single(s.signed, oidContentType)
	switch {
	case isCounter: // RFC 5652 §11.4 forbids a content type; some make one, and it binds nothing
		return nil
	case !ok:
		return refuse(AttributesMissing, "no content type among the signed attributes")
	case string(objectID(signed)) != contentType:
		return refuse(ContentTypeMismatch, "the signed content type is another than the content's")
	}
	return nil
}

// checkProtection compares the algorithms with those the signer signed as well (RFC 6211 §2).
func (s *signer) checkProtection() error {
	v, ok := single(s.signed, oidProtection)
	if !ok {
		return nil
	}
	var seq, digestAlg, sigAlg cryptobyte.String
	in := cryptobyte.String(v)
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.ReadASN1Element(&digestAlg, cbasn1.SEQUENCE) ||
		!seq.ReadASN1(&sigAlg, context(1)) || !seq.Empty() {
		return refuse(Malformed, "CMSAlgorithmProtection")
	}
	h, err := primitive.ParseHash(digestAlg)
	if want, _ := primitive.ParseHash(s.digestAlg); err != nil || h != want {
		return refuse(AlgorithmMismatch, "the digest algorithm is another than the one that was signed")
	}
	// [1] IMPLICIT AlgorithmIdentifier: its content is that of the SEQUENCE, octet by octet: parameters that mean the same in
	// other octets were put there by somebody else than the signer.
	element := cryptobyte.String(s.sigAlg)
	var content cryptobyte.String
	if !element.ReadASN1(&content, cbasn1.SEQUENCE) || !bytes.Equal(content, sigAlg) {
		return refuse(AlgorithmMismatch, "the signature algorithm is another than the one that was signed")
	}
	return nil
}

// maxCandidates bounds how many keys are tried for one signature: several only if certificates share issuer and serial
// number, or key identifier.
const maxCandidates = 4

// candidates returns the certificates that may be the signer's. A signed reference leaves one.
func (v *verification) candidates(s *signer, out *Signature) ([]*certificate, error) {
	var named []*certificate
	for _, list := range [][][]byte{v.data.Certificates, v.given} {
		for _, der := range list {
			if c := v.cache.certificate(der); c != nil && s.names(c) {
				named = append(named, c)
			}
		}
	}
	out.Reference, out.ReferenceHash = "", 0
	for _, r := range []struct {
		name string
		oid  string
	}{{"signingCertificate", oidSigningCert}, {"signingCertificateV2", oidSigningCertV2}} {
		value, ok := single(s.signed, r.oid)
		if !ok {
			continue
		}
		ref, err := parseReference(value, r.oid == oidSigningCertV2)
		if err != nil {
			return nil, err
		}
		out.Reference, out.ReferenceHash = r.name, ref.hash
		all := len(named)
		named = slices.DeleteFunc(named, func(c *certificate) bool { return !ref.matches(c) })
		if all > 0 && len(named) == 0 {
			return nil, refuse(CertificateMismatch, "the signed reference is to another certificate than the signer's")
		}
	}
	return named[:min(len(named), maxCandidates)], nil
}

// names reports whether a SignerIdentifier is of this certificate.
func (s *signer) names(c *certificate) bool {
	if s.keyID != nil {
		return bytes.Equal(s.keyID, c.keyID)
	}
	return bytes.Equal(s.serial, c.serial) && bytes.Equal(s.issuer, c.issuer)
}

// checkValue checks the signature value over the signed attributes or, without any, over the content.
func (s *signer) checkValue(key *primitive.Key, alg primitive.Algorithm, about *content, digest []byte) error {
	if s.signedRaw == nil {
		switch {
		case !about.there:
			return refuse(ContentMissing, "the signature is over the content itself, which was not brought")
		case about.isAttributes():
			return refuse(AttributesAsContent, "the content is another signature's signed attributes")
		case alg.Scheme == primitive.Ed25519 && about.whole == nil && about.size > 0:
			return refuse(UnknownAlgorithm, "Ed25519 over streamed content of this size")
		case alg.Scheme == primitive.Ed25519:
			return s.verdict(primitive.VerifyMessage(key, alg, about.whole, s.value))
		}
		return s.verdict(primitive.Verify(key, alg, digest, s.value))
	}
	// RFC 5652 §5.4: over the DER of the attributes, whatever order they stand in. A signature over them as they stand is by a signer
	// who did not sort them; DSS refuses it, openssl does not.
	set := slices.Clone(s.signedRaw)
	set[0] = 0x31
	err := s.verdict(primitive.VerifyMessage(key, alg, s.sorted(set), s.value))
	if r := refused(err); r != nil && r.why == SignatureWrong && !s.inOrder() && primitive.VerifyMessage(key, alg, set, s.value) == nil {
		return refuse(SignatureWrong, "the signature is over the signed attributes in an order that is not that of DER (RFC 5652 §5.4)")
	}
	return err
}

func (s *signer) verdict(err error) error {
	if err == nil {
		return nil
	}
	return fromPrimitive(err)
}

// inOrder reports whether the signed attributes stand in the order of DER (X.690 §11.6).
func (s *signer) inOrder() bool {
	return slices.IsSortedFunc(s.signed, func(a, b Attribute) int { return bytes.Compare(a.raw, b.raw) })
}

// sorted returns the signed attributes as a SET OF in the order of DER.
func (s *signer) sorted(set []byte) []byte {
	if s.inOrder() {
		return set
	}
	attrs := slices.Clone(s.signed)
	slices.SortFunc(attrs, func(a, b Attribute) int { return bytes.Compare(a.raw, b.raw) })
	h, _ := readHeader(set)
	out := bytes.Clone(set[:h.len])
	for _, a := range attrs {
		out = append(out, a.raw...)
	}
	return out
}
