package pdf

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A Change is one difference between a revision and the one before it.
type Change struct {
	Revision int
	Level    Level
	Where    string // the way there from the trailer, shortened
	Field    string // full name of the form field it is in; empty if in none
	Detail   string // for people, in English

	fresh bool // the field was not there before
}

// Bounds on the comparison of revisions. Beyond them the level is Other.
const (
	maxCompared = 1 << 22 // pairs of values, all revisions together; each has its share
	maxChanges  = 64      // listed; the level counts all
	maxWhere    = 160
)

// A step is what one revision changed.
type step struct {
	level   Level
	changes []Change
	more    bool // there were more changes than are listed
}

func (d *Document) prepareSteps() {
	for i := range d.file.revisions {
		d.steps = append(d.steps, sync.OnceValue(func() step { return d.file.step(i) }))
	}
}

// step compares a revision with the one before it. Steps:
//  1. does an older entry point into this revision? Then nobody knows what it was to show
//  2. note which objects are pages, annotations and fields: they are compared in their places only
//  3. compare from the trailers downwards, by the rules
func (f *file) step(revision int) step {
	if revision == 0 {
		return step{}
	}
	c := &differ{file: f, old: revision - 1, new: revision, seen: map[compared]bool{}, noted: map[uint32]bool{}, judged: map[[2]uint32]bool{}}
	for _, rev := range f.revisions[:revision] {
		if rev.beyond {
			c.report(pair{level: Other, where: "xref"}, Other, "an older cross-reference section points behind the end of its revision")
		}
	}
	c.note()
	c.push(pair{as: trailers, level: Other, a: f.revisions[c.old].trailer, b: f.revisions[c.new].trailer, where: "trailer"})
	for len(c.queue) > 0 && c.out.level < Other {
		p := c.queue[len(c.queue)-1]
		c.queue = c.queue[:len(c.queue)-1]
		c.compare(p, 0)
	}
	return c.out
}

// A pair is two values that stand in the same place.
type pair struct {
	as    context
	level Level // of a difference
	a, b  any
	where string
	field string
	fresh bool // of a field: its value is filled in by this step
}

// compared tells pairs of references that were compared already.
type compared struct {
	as    context
	level Level
	a, b  ref
	fresh bool
}

// A differ compares two neighbouring revisions.
type differ struct {
	*file
	old, new int
	out      step
	queue    []pair
	seen     map[compared]bool
	noted    map[uint32]bool    // pages, annotations and fields: compared in their places
	judged   map[[2]uint32]bool // new fields, and the widgets they were judged with
	count    int
}

func (c *differ) report(p pair, level Level, detail string) {
	c.out.level = max(c.out.level, level)
	if len(c.out.changes) < maxChanges {
		c.out.changes = append(c.out.changes, Change{Revision: c.new, Level: level, Where: p.where, Field: p.field, Detail: detail})
	} else {
		c.out.more = true
	}
}

// push has a pair compared later: what references lead to is never compared in depth, since chains of them may be long.
func (c *differ) push(p pair) { c.queue = append(c.queue, p) }

// under returns a pair below another.
func under(p pair, key string, a, b any) pair {
	p.a, p.b = a, b
	p.where += "/" + strings.ToValidUTF8(key[:min(len(key), 32)], "")
	if n := len(p.where); n > maxWhere {
		p.where = "…" + strings.ToValidUTF8(p.where[n-maxWhere:], "")
	}
	return p
}

// note notes the objects of the page tree and of the form as they were. A reference to one of them from elsewhere (the
// destination of a bookmark, the page of an annotation) is not followed a second time.
func (c *differ) note() {
	root := c.dict(c.old, c.revisions[c.old].trailer["Root"])
	seen := map[ref]bool{}
	var walk func(v any, depth int, keys ...name)
	walk = func(v any, depth int, keys ...name) {
		if r, ok := v.(ref); ok {
			if seen[r] || len(seen) > maxCompared {
				return
			}
			seen[r] = true
			c.noted[r.num] = true
		}
		d := c.dict(c.old, v)
		if d == nil || depth > maxNesting {
			return
		}
		for _, key := range keys {
			for _, kid := range c.array(c.old, d[key]) {
				walk(kid, depth+1, keys...)
			}
		}
	}
	if r, ok := c.revisions[c.old].trailer["Root"].(ref); ok {
		c.noted[r.num] = true
	}
	walk(root["Pages"], 0, "Kids", "Annots")
	for _, v := range c.array(c.old, c.dict(c.old, root["AcroForm"])["Fields"]) {
		walk(v, 0, "Kids")
	}
}

// compare compares one pair by the rules of its context.
func (c *differ) compare(p pair, depth int) {
	if c.count++; c.count > max(maxCompared/len(c.revisions), 1<<14) || depth > 4*maxNesting {
		c.report(p, Other, "too much to compare")
		return
	}
	ra, oka := p.a.(ref)
	rb, okb := p.b.(ref)
	if p.as == same {
		if oka != okb || ra != rb {
			c.report(p, p.level, "refers to something else")
		}
		return
	}
	if oka || okb {
		if depth > 0 {
			c.push(p)
			return
		}
		if p.as == leaf && oka && okb && ra == rb && c.noted[ra.num] {
			return
		}
		if key := (compared{p.as, p.level, ra, rb, p.fresh}); oka && okb {
			if c.seen[key] {
				return
			}
			c.seen[key] = true
		}
		var ok bool
		if p.a, ok = c.read(p, c.old, p.a); !ok {
			return
		}
		if p.b, ok = c.read(p, c.new, p.b); !ok {
			return
		}
	}
	switch p.as {
	case pageLists:
		c.list(p, func(q pair) { q.as = pages; c.compare(q, depth+1) })
	case annots:
		c.annotations(p)
	case fieldTops:
		c.tops(p)
	case fieldKids:
		c.list(p, func(q pair) { c.field(q, p.fresh) })
	case leaf:
		c.equal(p, depth)
	default:
		a, ok1 := p.a.(dict)
		b, ok2 := p.b.(dict)
		if !ok1 && p.a != nil || !ok2 && p.b != nil {
			p.as = leaf
			c.equal(p, depth)
			return
		}
		c.entries(p, a, b, depth)
	}
}

// read reads what a reference names. What cannot be read cannot be compared.
func (c *differ) read(p pair, view int, v any) (any, bool) {
	for range 8 {
		r, ok := v.(ref)
		if !ok {
			return v, true
		}
		var err error
		if v, err = c.get(view, r); err != nil {
			c.report(p, Other, err.Error())
			return nil, false
		}
	}
	return nil, true
}

// entries compares two dictionaries entry by entry.
func (c *differ) entries(p pair, a, b dict, depth int) {
	keys := slices.Collect(maps.Keys(a))
	for key := range b {
		if _, there := a[key]; !there {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		r := ruleFor(p.as, key)
		if p.as == leaf {
			r = rule{level: p.level}
		}
		if r.as == ignored {
			continue
		}
		q := under(p, string(key), a[key], b[key])
		q.as, q.level = r.as, r.level
		_, was := a[key]
		if !was && r.added != 0 {
			q.level = r.added
		}
		if p.as == fields || p.as == sigFields {
			c.adjust(&q, p, key, was)
		}
		_, is := b[key]
		switch container := q.as != leaf && q.as != same; {
		case container && !was && r.added != 0, was && is: // what is new is judged by what it has
			c.compare(q, depth+1)
		default:
			c.report(q, q.level, map[bool]string{true: "is gone", false: "is new"}[was])
		}
	}
}

// adjust holds entries of fields to what the rows of the table cannot say.
func (c *differ) adjust(q *pair, p pair, key name, was bool) {
	switch {
	case p.as == sigFields && key == "V" && !was:
		value := c.dict(c.new, q.b)
		if value == nil {
			q.level = Other
		} else if c.isStamp(value) {
			q.level = LTA
		}
	case p.as == sigFields && !p.fresh && (key == "AP" || key == "AS" || key == "MK" || key == "Lock"):
		q.level = Other
	case p.as == fields && !p.fresh && (key == "AP" || key == "AS"):
		q.level = Annotations
	}
}

func (c *differ) isStamp(value dict) bool {
	return c.resolve(c.new, value["SubFilter"]) == name(DocStamp)
}

// list compares two arrays member by member; none may come or go.
func (c *differ) list(p pair, each func(pair)) {
	a, ok1 := p.a.(array)
	b, ok2 := p.b.(array)
	if !ok1 || !ok2 || len(a) != len(b) {
		c.report(p, p.level, "has other members")
		return
	}
	for i := range a {
		each(under(p, fmt.Sprint(i), a[i], b[i]))
	}
}

// widget says whether a dictionary is a form field's, and which context it has.
func (c *differ) widget(view int, d dict) (as context, ok bool) {
	kind := c.resolve(view, d["Subtype"])
	if kind != nil && kind != name("Widget") {
		return fields, false
	}
	if c.inherited(view, d, "FT") == name("Sig") {
		return sigFields, true
	}
	return fields, d != nil
}

// inherited returns an entry of a field or of one above it.
func (c *differ) inherited(view int, d dict, key name) any {
	for range maxNesting {
		if v, ok := d[key]; ok {
			return c.resolve(view, v)
		}
		if d = c.dict(view, d["Parent"]); d == nil {
			return nil
		}
	}
	return nil
}

// field compares a form field or widget.
func (c *differ) field(p pair, fresh bool) {
	a, b := c.dict(c.old, p.a), c.dict(c.new, p.b)
	if a == nil || b == nil {
		c.report(p, Other, "is no field")
		return
	}
	var was, is context
	was, _ = c.widget(c.old, a)
	is, _ = c.widget(c.new, b)
	if was != is {
		c.report(p, Other, "is a field of another kind")
		return
	}
	p.as, p.level = is, Other
	if t, ok := c.resolve(c.new, b["T"]).(text); ok {
		p.field = strings.TrimPrefix(p.field+"."+decodeText(t.octets), ".")
		p.field = p.field[:min(len(p.field), maxClaim)]
	}
	p.fresh = fresh || !c.alike(c.inherited(c.old, a, "V"), c.inherited(c.new, b, "V"))
	if p.as == sigFields {
		p.fresh = fresh || c.inherited(c.old, a, "V") == nil && c.inherited(c.new, b, "V") != nil
	}
	c.push(p)
}

// alike compares two values of form fields roughly: whether they are another is all that is asked.
func (c *differ) alike(a, b any) bool {
	d := &differ{file: c.file, old: c.old, new: c.new, seen: map[compared]bool{}, noted: c.noted}
	d.push(pair{level: Other, a: a, b: b})
	for len(d.queue) > 0 && d.out.level == Unchanged {
		p := d.queue[len(d.queue)-1]
		d.queue = d.queue[:len(d.queue)-1]
		d.compare(p, 0)
	}
	c.count += d.count
	return d.out.level == Unchanged
}

// tops compares the Fields of the form: those there stay, in their order, and new ones may only be signature fields.
func (c *differ) tops(p pair) {
	a, _ := p.a.(array)
	b, _ := p.b.(array)
	if len(b) < len(a) {
		c.report(p, Other, "a form field is gone")
		return
	}
	titles := map[string]bool{}
	for i := range a {
		q := under(p, fmt.Sprint(i), a[i], b[i])
		q.field = ""
		if ra, ok := a[i].(ref); ok && a[i] != b[i] {
			c.report(q, Other, fmt.Sprintf("form field of object %d has another place", ra.num))
			return
		}
		titles[c.title(c.old, a[i])] = true
		c.field(q, false)
	}
	for i, v := range b[len(a):] {
		q := under(p, fmt.Sprint(len(a)+i), nil, v)
		title := c.title(c.new, v)
		if q.field = title; titles[title] {
			c.report(q, Other, "a new form field has the name of another one")
			return
		}
		titles[title] = true
		c.newField(q, v, nil)
	}
}

func (c *differ) title(view int, v any) string {
	t, _ := c.resolve(view, c.dict(view, v)["T"]).(text)
	return decodeText(t.octets)
}

// newField judges a form field that was not there before, and one of its widgets. Only signature fields are, without actions:
// those with a signature of their own, and empty ones that nobody sees.
func (c *differ) newField(p pair, v, widget any) {
	r, _ := v.(ref)
	w, _ := widget.(ref)
	if c.judged[[2]uint32{r.num, w.num}] && r.num != 0 {
		return
	}
	c.judged[[2]uint32{r.num, w.num}] = true
	if _, was := c.locate(c.old, r); was {
		c.report(p, Other, "an object that was there before is now a form field")
		return
	}
	d := c.dict(c.new, v)
	active, hidden := false, true
	for _, one := range append(array{v, widget}, c.array(c.new, d["Kids"])...) {
		o := c.dict(c.new, one)
		kind := c.resolve(c.new, o["Subtype"])
		active = active || o["AA"] != nil || o["A"] != nil || kind != nil && kind != name("Widget")
		hidden = hidden && c.invisible(c.new, o)
	}
	value := c.dict(c.new, d["V"])
	signature, own := d["V"].(ref)
	if own {
		_, was := c.locate(c.old, signature)
		own = !was
	}
	report := func(level Level, detail string) {
		c.report(p, level, detail)
		if n := len(c.out.changes); n > 0 {
			c.out.changes[n-1].fresh = level < Annotations
		}
	}
	switch {
	case d == nil || c.resolve(c.new, d["FT"]) != name("Sig"):
		report(Other, "a form field is new")
	case active:
		report(Other, "a new signature field has an action, or is something else besides")
	case value != nil && !own:
		report(Other, "a new signature field has no signature of its own")
	case value != nil && c.isStamp(value) && hidden:
		report(LTA, "a document time-stamp is new")
	case value != nil:
		report(Forms, "a signature is new")
	case hidden:
		report(Forms, "an empty signature field is new")
	default:
		report(Annotations, "an empty signature field that can be seen is new")
	}
}

// annotations compares the annotations of a page. They are told apart by their references.
func (c *differ) annotations(p pair) {
	a, ok1 := p.a.(array)
	b, ok2 := p.b.(array)
	if !ok1 && p.a != nil || !ok2 && p.b != nil {
		c.report(p, Other, "are no annotations")
		return
	}
	next := 0
	for i, v := range a {
		q := under(p, fmt.Sprint(i), v, v)
		at := slices.IndexFunc(b[next:], func(w any) bool { return sameRef(v, w) })
		d := c.dict(c.old, v)
		_, isField := c.widget(c.old, d)
		if at < 0 { // one that stands in the page itself has no name to be found by
			if _, named := v.(ref); !named && next < len(b) {
				q.b, at = b[next], 0
			}
		}
		if at < 0 {
			level := Annotations
			if isField {
				level = Other
			}
			c.report(q, level, "an annotation is gone")
			continue
		}
		for j, w := range b[next : next+at] {
			c.newAnnotation(under(p, fmt.Sprint(next+j), nil, w), w)
		}
		next += at + 1
		if isField {
			c.widgetOf(q, d)
			continue
		}
		q.as, q.level = leaf, Annotations
		c.push(c.spread(q))
	}
	for j, w := range b[next:] {
		c.newAnnotation(under(p, fmt.Sprint(next+j), nil, w), w)
	}
}

// spread makes a pair of noted references one of what they name, which would otherwise not be looked into.
func (c *differ) spread(p pair) pair {
	p.a, _ = c.read(p, c.old, p.a)
	p.b, _ = c.read(p, c.new, p.b)
	return p
}

// widgetOf compares a widget of a page as the field it is, with the names of those above it.
func (c *differ) widgetOf(p pair, d dict) {
	var titles []string
	for range maxNesting {
		if d = c.dict(c.old, d["Parent"]); d == nil {
			break
		}
		if t, ok := c.resolve(c.old, d["T"]).(text); ok {
			titles = append(titles, decodeText(t.octets))
		}
	}
	slices.Reverse(titles)
	p.field = strings.Join(titles, ".")
	c.field(p, false)
}

func (c *differ) newAnnotation(p pair, v any) {
	d := c.dict(c.new, v)
	switch _, isField := c.widget(c.new, d); {
	case d == nil:
		c.report(p, Other, "what is new is no annotation")
	case isField:
		top := v
		for range maxNesting { // the field whose widget it is
			parent := c.dict(c.new, top)["Parent"]
			if parent == nil {
				break
			}
			top = parent
		}
		if r, ok := top.(ref); ok {
			if _, was := c.locate(c.old, r); was {
				c.placed(p, c.dict(c.old, top), c.dict(c.new, top))
				return
			}
		}
		p.field = c.title(c.new, top)
		c.newField(p, top, v)
	default:
		c.report(p, Annotations, "an annotation is new")
	}
}

// placed judges a field that was there before and comes to stand on a page: as a new one, if it is signed in the same step.
func (c *differ) placed(p pair, a, b dict) {
	value := c.dict(c.new, b["V"])
	switch as, _ := c.widget(c.old, a); {
	case as != sigFields || a["V"] != nil || value == nil || b["AA"] != nil || b["A"] != nil:
		c.report(p, Other, "a form field has a new place")
	case c.isStamp(value) && c.invisible(c.new, b):
		c.report(p, LTA, "a field that is stamped was put on a page")
	default:
		c.report(p, Forms, "a field that is signed was put on a page")
	}
}

func sameRef(a, b any) bool {
	ra, ok1 := a.(ref)
	rb, ok2 := b.(ref)
	return ok1 && ok2 && ra == rb
}

// equal compares two values that have no rules of their own.
func (c *differ) equal(p pair, depth int) {
	switch a := p.a.(type) {
	case array:
		b, ok := p.b.(array)
		if !ok || len(a) != len(b) {
			c.report(p, p.level, "has other members")
			return
		}
		for i := range a {
			if c.out.level < Other {
				c.compare(under(p, "", a[i], b[i]), depth+1)
			}
		}
	case dict:
		if b, ok := p.b.(dict); ok {
			c.entries(p, a, b, depth)
			return
		}
		c.report(p, p.level, "is of another kind")
	case *stream:
		b, ok := p.b.(*stream)
		if !ok || b.to-b.from != a.to-a.from || !c.octets(a, b) {
			c.report(p, p.level, "is another stream")
			return
		}
		c.entries(p, a.dict, b.dict, depth)
	case text:
		if b, ok := p.b.(text); !ok || !bytes.Equal(a.octets, b.octets) {
			c.report(p, p.level, "is another text")
		}
	case number:
		if b, ok := p.b.(number); !ok || a != b && asFloat(a) != asFloat(b) {
			c.report(p, p.level, "is another number")
		}
	case ambiguous:
		c.report(p, Other, "stands twice")
	default:
		if p.a != p.b {
			c.report(p, p.level, "is something else")
		}
	}
}

// octets compares what two streams hold.
func (c *differ) octets(a, b *stream) bool {
	if a.from == b.from {
		return true
	}
	x, y := make([]byte, 32<<10), make([]byte, 32<<10)
	for at := int64(0); at < a.to-a.from; {
		n := min(int64(len(x)), a.to-a.from-at)
		k, _ := c.r.ReadAt(x[:n], a.from+at)
		m, _ := c.r.ReadAt(y[:n], b.from+at)
		if int64(k) < n || int64(m) < n || !bytes.Equal(x[:n], y[:n]) {
			return false
		}
		at += n
	}
	return true
}
