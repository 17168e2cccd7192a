package xmldsig

import (
	"fmt"

	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// A known transform: how its parameters are read, and whether it chooses among nodes.
type known struct {
	uri     string
	filters bool
	read    func(n c14n.Node) (func(*Signature, data) (data, error), error)
}

// transforms lists what is admitted beside the canonical forms. XSLT is a programming language and is not.
var transforms = []known{
	{dsig + "enveloped-signature", false, func(n c14n.Node) (func(*Signature, data) (data, error), error) {
		return enveloped, nil
	}},
	{dsig + "base64", false, func(c14n.Node) (func(*Signature, data) (data, error), error) { return fromBase64, nil }},
	{"http://www.w3.org/TR/1999/REC-xpath-19991116", true, readXPath},
	{filter, true, readFilters},
}

// enveloped leaves the signature out (XML-DSig §6.6.4).
func enveloped(s *Signature, d data) (data, error) {
	if !d.isNodes() || d.set.Document() != s.node.Document() {
		return data{}, fmt.Errorf("%w: enveloped-signature on something else than the document", ErrMalformed)
	}
	if s.node.Contains(d.set.Apex()) {
		return data{}, fmt.Errorf("%w: enveloped-signature on what the signature contains, which leaves nothing", ErrMalformed)
	}
	return d.nodes(d.set.Without(s.node)), nil
}

// fromBase64 decodes the text of nodes, or octets (XML-DSig §6.6.2).
func fromBase64(_ *Signature, d data) (data, error) {
	d, err := d.written()
	if err != nil {
		return data{}, err
	}
	text := string(d.octets)
	if d.isNodes() {
		if text, err = d.set.Text(); err != nil {
			return data{}, err
		}
	}
	octets, err := decode(text)
	return data{octets: octets, work: d.work}, err
}

func readXPath(n c14n.Node) (func(*Signature, data) (data, error), error) {
	holder, ok := child(n, dsig, "XPath")
	if !ok {
		return nil, fmt.Errorf("%w: XPath transform without expression", ErrMalformed)
	}
	e, err := c14n.Compile(holder.Text(), holder.Namespace)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return func(s *Signature, d data) (data, error) {
		set, err := d.asSet(s)
		if err != nil {
			return data{}, err
		}
		set, err = e.Filter(set, holder)
		return d.nodes(set), err
	}, nil
}

// A filterStep is one step of XPath Filter 2.0.
type filterStep struct {
	kind   string
	e      *c14n.Expression
	holder c14n.Node
}

// readFilters reads XML-Signature XPath Filter 2.0: nodes and all that is below them, intersected, subtracted or joined.
func readFilters(n c14n.Node) (func(*Signature, data) (data, error), error) {
	var steps []filterStep
	for _, c := range n.Elements() {
		kind, _ := c.Attr("", "Filter")
		if !c.Is(filter, "XPath") || kind != "intersect" && kind != "subtract" && kind != "union" {
			return nil, fmt.Errorf("%w: step of an XPath filter", ErrMalformed)
		}
		e, err := c14n.Compile(c.Text(), c.Namespace)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		steps = append(steps, filterStep{kind, e, c})
	}
	if len(steps) == 0 || len(steps) > maxTransforms {
		return nil, fmt.Errorf("%w: XPath filter of %d steps", ErrUnsupported, len(steps))
	}
	return func(s *Signature, d data) (data, error) {
		set, err := d.asSet(s)
		if err != nil {
			return data{}, err
		}
		tests := make([]func(c14n.Node) bool, len(steps))
		for i, f := range steps {
			nodes, err := f.e.Nodes(set, f.holder)
			if err != nil {
				return data{}, err
			}
			tests[i] = c14n.Below(nodes)
		}
		// The filter starts with all nodes of the document and ends by intersecting with what came in.
		out, err := set.Pick(func(x c14n.Node) bool {
			in := true
			for i, f := range steps {
				switch hit := tests[i](x); f.kind {
				case "intersect":
					in = in && hit
				case "subtract":
					in = in && !hit
				default:
					in = in || hit
				}
			}
			return in
		})
		return d.nodes(out), err
	}, nil
}
