package c14n

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What an expression may be.
const (
	maxExpression      = 8 << 10 // octets
	maxExpressionDepth = 64
)

// An Expression is a compiled XPath 1.0 expression.
type Expression struct{ root expr }

// Compile reads an expression. namespace says what its prefixes stand for. All of XPath 1.0 is there but variables, and the
// function here() of XML-DSig beside it.
func Compile(source string, namespace func(prefix string) (uri string, ok bool)) (*Expression, error) {
	if len(source) > maxExpression {
		return nil, fmt.Errorf("%w: XPath expression of more than %d octets", ErrLimit, maxExpression)
	}
	tokens, err := scan(source)
	if err != nil {
		return nil, err
	}
	c := &compiler{tokens: tokens, namespace: namespace}
	root, err := c.binary(0)
	if err != nil {
		return nil, err
	}
	if len(c.tokens) != 0 {
		return nil, c.wrong()
	}
	return &Expression{root}, nil
}

// Filter returns those nodes of a set for which the expression is true, as the XPath transform of XML-DSig wants it (§6.6.3).
// here is the node that holds the expression.
func (e *Expression) Filter(s Set, here Node) (Set, error) {
	v := &evaluation{doc: s.doc, here: here, work: s.budget()}
	picked := map[Node]bool{}
	for _, x := range s.nodes(v) {
		if v.err == nil && truth(e.root.eval(v, context{x, 1, 1})) {
			picked[x] = true
		}
	}
	return Set{doc: s.doc, picked: picked, work: s.work}, v.err
}

// Nodes evaluates the expression at the root of a set's document and returns the nodes found, in the set or not, in document order.
func (e *Expression) Nodes(s Set, here Node) ([]Node, error) {
	v := &evaluation{doc: s.doc, here: here, work: s.budget()}
	found, ok := e.root.eval(v, context{s.doc.Root(), 1, 1}).([]Node)
	if v.err != nil {
		return nil, v.err
	}
	if !ok {
		return nil, fmt.Errorf("%w: an XPath expression that selects no nodes", ErrUnsupported)
	}
	return found, nil
}

// Pick returns those nodes of the set that keep is true of; for what lies at or below the nodes of a list see Below.
func (s Set) Pick(keep func(Node) bool) (Set, error) {
	v := &evaluation{doc: s.doc, work: s.budget()}
	picked := map[Node]bool{}
	for _, x := range s.nodes(v) {
		if keep(x) {
			picked[x] = true
		}
	}
	return Set{doc: s.doc, picked: picked, work: s.work}, v.err
}

// Below returns a test for being one of these nodes or below one of them. The nodes must be in document order.
func Below(nodes []Node) func(Node) bool {
	exact := map[Node]bool{}
	var spans []span
	for _, x := range nodes {
		if x.sub != 0 {
			exact[x] = true
		} else if to := x.node().end; len(spans) == 0 || x.n >= spans[len(spans)-1].to {
			spans = append(spans, span{x.n, to})
		}
	}
	return func(x Node) bool {
		if exact[x] {
			return true
		}
		i, found := slices.BinarySearchFunc(spans, x.n, func(s span, n int32) int { return int(s.from) - int(n) })
		if found {
			return true
		}
		return i > 0 && x.n < spans[i-1].to
	}
}

// Text returns what the texts of the set hold, in document order.
func (s Set) Text() (string, error) {
	v := &evaluation{doc: s.doc, work: s.budget()}
	var b strings.Builder
	for i := range s.doc.nodes[0].end {
		if s.doc.nodes[i].kind == textNode && v.spend(1) && s.Has(Node{doc: s.doc, n: i}) {
			text := s.doc.texts[s.doc.nodes[i].text]
			v.spend(len(text) / 32)
			b.WriteString(text)
		}
	}
	return b.String(), v.err
}

// nodes lists a set in document order.
func (s Set) nodes(v *evaluation) []Node {
	var out []Node
	first, end := s.apex, s.doc.nodes[s.apex].end
	if s.picked != nil {
		first, end = 0, s.doc.nodes[0].end
	}
	add := func(x Node) {
		if v.spend(4) && s.Has(x) { // it is kept, and looked up later
			out = append(out, x)
		}
	}
	for i := first; i < end && v.err == nil; i++ {
		add(Node{doc: s.doc, n: i})
		if n := &s.doc.nodes[i]; n.kind == elementNode {
			scope, steps := s.doc.scope(i)
			v.spend(steps)
			for _, k := range scope {
				add(Node{doc: s.doc, n: i, sub: -k - 1})
			}
			for k := n.attrs.from; k < n.attrs.to; k++ {
				add(Node{doc: s.doc, n: i, sub: k + 1})
			}
		}
	}
	return out
}

// A value is a []Node in document order, a string, a float64 or a bool.
type value any

type context struct {
	node       Node
	pos, count int
}

type evaluation struct {
	doc  *Document
	here Node
	work *Work
	err  error
}

func (v *evaluation) spend(n int) bool {
	if err := v.work.Spend(n); v.err == nil {
		v.err = err
	}
	return v.err == nil
}

type expr interface {
	eval(v *evaluation, c context) value
}

func truth(x value) bool {
	switch x := x.(type) {
	case []Node:
		return len(x) > 0
	case string:
		return x != ""
	case float64:
		return x != 0 && !math.IsNaN(x)
	case bool:
		return x
	}
	return false
}

func (v *evaluation) str(x value) string {
	switch x := x.(type) {
	case []Node:
		if len(x) == 0 {
			return ""
		}
		return v.text(x[0])
	case string:
		return x
	case float64:
		switch {
		case math.IsInf(x, 1):
			return "Infinity"
		case math.IsInf(x, -1):
			return "-Infinity"
		case x == 0:
			return "0"
		}
		return strconv.FormatFloat(x, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(x)
	}
	return ""
}

// text is a node's string-value, paid for by its length.
func (v *evaluation) text(x Node) string {
	if x.sub == 0 && !v.spend(int(x.node().end-x.n)) {
		return ""
	}
	s := x.Text()
	v.spend(len(s) / 8)
	return s
}

func (v *evaluation) num(x value) float64 {
	switch x := x.(type) {
	case float64:
		return x
	case bool:
		if x {
			return 1
		}
		return 0
	}
	s := strings.Trim(v.str(x), " \t\r\n")
	if strings.Trim(s, "-.0123456789") != "" {
		return math.NaN()
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// Leaves.
type literal struct{ value }

func (l literal) eval(*evaluation, context) value { return l.value }

type negative struct{ x expr }

func (n negative) eval(v *evaluation, c context) value { return -v.num(n.x.eval(v, c)) }

type operation struct {
	op   string
	a, b expr
}

func (b operation) eval(v *evaluation, c context) value {
	if !v.spend(1) {
		return false
	}
	switch b.op {
	case "or":
		return truth(b.a.eval(v, c)) || truth(b.b.eval(v, c))
	case "and":
		return truth(b.a.eval(v, c)) && truth(b.b.eval(v, c))
	}
	x, y := b.a.eval(v, c), b.b.eval(v, c)
	switch b.op {
	case "|":
		p, _ := x.([]Node)
		q, _ := y.([]Node)
		v.spend(len(p) + len(q))
		return ordered(append(slices.Clone(p), q...))
	case "+":
		return v.num(x) + v.num(y)
	case "-":
		return v.num(x) - v.num(y)
	case "*":
		return v.num(x) * v.num(y)
	case "div":
		return v.num(x) / v.num(y)
	case "mod":
		return math.Mod(v.num(x), v.num(y))
	}
	return v.compare(b.op, x, y)
}

func ordered(nodes []Node) []Node {
	slices.SortFunc(nodes, Node.before)
	return slices.Compact(nodes)
}

// compare follows XPath §3.4: of node-sets it is enough that one node, or one pair, compares.
func (v *evaluation) compare(op string, x, y value) bool {
	p, isP := x.([]Node)
	q, isQ := y.([]Node)
	_, boolX := x.(bool)
	_, boolY := y.(bool)
	switch {
	case (isP || isQ) && (boolX || boolY):
		return v.atoms(op, truth(x), truth(y))
	case isP && isQ:
		for _, a := range p {
			s := v.text(a)
			for _, b := range q {
				if !v.spend(1) || v.atoms(op, s, v.text(b)) {
					return true
				}
			}
		}
		return false
	case isP:
		return slices.ContainsFunc(p, func(a Node) bool { return v.spend(1) && v.atoms(op, v.text(a), y) })
	case isQ:
		return slices.ContainsFunc(q, func(b Node) bool { return v.spend(1) && v.atoms(op, x, v.text(b)) })
	}
	return v.atoms(op, x, y)
}

func (v *evaluation) atoms(op string, x, y value) bool {
	if op == "=" || op == "!=" {
		var same bool
		_, boolX := x.(bool)
		_, boolY := y.(bool)
		_, numX := x.(float64)
		_, numY := y.(float64)
		switch {
		case boolX || boolY:
			same = truth(x) == truth(y)
		case numX || numY:
			same = v.num(x) == v.num(y)
		default:
			same = v.str(x) == v.str(y)
		}
		return same == (op == "=")
	}
	a, b := v.num(x), v.num(y)
	switch op {
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

// A path is a location path: steps from the root, the context node or the nodes of another expression.
type path struct {
	from     expr // nil: the context node, or the root if absolute
	absolute bool
	filters  []expr // predicates on from
	steps    []step
}

type step struct {
	axis       string
	test       string // "name", "node", "text", "comment" or "processing-instruction"
	space      string // of a name
	local      string // of a name, * for all; of an instruction, or empty
	anySpace   bool
	predicates []expr
}

func (p path) eval(v *evaluation, c context) value {
	nodes := []Node{c.node}
	if p.absolute {
		nodes[0] = v.doc.Root()
	}
	if p.from != nil {
		x := p.from.eval(v, c)
		found, ok := x.([]Node)
		if !ok {
			if len(p.steps) == 0 && len(p.filters) == 0 {
				return x
			}
			return []Node{}
		}
		nodes = v.filter(found, p.filters)
	}
	for _, s := range p.steps {
		var next []Node
		for _, x := range nodes {
			found := v.filter(v.walk(x, s), s.predicates)
			if !v.spend(1 + len(found)) {
				return []Node{}
			}
			next = append(next, found...)
		}
		nodes = ordered(next)
	}
	return nodes
}

// filter keeps the nodes, in axis order, for which all predicates hold.
func (v *evaluation) filter(nodes []Node, predicates []expr) []Node {
	for _, p := range predicates {
		var kept []Node
		for i, x := range nodes {
			if !v.spend(1) {
				return nil
			}
			r := p.eval(v, context{x, i + 1, len(nodes)})
			if n, ok := r.(float64); ok && n == float64(i+1) || !ok && truth(r) {
				kept = append(kept, x)
			}
		}
		nodes = kept
	}
	return nodes
}

// walk returns the nodes on an axis that pass the node test, in axis order.
func (v *evaluation) walk(x Node, s step) (out []Node) {
	add := func(y Node) {
		if v.spend(1) && s.passes(y) {
			out = append(out, y)
		}
	}
	at := func(i int32) Node { return Node{doc: x.doc, n: i} }
	n := x.node()
	below := x.sub == 0
	switch s.axis {
	case "self":
		add(x)
	case "child":
		for i := x.n + 1; below && i < n.end; i = x.doc.nodes[i].end {
			add(at(i))
		}
	case "descendant", "descendant-or-self":
		if s.axis != "descendant" {
			add(x)
		}
		for i := x.n + 1; below && i < n.end && v.err == nil; i++ {
			add(at(i))
		}
	case "parent":
		if p := x.Parent(); !p.IsZero() {
			add(p)
		}
	case "ancestor", "ancestor-or-self":
		if s.axis != "ancestor" {
			add(x)
		}
		for p := x.Parent(); !p.IsZero(); p = p.Parent() {
			add(p)
		}
	case "following-sibling":
		if below && n.parent >= 0 {
			for i := n.end; i < x.doc.nodes[n.parent].end; i = x.doc.nodes[i].end {
				add(at(i))
			}
		}
	case "preceding-sibling":
		if below && n.parent >= 0 {
			for i := n.parent + 1; i < x.n; i = x.doc.nodes[i].end {
				add(at(i))
			}
			slices.Reverse(out)
		}
	case "following":
		from := n.end
		if !below {
			from = x.n + 1
		}
		for i := from; i < x.doc.nodes[0].end && v.err == nil; i++ {
			add(at(i))
		}
	case "preceding":
		for i := int32(0); i < x.n && v.err == nil; i++ {
			if x.doc.nodes[i].end <= x.n {
				add(at(i))
			}
		}
		slices.Reverse(out)
	case "attribute":
		for k := n.attrs.from; below && k < n.attrs.to; k++ {
			add(Node{doc: x.doc, n: x.n, sub: k + 1})
		}
	case "namespace":
		if below && n.kind == elementNode {
			scope, steps := x.doc.scope(x.n)
			v.spend(steps)
			for _, k := range scope {
				add(Node{doc: x.doc, n: x.n, sub: -k - 1})
			}
		}
	}
	return out
}

func (s *step) passes(x Node) bool {
	switch s.test {
	case "node":
		return true
	case "text":
		return x.sub == 0 && x.node().kind == textNode
	case "comment":
		return x.sub == 0 && x.node().kind == commentNode
	case "processing-instruction":
		return x.sub == 0 && x.node().kind == instructionNode && (s.local == "" || s.local == x.name().local)
	}
	// A name stands for the principal kind of node of its axis.
	principal := x.sub == 0 && x.node().kind == elementNode
	switch s.axis {
	case "attribute":
		principal = x.sub > 0
	case "namespace":
		principal = x.sub < 0
	}
	if !principal {
		return false
	}
	space, local := x.expanded()
	return (s.anySpace || space == s.space) && (s.local == "*" || local == s.local)
}

// expanded returns a node's expanded name.
func (x Node) expanded() (space, local string) {
	switch {
	case x.sub > 0:
		n := &x.doc.names[x.doc.attrs[x.sub-1].name]
		return n.space, n.local
	case x.sub < 0:
		return "", x.doc.decls[-x.sub-1].prefix
	case x.node().kind == elementNode, x.node().kind == instructionNode:
		return x.name().space, x.name().local
	}
	return "", ""
}

func (x Node) qualified() string {
	switch {
	case x.sub > 0:
		return x.doc.names[x.doc.attrs[x.sub-1].name].qualified
	case x.sub == 0 && x.node().kind == elementNode:
		return x.name().qualified
	}
	_, local := x.expanded()
	return local
}

// A call is that of a function.
type call struct {
	f    function
	args []expr
}

type function struct {
	least, most int
	do          func(v *evaluation, c context, args []value) value
}

func (f call) eval(v *evaluation, c context) value {
	if !v.spend(1) {
		return false
	}
	args := make([]value, len(f.args))
	for i, a := range f.args {
		args[i] = a.eval(v, c)
	}
	return f.f.do(v, c, args)
}

// nodeArg returns the first node of the argument, or the context node if there is no argument.
func nodeArg(c context, args []value) (Node, bool) {
	if len(args) == 0 {
		return c.node, true
	}
	if nodes, ok := args[0].([]Node); ok && len(nodes) > 0 {
		return nodes[0], true
	}
	return Node{}, false
}

func (v *evaluation) strArg(c context, args []value) string {
	if len(args) == 0 {
		return v.text(c.node)
	}
	return v.str(args[0])
}

// functions lists XPath's core library (§4) and here() (XML-DSig §6.6.3).
var functions = map[string]function{
	"here": {0, 0, func(v *evaluation, _ context, _ []value) value {
		if v.here.doc != v.doc {
			return []Node{}
		}
		return []Node{v.here}
	}},
	"last":     {0, 0, func(_ *evaluation, c context, _ []value) value { return float64(c.count) }},
	"position": {0, 0, func(_ *evaluation, c context, _ []value) value { return float64(c.pos) }},
	"count": {1, 1, func(_ *evaluation, _ context, args []value) value {
		nodes, _ := args[0].([]Node)
		return float64(len(nodes))
	}},
	"id": {1, 1, func(v *evaluation, _ context, args []value) value {
		var out []Node
		texts := []string{}
		if nodes, ok := args[0].([]Node); ok {
			for _, x := range nodes {
				texts = append(texts, v.text(x))
			}
		} else {
			texts = append(texts, v.str(args[0]))
		}
		for _, s := range texts {
			for f := range strings.FieldsSeq(s) {
				out = append(out, v.doc.ByID(f)...)
			}
		}
		v.spend(len(out))
		return ordered(out)
	}},
	"local-name": {0, 1, func(_ *evaluation, c context, args []value) value {
		if x, ok := nodeArg(c, args); ok {
			_, local := x.expanded()
			return local
		}
		return ""
	}},
	"namespace-uri": {0, 1, func(_ *evaluation, c context, args []value) value {
		if x, ok := nodeArg(c, args); ok {
			space, _ := x.expanded()
			return space
		}
		return ""
	}},
	"name": {0, 1, func(_ *evaluation, c context, args []value) value {
		if x, ok := nodeArg(c, args); ok {
			return x.qualified()
		}
		return ""
	}},
	"string": {0, 1, func(v *evaluation, c context, args []value) value { return v.strArg(c, args) }},
	"concat": {2, 64, func(v *evaluation, _ context, args []value) value {
		var b strings.Builder
		for _, a := range args {
			s := v.str(a)
			if !v.spend(len(s)) {
				return ""
			}
			b.WriteString(s)
		}
		return b.String()
	}},
	"starts-with": {2, 2, func(v *evaluation, _ context, args []value) value {
		return strings.HasPrefix(v.str(args[0]), v.str(args[1]))
	}},
	"contains": {2, 2, func(v *evaluation, _ context, args []value) value {
		return strings.Contains(v.str(args[0]), v.str(args[1]))
	}},
	"substring-before": {2, 2, func(v *evaluation, _ context, args []value) value {
		if before, _, found := strings.Cut(v.str(args[0]), v.str(args[1])); found {
			return before
		}
		return ""
	}},
	"substring-after": {2, 2, func(v *evaluation, _ context, args []value) value {
		_, after, _ := strings.Cut(v.str(args[0]), v.str(args[1]))
		return after
	}},
	"substring": {2, 3, func(v *evaluation, _ context, args []value) value {
		s := v.str(args[0])
		from, to := round(v.num(args[1])), math.Inf(1)
		if len(args) == 3 {
			to = from + round(v.num(args[2]))
		}
		v.spend(len(s))
		var b strings.Builder
		pos := 0.
		for _, r := range s {
			if pos++; pos >= from && pos < to {
				b.WriteRune(r)
			}
		}
		return b.String()
	}},
	"string-length": {0, 1, func(v *evaluation, c context, args []value) value {
		return float64(utf8.RuneCountInString(v.strArg(c, args)))
	}},
	"normalize-space": {0, 1, func(v *evaluation, c context, args []value) value {
		return strings.Join(strings.FieldsFunc(v.strArg(c, args), func(r rune) bool { return r < 128 && isSpace(byte(r)) }), " ")
	}},
	"translate": {3, 3, func(v *evaluation, _ context, args []value) value {
		from, to := []rune(v.str(args[1])), []rune(v.str(args[2]))
		s := v.str(args[0])
		v.spend(len(s) * (1 + len(from)/16))
		return strings.Map(func(r rune) rune {
			switch i := slices.Index(from, r); {
			case i < 0:
				return r
			case i < len(to):
				return to[i]
			}
			return -1
		}, s)
	}},
	"boolean": {1, 1, func(_ *evaluation, _ context, args []value) value { return truth(args[0]) }},
	"not":     {1, 1, func(_ *evaluation, _ context, args []value) value { return !truth(args[0]) }},
	"true":    {0, 0, func(*evaluation, context, []value) value { return true }},
	"false":   {0, 0, func(*evaluation, context, []value) value { return false }},
	"lang": {1, 1, func(v *evaluation, c context, args []value) value {
		want := strings.ToLower(v.str(args[0]))
		for x := c.node; !x.IsZero(); x = x.Parent() {
			if x.sub != 0 || x.node().kind != elementNode {
				continue
			}
			if !v.spend(1 + int(x.node().attrs.to-x.node().attrs.from)) {
				return false
			}
			if have, ok := x.Attr(xmlNamespace, "lang"); ok {
				have = strings.ToLower(have)
				return have == want || strings.HasPrefix(have, want+"-")
			}
		}
		return false
	}},
	"number": {0, 1, func(v *evaluation, c context, args []value) value {
		if len(args) == 0 {
			return v.num(v.text(c.node))
		}
		return v.num(args[0])
	}},
	"sum": {1, 1, func(v *evaluation, _ context, args []value) value {
		nodes, _ := args[0].([]Node)
		sum := 0.
		for _, x := range nodes {
			sum += v.num(v.text(x))
		}
		return sum
	}},
	"floor":   {1, 1, func(v *evaluation, _ context, args []value) value { return math.Floor(v.num(args[0])) }},
	"ceiling": {1, 1, func(v *evaluation, _ context, args []value) value { return math.Ceil(v.num(args[0])) }},
	"round":   {1, 1, func(v *evaluation, _ context, args []value) value { return round(v.num(args[0])) }},
}

func round(x float64) float64 { return math.Floor(x + 0.5) }
