package c14n

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A token of an expression. Names keep their colon, as in "ds:Signature" and "ds:*".
type token struct {
	kind string // "name", "number", "literal" or "op"
	text string
}

// scan splits an expression (XPath §3.7). Whether "*" or a name such as "and" is an operator depends on what stands before.
func scan(s string) ([]token, error) {
	var out []token
	for s != "" {
		if isSpace(s[0]) {
			s = s[1:]
			continue
		}
		var t token
		switch c := s[0]; {
		case c == '"' || c == '\'':
			end := strings.IndexByte(s[1:], c)
			if end < 0 {
				return nil, fmt.Errorf("%w: a literal in an XPath expression does not end", ErrMalformed)
			}
			t = token{"literal", s[1 : 1+end]}
			s = s[end+2:]
		case c >= '0' && c <= '9' || c == '.' && len(s) > 1 && s[1] >= '0' && s[1] <= '9':
			i := 0
			for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
				i++
			}
			t = token{"number", s[:i]}
			s = s[i:]
		default:
			t, s = operatorOrName(s, afterOperand(out))
			if t.text == "" {
				return nil, fmt.Errorf("%w: what stands in an XPath expression: %.10q", ErrMalformed, s)
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// afterOperand reports whether a name or * that comes next is an operator.
func afterOperand(before []token) bool {
	if len(before) == 0 {
		return false
	}
	last := before[len(before)-1]
	return last.kind != "op" || last.text == ")" || last.text == "]" || last.text == "." || last.text == ".."
}

// symbols lists operators and punctuation, longest first.
var symbols = []string{"::", "//", "!=", "<=", ">=", "..", "(", ")", "[", "]", "@", ",", "/", "|", "+", "-", "=", "<", ">", "."}

func operatorOrName(s string, operand bool) (token, string) {
	if s[0] == '*' {
		if operand {
			return token{"op", "*"}, s[1:]
		}
		return token{"name", "*"}, s[1:]
	}
	for _, op := range symbols {
		if strings.HasPrefix(s, op) {
			return token{"op", op}, s[len(op):]
		}
	}
	n := ncName(s)
	if n == 0 {
		return token{}, s
	}
	if operand && slices.Contains([]string{"and", "or", "mod", "div"}, s[:n]) {
		return token{"op", s[:n]}, s[n:]
	}
	if rest := s[n:]; strings.HasPrefix(rest, ":") && !strings.HasPrefix(rest, "::") {
		if strings.HasPrefix(rest, ":*") {
			n += 2
		} else if m := ncName(rest[1:]); m > 0 {
			n += 1 + m
		}
	}
	return token{"name", s[:n]}, s[n:]
}

// ncName returns how many octets of s are a name without colon.
func ncName(s string) int {
	for i, r := range s {
		if r == ':' || !nameChar(r, i == 0) || r == utf8.RuneError {
			return i
		}
	}
	return len(s)
}

// A compiler turns tokens into an expression by recursive descent.
type compiler struct {
	tokens    []token
	namespace func(prefix string) (string, bool)
	depth     int
}

func (c *compiler) wrong() error {
	at := "the end"
	if len(c.tokens) > 0 {
		at = fmt.Sprintf("%.20q", c.tokens[0].text)
	}
	return fmt.Errorf("%w: XPath expression at %s", ErrMalformed, at)
}

func (c *compiler) peek(kind string, texts ...string) bool {
	return len(c.tokens) > 0 && c.tokens[0].kind == kind && (len(texts) == 0 || slices.Contains(texts, c.tokens[0].text))
}

func (c *compiler) take(kind string, texts ...string) (string, bool) {
	if !c.peek(kind, texts...) {
		return "", false
	}
	t := c.tokens[0]
	c.tokens = c.tokens[1:]
	return t.text, true
}

func (c *compiler) need(op string) error {
	if _, ok := c.take("op", op); !ok {
		return c.wrong()
	}
	return nil
}

// levels lists binary operators, those that bind least first.
var levels = [][]string{{"or"}, {"and"}, {"=", "!="}, {"<", "<=", ">", ">="}, {"+", "-"}, {"*", "div", "mod"}}

func (c *compiler) binary(level int) (expr, error) {
	if level == len(levels) {
		return c.unary()
	}
	if level == 0 {
		if c.depth++; c.depth > maxExpressionDepth {
			return nil, fmt.Errorf("%w: XPath expression nested deeper than %d", ErrLimit, maxExpressionDepth)
		}
		defer func() { c.depth-- }()
	}
	a, err := c.binary(level + 1)
	for err == nil {
		op, ok := c.take("op", levels[level]...)
		if !ok {
			return a, nil
		}
		var b expr
		b, err = c.binary(level + 1)
		a = operation{op, a, b}
	}
	return nil, err
}

func (c *compiler) unary() (expr, error) {
	minus := false
	for {
		if _, ok := c.take("op", "-"); !ok {
			break
		}
		minus = !minus
	}
	a, err := c.path()
	for err == nil && c.peek("op", "|") {
		c.take("op", "|")
		var b expr
		b, err = c.path()
		a = operation{"|", a, b}
	}
	if err == nil && minus {
		a = negative{a}
	}
	return a, err
}

var nodeTypes = []string{"node", "text", "comment", "processing-instruction"}

func (c *compiler) path() (expr, error) {
	var p path
	primary := c.peek("literal") || c.peek("number") || c.peek("op", "(") ||
		c.peek("name") && len(c.tokens) > 1 && c.tokens[1] == (token{"op", "("}) && !slices.Contains(nodeTypes, c.tokens[0].text)
	switch {
	case primary:
		x, err := c.primary()
		if err != nil {
			return nil, err
		}
		p.from = x
		if p.filters, err = c.predicates(); err != nil {
			return nil, err
		}
		if !c.peek("op", "/", "//") {
			if len(p.filters) == 0 {
				return x, nil
			}
			return p, nil
		}
	case c.peek("op", "/"):
		c.take("op", "/")
		p.absolute = true
		if !c.startsStep() {
			return p, nil
		}
		if err := c.step(&p); err != nil {
			return nil, err
		}
	case c.peek("op", "//"):
		p.absolute = true
	default:
		if err := c.step(&p); err != nil {
			return nil, err
		}
	}
	for {
		op, ok := c.take("op", "/", "//")
		if !ok {
			return p, nil
		}
		if op == "//" {
			p.steps = append(p.steps, step{axis: "descendant-or-self", test: "node"})
		}
		if err := c.step(&p); err != nil {
			return nil, err
		}
	}
}

func (c *compiler) startsStep() bool { return c.peek("name") || c.peek("op", ".", "..", "@") }

func (c *compiler) predicates() (out []expr, err error) {
	for {
		if _, ok := c.take("op", "["); !ok {
			return out, nil
		}
		x, err := c.binary(0)
		if err != nil {
			return nil, err
		}
		if err := c.need("]"); err != nil {
			return nil, err
		}
		out = append(out, x)
	}
}

var axes = []string{
	"ancestor", "ancestor-or-self", "attribute", "child", "descendant", "descendant-or-self", "following", "following-sibling",
	"namespace", "parent", "preceding", "preceding-sibling", "self",
}

func (c *compiler) step(p *path) (err error) {
	if op, ok := c.take("op", ".", ".."); ok {
		p.steps = append(p.steps, step{axis: map[string]string{".": "self", "..": "parent"}[op], test: "node"})
		return nil
	}
	s := step{axis: "child"}
	if _, ok := c.take("op", "@"); ok {
		s.axis = "attribute"
	} else if len(c.tokens) > 1 && c.tokens[1] == (token{"op", "::"}) {
		s.axis, _ = c.take("name", axes...)
		if s.axis == "" {
			return c.wrong()
		}
		c.take("op", "::")
	}
	name, ok := c.take("name")
	if !ok {
		return c.wrong()
	}
	if c.peek("op", "(") && slices.Contains(nodeTypes, name) {
		c.take("op", "(")
		s.test = name
		if name == "processing-instruction" {
			s.local, _ = c.take("literal")
		}
		err = c.need(")")
	} else {
		s.test = "name"
		err = c.nameTest(&s, name)
	}
	if err != nil {
		return err
	}
	s.predicates, err = c.predicates()
	p.steps = append(p.steps, s)
	return err
}

func (c *compiler) nameTest(s *step, name string) error {
	prefix, local, qualified := strings.Cut(name, ":")
	if !qualified {
		s.local, s.anySpace = name, name == "*"
		return nil
	}
	uri, ok := c.namespace(prefix)
	if !ok {
		return fmt.Errorf("%w: prefix %.20q of an XPath expression is not declared", ErrMalformed, prefix)
	}
	s.space, s.local = uri, local
	return nil
}

func (c *compiler) primary() (expr, error) {
	if s, ok := c.take("literal"); ok {
		return literal{s}, nil
	}
	if s, ok := c.take("number"); ok {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, c.wrong()
		}
		return literal{n}, nil
	}
	if _, ok := c.take("op", "("); ok {
		x, err := c.binary(0)
		if err != nil {
			return nil, err
		}
		return x, c.need(")")
	}
	name, _ := c.take("name")
	f, ok := functions[name]
	if !ok {
		return nil, fmt.Errorf("%w: function %.30q of an XPath expression", ErrUnsupported, name)
	}
	c.take("op", "(")
	var args []expr
	for !c.peek("op", ")") {
		if len(args) > 0 {
			if err := c.need(","); err != nil {
				return nil, err
			}
		}
		x, err := c.binary(0)
		if err != nil {
			return nil, err
		}
		args = append(args, x)
	}
	c.take("op", ")")
	if len(args) < f.least || len(args) > f.most {
		return nil, fmt.Errorf("%w: %s() with %d arguments", ErrMalformed, name, len(args))
	}
	return call{f, args}, nil
}
