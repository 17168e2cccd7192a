package xmldsig

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// Namespaces.
const (
	dsig   = "http://www.w3.org/2000/09/xmldsig#"
	dsig11 = "http://www.w3.org/2009/xmldsig11#"
	more   = "http://www.w3.org/2001/04/xmldsig-more#"
	filter = "http://www.w3.org/2002/06/xmldsig-filter2"
	excl   = "http://www.w3.org/2001/10/xml-exc-c14n#"
)

// What can be wrong with a signature. The errors of a Verdict wrap one of these.
var (
	ErrMalformed   = errors.New("signature is malformed")
	ErrUnsupported = errors.New("signature wants what is not supported")
	ErrNotFound    = errors.New("what was signed is not there")
	ErrDigest      = errors.New("what was signed has been changed")
	ErrNoKey       = errors.New("signature brings no key or certificate")
	ErrValue       = errors.New("signature value is wrong")
	ErrCertificate = errors.New("signing certificate is not the one that was signed") // EN 319 132-1 §5.2.2
	ErrWrapped     = errors.New("signed properties are not where they belong")
)

// Options are what Read may be told; the zero value will do.
type Options struct {
	Limits c14n.Limits
	// Resolve returns the octets of what a reference or a RetrievalMethod names outside the document; without it nothing outside is
	// found. The name is an outsider's, and nothing of the signature has been checked: look it up in a list, open nothing by it.
	Resolve func(uri string) ([]byte, bool)
	// Certificates, DER, are tried after those that a signature brings: it may only name its own.
	Certificates [][]byte
	// Key finds the key of a signature by what it says of it, after all certificates and keys that it brings.
	Key func(KeyInfo) *primitive.Key
}

// Bounds on one document and one signature.
const (
	maxSignatures = 100
	maxReferences = 1000
	maxTransforms = 16
	maxPrefixes   = 256 // in InclusiveNamespaces
)

// A Signature is one ds:Signature element.
type Signature struct {
	ID         string
	Algorithm  primitive.Algorithm
	Value      []byte
	References []Reference // in order; those of manifests in the references that name them
	KeyInfo    KeyInfo
	Properties *Properties // of XAdES; nil without
	// Inside says that the signature countersigns or is otherwise part of another one.
	Inside bool

	options   Options
	node      c14n.Node
	info      c14n.Node
	value     c14n.Node
	method    c14n.Method
	keyInfo   c14n.Node
	malformed error
}

// Read returns the signatures of a document in document order. One that cannot be read is among them and fails Verify. An
// error means that this is no XML document or goes beyond a limit.
func Read(data []byte, o Options) ([]*Signature, error) {
	doc, err := c14n.Parse(data, o.Limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	nodes := doc.Root().Descendants(dsig, "Signature")
	if len(nodes) > maxSignatures {
		return nil, fmt.Errorf("%w: more than %d signatures", ErrUnsupported, maxSignatures)
	}
	var out []*Signature
	for i, n := range nodes {
		s := &Signature{options: o, node: n}
		for _, outer := range nodes[:i] {
			s.Inside = s.Inside || outer.Contains(n)
		}
		s.malformed = s.read()
		out = append(out, s)
	}
	return out, nil
}

// read takes the element apart. Steps:
//  1. SignedInfo: canonicalization, algorithm, references
//  2. SignatureValue
//  3. KeyInfo
//  4. qualifying properties
func (s *Signature) read() error {
	s.ID, _ = s.node.Attr("", "Id")
	children := s.node.Elements()
	if len(children) < 2 || !children[0].Is(dsig, "SignedInfo") || !children[1].Is(dsig, "SignatureValue") {
		return fmt.Errorf("%w: no SignedInfo and SignatureValue", ErrMalformed)
	}
	s.info, s.value = children[0], children[1]
	for i, c := range children[2:] { // in the order of the schema (XML-DSig §4.2): a KeyInfo behind an Object is none
		if i == 0 && c.Is(dsig, "KeyInfo") {
			s.keyInfo = c
		} else if !c.Is(dsig, "Object") {
			return fmt.Errorf("%w: other than SignedInfo, SignatureValue, at most one KeyInfo, and Objects, in this order", ErrMalformed)
		}
	}
	if err := s.readInfo(); err != nil {
		return err
	}
	var err error
	if s.Value, err = decodeText(s.value); err != nil {
		return err
	}
	if !s.keyInfo.IsZero() {
		s.KeyInfo = s.readKeyInfo()
	}
	if err := s.checkCounter(); err != nil {
		return err
	}
	return s.readProperties()
}

func (s *Signature) readInfo() error {
	parts := s.info.Elements()
	if len(parts) < 3 || !parts[0].Is(dsig, "CanonicalizationMethod") || !parts[1].Is(dsig, "SignatureMethod") {
		return fmt.Errorf("%w: SignedInfo without its methods or without a reference", ErrMalformed)
	}
	var err error
	if s.method, err = canonicalization(parts[0]); err != nil {
		return err
	}
	uri, _ := parts[1].Attr("", "Algorithm")
	if s.Algorithm, err = signatureMethod(uri, parts[1]); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if len(parts)-2 > maxReferences {
		return fmt.Errorf("%w: more than %d references", ErrUnsupported, maxReferences)
	}
	for _, p := range parts[2:] {
		if !p.Is(dsig, "Reference") {
			return fmt.Errorf("%w: what is no Reference in SignedInfo", ErrMalformed)
		}
		r, err := s.readReference(p)
		if err != nil {
			return err
		}
		s.References = append(s.References, r)
	}
	return nil
}

// signatureMethod reads an algorithm; RSASSA-PSS may have parameters (RFC 9231 §2.3.9).
func signatureMethod(uri string, n c14n.Node) (primitive.Algorithm, error) {
	alg, err := primitive.FromXML(uri)
	if err != nil {
		return alg, err
	}
	if len(n.Elements()) > 0 {
		return alg, fmt.Errorf("parameters of %s", alg)
	}
	return alg, nil
}

// canonicalization reads a canonical form with its parameters.
func canonicalization(n c14n.Node) (c14n.Method, error) {
	uri, _ := n.Attr("", "Algorithm")
	m, ok := c14n.ParseMethod(uri)
	if !ok {
		return m, fmt.Errorf("%w: canonicalization %.80q", ErrUnsupported, uri)
	}
	for i, c := range n.Elements() {
		if i > 0 || !m.Exclusive || !c.Is(excl, "InclusiveNamespaces") {
			return m, fmt.Errorf("%w: parameter of a canonicalization", ErrUnsupported)
		}
		list, _ := c.Attr("", "PrefixList")
		for p := range strings.FieldsSeq(list) {
			if p == "#default" {
				p = ""
			}
			if len(m.Prefixes) == maxPrefixes {
				return m, fmt.Errorf("%w: more than %d prefixes", ErrUnsupported, maxPrefixes)
			}
			m.Prefixes = append(m.Prefixes, p)
		}
	}
	return m, nil
}

// decode reads base64 with white space anywhere.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, " \t") { // line breaks are passed over anyway
		s = strings.NewReplacer(" ", "", "\t", "").Replace(s)
	}
	out, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: not base64", ErrMalformed)
	}
	return out, nil
}

// decodeText decodes what an element holds, which must be text alone: comments may come between, elements not, for readers differ
// on what the text then is.
func decodeText(n c14n.Node) ([]byte, error) {
	if len(n.Elements()) > 0 {
		return nil, fmt.Errorf("%w: an element inside base64", ErrMalformed)
	}
	return decode(n.Text())
}

// child returns the first child element of this name.
func child(n c14n.Node, space, local string) (c14n.Node, bool) {
	if n.IsZero() {
		return n, false
	}
	for _, c := range n.Elements() {
		if c.Is(space, local) {
			return c, true
		}
	}
	return c14n.Node{}, false
}
