package c14n

import (
	"io"
	"net/url"
	"slices"
	"strings"
)

// A Method is a canonical form.
type Method struct {
	Exclusive bool // Exclusive XML Canonicalization 1.0, else Canonical XML
	V11       bool // Canonical XML 1.1, else 1.0
	Comments  bool
	// Prefixes are treated as Canonical XML does by the exclusive form; "" is the default namespace (§2.1 InclusiveNamespaces).
	Prefixes []string
}

// methods lists the canonical forms by the names that signatures give them.
var methods = map[string]Method{
	"http://www.w3.org/TR/2001/REC-xml-c14n-20010315":              {},
	"http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments": {Comments: true},
	"http://www.w3.org/2006/12/xml-c14n11":                         {V11: true},
	"http://www.w3.org/2006/12/xml-c14n11#WithComments":            {V11: true, Comments: true},
	"http://www.w3.org/2001/10/xml-exc-c14n#":                      {Exclusive: true},
	"http://www.w3.org/2001/10/xml-exc-c14n#WithComments":          {Exclusive: true, Comments: true},
}

// ParseMethod finds a canonical form by its identifier.
func ParseMethod(uri string) (Method, bool) {
	m, ok := methods[uri]
	return m, ok
}

// A Set is a set of nodes of one document.
type Set struct {
	doc      *Document
	apex     int32
	comments bool
	without  []span        // subtrees left out, in document order
	picked   map[Node]bool // if not nil, these alone
	work     *Work
}

// Subtree returns a node and all that is below it, attributes and namespaces among them.
func (x Node) Subtree(comments bool) Set { return Set{doc: x.doc, apex: x.n, comments: comments} }

// Document returns the document the nodes are of.
func (s Set) Document() *Document { return s.doc }

// Apex returns the node that the set began with, under which all others lie; the root after nodes were selected.
func (s Set) Apex() Node { return Node{doc: s.doc, n: s.apex} }

// Without returns the set less a node and all that is below it.
func (s Set) Without(x Node) Set {
	s.without = append(slices.Clone(s.without), span{x.n, x.node().end})
	slices.SortFunc(s.without, func(a, b span) int { return int(a.from) - int(b.from) })
	if s.picked != nil {
		_ = s.budget().Spend(len(s.picked)) // what comes next on the set will say so
		picked := make(map[Node]bool, len(s.picked))
		for y := range s.picked {
			if !x.Contains(y) {
				picked[y] = true
			}
		}
		s.picked = picked
	}
	return s
}

// Has reports whether a node is in the set.
func (s Set) Has(x Node) bool {
	if x.doc != s.doc {
		return false
	}
	if s.picked != nil {
		return s.picked[x]
	}
	if x.n < s.apex || x.n >= s.doc.nodes[s.apex].end || x.node().kind == commentNode && !s.comments {
		return false
	}
	for _, w := range s.without {
		if x.n >= w.from && x.n < w.to {
			return false
		}
	}
	return true
}

// A writer writes one set in one form.
type writer struct {
	Set
	m   Method
	out io.Writer
	err error
	top int32 // the document element
	// now holds, by prefix, what the nearest element written has in its namespace axis (inclusive form) or what the nearest
	// element written that uses the prefix has (exclusive form); decls and attrs are lists of the element being written.
	room
}

type binding struct {
	prefix, uri string
	had         bool
}

// An opened element has been entered and not yet left.
type opened struct {
	n       int32
	written bool
	undo    int               // length of writer.undo before it
	before  map[string]string // writer.now before it, if it was replaced
}

// Write writes the set in canonical form, as UTF-8.
func (s Set) Write(out io.Writer, m Method) error {
	s = s.Within(s.budget())
	w := &writer{Set: s, m: m, out: out, room: s.work.room, top: s.doc.Element().n}
	if w.buf == nil {
		w.room = room{buf: make([]byte, 0, 4<<10), now: map[string]string{}, undo: make([]binding, 0, 16), open: make([]opened, 0, 16)}
	}
	first := s.apex
	if s.picked != nil {
		first = 0
	}
	end, skip := s.doc.nodes[first].end, s.without
	for i := first; i < end && w.err == nil; {
		w.leave(i)
		for len(skip) > 0 && skip[0].from < i {
			skip = skip[1:]
		}
		if len(skip) > 0 && skip[0].from == i && s.picked == nil {
			i = s.doc.nodes[i].end
			continue
		}
		w.spend(1)
		w.enter(i)
		i++
	}
	w.leave(end)
	w.flush()
	s.work.room = w.room // all elements were left, so that nothing is in force in it
	return w.err
}

func (w *writer) flush() {
	w.spend(len(w.buf) / 32)
	if w.err == nil {
		_, w.err = w.out.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

func (w *writer) put(parts ...string) {
	for _, s := range parts {
		if len(w.buf)+len(s) > cap(w.buf) {
			w.flush()
			if len(s) > cap(w.buf) {
				if w.spend(len(s) / 32); w.err == nil {
					_, w.err = io.WriteString(w.out, s)
				}
				continue
			}
		}
		w.buf = append(w.buf, s...)
	}
}

// The characters that are not written as they are (Canonical XML §2.3).
var (
	inText      = newEscapes(map[byte]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '\r': "&#xD;"})
	inAttribute = newEscapes(map[byte]string{'&': "&amp;", '<': "&lt;", '"': "&quot;", '\t': "&#x9;", '\n': "&#xA;", '\r': "&#xD;"})
	inOther     = newEscapes(map[byte]string{'\r': "&#xD;"})
)

// escapes has a bit for each character that is not written as it is; all of them are below 64.
type escapes struct {
	set     uint64
	written map[byte]string
}

func newEscapes(written map[byte]string) *escapes {
	e := &escapes{written: written}
	for c := range written {
		e.set |= 1 << c
	}
	return e
}

func (w *writer) escape(s string, e *escapes) {
	from := 0
	for i := range len(s) {
		if c := s[i]; c < 64 && e.set>>c&1 != 0 {
			w.put(s[from:i], e.written[c])
			from = i + 1
		}
	}
	w.put(s[from:])
}

// leave ends all elements that end before node i.
func (w *writer) leave(i int32) {
	for len(w.open) > 0 {
		o := w.open[len(w.open)-1]
		if n := &w.doc.nodes[o.n]; i < n.end {
			return
		} else if o.written {
			w.put("</", w.doc.names[n.name].qualified, ">")
		}
		if o.before != nil {
			w.now = o.before
		}
		for len(w.undo) > o.undo {
			u := w.undo[len(w.undo)-1]
			w.undo = w.undo[:len(w.undo)-1]
			if u.had {
				w.now[u.prefix] = u.uri
			} else {
				delete(w.now, u.prefix)
			}
		}
		w.open = w.open[:len(w.open)-1]
	}
}

// bind sets what a prefix stands for until the element being entered ends.
func (w *writer) bind(prefix, uri string) {
	old, had := w.now[prefix]
	w.undo = append(w.undo, binding{prefix, old, had})
	w.now[prefix] = uri
}

// enter writes a node, of an element the start.
func (w *writer) enter(i int32) {
	n := &w.doc.nodes[i]
	x := Node{doc: w.doc, n: i}
	if n.kind == elementNode {
		w.element(i, n, w.picked == nil || w.Has(x)) // without a choice of nodes, what is not in the set was skipped
		return
	}
	if n.kind == rootNode || !w.Has(x) || n.kind == commentNode && !w.m.Comments {
		return
	}
	// Beside the document element, lines are broken between nodes.
	outside := n.parent == 0
	after := outside && i > w.top
	if after {
		w.put("\n")
	}
	switch n.kind {
	case textNode:
		w.escape(w.doc.texts[n.text], inText)
	case commentNode:
		w.put("<!--")
		w.escape(w.doc.texts[n.text], inOther)
		w.put("-->")
	default:
		w.put("<?", w.doc.names[n.name].local)
		if text := w.doc.texts[n.text]; text != "" {
			w.put(" ")
			w.escape(text, inOther)
		}
		w.put("?>")
	}
	if outside && !after {
		w.put("\n")
	}
}

// element writes the start of an element. Of one that is not in the set, namespaces and attributes that are in it are
// written all the same (Canonical XML §2.3, Element Nodes).
func (w *writer) element(i int32, n *node, in bool) {
	parentWritten := len(w.open) > 0 && w.open[len(w.open)-1].written
	o := opened{n: i, written: in, undo: len(w.undo)}
	var decls []decl
	switch {
	case w.m.Exclusive && in:
		decls = w.exclusive(i, n, parentWritten)
	case w.m.Exclusive:
		decls = w.listed(i)
	case !w.m.Exclusive && (w.picked != nil || !parentWritten):
		decls, o.before = w.axis(i, in)
	case !w.m.Exclusive && in:
		decls = w.own(n)
	}
	w.open = append(w.open, o)
	if in {
		w.put("<", w.doc.names[n.name].qualified)
	}
	if len(decls) > 1 {
		slices.SortFunc(decls, func(a, b decl) int { return strings.Compare(a.prefix, b.prefix) })
	}
	for _, d := range decls {
		w.put(" xmlns")
		if d.prefix != "" {
			w.put(":", d.prefix)
		}
		w.put(`="`)
		w.escape(d.uri, inAttribute)
		w.put(`"`)
	}
	for _, a := range w.attributes(i, n, in) {
		w.put(" ", w.doc.names[a.name].qualified, `="`)
		w.escape(a.value, inAttribute)
		w.put(`"`)
	}
	if in {
		w.put(">")
	}
}

// own returns what an element whose parent was written whole declares anew.
func (w *writer) own(n *node) []decl {
	out := w.decls[:0]
	for _, d := range w.doc.decls[n.decls.from:n.decls.to] {
		if w.now[d.prefix] != d.uri {
			out = append(out, d)
			w.bind(d.prefix, d.uri)
		}
	}
	w.decls = out
	return out
}

// axis returns what the namespace axis of an element adds to that of the nearest element written, and, if the element is
// written, makes its own axis the one to compare with.
func (w *writer) axis(i int32, in bool) (out []decl, before map[string]string) {
	axis := map[string]string{}
	scope, steps := w.doc.scope(i)
	w.spend(steps)
	for _, k := range scope {
		if k == 0 || !w.Has(Node{doc: w.doc, n: i, sub: -k - 1}) {
			continue
		}
		d := w.doc.decls[k]
		axis[d.prefix] = d.uri
		if w.now[d.prefix] != d.uri {
			out = append(out, d)
		}
	}
	if !in {
		return out, nil
	}
	if axis[""] == "" && w.now[""] != "" {
		out = append(out, decl{})
	}
	before, w.now = w.now, axis
	return out, before
}

func (w *writer) spend(n int) {
	if err := w.work.Spend(n); w.err == nil {
		w.err = err
	}
}

func (w *writer) lookUp(i int32, prefix string) int32 {
	k, steps := w.doc.lookUp(i, prefix)
	w.spend(steps)
	return k
}

// exclusive returns what an element must declare for the prefixes that it uses itself, and for those listed.
func (w *writer) exclusive(i int32, n *node, parentWritten bool) []decl {
	out := w.decls[:0]
	defer func() { w.decls = out }()
	use := func(prefix, uri string) {
		if w.picked != nil {
			if k := w.lookUp(i, prefix); k < 0 || !w.Has(Node{doc: w.doc, n: i, sub: -k - 1}) {
				uri = ""
			}
		}
		if prefix == "xml" || w.now[prefix] == uri {
			return
		}
		if uri != "" || prefix == "" {
			out = append(out, decl{prefix, uri})
		}
		w.bind(prefix, uri)
	}
	name := &w.doc.names[n.name]
	use(name.prefix, name.space)
	for k := n.attrs.from; k < n.attrs.to; k++ {
		if a := &w.doc.names[w.doc.attrs[k].name]; a.prefix != "" && w.Has(Node{doc: w.doc, n: i, sub: k + 1}) {
			use(a.prefix, a.space)
		}
	}
	if len(w.m.Prefixes) == 0 || w.picked == nil && parentWritten && n.decls.from == n.decls.to {
		return out
	}
	for _, prefix := range w.m.Prefixes {
		uri := ""
		if k := w.lookUp(i, prefix); k >= 0 {
			uri = w.doc.decls[k].uri
		}
		use(prefix, uri)
	}
	return out
}

// listed returns the listed namespaces of an element that is not itself in the set, as the inclusive form has them.
func (w *writer) listed(i int32) (out []decl) {
	for _, prefix := range w.m.Prefixes {
		if k := w.lookUp(i, prefix); k > 0 && w.Has(Node{doc: w.doc, n: i, sub: -k - 1}) && w.now[prefix] != w.doc.decls[k].uri {
			out = append(out, w.doc.decls[k])
		}
	}
	return out
}

// attributes returns the attributes to write, in order: those in the set, and those of the namespace xml that hold here by
// an ancestor that is not written.
func (w *writer) attributes(i int32, n *node, in bool) []attr {
	all := w.doc.attrs[n.attrs.from:n.attrs.to]
	orphan := in && !w.m.Exclusive && n.parent > 0 && !w.Has(Node{doc: w.doc, n: n.parent})
	if !orphan && (len(all) == 0 || w.picked == nil && slices.IsSortedFunc(all, w.byName)) {
		return all
	}
	out := w.attrs[:0]
	for k := n.attrs.from; k < n.attrs.to; k++ {
		if w.Has(Node{doc: w.doc, n: i, sub: k + 1}) {
			out = append(out, w.doc.attrs[k])
		}
	}
	if orphan {
		out = w.inherit(out, i, n)
	}
	w.attrs = out
	slices.SortFunc(out, w.byName)
	return out
}

func (w *writer) byName(a, b attr) int {
	x, y := &w.doc.names[a.name], &w.doc.names[b.name]
	if c := strings.Compare(x.space, y.space); c != 0 {
		return c
	}
	return strings.Compare(x.local, y.local)
}

// inherit adds attributes of the namespace xml that an element without written parent has from its ancestors: the nearest
// of each name. Canonical XML 1.1 (§2.4) leaves xml:id out and joins xml:base.
func (w *writer) inherit(out []attr, i int32, n *node) []attr {
	known := map[string]bool{}
	for _, a := range w.doc.attrs[n.attrs.from:n.attrs.to] {
		if name := &w.doc.names[a.name]; name.space == xmlNamespace {
			known[name.local] = true
		}
	}
	for p := n.parent; p > 0; p = w.doc.nodes[p].parent {
		w.spend(1 + int(w.doc.nodes[p].attrs.to-w.doc.nodes[p].attrs.from))
		for _, a := range w.doc.attrs[w.doc.nodes[p].attrs.from:w.doc.nodes[p].attrs.to] {
			name := &w.doc.names[a.name]
			if name.space != xmlNamespace || known[name.local] || w.m.V11 && name.local != "lang" && name.local != "space" {
				continue
			}
			known[name.local] = true
			out = append(out, a)
		}
	}
	if w.m.V11 {
		out = w.base(out, i, n)
	}
	return out
}

// base joins xml:base of an element and its omitted ancestors (Canonical XML 1.1 §2.4).
func (w *writer) base(out []attr, i int32, n *node) []attr {
	value, found := Node{doc: w.doc, n: i}.Attr(xmlNamespace, "base")
	own := found
	for p := n.parent; p > 0 && !w.Has(Node{doc: w.doc, n: p}); p = w.doc.nodes[p].parent {
		if b, ok := (Node{doc: w.doc, n: p}).Attr(xmlNamespace, "base"); ok {
			value, found = join(b, value), true
		}
	}
	if own {
		out = slices.DeleteFunc(out, func(a attr) bool {
			name := &w.doc.names[a.name]
			return name.space == xmlNamespace && name.local == "base"
		})
	}
	if !found || value == "" {
		return out
	}
	return append(out, attr{name: xmlBase, value: value})
}

// join resolves a reference against a base that may itself be relative (RFC 3986 §5.2, as Canonical XML 1.1 §2.4 changes it:
// leading ".." segments stay).
func join(base, ref string) string {
	b, err := url.Parse(base)
	r, err2 := url.Parse(ref)
	if err != nil || err2 != nil || r.Scheme != "" {
		return ref
	}
	if ref == "" {
		return base
	}
	if b.Scheme != "" || strings.HasPrefix(b.Path, "/") {
		return b.ResolveReference(r).String()
	}
	if strings.HasPrefix(r.Path, "/") {
		return ref
	}
	dir := b.Path[:strings.LastIndexByte(b.Path, '/')+1]
	if strings.HasSuffix(b.Path, "..") { // names a directory
		dir = b.Path + "/"
	}
	r.Path = clean(dir + r.Path)
	return r.String()
}

// clean removes dot segments of a relative path and keeps leading ones.
func clean(path string) string {
	var out []string
	parts := strings.Split(path, "/")
	for k, s := range parts {
		last := k == len(parts)-1
		switch {
		case s == "." || s == "" && !last && k > 0:
			if last {
				out = append(out, "")
			}
		case s == ".." && len(out) > 0 && out[len(out)-1] != "..":
			if out = out[:len(out)-1]; last {
				out = append(out, "")
			}
		case s == ".." && last:
			out = append(out, "..", "")
		default:
			out = append(out, s)
		}
	}
	return strings.Join(out, "/")
}
