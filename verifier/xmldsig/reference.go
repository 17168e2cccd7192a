package xmldsig

import (
	"crypto"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// A Scope says what a reference covers.
type Scope string

// The scopes.
const (
	WholeDocument  Scope = "document"          // all of it but, if enveloped, the signature
	PartOfDocument Scope = "part"              // an element outside the signature
	InsideObject   Scope = "object"            // something the signature itself contains
	KeyMaterial    Scope = "key-info"          // its KeyInfo
	SignedProps    Scope = "signed-properties" // what the signer says about the signature (XAdES)
	ManifestScope  Scope = "manifest"          // a list of references, each with its own verdict
	Outside        Scope = "detached"          // data outside the document
)

// A Reference is one thing that was signed.
type Reference struct {
	URI, ID, Type string
	Transforms    []string // identifiers, in order
	Hash          crypto.Hash
	Digest        []byte
	Scope         Scope
	// Filtered says that a transform chose nodes, so that what looks signed may not be.
	Filtered bool

	node       c14n.Node
	target     c14n.Node // the element named, none for data outside
	hasURI     bool
	whole      bool // what is named is covered with all that is below it: no transform does more than write it
	transforms []transform
	broken     error
}

// readReference reads a Reference. What is wrong with one is kept for the verdict on it.
func (s *Signature) readReference(n c14n.Node) (Reference, error) {
	r := Reference{node: n}
	r.URI, r.hasURI = n.Attr("", "URI")
	r.ID, _ = n.Attr("", "Id")
	r.Type, _ = n.Attr("", "Type")
	r.whole = true
	rest := n.Elements()
	if len(rest) > 0 && rest[0].Is(dsig, "Transforms") {
		if r.transforms, r.broken = readTransforms(rest[0]); r.broken == nil {
			for _, t := range r.transforms {
				r.Transforms = append(r.Transforms, t.uri)
				r.Filtered = r.Filtered || t.filters
				r.whole = r.whole && t.writes
			}
		}
		rest = rest[1:]
	}
	if len(rest) != 2 || !rest[0].Is(dsig, "DigestMethod") || !rest[1].Is(dsig, "DigestValue") {
		return r, fmt.Errorf("%w: Reference without digest", ErrMalformed)
	}
	uri, _ := rest[0].Attr("", "Algorithm")
	h, err := primitive.HashFromXML(uri)
	if err != nil {
		r.broken = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	r.Hash = h
	if r.Digest, err = decodeText(rest[1]); err != nil {
		return r, err
	}
	r.target, r.Scope, err = s.locate(r)
	if r.broken == nil {
		r.broken = err
	}
	return r, nil
}

// locate finds the element a reference names. Names must be unambiguous: two elements of one identifier are the stuff that
// wrapping attacks are made of.
func (s *Signature) locate(r Reference) (c14n.Node, Scope, error) {
	doc := s.node.Document()
	id, same := strings.CutPrefix(r.URI, "#")
	switch {
	case !r.hasURI:
		return c14n.Node{}, Outside, nil
	case r.URI == "", r.URI == "#xpointer(/)":
		return doc.Root(), WholeDocument, nil
	case !same:
		return c14n.Node{}, Outside, nil
	case id == "":
		return c14n.Node{}, "", fmt.Errorf("%w: a reference that names nothing", ErrMalformed)
	}
	if inner, ok := strings.CutPrefix(id, "xpointer(id("); ok {
		inner, ok = strings.CutSuffix(inner, "))")
		if !ok || len(inner) < 2 || inner[0] != inner[len(inner)-1] || inner[0] != '\'' && inner[0] != '"' {
			return c14n.Node{}, "", fmt.Errorf("%w: XPointer", ErrUnsupported)
		}
		id = inner[1 : len(inner)-1]
	} else if strings.Contains(id, "(") {
		return c14n.Node{}, "", fmt.Errorf("%w: XPointer", ErrUnsupported)
	}
	if unescaped, err := url.PathUnescape(id); err == nil && len(doc.ByID(id)) == 0 {
		id = unescaped
	}
	found := doc.ByID(id)
	switch len(found) {
	case 0:
		return c14n.Node{}, "", fmt.Errorf("%w: no element is called %.60q", ErrNotFound, id)
	case 1:
	default:
		return c14n.Node{}, "", fmt.Errorf("%w: %d elements are called %.60q", ErrWrapped, len(found), id)
	}
	n := found[0]
	switch {
	case n.Is(xades132, "SignedProperties"), n.Is(xades122, "SignedProperties"), n.Is(xades111, "SignedProperties"):
		return n, SignedProps, nil
	case n.Is(dsig, "Manifest"):
		return n, ManifestScope, nil
	case !s.keyInfo.IsZero() && s.keyInfo.Contains(n):
		return n, KeyMaterial, nil
	case s.node.Contains(n):
		return n, InsideObject, nil
	}
	return n, PartOfDocument, nil
}

// withComments reports whether a same-document reference takes comments along: only full XPointers do (XML-DSig §4.4.3.3).
func (r *Reference) withComments() bool { return strings.HasPrefix(r.URI, "#xpointer(") }

// input dereferences.
func (s *Signature) input(r *Reference, work *c14n.Work) (data, error) {
	if r.broken != nil {
		return data{}, r.broken
	}
	if r.Scope != Outside {
		set := r.target.Subtree(r.withComments()).Within(work)
		return data{set: &set, work: work}, nil
	}
	if s.options.Resolve == nil {
		return data{}, fmt.Errorf("%w: data outside the document", ErrNotFound)
	}
	octets, ok := s.options.Resolve(r.URI)
	if !ok {
		return data{}, fmt.Errorf("%w: data outside the document", ErrNotFound)
	}
	if err := work.Spend(len(octets) / 256); err != nil {
		return data{}, err
	}
	return data{octets: octets, work: work}, nil
}

// transformed returns what the digest is over. work bounds all that one call from outside may cost, however many references and
// transforms there are.
func (s *Signature) transformed(r *Reference, work *c14n.Work) (data, error) {
	d, err := s.input(r, work)
	for _, t := range r.transforms {
		if err != nil {
			break
		}
		d, err = t.apply(s, d)
	}
	return d, classified(err)
}

// classified lets an error of package c14n be one of this package.
func classified(err error) error {
	switch {
	case errors.Is(err, c14n.ErrMalformed) && !errors.Is(err, ErrMalformed):
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case (errors.Is(err, c14n.ErrLimit) || errors.Is(err, c14n.ErrUnsupported)) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnsupported):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// CheckReference compares the digest of what a reference names with the one that was signed.
func (s *Signature) CheckReference(r *Reference) error {
	return s.check(r, c14n.NewWork(s.options.Limits))
}

func (s *Signature) check(r *Reference, work *c14n.Work) error {
	digest, err := s.digest(r, r.Hash, work)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(digest, r.Digest) != 1 {
		return ErrDigest
	}
	return nil
}

// digest returns that of what a reference names, after its transforms.
func (s *Signature) digest(r *Reference, by crypto.Hash, work *c14n.Work) ([]byte, error) {
	d, err := s.transformed(r, work)
	if err != nil {
		return nil, err
	}
	h := primitive.NewHash(by)
	if h == nil {
		return nil, fmt.Errorf("%w: hash function", ErrUnsupported)
	}
	if err := d.write(h); err != nil {
		return nil, classified(err)
	}
	return h.Sum(nil), nil
}

// Manifest returns the references of a manifest that this one names; each has its own verdict by CheckReference
// (XML-DSig §5.1: a signature stands whether they hold or not).
func (s *Signature) Manifest(r *Reference) ([]Reference, error) {
	if r.Scope != ManifestScope {
		return nil, nil
	}
	var out []Reference
	for _, n := range r.target.Elements() {
		if !n.Is(dsig, "Reference") {
			return nil, fmt.Errorf("%w: what is no Reference in a Manifest", ErrMalformed)
		}
		if len(out) == maxReferences {
			return nil, fmt.Errorf("%w: more than %d references", ErrUnsupported, maxReferences)
		}
		m, err := s.readReference(n)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// data is what passes between transforms: nodes or octets. Octets that are nodes in a canonical form are written when they are wanted,
// for mostly it is a hash function that wants them.
type data struct {
	set    *c14n.Set
	form   *c14n.Method // with set: these are octets
	octets []byte
	work   *c14n.Work
}

// nodes is the same with other nodes.
func (d data) nodes(set c14n.Set) data { return data{set: &set, work: d.work} }

// write writes octets; nodes by Canonical XML 1.0 without comments (XML-DSig §4.4.3.2).
func (d data) write(w io.Writer) error {
	switch {
	case d.set == nil:
		_, err := w.Write(d.octets)
		return err
	case d.form != nil:
		return d.set.Write(w, *d.form)
	}
	return d.set.Write(w, c14n.Method{})
}

// isNodes reports whether these are nodes.
func (d data) isNodes() bool { return d.set != nil && d.form == nil }

// written returns octets that are there.
func (d data) written() (data, error) {
	if d.form == nil {
		return d, nil
	}
	c := &collector{}
	err := d.write(c)
	return data{octets: c.octets, work: d.work}, err
}

// asSet returns nodes, parsed if need be.
func (d data) asSet(s *Signature) (c14n.Set, error) {
	if d.isNodes() {
		return *d.set, nil
	}
	d, err := d.written()
	if err != nil {
		return c14n.Set{}, err
	}
	if err := d.work.Spend(len(d.octets) / 8); err != nil {
		return c14n.Set{}, err
	}
	doc, err := c14n.Parse(d.octets, s.options.Limits)
	if err != nil {
		return c14n.Set{}, err
	}
	return doc.Root().Subtree(true).Within(d.work), nil
}

// A transform is one step between what is named and what is digested.
type transform struct {
	uri     string
	filters bool
	writes  bool
	apply   func(s *Signature, d data) (data, error)
}

func readTransforms(n c14n.Node) ([]transform, error) {
	list := n.Elements()
	if len(list) > maxTransforms {
		return nil, fmt.Errorf("%w: more than %d transforms", ErrUnsupported, maxTransforms)
	}
	var out []transform
	for _, t := range list {
		uri, _ := t.Attr("", "Algorithm")
		if !t.Is(dsig, "Transform") {
			return nil, fmt.Errorf("%w: what is no Transform", ErrMalformed)
		}
		if _, ok := c14n.ParseMethod(uri); ok {
			m, err := canonicalization(t)
			if err != nil {
				return nil, err
			}
			out = append(out, transform{uri: uri, writes: true, apply: canonical(m)})
			continue
		}
		i := slices.IndexFunc(transforms, func(k known) bool { return k.uri == uri })
		if i < 0 {
			return nil, fmt.Errorf("%w: transform %.80q", ErrUnsupported, uri)
		}
		apply, err := transforms[i].read(t)
		if err != nil {
			return nil, err
		}
		out = append(out, transform{uri: uri, filters: transforms[i].filters, apply: apply})
	}
	return out, nil
}

func canonical(m c14n.Method) func(*Signature, data) (data, error) {
	return func(s *Signature, d data) (data, error) {
		set, err := d.asSet(s)
		if err != nil {
			return data{}, err
		}
		return data{set: &set, form: &m, work: d.work}, nil
	}
}
