package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Limits on one file. They bound the work it can cause; what people sign stays far below.
const (
	MaxRevisions  = 512
	MaxObjects    = 1 << 20 // entries of all cross-reference sections together
	MaxSignatures = 256

	maxNumber  = 1 << 23  // object numbers (ISO 32000-2 annex C)
	maxCache   = 1 << 14  // parsed objects kept
	maxUnpack  = 64 << 20 // octets of object streams kept unpacked
	maxKept    = 8 << 20  // octets of which objects are kept parsed
	maxSpent   = 1 << 30  // octets parsed and unpacked, besides 16 times the size of the file
	maxTrailer = 1 << 11  // from the last startxref to the end of the file
)

// A place is where an object stands.
type place struct {
	offset    int64 // of the object, or of the object stream it is in
	end       int64 // of the revision that says so: nothing may be read behind it
	container uint32
	index     int // in the object stream; −1 if it stands by itself
}

// An entry is one of a cross-reference section.
type entry struct {
	kind byte // 0 free, 1 at an offset, 2 in an object stream
	a    int64
	b    int64
}

// A section is a cross-reference table or stream (§7.5.4, §7.5.8), with the trailer.
type section struct {
	offset  int64
	entries map[uint32]entry
	trailer dict
	stream  bool
	prev    int64 // −1 if there is none
	points  int64 // what follows startxref; −1 if that does not follow
	eof     int64 // behind %%EOF; likewise
}

// A revision is what one save has added: the octets up to end, and a section.
type revision struct {
	section
	end    int64
	beyond bool // an entry points behind the end
}

// A file is a PDF file as its cross-reference sections describe it; oldest revision first.
type file struct {
	r         io.ReaderAt
	source    *source // what r is
	size      int64
	revisions []revision
	trailing  bool // there is something behind the last %%EOF

	mu       sync.Mutex
	cache    map[place]any
	unpacked map[place]*objectStream
	held     int64 // octets unpacked
	cached   int64 // octets of which objects were parsed
	spent    int64 // octets parsed and unpacked so far
}

// A source reads a file and remembers what went wrong, which must not be taken for a malformed file.
type source struct {
	r io.ReaderAt

	mu     sync.Mutex
	failed error
}

// ReadAt implements [io.ReaderAt].
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
	}
	return n, err
}

// failure returns what went wrong.
func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		return nil
	}
	return fmt.Errorf("pdf: cannot be read: %w", s.failed)
}

// open reads the chain of cross-reference sections. Steps:
//  1. the header, and the place of the newest section
//  2. every section back to the first; a linearized file's two are one revision (annex F)
//  3. each revision must lie behind the one before
func open(r *source, size int64) (*file, error) {
	f := &file{r: r, source: r, size: size, cache: map[place]any{}, unpacked: map[place]*objectStream{}}
	head := make([]byte, min(size, 8))
	if n, err := f.r.ReadAt(head, 0); n < len(head) {
		return nil, fmt.Errorf("pdf: cannot be read: %w", err)
	}
	if !bytes.HasPrefix(head, []byte("%PDF-")) {
		return nil, fmt.Errorf("%w: no PDF header at the beginning", ErrMalformed)
	}
	tail := make([]byte, min(size, maxTrailer))
	if n, err := f.r.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return nil, fmt.Errorf("pdf: cannot be read: %w", err)
	}
	at := bytes.LastIndex(tail, []byte("startxref"))
	if at < 0 {
		return nil, fmt.Errorf("%w: no startxref at the end", ErrMalformed)
	}
	offset, _, ok := f.startxref(size - int64(len(tail)-at))
	if !ok {
		return nil, fmt.Errorf("%w: no startxref at the end", ErrMalformed)
	}
	sections, err := f.chain(offset)
	if err != nil {
		return nil, err
	}
	for i := len(sections) - 1; i >= 0; i-- {
		rev := revision{section: sections[i], end: sections[i].eof}
		if i == len(sections)-1 && i > 0 && rev.offset > sections[i-1].offset {
			i--
			first := sections[i]
			for num, e := range rev.entries {
				if _, there := first.entries[num]; !there {
					first.entries[num] = e
				}
			}
			first.points = rev.points
			rev.section = first
		}
		before := int64(0)
		if n := len(f.revisions); n > 0 {
			before = f.revisions[n-1].end
		}
		if rev.offset < before || rev.points != rev.offset {
			return nil, fmt.Errorf("%w: revisions do not follow one another", ErrMalformed)
		}
		if _, yes := rev.trailer["Encrypt"]; yes {
			return nil, ErrEncrypted
		}
		for _, e := range rev.entries {
			rev.beyond = rev.beyond || e.kind == 1 && e.a >= rev.end && e.a < size
		}
		f.revisions = append(f.revisions, rev)
	}
	last := f.revisions[len(f.revisions)-1].end
	f.trailing = !f.blank(last, size)
	return f, nil
}

// blank reports whether there is nothing but white space between two positions.
func (f *file) blank(from, to int64) bool {
	s := newScanner(f.r, from, to)
	s.space(false)
	return s.pos >= to
}

// startxref reads the keyword, its number, and %%EOF, and returns the number and the position behind.
func (f *file) startxref(at int64) (offset, end int64, ok bool) {
	s := newScanner(f.r, at, f.size)
	if !s.expect("startxref") {
		return 0, 0, false
	}
	if offset, ok = s.integer(); !ok {
		return 0, 0, false
	}
	s.space(false)
	for _, want := range []byte("%%EOF") {
		if b, ok := s.next(); !ok || b != want {
			return 0, 0, false
		}
	}
	return offset, s.pos, true
}

// chain reads the sections from the newest to the oldest.
func (f *file) chain(offset int64) ([]section, error) {
	var out []section
	seen := map[int64]bool{}
	room := MaxObjects
	for offset >= 0 {
		if seen[offset] || len(out) == MaxRevisions {
			return nil, fmt.Errorf("%w: cross-reference sections in a circle, or too many", ErrMalformed)
		}
		seen[offset] = true
		x, err := f.section(offset, &room)
		if err != nil {
			return nil, fmt.Errorf("cross-reference section at %d: %w", offset, err)
		}
		out = append(out, x)
		offset = x.prev
	}
	return out, nil
}

func (f *file) section(offset int64, room *int) (section, error) {
	bad := fmt.Errorf("%w: not readable", ErrMalformed)
	x := section{offset: offset, entries: map[uint32]entry{}, prev: -1}
	if offset >= f.size {
		return x, bad
	}
	s := newScanner(f.r, offset, f.size)
	s.space(false)
	b, ok := s.peek()
	switch {
	case ok && b == 'x':
		if !x.table(s, room) {
			return x, bad
		}
		if hybrid, ok := asInt(x.trailer["XRefStm"]); ok { // §7.5.8.4
			other := section{entries: map[uint32]entry{}}
			if hybrid < 0 || hybrid >= offset || !f.xrefStream(newScanner(f.r, hybrid, f.size), &other, room) {
				return x, bad
			}
			for num, e := range other.entries {
				if old, there := x.entries[num]; !there || old.kind == 0 {
					x.entries[num] = e
				}
			}
		}
	case ok && isDigit(b):
		x.stream = true
		if !f.xrefStream(s, &x, room) {
			return x, bad
		}
	default:
		return x, bad
	}
	if v, there := x.trailer["Prev"]; there {
		if x.prev, ok = asInt(v); !ok || x.prev < 0 {
			return x, bad
		}
	}
	if x.points, x.eof, ok = f.startxref(s.pos); !ok {
		x.points, x.eof = -1, -1 // a linearized file's first section needs none
	}
	return x, nil
}

// table reads a cross-reference table and its trailer.
func (x *section) table(s *scanner, room *int) bool {
	if !s.expect("xref") {
		return false
	}
	for {
		s.space(true)
		if b, ok := s.peek(); !ok || !isDigit(b) {
			break
		}
		first, ok1 := s.integer()
		count, ok2 := s.integer()
		if !ok1 || !ok2 || first+count > maxNumber {
			return false
		}
		for i := range count {
			a, ok1 := s.integer()
			b, ok2 := s.integer()
			s.space(true)
			kind := s.word()
			if *room--; !ok1 || !ok2 || kind != "n" && kind != "f" || *room < 0 {
				return false
			}
			e := entry{a: a, b: b}
			if kind == "n" {
				e.kind = 1
			}
			if _, twice := x.entries[uint32(first+i)]; twice {
				return false
			}
			x.entries[uint32(first+i)] = e
		}
	}
	if !s.expect("trailer") {
		return false
	}
	v, err := s.value(0)
	d, ok := v.(dict)
	x.trailer = d
	return err == nil && ok
}

// xrefStream reads a cross-reference stream (§7.5.8).
func (f *file) xrefStream(s *scanner, x *section, room *int) bool {
	_, v, err := f.object(s, -1)
	st, ok := v.(*stream)
	if err != nil || !ok || st.dict["Type"] != name("XRef") {
		return false
	}
	x.trailer = st.dict
	data, err := f.decode(-1, st)
	if err != nil {
		return false
	}
	size, ok := asInt(st.dict["Size"])
	widths, _ := st.dict["W"].(array)
	if !ok || len(widths) != 3 {
		return false
	}
	var w [3]int64
	row := int64(0)
	for i := range w {
		if w[i], ok = asInt(widths[i]); !ok || w[i] < 0 || w[i] > 8 {
			return false
		}
		row += w[i]
	}
	index, there := st.dict["Index"].(array)
	if !there {
		index = array{number("0"), number(fmt.Sprint(size))}
	}
	if row == 0 || len(index)%2 != 0 {
		return false
	}
	for i := 0; i < len(index); i += 2 {
		first, ok1 := asInt(index[i])
		count, ok2 := asInt(index[i+1])
		if !ok1 || !ok2 || first < 0 || count < 0 || first+count > maxNumber || count*row > int64(len(data)) {
			return false
		}
		for n := range count {
			if *room--; *room < 0 {
				return false
			}
			var field [3]int64
			for j := range field {
				for _, b := range data[:w[j]] {
					field[j] = field[j]<<8 | int64(b)
				}
				data = data[w[j]:]
			}
			if w[0] == 0 {
				field[0] = 1
			}
			if _, twice := x.entries[uint32(first+n)]; twice || field[1] < 0 || field[2] < 0 {
				return false
			}
			if field[0] <= 2 { // others are references to the null object
				x.entries[uint32(first+n)] = entry{byte(field[0]), field[1], field[2]}
			}
		}
	}
	return true
}

// object reads an indirect object, "12 0 obj … endobj" (§7.3.10).
func (f *file) object(s *scanner, view int) (ref, any, error) {
	num, ok1 := s.integer()
	gen, ok2 := s.integer()
	if !ok1 || !ok2 || num >= maxNumber || gen > 65535 || !s.expect("obj") {
		return ref{}, nil, errSyntax
	}
	id := ref{uint32(num), uint16(gen)}
	v, err := s.value(0)
	if err != nil {
		return id, nil, err
	}
	s.space(true)
	switch s.word() {
	case "endobj":
		return id, v, nil
	case "stream":
	default:
		return id, nil, errSyntax
	}
	d, ok := v.(dict)
	if !ok {
		return id, nil, errSyntax
	}
	if b, ok := s.next(); ok && b == '\r' {
		b, ok = s.next()
		if !ok || b != '\n' {
			return id, nil, errSyntax
		}
	} else if !ok || b != '\n' {
		return id, nil, errSyntax
	}
	length, ok := asInt(f.resolve(view, d["Length"]))
	if !ok || length < 0 || length > s.end-s.pos {
		return id, nil, errSyntax
	}
	st := &stream{dict: d, from: s.pos, to: s.pos + length}
	s.pos = st.to
	if !s.expect("endstream") || !s.expect("endobj") {
		return id, nil, errSyntax
	}
	return id, st, nil
}

// locate finds where an object stands in the document as of a revision; false if there is none.
func (f *file) locate(view int, r ref) (place, bool) {
	for i := view; i >= 0; i-- {
		e, there := f.revisions[i].entries[r.num]
		switch {
		case !there:
			continue
		case e.kind == 0:
			return place{}, false
		case e.kind == 1:
			return place{offset: e.a, end: f.revisions[i].end, index: -1}, e.b == int64(r.gen)
		}
		if e.a >= maxNumber || e.b > MaxObjects || r.gen != 0 {
			return place{}, false
		}
		for j := view; j >= 0; j-- { // the object stream itself, as of the same revision
			if c, there := f.revisions[j].entries[uint32(e.a)]; there {
				return place{offset: c.a, end: f.revisions[j].end, container: uint32(e.a), index: int(e.b)}, c.kind == 1
			}
		}
		return place{}, false
	}
	return place{}, false
}

// get reads an object; nil, which is null, if there is none.
func (f *file) get(view int, r ref) (any, error) {
	p, ok := f.locate(view, r)
	if !ok {
		return nil, nil
	}
	f.mu.Lock()
	v, kept := f.cache[p]
	f.mu.Unlock()
	if kept {
		return v, nil
	}
	if p.index >= 0 {
		return f.packed(p, r.num)
	}
	s := newScanner(f.r, p.offset, p.end)
	id, v, err := f.object(s, view)
	if err != nil || id != r {
		return nil, fmt.Errorf("%w: object %d", ErrMalformed, r.num)
	}
	octets := s.pos - p.offset
	if st, ok := v.(*stream); ok {
		octets -= st.to - st.from
	}
	if !f.spend(octets) {
		return nil, fmt.Errorf("%w: too much to read", ErrMalformed)
	}
	if st, ok := v.(*stream); ok {
		if _, indirect := st.dict["Length"].(ref); indirect { // then it depends on the view
			return v, nil
		}
	}
	f.store(p, v, octets)
	return v, nil
}

// spend counts work; false if it was too much.
func (f *file) spend(octets int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spent += octets
	return f.spent < maxSpent+16*f.size
}

// store keeps an object that was parsed.
func (f *file) store(p place, v any, octets int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cached += octets; len(f.cache) >= maxCache || f.cached > maxKept {
		clear(f.cache)
		f.cached = octets
	}
	f.cache[p] = v
}

// resolve follows references; what cannot be read is nil.
func (f *file) resolve(view int, v any) any {
	for range 8 {
		r, ok := v.(ref)
		if !ok {
			return v
		}
		if view < 0 {
			return nil
		}
		v, _ = f.get(view, r)
	}
	return nil
}

func (f *file) dict(view int, v any) dict {
	d, _ := f.resolve(view, v).(dict)
	return d
}

func (f *file) array(view int, v any) array {
	a, _ := f.resolve(view, v).(array)
	return a
}

// An objectStream is one that was unpacked (§7.5.7).
type objectStream struct {
	data    []byte
	numbers []uint32
	offsets []int64
}

// packed reads an object out of an object stream.
func (f *file) packed(p place, num uint32) (any, error) {
	bad := fmt.Errorf("%w: object %d in object stream %d", ErrMalformed, num, p.container)
	whole := p
	whole.index = -1
	f.mu.Lock()
	o := f.unpacked[whole]
	f.mu.Unlock()
	if o == nil {
		// Its Length must not be elsewhere, where a later revision could change it.
		id, v, err := f.object(newScanner(f.r, p.offset, p.end), -1)
		st, ok := v.(*stream)
		if err != nil || !ok || id.num != p.container || st.dict["Type"] != name("ObjStm") {
			return nil, bad
		}
		if o = f.unpack(st); o == nil || !f.spend(int64(len(o.data))) {
			return nil, bad
		}
		f.mu.Lock()
		if f.held += int64(len(o.data)); f.held > maxUnpack {
			clear(f.unpacked)
			f.held = int64(len(o.data))
		}
		f.unpacked[whole] = o
		f.mu.Unlock()
	}
	if p.index >= len(o.numbers) || o.numbers[p.index] != num {
		return nil, bad
	}
	s := &scanner{r: bytes.NewReader(o.data), pos: o.offsets[p.index], end: int64(len(o.data))}
	v, err := s.value(0)
	if err != nil {
		return nil, bad
	}
	f.store(p, v, s.pos-o.offsets[p.index])
	return v, nil
}

func (f *file) unpack(st *stream) *objectStream {
	data, err := f.decode(-1, st)
	if err != nil {
		return nil
	}
	n, ok1 := asInt(st.dict["N"])
	first, ok2 := asInt(st.dict["First"])
	if !ok1 || !ok2 || n < 0 || n > MaxObjects || first < 0 || first > int64(len(data)) {
		return nil
	}
	o := &objectStream{data: data}
	s := &scanner{r: bytes.NewReader(data), end: first}
	for range n {
		num, ok1 := s.integer()
		offset, ok2 := s.integer()
		if !ok1 || !ok2 || num >= maxNumber || offset > int64(len(data)) {
			return nil
		}
		o.numbers = append(o.numbers, uint32(num))
		o.offsets = append(o.offsets, first+offset)
	}
	return o
}
