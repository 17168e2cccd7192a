package xmldsig

import (
	"bytes"
	"crypto"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// Namespaces of XAdES: TS 101 903 1.1.1 and 1.2.2, EN 319 132-1 (1.3.2) and its additions (1.4.1).
const (
	xades111 = "http://uri.etsi.org/01903/v1.1.1#"
	xades122 = "http://uri.etsi.org/01903/v1.2.2#"
	xades132 = "http://uri.etsi.org/01903/v1.3.2#"
	xades141 = "http://uri.etsi.org/01903/v1.4.1#"
)

// Properties are what XAdES adds to a signature. Those of the signer are covered by the signature if its Verdict is good; the
// others were added by anybody and are to be judged by what they contain.
type Properties struct {
	// Of the signer.
	SigningTime  time.Time // claimed, zero if absent
	Certificates []CertificateDigest
	PolicyID     string                     // of the signature policy, or PolicyImplied or PolicyUnreadable; empty if none
	Policy       *primitive.PolicyReference // what is said of that policy's document; nil without an identifier
	Commitments  []string
	ClaimsRoles  bool // the signer says who else she is; nothing proves it
	Formats      []Format

	// Of whoever came later.
	Stamps            []Stamp
	CertificateValues [][]byte // DER
	CRLs, OCSPs       [][]byte // DER

	qualifying, signed c14n.Node
	space              string
}

// A CertificateDigest names a certificate: the first is the signer's.
type CertificateDigest struct {
	Hash  crypto.Hash
	Value []byte
}

// Matches reports whether the digest is that of a certificate.
func (d CertificateDigest) Matches(der []byte) bool {
	sum := primitive.Digest(d.Hash, der)
	return sum != nil && bytes.Equal(sum, d.Value)
}

// A Format says what kind of data a reference is of.
type Format struct{ Reference, MimeType string }

// The kinds of time-stamps.
const (
	SignatureStamp = "SignatureTimeStamp"
	ArchiveStamp   = "ArchiveTimeStamp"
)

// A Stamp is a time-stamp on parts of the signature.
type Stamp struct {
	Kind  string // the element's local name, as in SignatureStamp
	Token []byte // RFC 3161, DER

	s      *Signature
	node   c14n.Node
	method c14n.Method
	broken error
}

// readProperties finds what XAdES adds. The signer's properties are taken only from where they belong and only if this
// signature covers them, whole: elsewhere somebody else may have put them.
func (s *Signature) readProperties() error {
	var found []c14n.Node
	for _, o := range s.node.Elements() {
		if !o.Is(dsig, "Object") {
			continue
		}
		for _, c := range o.Elements() {
			for _, space := range []string{xades132, xades122, xades111} {
				if c.Is(space, "QualifyingProperties") {
					found = append(found, c)
				}
			}
		}
	}
	var covered []c14n.Node
	for i := range s.References {
		if r := &s.References[i]; r.Scope == SignedProps {
			if !r.whole {
				return fmt.Errorf("%w: only a part of them is covered", ErrWrapped)
			}
			covered = append(covered, r.target)
		}
	}
	if len(found) == 0 && len(covered) == 0 {
		return nil
	}
	if len(found) != 1 {
		return fmt.Errorf("%w: %d QualifyingProperties", ErrWrapped, len(found))
	}
	p := &Properties{qualifying: found[0]}
	p.space, _ = p.qualifying.Name()
	if target, ok := p.qualifying.Attr("", "Target"); ok && s.ID != "" && target != "#"+s.ID {
		return fmt.Errorf("%w: they are those of another signature", ErrWrapped)
	}
	signed, ok := child(p.qualifying, p.space, "SignedProperties")
	switch {
	case !ok && len(covered) == 0: // nothing but unsigned properties
	case !ok || len(covered) != 1 || covered[0] != signed:
		return fmt.Errorf("%w: what is signed is not what stands there", ErrWrapped)
	default:
		p.signed = signed
		if err := s.readSigned(p); err != nil {
			return err
		}
	}
	s.Properties = p
	return p.readUnsigned(s)
}

// typeCountersigned marks the reference of a counter-signature to the value it countersigns (EN 319 132-1 §5.2.7).
const typeCountersigned = "http://uri.etsi.org/01903#CountersignedSignature"

// checkCounter refuses what passes for a counter-signature and covers something else: one that stands among the properties of
// another signature must cover that one's value, whole, and a reference marked as such must name a signature value.
func (s *Signature) checkCounter() error {
	var outer c14n.Node // the signature this one stands in as a counter-signature
	if space, local := s.node.Parent().Name(); local == "CounterSignature" && (space == xades132 || space == xades122 || space == xades111) {
		for n := s.node.Parent(); !n.IsZero() && outer.IsZero(); n = n.Parent() {
			if n.Is(dsig, "Signature") {
				outer = n
			}
		}
	}
	covers := false
	for i := range s.References {
		r := &s.References[i]
		isValue := !r.target.IsZero() && r.target.Is(dsig, "SignatureValue") && r.whole
		if r.Type == typeCountersigned && !isValue {
			return fmt.Errorf("%w: a reference to a countersigned value names something else", ErrWrapped)
		}
		covers = covers || isValue && r.target.Parent() == outer
	}
	if !outer.IsZero() && !covers {
		return fmt.Errorf("%w: a counter-signature that does not cover the signature it stands in", ErrWrapped)
	}
	return nil
}

func (s *Signature) readSigned(p *Properties) error {
	about, _ := child(p.signed, p.space, "SignedSignatureProperties")
	if t, ok := child(about, p.space, "SigningTime"); ok {
		p.SigningTime, _ = time.Parse(time.RFC3339, strings.TrimSpace(t.Text())) // a claim: what cannot be read is none
	}
	for _, name := range []string{"SigningCertificate", "SigningCertificateV2"} {
		list, ok := child(about, p.space, name)
		if !ok {
			continue
		}
		certs := list.Elements()
		if len(certs) == 0 || len(certs) > maxMaterial {
			return fmt.Errorf("%w: %d references to certificates", ErrMalformed, len(certs))
		}
		for _, cert := range certs {
			digest, ok := child(cert, p.space, "CertDigest")
			if !ok {
				return fmt.Errorf("%w: reference to a certificate", ErrMalformed)
			}
			method, _ := child(digest, dsig, "DigestMethod")
			value, ok := child(digest, dsig, "DigestValue")
			if !ok || method.IsZero() {
				return fmt.Errorf("%w: digest of a certificate", ErrMalformed)
			}
			uri, _ := method.Attr("", "Algorithm")
			h, err := primitive.HashFromXML(uri)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrUnsupported, err)
			}
			octets, err := decodeText(value)
			if err != nil {
				return err
			}
			p.Certificates = append(p.Certificates, CertificateDigest{h, octets})
		}
	}
	if policy, ok := child(about, p.space, "SignaturePolicyIdentifier"); ok {
		p.PolicyID, p.Policy = s.policy(p.space, policy)
	}
	_, claimed := child(about, p.space, "SignerRole")
	_, v2 := child(about, p.space, "SignerRoleV2")
	p.ClaimsRoles = claimed || v2
	objects, _ := child(p.signed, p.space, "SignedDataObjectProperties")
	if objects.IsZero() {
		return nil
	}
	for _, o := range objects.Elements() {
		switch {
		case o.Is(p.space, "DataObjectFormat"):
			f := Format{}
			f.Reference, _ = o.Attr("", "ObjectReference")
			if m, ok := child(o, p.space, "MimeType"); ok {
				f.MimeType = strings.TrimSpace(m.Text())
			}
			p.Formats = append(p.Formats, f)
		case o.Is(p.space, "CommitmentTypeIndication"):
			for _, id := range o.Descendants(p.space, "Identifier") {
				p.Commitments = append(p.Commitments, strings.TrimSpace(id.Text()))
			}
		}
	}
	return nil
}

// What [Properties.PolicyID] is for a policy without an identifier: it is that of the signer all the same, and must not be taken for none.
const (
	PolicyImplied    = "implied"    // by what was signed, or agreed upon elsewhere (EN 319 132-1 §5.2.9.1)
	PolicyUnreadable = "unreadable" // the property cannot be read, or names several
)

// asSpecified is the transform that says that a digest was made as the specification of the policy's form wants it (EN 319 132-1 §5.2.9.1).
const asSpecified = "http://uri.etsi.org/01903/v1.3.2/SignaturePolicy/SPDocDigestAsInSpecification"

// policy reads a SignaturePolicyIdentifier (EN 319 132-1 §5.2.9): the policy's identifier and what is said of its document.
func (s *Signature) policy(space string, n c14n.Node) (string, *primitive.PolicyReference) {
	children := n.Elements()
	switch {
	case len(children) == 1 && children[0].Is(space, "SignaturePolicyImplied"):
		return PolicyImplied, nil
	case len(children) != 1 || !children[0].Is(space, "SignaturePolicyId"):
		return PolicyUnreadable, nil
	}
	id, ok := child(children[0], space, "SigPolicyId")
	if !ok {
		return PolicyUnreadable, nil
	}
	var names []c14n.Node
	for _, e := range id.Elements() {
		if e.Is(space, "Identifier") {
			names = append(names, e)
		}
	}
	if len(names) != 1 || strings.TrimSpace(names[0].Text()) == "" {
		return PolicyUnreadable, nil
	}
	ref := &primitive.PolicyReference{}
	for _, e := range children[0].Elements() {
		switch {
		case e.Is(space, "SigPolicyHash"):
			method, _ := child(e, dsig, "DigestMethod")
			value, ok := child(e, dsig, "DigestValue")
			if !ok || method.IsZero() || ref.Digest != nil {
				return PolicyUnreadable, nil
			}
			uri, _ := method.Attr("", "Algorithm")
			ref.Hash, _ = primitive.HashFromXML(uri) // one that is not known is found out when it is wanted
			var err error
			if ref.Digest, err = decodeText(value); err != nil {
				return PolicyUnreadable, nil
			}
		case e.Is(dsig, "Transforms"):
			if ref.Specified || ref.Transform != nil {
				return PolicyUnreadable, nil
			}
			if steps := e.Elements(); len(steps) == 1 && steps[0].Is(dsig, "Transform") {
				uri, _ := steps[0].Attr("", "Algorithm")
				ref.Specified = uri == asSpecified
			}
			if !ref.Specified {
				ref.Transform = s.policyTransform(e)
			}
		case e.Is(space, "SigPolicyQualifiers"):
			for _, uri := range e.Descendants(space, "SPURI") {
				ref.At(strings.TrimSpace(uri.Text()))
			}
		}
	}
	return strings.TrimSpace(names[0].Text()), ref
}

// policyTransform returns what makes of a policy's document what its digest is over. All documents together may cost what one
// verification may: who writes a signature writes the transforms, and anybody the documents.
func (s *Signature) policyTransform(n c14n.Node) func([]byte) ([]byte, error) {
	work := c14n.NewWork(s.options.Limits)
	return func(document []byte) ([]byte, error) {
		steps, err := readTransforms(n)
		if err != nil {
			return nil, err
		}
		d := data{octets: document, work: work}
		if err := work.Spend(len(document) / 256); err != nil {
			return nil, classified(err)
		}
		for _, t := range steps {
			if d, err = t.apply(s, d); err != nil {
				return nil, classified(err)
			}
		}
		out := &collector{}
		err = d.write(out)
		return out.octets, classified(err)
	}
}

// readUnsigned takes what it understands; nothing here can make a signature better than it is.
func (p *Properties) readUnsigned(s *Signature) error {
	unsigned, ok := child(p.qualifying, p.space, "UnsignedProperties")
	if !ok {
		return nil
	}
	about, ok := child(unsigned, p.space, "UnsignedSignatureProperties")
	if !ok {
		return nil
	}
	for _, n := range about.Elements() {
		space, local := n.Name()
		if space != p.space && space != xades141 {
			continue
		}
		if len(p.Stamps)+len(p.CertificateValues)+len(p.CRLs)+len(p.OCSPs) > maxMaterial {
			return fmt.Errorf("%w: more than %d values and time-stamps", ErrUnsupported, maxMaterial)
		}
		switch local {
		case "CertificateValues", "TimeStampValidationData", "RevocationValues", "AnyValidationData":
			p.CertificateValues = append(p.CertificateValues, octets(n, p.space, "EncapsulatedX509Certificate")...)
			p.CRLs = append(p.CRLs, octets(n, p.space, "EncapsulatedCRLValue")...)
			p.OCSPs = append(p.OCSPs, octets(n, p.space, "EncapsulatedOCSPValue")...)
		case "SignaturePolicyStore":
			if p.Policy != nil && space == xades141 {
				for _, document := range octets(n, space, "SignaturePolicyDocument") {
					p.Policy.Store(document)
				}
			}
		default:
			if strings.HasSuffix(local, "TimeStamp") || strings.HasSuffix(local, "TimeStampV2") {
				p.Stamps = append(p.Stamps, readStamps(s, n, p.space)...)
			}
		}
	}
	return nil
}

func octets(n c14n.Node, space, local string) (out [][]byte) {
	for _, e := range n.Descendants(space, local) {
		if der, err := decode(e.Text()); err == nil {
			out = append(out, der)
		}
	}
	return out
}

func readStamps(s *Signature, n c14n.Node, space string) (out []Stamp) {
	t := Stamp{s: s, node: n}
	_, t.Kind = n.Name()
	if m, ok := child(n, dsig, "CanonicalizationMethod"); ok {
		t.method, t.broken = canonicalization(m)
	}
	for _, token := range octets(n, space, "EncapsulatedTimeStamp") {
		t.Token = token
		out = append(out, t)
	}
	return out
}

// Imprint returns the digest a time-stamp must be over: of the signature value (EN 319 132-1 §5.3) or, for an archive, of all
// that was there before it (§5.5.2). Other kinds are not supported.
func (t *Stamp) Imprint(h crypto.Hash) ([]byte, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	d := primitive.NewHash(h)
	if d == nil {
		return nil, fmt.Errorf("%w: hash function", ErrUnsupported)
	}
	put := func(n c14n.Node) error {
		if n.IsZero() {
			return nil
		}
		return n.Subtree(true).Write(d, t.method)
	}
	switch space, _ := t.node.Name(); {
	case t.Kind == SignatureStamp:
		if err := put(t.s.value); err != nil {
			return nil, err
		}
	case t.Kind == ArchiveStamp && space == xades141:
		if err := t.archive(d, put); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: %.40s", ErrUnsupported, t.Kind)
	}
	return d.Sum(nil), nil
}

// archive collects what an archive time-stamp covers (EN 319 132-1 §5.5.2.3). Steps:
//  1. what each reference yields
//  2. SignedInfo, SignatureValue, KeyInfo
//  3. the unsigned properties before it
//  4. the objects but that of the properties
func (t *Stamp) archive(w io.Writer, put func(c14n.Node) error) error {
	s, work := t.s, c14n.NewWork(t.s.options.Limits)
	for i := range s.References {
		d, err := s.transformed(&s.References[i], work)
		if err != nil {
			return err
		}
		if d.isNodes() {
			d.form = &t.method
		}
		if err := d.write(w); err != nil {
			return err
		}
	}
	for _, n := range []c14n.Node{s.info, s.value, s.keyInfo} {
		if err := put(n); err != nil {
			return err
		}
	}
	for _, n := range t.node.Parent().Elements() {
		if n == t.node {
			break
		}
		if err := put(n); err != nil {
			return err
		}
	}
	for _, o := range s.node.Elements() {
		if o.Is(dsig, "Object") && !o.Contains(s.Properties.qualifying) {
			if err := put(o); err != nil {
				return err
			}
		}
	}
	return nil
}
