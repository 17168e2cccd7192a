package c14n

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Parse reads a document: XML 1.0 with namespaces in UTF-8, UTF-16, ISO-8859-1 or US-ASCII. An internal document type is
// read for entities, default values and identifiers; nothing external is. Line ends and attribute values are normalised
// as XML 1.0 §2.11 and §3.3.3 want it.
func Parse(data []byte, limits Limits) (*Document, error) {
	limits = limits.orDefault()
	if len(data) > limits.Bytes {
		return nil, fmt.Errorf("%w: more than %d octets", ErrLimit, limits.Bytes)
	}
	text, err := decode(data)
	if err != nil {
		return nil, err
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	p := &parser{doc: &Document{limits: limits, ids: map[string][]int32{}}, in: text, expansion: limits.Bytes, scope: map[string][]int32{"xml": {0}}}
	if err := p.document(); err != nil {
		return nil, err
	}
	return p.doc, nil
}

// decode turns octets into UTF-8 without byte order mark.
func decode(data []byte) (string, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xEF, 0xBB, 0xBF}):
		data = data[3:]
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}):
		return decode16(data[2:], binary.BigEndian)
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}):
		return decode16(data[2:], binary.LittleEndian)
	}
	switch name := strings.ToLower(declaredEncoding(data)); name {
	case "", "utf-8", "utf8":
	case "us-ascii", "ascii":
		for _, c := range data {
			if c >= utf8.RuneSelf {
				return "", fmt.Errorf("%w: not US-ASCII, though declared", ErrMalformed)
			}
		}
	case "iso-8859-1", "latin1":
		var b strings.Builder
		for _, c := range data {
			b.WriteRune(rune(c))
		}
		return b.String(), nil
	default:
		return "", fmt.Errorf("%w: encoding %.20q", ErrUnsupported, name)
	}
	if !utf8.Valid(data) {
		return "", fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	return string(data), nil
}

func decode16(data []byte, order binary.ByteOrder) (string, error) {
	if len(data)%2 != 0 {
		return "", fmt.Errorf("%w: odd number of octets in UTF-16", ErrMalformed)
	}
	var b strings.Builder
	for i := 0; i < len(data); i += 2 {
		r := rune(order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			if i+3 >= len(data) {
				return "", fmt.Errorf("%w: half a character at the end", ErrMalformed)
			}
			i += 2
			if r = utf16.DecodeRune(r, rune(order.Uint16(data[i:]))); r == utf8.RuneError {
				return "", fmt.Errorf("%w: half a character", ErrMalformed)
			}
		}
		b.WriteRune(r)
	}
	return b.String(), nil
}

// declaredEncoding reads the encoding out of an XML declaration, if there is one.
func declaredEncoding(data []byte) string {
	if !bytes.HasPrefix(data, []byte("<?xml")) {
		return ""
	}
	end := bytes.Index(data, []byte("?>"))
	if end < 0 || end > 256 {
		return ""
	}
	_, after, found := strings.Cut(string(data[:end]), "encoding")
	after = strings.TrimLeft(after, " \t\r\n=")
	if !found || after == "" || after[0] != '"' && after[0] != '\'' {
		return ""
	}
	name, _, _ := strings.Cut(after[1:], after[:1])
	return name
}

// A parser reads one document. Entities are expanded by a parser of their own on the same document.
type parser struct {
	doc       *Document
	in        string
	at        int
	dtd       *dtd
	expansion int                // octets that entities may still expand to
	open      []int32            // open elements, the root below them
	scope     map[string][]int32 // by prefix: the declarations in force, innermost last
	entities  []string           // being expanded, outermost first
	piece     string             // the text being read, while it is in one piece
	pieces    []byte             // else
	total     int                // nodes, attributes and declarations
	raw       []rawAttr          // of the tag being read, kept for its room
	// Where the name that was last read of those that share a place is in doc.names, and when: it is the same name while the
	// declarations in force are.
	known [64]knownName
	epoch int32 // counts changes to scope, which are fewer than Limits.Nodes twice
}

type knownName struct{ name, epoch int32 }

// xmlBase is where the name xml:base is, which Canonical XML 1.1 adds.
const xmlBase = 1

func (p *parser) malformed(format string, args ...any) error {
	return fmt.Errorf("%w at octet %d: %s", ErrMalformed, p.at, fmt.Sprintf(format, args...))
}

func (p *parser) rest() string { return p.in[p.at:] }

func (p *parser) take(s string) bool {
	if strings.HasPrefix(p.rest(), s) {
		p.at += len(s)
		return true
	}
	return false
}

func (p *parser) space() bool {
	from := p.at
	for p.at < len(p.in) && isSpace(p.in[p.at]) {
		p.at++
	}
	return p.at > from
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

// until takes everything before end, and end.
func (p *parser) until(end string) (string, error) {
	i := strings.Index(p.rest(), end)
	if i < 0 {
		return "", p.malformed("no %q", end)
	}
	s := p.in[p.at : p.at+i]
	p.at += i + len(end)
	return s, nil
}

func (p *parser) count(n int) error {
	if p.total += n; p.total > p.doc.limits.Nodes {
		return fmt.Errorf("%w: more than %d nodes", ErrLimit, p.doc.limits.Nodes)
	}
	return nil
}

// document reads the whole. Steps:
//  1. the XML declaration
//  2. comments, instructions and a document type
//  3. the document element
//  4. comments and instructions
func (p *parser) document() error {
	p.doc.nodes = make([]node, 1, 2+min(strings.Count(p.in, "<")*3/2, 1<<14))
	p.doc.nodes[0].parent = -1
	p.doc.attrs = make([]attr, 0, min(strings.Count(p.in, "="), 1<<12))
	p.doc.decls = append(p.doc.decls, decl{prefix: "xml", uri: xmlNamespace})
	p.doc.names = append(make([]name, 0, 56), name{}, name{qualified: "xml:base", prefix: "xml", local: "base", space: xmlNamespace})
	p.doc.texts = make([]string, 0, min(strings.Count(p.in, ">"), 1<<14))
	p.open = []int32{0}
	if strings.HasPrefix(p.in, "<?xml") && len(p.in) > 5 && isSpace(p.in[5]) {
		declaration, err := p.until("?>")
		if err != nil {
			return err
		}
		if v := strings.TrimLeft(declaration[5:], " \t\r\n"); !strings.HasPrefix(v, "version") || !strings.Contains(v, "1.0") {
			return fmt.Errorf("%w: not XML 1.0", ErrUnsupported)
		}
	}
	element := false
	for {
		p.space()
		switch {
		case p.at == len(p.in):
			if !element {
				return p.malformed("no element")
			}
			p.doc.nodes[0].end = int32(len(p.doc.nodes)) // bounded by Limits.Nodes
			return nil
		case p.take("<!--"):
			if err := p.comment(); err != nil {
				return err
			}
		case p.take("<?"):
			if err := p.instruction(); err != nil {
				return err
			}
		case !element && p.dtd == nil && p.take("<!DOCTYPE"):
			if err := p.doctype(); err != nil {
				return err
			}
		case !element && p.take("<"):
			element = true
			if err := p.element(); err != nil {
				return err
			}
		default:
			return p.malformed("what stands outside the element")
		}
	}
}

func (p *parser) add(n node) (int32, error) {
	if err := p.count(1); err != nil {
		return 0, err
	}
	i := int32(len(p.doc.nodes)) // bounded by Limits.Nodes
	n.parent, n.end = p.open[len(p.open)-1], i+1
	p.doc.nodes = append(p.doc.nodes, n)
	return i, nil
}

// addText adds a node of a text.
func (p *parser) addText(n node, text string) error {
	n.text = int32(len(p.doc.texts)) // bounded by Limits.Nodes
	p.doc.texts = append(p.doc.texts, text)
	_, err := p.add(n)
	return err
}

func (p *parser) comment() error {
	text, err := p.until("--")
	if err != nil {
		return err
	}
	if !p.take(">") {
		return p.malformed("two hyphens in a comment")
	}
	if err := p.characters(text); err != nil {
		return err
	}
	return p.addText(node{kind: commentNode}, text)
}

func (p *parser) instruction() error {
	target, err := p.name()
	if err != nil {
		return err
	}
	if strings.EqualFold(target, "xml") || strings.Contains(target, ":") {
		return p.malformed("instruction called %.20q", target)
	}
	spaced := p.space()
	text, err := p.until("?>")
	if err != nil {
		return err
	}
	if text != "" && !spaced {
		return p.malformed("no space after the target of an instruction")
	}
	if err := p.characters(text); err != nil {
		return err
	}
	p.doc.names = append(p.doc.names, name{qualified: target, local: target})
	return p.addText(node{kind: instructionNode, name: int32(len(p.doc.names) - 1)}, text) // bounded by Limits.Nodes
}

// characters refuses what is no XML character (XML 1.0 §2.2).
func (p *parser) characters(s string) error {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && !isSpace(c) {
			return p.malformed("control character")
		} else if c == 0xEF && (strings.HasPrefix(s[i:], "\uFFFE") || strings.HasPrefix(s[i:], "\uFFFF")) {
			return p.malformed("not a character")
		}
	}
	return nil
}

// name takes a Name (XML 1.0 §2.3).
func (p *parser) name() (string, error) {
	from := p.at
	for p.at < len(p.in) {
		if c := p.in[p.at]; c < utf8.RuneSelf {
			if asciiNames[c]&nameInside == 0 || p.at == from && asciiNames[c]&nameStart == 0 {
				break
			}
			p.at++
			continue
		}
		r, size := utf8.DecodeRuneInString(p.rest())
		if !nameChar(r, p.at == from) {
			break
		}
		p.at += size
	}
	if p.at == from {
		return "", p.malformed("no name")
	}
	return p.in[from:p.at], nil
}

// nameRanges lists what may begin a name beyond ASCII; more is admitted inside.
var nameRanges = [][2]rune{
	{0xC0, 0xD6},
	{0xD8, 0xF6},
	{0xF8, 0x2FF},
	{0x370, 0x37D},
	{0x37F, 0x1FFF},
	{0x200C, 0x200D},
	{0x2070, 0x218F},
	{0x2C00, 0x2FEF},
	{0x3001, 0xD7FF},
	{0xF900, 0xFDCF},
	{0xFDF0, 0xFFFD},
	{0x10000, 0xEFFFF},
}

func nameChar(r rune, first bool) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_', r == ':':
		return true
	case r < utf8.RuneSelf:
		return !first && (r >= '0' && r <= '9' || r == '-' || r == '.')
	case !first && (r == 0xB7 || r >= 0x300 && r <= 0x36F || r >= 0x203F && r <= 0x2040):
		return true
	}
	for _, x := range nameRanges {
		if r >= x[0] && r <= x[1] {
			return true
		}
	}
	return false
}

// split takes a qualified name apart.
func (p *parser) split(qname string) (prefix, local string, err error) {
	prefix, local, qualified := strings.Cut(qname, ":")
	if !qualified {
		return "", qname, nil
	}
	if prefix == "" || local == "" || strings.Contains(local, ":") || !nameChar(firstRune(local), true) {
		return "", "", p.malformed("no qualified name: %.40q", qname)
	}
	return prefix, local, nil
}

func firstRune(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}

// element reads an element, after its "<", and all that is below: without recursion, for depth is an outsider's choice.
func (p *parser) element() error {
	base := len(p.open)
	if err := p.startTag(); err != nil {
		return err
	}
	for len(p.open) > base {
		if err := p.content(); err != nil {
			return err
		}
	}
	return nil
}

// content reads what comes next inside an element.
func (p *parser) content() error {
	if p.at == len(p.in) {
		return p.malformed("an element does not end")
	}
	if p.in[p.at] != '<' || strings.HasPrefix(p.rest(), "<![CDATA[") {
		return p.text()
	}
	if err := p.flush(); err != nil {
		return err
	}
	switch {
	case p.take("</"):
		return p.endTag()
	case p.take("<!--"):
		return p.comment()
	case p.take("<?"):
		return p.instruction()
	}
	p.at++
	return p.startTag()
}

func (p *parser) endTag() error {
	name, err := p.name()
	if err != nil {
		return err
	}
	p.space()
	if !p.take(">") {
		return p.malformed("end tag does not end")
	}
	top := p.open[len(p.open)-1]
	n := &p.doc.nodes[top]
	if n.kind != elementNode || name != p.doc.names[n.name].qualified {
		return p.malformed("end of %.40q, which was not begun last", name)
	}
	n.end = int32(len(p.doc.nodes)) // bounded by Limits.Nodes
	p.open = p.open[:len(p.open)-1]
	p.leave(n)
	return nil
}

// resolve finds a name, of an element or else of an attribute, with its namespace as of the declarations in force.
func (p *parser) resolve(qname string, element bool) (int32, error) {
	slot := len(qname) + int(qname[0])*5 + int(qname[len(qname)-1])*3
	if element {
		slot += 31 // elsewhere than an attribute of that name, for which the default namespace is not
	}
	k := &p.known[slot%len(p.known)]
	if k.name != 0 && k.epoch == p.epoch && p.doc.names[k.name].qualified == qname {
		return k.name, nil
	}
	prefix, local, err := p.split(qname)
	if err != nil {
		return 0, err
	}
	n := name{qualified: qname, prefix: prefix, local: local}
	if element || prefix != "" {
		if d := p.inForce(prefix); d >= 0 {
			n.space = p.doc.decls[d].uri
		} else if prefix != "" {
			return 0, p.malformed("prefix %.20q is not declared", prefix)
		}
	}
	if k.name == 0 || p.doc.names[k.name] != n {
		k.name = int32(len(p.doc.names)) // bounded by Limits.Nodes
		p.doc.names = append(p.doc.names, n)
	}
	k.epoch = p.epoch
	return k.name, nil
}

// A rawAttr is an attribute as it is written.
type rawAttr struct{ name, value string }

const nameStart, nameInside = 1, 2

// asciiNames says of each ASCII character whether it may begin a name and whether it may stand in one.
var asciiNames = func() (t [utf8.RuneSelf]byte) {
	for r := range t {
		if nameChar(rune(r), true) {
			t[r] |= nameStart
		}
		if nameChar(rune(r), false) {
			t[r] |= nameInside
		}
	}
	return t
}()

// startTag reads a tag after its "<". Steps:
//  1. name and attributes as written, defaults of the document type
//  2. namespace declarations
//  3. attributes with their namespaces, none twice
//  4. the element's own namespace
func (p *parser) startTag() error {
	qname, err := p.name()
	if err != nil {
		return err
	}
	raw, empty, err := p.attributes(qname)
	if err != nil {
		return err
	}
	i, err := p.add(node{kind: elementNode})
	if err != nil {
		return err
	}
	if err := p.count(len(raw)); err != nil {
		return err
	}
	e := &p.doc.nodes[i]
	e.decls.from = int32(len(p.doc.decls)) // bounded by Limits.Nodes
	for _, a := range raw {
		if err := p.declare(a, i); err != nil {
			return err
		}
	}
	e.decls.to = int32(len(p.doc.decls)) // bounded by Limits.Nodes
	e.attrs.from = int32(len(p.doc.attrs))
	for _, a := range raw {
		if err := p.attribute(a, i, qname); err != nil {
			return err
		}
	}
	e.attrs.to = int32(len(p.doc.attrs)) // bounded by Limits.Nodes
	if err := p.unique(p.doc.attrs[e.attrs.from:]); err != nil {
		return err
	}
	if e.name, err = p.resolve(qname, true); err != nil {
		return err
	}
	if p.doc.names[e.name].prefix == "xmlns" {
		return p.malformed("an element with the prefix xmlns")
	}
	if !empty {
		if len(p.open) > p.doc.limits.Depth {
			return fmt.Errorf("%w: elements nested deeper than %d", ErrLimit, p.doc.limits.Depth)
		}
		p.open = append(p.open, i)
	} else {
		p.leave(e)
	}
	return nil
}

// attributes reads a tag from behind its name to its end.
func (p *parser) attributes(element string) (out []rawAttr, empty bool, err error) {
	out = p.raw[:0]
	for {
		spaced := p.space()
		if p.take("/>") {
			empty = true
			break
		}
		if p.take(">") {
			break
		}
		if !spaced {
			return nil, false, p.malformed("no space before an attribute")
		}
		if len(out) == p.doc.limits.Attributes {
			return nil, false, fmt.Errorf("%w: more than %d attributes", ErrLimit, p.doc.limits.Attributes)
		}
		name, err := p.name()
		if err != nil {
			return nil, false, err
		}
		p.space()
		if !p.take("=") {
			return nil, false, p.malformed("an attribute without value")
		}
		p.space()
		value, err := p.quoted()
		if err != nil {
			return nil, false, err
		}
		if !isPlain(value) {
			if strings.IndexByte(value, '<') >= 0 {
				return nil, false, p.malformed("< in an attribute")
			}
			if value, err = p.attributeValue(value, nil); err != nil {
				return nil, false, err
			}
		}
		if p.dtd != nil && p.dtd.tokenized(element, name) {
			value = strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == ' ' }), " ")
		}
		out = append(out, rawAttr{name, value})
	}
	out = p.dtd.addDefaults(element, out)
	p.raw = out
	return out, empty, nil
}

func (p *parser) quoted() (string, error) {
	for _, quote := range []string{`"`, `'`} {
		if p.take(quote) {
			return p.until(quote)
		}
	}
	return "", p.malformed("no quote")
}

func (p *parser) declare(a rawAttr, element int32) error {
	prefix, ok := strings.CutPrefix(a.name, "xmlns")
	if !ok || prefix != "" && prefix[0] != ':' {
		return nil
	}
	prefix = strings.TrimPrefix(prefix, ":")
	switch {
	case a.name == "xmlns:" || strings.Contains(prefix, ":"),
		prefix == "xmlns", a.value == xmlnsNamespace,
		(prefix == "xml") != (a.value == xmlNamespace),
		prefix != "" && a.value == "":
		return p.malformed("declaration of the prefix %.20q", prefix)
	case prefix == "xml":
		return nil // the same for every document
	}
	for _, d := range p.doc.decls[p.doc.nodes[element].decls.from:] {
		if d.prefix == prefix {
			return p.malformed("prefix %.20q declared twice", prefix)
		}
	}
	p.epoch++
	p.scope[prefix] = append(p.scope[prefix], int32(len(p.doc.decls))) // bounded by Limits.Nodes
	p.doc.decls = append(p.doc.decls, decl{prefix, a.value})
	return nil
}

// leave takes back what an element declared.
func (p *parser) leave(n *node) {
	for _, d := range p.doc.decls[n.decls.from:n.decls.to] {
		p.epoch++
		p.scope[d.prefix] = p.scope[d.prefix][:len(p.scope[d.prefix])-1]
	}
}

// inForce returns the declaration of a prefix at this place, or -1.
func (p *parser) inForce(prefix string) int32 {
	if known := p.scope[prefix]; len(known) > 0 {
		return known[len(known)-1]
	}
	return -1
}

func (p *parser) attribute(raw rawAttr, element int32, qname string) error {
	if raw.name == "xmlns" || strings.HasPrefix(raw.name, "xmlns:") {
		return nil
	}
	i, err := p.resolve(raw.name, false)
	if err != nil {
		return err
	}
	a := attr{name: i, value: raw.value}
	n := &p.doc.names[i]
	if n.space == xmlNamespace && n.local == "id" || n.prefix == "" && (n.local == "Id" || n.local == "ID" || n.local == "id") || p.dtd.isID(qname, raw.name) {
		if known := p.doc.ids[a.value]; len(known) == 0 || known[len(known)-1] != element {
			p.doc.ids[a.value] = append(known, element)
		}
	}
	p.doc.attrs = append(p.doc.attrs, a)
	return nil
}

// unique refuses two attributes of one name.
func (p *parser) unique(attrs []attr) error {
	if len(attrs) <= 8 {
		for i, a := range attrs {
			for _, b := range attrs[:i] {
				if x, y := &p.doc.names[a.name], &p.doc.names[b.name]; x.local == y.local && x.space == y.space {
					return p.malformed("attribute %.40q twice", x.local)
				}
			}
		}
		return nil
	}
	type expanded struct{ space, name string }
	seen := make(map[expanded]bool, len(attrs))
	for _, a := range attrs {
		n := &p.doc.names[a.name]
		if seen[expanded{n.space, n.local}] {
			return p.malformed("attribute %.40q twice", n.local)
		}
		seen[expanded{n.space, n.local}] = true
	}
	return nil
}

// text takes character data, CDATA sections and references up to the next tag. What it finds is kept until flush, for what an
// entity ends with and what follows it is one text.
func (p *parser) text() error {
	for p.at < len(p.in) {
		switch {
		case p.take("<![CDATA["):
			s, err := p.until("]]>")
			if err != nil {
				return err
			}
			if err := p.characters(s); err != nil {
				return err
			}
			p.keep(s)
		case p.in[p.at] == '<':
			return nil
		case p.take("&"):
			s, entity, err := p.reference()
			if err != nil {
				return err
			}
			if entity == "" {
				p.keep(s)
			} else if err := p.expand(entity, s); err != nil {
				return err
			}
		default:
			s, plain := p.run()
			if !plain && strings.Contains(s, "]]>") {
				return p.malformed("]]> in text")
			}
			if !plain {
				if err := p.characters(s); err != nil {
					return err
				}
			}
			p.keep(s)
			p.at += len(s)
		}
	}
	return nil
}

// The octets that are not simply a part of a text or of an attribute's value.
const (
	suspect = 1 + iota // to be looked at: control characters, brackets, what may begin U+FFFE; white space in an attribute
	ends               // begins something else
)

var inTexts, inValues = func() (text, value [256]uint8) {
	for c := range ' ' {
		text[c], value[c] = suspect, suspect
	}
	text['\t'], text['\n'], text['\r'] = 0, 0, 0
	text[']'] = suspect
	text[0xEF], value[0xEF] = suspect, suspect
	text['<'], text['&'] = ends, ends
	value['<'], value['&'] = suspect, suspect
	return text, value
}()

// run returns the text up to the next tag or reference, and whether nothing in it needs a closer look.
func (p *parser) run() (s string, plain bool) {
	seen := uint8(0)
	i := p.at
	for ; i < len(p.in); i++ {
		c := inTexts[p.in[i]]
		if c == ends {
			break
		}
		seen |= c
	}
	return p.in[p.at:i], seen == 0
}

// isPlain reports whether an attribute's value stands for itself.
func isPlain(value string) bool {
	for i := range len(value) {
		if inValues[value[i]] != 0 {
			return false
		}
	}
	return true
}

// keep adds to the text being read. A single piece is not copied.
func (p *parser) keep(s string) {
	if len(p.pieces) == 0 && p.piece == "" {
		p.piece = s
		return
	}
	if len(p.pieces) == 0 {
		p.pieces = append(p.pieces, p.piece...)
	}
	p.pieces = append(p.pieces, s...)
}

// flush ends the text being read: one node, as XPath wants it.
func (p *parser) flush() error {
	s := p.piece
	if len(p.pieces) > 0 {
		s = string(p.pieces)
		p.pieces = p.pieces[:0]
	}
	p.piece = ""
	if s == "" {
		return nil
	}
	return p.addText(node{kind: textNode}, s)
}

// predefined lists the entities that need no declaration (XML 1.0 §4.6).
var predefined = map[string]string{"amp": "&", "lt": "<", "gt": ">", "quot": `"`, "apos": "'"}

// reference reads a reference behind its "&". It returns what it stands for and, if that must be parsed, the entity's name.
func (p *parser) reference() (text, entity string, err error) {
	name, err := p.until(";")
	if err != nil {
		return "", "", err
	}
	if strings.HasPrefix(name, "#") {
		text, err = p.charReference(name[1:])
		return text, "", err
	}
	if s, ok := predefined[name]; ok {
		return s, "", nil
	}
	s, ok := p.dtd.entity(name)
	if !ok {
		return "", "", p.malformed("entity %.40q is not declared here", name)
	}
	if p.expansion -= len(s); p.expansion < 0 {
		return "", "", fmt.Errorf("%w: entities expand to more than %d octets", ErrLimit, p.doc.limits.Bytes)
	}
	return s, name, nil
}

func (p *parser) charReference(s string) (string, error) {
	base := 10
	if rest, ok := strings.CutPrefix(s, "x"); ok {
		s, base = rest, 16
	}
	if s == "" || s[0] == '+' || s[0] == '-' || s[0] == '_' {
		return "", p.malformed("reference to no character")
	}
	n, err := strconv.ParseUint(s, base, 21)
	r := rune(n) // 21 bits
	if err != nil || !utf8.ValidRune(r) || r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
		return "", p.malformed("reference to no character")
	}
	return string(r), nil
}

// maxEntityDepth bounds entities inside entities.
const maxEntityDepth = 16

// enter notes that an entity is being expanded.
func (p *parser) enter(entity string) error {
	if slices.Contains(p.entities, entity) {
		return p.malformed("entity %.40q contains itself", entity)
	}
	if len(p.entities) == maxEntityDepth {
		return fmt.Errorf("%w: entities nested deeper than %d", ErrLimit, maxEntityDepth)
	}
	p.entities = append(p.entities, entity)
	return nil
}

// expand reads an entity's text as content in place of its reference.
func (p *parser) expand(entity, text string) error {
	if err := p.enter(entity); err != nil {
		return err
	}
	in, at, depth := p.in, p.at, len(p.open)
	p.in, p.at = text, 0
	for p.at < len(p.in) {
		if err := p.content(); err != nil {
			return err
		}
		if len(p.open) < depth {
			return p.malformed("entity %.40q ends an element that it did not begin", entity)
		}
	}
	if len(p.open) != depth {
		return p.malformed("entity %.40q does not end its elements", entity)
	}
	p.in, p.at = in, at
	p.entities = p.entities[:len(p.entities)-1]
	return nil
}

// attributeValue expands references and turns white space into spaces (XML 1.0 §3.3.3).
func (p *parser) attributeValue(s string, b *strings.Builder) (string, error) {
	if err := p.characters(s); err != nil {
		return "", err
	}
	if b == nil {
		if !strings.ContainsAny(s, "&\t\n\r") {
			return s, nil
		}
		b = &strings.Builder{}
	}
	for s != "" {
		i := strings.IndexAny(s, "&\t\n\r")
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		c := s[i]
		s = s[i+1:]
		if c != '&' {
			b.WriteByte(' ')
			continue
		}
		sub := parser{doc: p.doc, in: s, dtd: p.dtd, expansion: p.expansion}
		text, entity, err := sub.reference()
		if err != nil {
			return "", err
		}
		p.expansion = sub.expansion
		s = s[sub.at:]
		if entity == "" {
			b.WriteString(text)
			continue
		}
		if strings.IndexByte(text, '<') >= 0 {
			return "", p.malformed("< in an attribute")
		}
		if err := p.enter(entity); err != nil {
			return "", err
		}
		if _, err := p.attributeValue(text, b); err != nil {
			return "", err
		}
		p.entities = p.entities[:len(p.entities)-1]
	}
	return b.String(), nil
}
