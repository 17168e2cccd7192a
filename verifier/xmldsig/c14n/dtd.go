package c14n

import (
	"fmt"
	"slices"
	"strings"
)

// A dtd holds what an internal document type declares, as far as it changes the nodes (XML 1.0 §5.1): internal general
// entities, default values, and which attributes are identifiers. A nil dtd declares nothing.
type dtd struct {
	entities map[string]string
	attrs    map[string][]attDef // by element
}

type attDef struct {
	name      string
	isID      bool
	tokenized bool // anything but CDATA: spaces around and between tokens do not count
	value     string
	hasValue  bool
}

func (d *dtd) entity(name string) (string, bool) {
	if d == nil {
		return "", false
	}
	s, ok := d.entities[name]
	return s, ok
}

func (d *dtd) find(element, name string) attDef {
	if d != nil {
		for _, a := range d.attrs[element] {
			if a.name == name {
				return a
			}
		}
	}
	return attDef{}
}

func (d *dtd) tokenized(element, name string) bool { return d.find(element, name).tokenized }
func (d *dtd) isID(element, name string) bool      { return d.find(element, name).isID }

func (d *dtd) addDefaults(element string, attrs []rawAttr) []rawAttr {
	if d == nil {
		return attrs
	}
	for _, a := range d.attrs[element] {
		if a.hasValue && !slices.ContainsFunc(attrs, func(r rawAttr) bool { return r.name == a.name }) {
			attrs = append(attrs, rawAttr{a.name, a.value})
		}
	}
	return attrs
}

// maxDeclarations bounds the declarations of a document type.
const maxDeclarations = 1000

// doctype reads a document type declaration behind "<!DOCTYPE". What it refers to outside stays outside: an entity that is
// declared there is unknown, and a document that uses it is refused.
func (p *parser) doctype() error {
	p.dtd = &dtd{entities: map[string]string{}, attrs: map[string][]attDef{}}
	if !p.space() {
		return p.malformed("no space after DOCTYPE")
	}
	if _, err := p.name(); err != nil {
		return err
	}
	p.space()
	if err := p.externalID(); err != nil {
		return err
	}
	if p.take("[") {
		for n := 0; ; n++ {
			if n == maxDeclarations {
				return fmt.Errorf("%w: more than %d declarations", ErrLimit, maxDeclarations)
			}
			p.space()
			if p.take("]") {
				break
			}
			if err := p.declaration(); err != nil {
				return err
			}
		}
		p.space()
	}
	if !p.take(">") {
		return p.malformed("DOCTYPE does not end")
	}
	return nil
}

// externalID passes over SYSTEM "…" or PUBLIC "…" "…", if there is one.
func (p *parser) externalID() error {
	literals := 0
	if p.take("SYSTEM") {
		literals = 1
	} else if p.take("PUBLIC") {
		literals = 2
	}
	for range literals {
		p.space()
		if _, err := p.quoted(); err != nil {
			return err
		}
	}
	p.space()
	return nil
}

func (p *parser) declaration() error {
	switch {
	case p.take("<!--"):
		_, err := p.until("-->")
		return err
	case p.take("<?"):
		_, err := p.until("?>")
		return err
	case p.take("<!ENTITY"):
		return p.entityDeclaration()
	case p.take("<!ATTLIST"):
		return p.attlist()
	case p.take("<!ELEMENT"), p.take("<!NOTATION"):
		return p.passOver()
	}
	return fmt.Errorf("%w at octet %d: a parameter entity or an unknown declaration", ErrUnsupported, p.at)
}

// passOver reads to the end of a declaration, past ">" in quotes.
func (p *parser) passOver() error {
	for p.at < len(p.in) {
		switch c := p.in[p.at]; c {
		case '>':
			p.at++
			return nil
		case '"', '\'':
			if _, err := p.quoted(); err != nil {
				return err
			}
		default:
			p.at++
		}
	}
	return p.malformed("a declaration does not end")
}

func (p *parser) entityDeclaration() error {
	p.space()
	if p.take("%") {
		return fmt.Errorf("%w at octet %d: parameter entity", ErrUnsupported, p.at)
	}
	name, err := p.name()
	if err != nil {
		return err
	}
	p.space()
	if strings.HasPrefix(p.rest(), "SYSTEM") || strings.HasPrefix(p.rest(), "PUBLIC") {
		return p.passOver() // unknown from here on, as doctype says
	}
	value, err := p.quoted()
	if err != nil {
		return err
	}
	if strings.Contains(value, "%") {
		return fmt.Errorf("%w at octet %d: parameter entity", ErrUnsupported, p.at)
	}
	p.space()
	if !p.take(">") {
		return p.malformed("an entity's declaration does not end")
	}
	if value, err = p.charReferences(value); err != nil {
		return err
	}
	if _, known := p.dtd.entities[name]; !known { // the first declaration holds
		p.dtd.entities[name] = value
	}
	return nil
}

// charReferences replaces character references and leaves others, as the value of an entity wants it (XML 1.0 §4.5).
func (p *parser) charReferences(s string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "&#")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, rest, ended := strings.Cut(after, ";")
		if !ended {
			return "", p.malformed("a reference does not end")
		}
		c, err := p.charReference(name)
		if err != nil {
			return "", err
		}
		b.WriteString(c)
		s = rest
	}
}

func (p *parser) attlist() error {
	p.space()
	element, err := p.name()
	if err != nil {
		return err
	}
	for {
		p.space()
		if p.take(">") {
			return nil
		}
		var a attDef
		if a.name, err = p.name(); err != nil {
			return err
		}
		p.space()
		if p.take("(") {
			a.tokenized = true
			_, err = p.until(")")
		} else {
			var typ string
			typ, err = p.name()
			a.tokenized, a.isID = typ != "CDATA", typ == "ID"
			if p.space(); err == nil && typ == "NOTATION" && p.take("(") {
				_, err = p.until(")")
			}
		}
		if err != nil {
			return err
		}
		p.space()
		if !p.take("#REQUIRED") && !p.take("#IMPLIED") {
			p.take("#FIXED")
			p.space()
			if a.value, err = p.quoted(); err != nil {
				return err
			}
			if a.value, err = p.attributeValue(a.value, nil); err != nil {
				return err
			}
			if a.tokenized {
				a.value = strings.Join(strings.Fields(a.value), " ")
			}
			a.hasValue = true
		}
		if len(p.dtd.attrs[element]) == p.doc.limits.Attributes {
			return fmt.Errorf("%w: more than %d attributes", ErrLimit, p.doc.limits.Attributes)
		}
		if p.dtd.find(element, a.name) == (attDef{}) { // the first declaration holds
			p.dtd.attrs[element] = append(p.dtd.attrs[element], a)
		}
	}
}
