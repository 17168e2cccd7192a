package c14n

import (
	"errors"
	"slices"
	"strings"
)

// What goes wrong. Errors wrap one of these.
var (
	ErrMalformed   = errors.New("not well-formed")
	ErrUnsupported = errors.New("not supported")
	ErrLimit       = errors.New("beyond a limit")
)

// Limits bound what a document may cost. A zero field means its default.
type Limits struct {
	Bytes      int // of the document and of what its entities expand to, each; default 64 MiB
	Nodes      int // elements, texts, comments, instructions, attributes and namespace declarations; default 4,000,000
	Depth      int // of nested elements; default 512
	Attributes int // of one element; default 1,024
	Work       int // steps of writing and selecting: a node, a prefix, 32 octets; default 20,000,000. See [Work]
}

func (l Limits) orDefault() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{{&l.Bytes, 64 << 20}, {&l.Nodes, 4_000_000}, {&l.Depth, 512}, {&l.Attributes, 1024}, {&l.Work, 20_000_000}} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return l
}

// xmlNamespace is what the prefix xml stands for without being declared, xmlnsNamespace what no prefix may.
const (
	xmlNamespace   = "http://www.w3.org/XML/1998/namespace"
	xmlnsNamespace = "http://www.w3.org/2000/xmlns/"
)

type kind uint8

const (
	rootNode kind = iota
	elementNode
	textNode
	commentNode
	instructionNode
)

// A node is all but attributes and namespaces. Nodes stand in document order: the descendants of nodes[i] are
// nodes[i+1:nodes[i].end]. They hold no pointers: there are many, and the garbage collector need not look at them.
type node struct {
	kind   kind
	parent int32 // of the root: -1
	end    int32 // one after the last descendant
	name   int32 // of an element or instruction, into names
	text   int32 // of a text, comment or instruction, into texts
	attrs  span  // of an element, into attrs
	decls  span  // of an element, into decls
}

type span struct{ from, to int32 }

// A name is that of an element or attribute, or the target of an instruction as local name.
type name struct{ qualified, prefix, local, space string }

// An attr is an attribute that declares no namespace.
type attr struct {
	name  int32 // into names
	value string
}

// A decl is a namespace declaration; an empty uri takes back the default namespace.
type decl struct{ prefix, uri string }

// A Document is a parsed XML document.
type Document struct {
	nodes  []node
	attrs  []attr
	decls  []decl // decls[0] is that of the prefix xml
	names  []name // names[0] is none, names[1] xml:base; most names that occur often are here once
	texts  []string
	limits Limits
	ids    map[string][]int32 // elements by the values of what may identify them
}

// A Node is one node of a Document; the zero value is none. Nodes may be compared with ==.
type Node struct {
	doc *Document
	n   int32
	// sub tells the node itself (0) from its attributes (positive, 1 + index into attrs) and the namespaces in its scope
	// (negative, -1 - index into decls).
	sub int32
}

// Root returns the document's root, which is the parent of the document element.
func (d *Document) Root() Node { return Node{doc: d} }

// Element returns the document element.
func (d *Document) Element() Node {
	for i := int32(1); i < d.nodes[0].end; i = d.nodes[i].end {
		if d.nodes[i].kind == elementNode {
			return Node{doc: d, n: i}
		}
	}
	return Node{}
}

// ByID returns all elements that call themselves id, be it by xml:id, by an attribute that the document type declares to
// be an identifier, or by an attribute without namespace called Id, ID or id. There should be one.
func (d *Document) ByID(id string) []Node {
	var out []Node
	for _, n := range d.ids[id] {
		out = append(out, Node{doc: d, n: n})
	}
	return out
}

// IsZero reports whether there is no such node.
func (x Node) IsZero() bool { return x.doc == nil }

// Document returns the document the node is of.
func (x Node) Document() *Document { return x.doc }

// Is reports whether the node is an element of this namespace and local name.
func (x Node) Is(space, local string) bool {
	if x.IsZero() || x.sub != 0 || x.node().kind != elementNode {
		return false
	}
	n := x.name()
	return n.local == local && n.space == space
}

func (x Node) node() *node { return &x.doc.nodes[x.n] }

func (x Node) name() *name { return &x.doc.names[x.node().name] }

// Name returns the namespace and the local name of an element.
func (x Node) Name() (space, local string) { return x.name().space, x.name().local }

// Parent returns the element or root above, none above the root.
func (x Node) Parent() Node {
	if x.sub != 0 {
		return Node{doc: x.doc, n: x.n}
	}
	if p := x.node().parent; p >= 0 {
		return Node{doc: x.doc, n: p}
	}
	return Node{}
}

// Contains reports whether y is x or below it.
func (x Node) Contains(y Node) bool {
	return x.doc == y.doc && (x == y || x.sub == 0 && y.n >= x.n && y.n < x.node().end)
}

// Elements returns the child elements.
func (x Node) Elements() []Node {
	count := 0
	for i := x.n + 1; i < x.node().end; i = x.doc.nodes[i].end {
		if x.doc.nodes[i].kind == elementNode {
			count++
		}
	}
	if count == 0 {
		return nil
	}
	out := make([]Node, 0, count)
	for i := x.n + 1; i < x.node().end; i = x.doc.nodes[i].end {
		if x.doc.nodes[i].kind == elementNode {
			out = append(out, Node{doc: x.doc, n: i})
		}
	}
	return out
}

// Child returns the first child element of this name, or none.
func (x Node) Child(space, local string) Node {
	for i := x.n + 1; i < x.node().end; i = x.doc.nodes[i].end {
		if y := (Node{doc: x.doc, n: i}); y.Is(space, local) {
			return y
		}
	}
	return Node{}
}

// Descendants returns the elements of this name at and below the node, in document order.
func (x Node) Descendants(space, local string) []Node {
	var out []Node
	for i := x.n; i < x.node().end; i++ {
		if y := (Node{doc: x.doc, n: i}); y.Is(space, local) {
			out = append(out, y)
		}
	}
	return out
}

// Attr returns the value of an attribute and whether there is one.
func (x Node) Attr(space, local string) (string, bool) {
	for _, a := range x.doc.attrs[x.node().attrs.from:x.node().attrs.to] {
		if n := &x.doc.names[a.name]; n.local == local && n.space == space {
			return a.value, true
		}
	}
	return "", false
}

// Text returns what is written in and below an element, comments and instructions apart.
func (x Node) Text() string {
	if x.sub > 0 {
		return x.doc.attrs[x.sub-1].value
	}
	if x.sub < 0 {
		return x.doc.decls[-x.sub-1].uri
	}
	if k := x.node().kind; k != rootNode && k != elementNode {
		return x.doc.texts[x.node().text]
	}
	if x.node().end == x.n+2 && x.doc.nodes[x.n+1].kind == textNode { // as nearly always: nothing is copied
		return x.doc.texts[x.doc.nodes[x.n+1].text]
	}
	var b strings.Builder
	for i := x.n; i < x.node().end; i++ {
		if m := &x.doc.nodes[i]; m.kind == textNode {
			b.WriteString(x.doc.texts[m.text])
		}
	}
	return b.String()
}

// Namespace returns what a prefix stands for at this element, the empty prefix being the default namespace.
func (x Node) Namespace(prefix string) (string, bool) {
	d, _ := x.doc.lookUp(x.n, prefix)
	if d < 0 {
		return "", prefix == ""
	}
	return x.doc.decls[d].uri, true
}

// lookUp returns the index of the declaration of a prefix that is in force at element n, or -1, and how many declarations and
// elements it has looked at.
func (d *Document) lookUp(n int32, prefix string) (found int32, steps int) {
	if prefix == "xml" {
		return 0, 1
	}
	for ; n >= 0; n = d.nodes[n].parent {
		for i := d.nodes[n].decls.from; i < d.nodes[n].decls.to; i++ {
			if steps++; d.decls[i].prefix == prefix {
				return i, steps
			}
		}
		steps++
	}
	return -1, steps
}

// scope returns the declarations in force at element n, ordered by prefix, that of xml among them, and how many declarations and
// elements it has looked at. A declaration that takes the default namespace back is none.
func (d *Document) scope(n int32) (out []int32, steps int) {
	out = []int32{0}
	seen := map[string]bool{"xml": true}
	for ; n >= 0; n = d.nodes[n].parent {
		steps += 1 + int(d.nodes[n].decls.to-d.nodes[n].decls.from)
		for i := d.nodes[n].decls.from; i < d.nodes[n].decls.to; i++ {
			if p := d.decls[i].prefix; !seen[p] {
				seen[p] = true
				if d.decls[i].uri != "" {
					out = append(out, i)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b int32) int { return strings.Compare(d.decls[a].prefix, d.decls[b].prefix) })
	return out, steps
}

// before orders nodes as documents do: an element, its namespaces, its attributes, its children.
func (x Node) before(y Node) int {
	rank := func(s int32) int32 {
		switch {
		case s == 0:
			return 0
		case s < 0:
			return 1
		}
		return 2
	}
	if x.n != y.n {
		return int(x.n) - int(y.n)
	}
	if r := rank(x.sub) - rank(y.sub); r != 0 {
		return int(r)
	}
	if x.sub < 0 {
		return int(y.sub) - int(x.sub)
	}
	return int(x.sub) - int(y.sub)
}
