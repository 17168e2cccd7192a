package cms

import (
	"errors"
)

// Limits on the shape of an encoding, whatever its meaning.
const (
	maxDepth    = 48
	maxElements = 1 << 20
)

var errEncoding = errors.New("not BER, or beyond a limit")

// definite returns the first element of raw with every length definite and every string in one piece, as DER wants it,
// and how many octets of raw it took. Whatever has this form already is taken over octet by octet, so that certificates
// keep what was signed; without need for change, der is a part of raw. SETs are not sorted.
func definite(raw []byte) (der []byte, used int, err error) {
	if used, ok := isDefinite(raw); ok {
		return raw[:used], used, nil
	}
	p := plan{lengths: make([]int, 0, 32)}
	used, size, err := p.measure(raw, 0)
	if err != nil {
		return nil, 0, err
	}
	if len(p.lengths) == 0 || p.lengths[0] == verbatim {
		return raw[:used], used, nil
	}
	w := writer{out: make([]byte, 0, size), lengths: p.lengths}
	w.element(raw)
	return w.out, used, nil
}

// isDefinite reports whether the first element of in surely needs no change, and how many octets it takes. It is for what comes
// nearly always, one pass without a plan; when in doubt it says no, and measure decides.
func isDefinite(in []byte) (used int, ok bool) {
	var ends [maxDepth]int // of the elements around this one
	at, end, depth := 0, len(in), 0
	for range maxElements {
		if end-at < 2 {
			return 0, false
		}
		h := header{tag: in[at]}
		length := int(in[at+1])
		if at += 2; h.tag == 0 || h.tag == 0x23 || h.tag&0x1f == 0x1f || h.joined() || length == 0x80 {
			return 0, false
		}
		if length > 0x80 {
			n := length & 0x7f
			if length = 0; n > 4 || end-at < n {
				return 0, false
			}
			for _, b := range in[at : at+n] {
				length = length<<8 | int(b)
			}
			at += n
		}
		if length < 0 || length > end-at {
			return 0, false
		}
		if h.constructed() && length > 0 {
			if depth == maxDepth {
				return 0, false
			}
			ends[depth] = end
			depth, end = depth+1, at+length
			continue
		}
		for at += length; depth > 0 && at == end; depth-- {
			end = ends[depth-1]
		}
		if depth == 0 {
			return at, true
		}
	}
	return 0, false
}

// verbatim stands in a plan for an element that is copied.
const verbatim = -1

// A plan has the new length of the content of each constructed element, in the order in which they begin. There are none
// for what lies inside elements that are copied or joined.
type plan struct {
	lengths  []int
	elements int
}

type header struct {
	tag     byte // the first identifier octet
	tagLen  int  // identifier octets
	len     int  // of identifier and length
	content int  // octets of content, or indefinite
}

const indefinite = -1

func readHeader(in []byte) (h header, ok bool) {
	if len(in) < 2 {
		return h, false
	}
	h.tag, h.tagLen = in[0], 1
	if h.tag&0x1f == 0x1f { // a tag number of 31 or more: ours have none, but one may pass by
		for h.tagLen < len(in) && in[h.tagLen]&0x80 != 0 {
			h.tagLen++
		}
		if h.tagLen++; h.tagLen > 5 || h.tagLen >= len(in) {
			return h, false
		}
	}
	first := in[h.tagLen]
	h.len = h.tagLen + 1
	switch {
	case first < 0x80:
		h.content = int(first)
	case first == 0x80:
		h.content = indefinite
		return h, h.constructed()
	case first > 0x84 || len(in) < h.len+int(first&0x7f):
		return h, false
	default:
		for _, b := range in[h.len : h.len+int(first&0x7f)] {
			h.content = h.content<<8 | int(b)
		}
		h.len += int(first & 0x7f)
	}
	return h, h.content >= 0 && h.content <= len(in)-h.len
}

func (h header) constructed() bool { return h.tag&0x20 != 0 }

// endOfContents reports whether an indefinite length ends here.
func endOfContents(in []byte) bool { return len(in) >= 2 && in[0] == 0 && in[1] == 0 }

// joined reports whether an element is a string in pieces: OCTET STRING or a character string. BIT STRINGs in pieces,
// which nobody makes, fail.
func (h header) joined() bool {
	n := h.tag & 0x1f
	return h.tag&0xe0 == 0x20 && (n == 4 || n == 12 || n >= 18 && n <= 30)
}

// measure returns how many octets the first element of in takes, and how many it will take.
func (p *plan) measure(in []byte, depth int) (used, size int, err error) {
	h, ok := readHeader(in)
	if p.elements++; !ok || depth > maxDepth || p.elements > maxElements || h.tag == 0 || h.tag == 0x23 {
		return 0, 0, errEncoding
	}
	if !h.constructed() {
		return h.len + h.content, h.len + h.content, nil
	}
	mark := len(p.lengths)
	p.lengths = append(p.lengths, verbatim)
	rest := in[h.len:]
	if h.content != indefinite {
		rest = rest[:h.content]
	}
	used, content, changed := h.len, 0, h.content == indefinite || h.joined()
	for {
		if h.content == indefinite && endOfContents(rest) {
			used += 2
			break
		}
		if h.content != indefinite && len(rest) == 0 {
			break
		}
		inner := len(p.lengths)
		n, s, err := p.measure(rest, depth+1)
		if err != nil {
			return 0, 0, err
		}
		changed = changed || inner < len(p.lengths) && p.lengths[inner] != verbatim
		if h.joined() {
			piece, _ := readHeader(rest)
			if piece.tag&^0x20 != h.tag&^0x20 {
				return 0, 0, errEncoding
			}
			if s = piece.content; piece.constructed() { // of the piece only the content is left
				s = p.lengths[inner]
			}
		}
		used, content, rest = used+n, content+s, rest[n:]
	}
	switch {
	case !changed:
		p.lengths = p.lengths[:mark+1]
		return used, used, nil
	case h.joined():
		p.lengths = p.lengths[:mark+1]
	}
	p.lengths[mark] = content
	return used, h.tagLen + len(appendLength(nil, content)) + content, nil
}

func appendLength(out []byte, n int) []byte {
	switch {
	case n < 1<<7:
		return append(out, byte(n))
	case n < 1<<8:
		return append(out, 0x81, byte(n))
	case n < 1<<16:
		return append(out, 0x82, byte(n>>8), byte(n))
	case n < 1<<24:
		return append(out, 0x83, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(out, 0x84, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// A writer carries out a plan.
type writer struct {
	out     []byte
	lengths []int
}

// element writes the first element of in, which measure found right, and returns how many octets of in it took.
func (w *writer) element(in []byte) int {
	h, _ := readHeader(in)
	if !h.constructed() {
		w.out = append(w.out, in[:h.len+h.content]...)
		return h.len + h.content
	}
	length := w.lengths[0]
	w.lengths = w.lengths[1:]
	if length == verbatim {
		w.out = append(w.out, in[:h.len+h.content]...)
		return h.len + h.content
	}
	if h.joined() {
		w.out = appendLength(append(w.out, h.tag&^0x20), length)
		return w.pieces(in)
	}
	w.out = appendLength(append(w.out, in[:h.tagLen]...), length)
	return h.each(in, func(rest []byte) int { return w.element(rest) })
}

// pieces writes the contents of a string in pieces.
func (w *writer) pieces(in []byte) int {
	h, _ := readHeader(in)
	if !h.constructed() {
		w.out = append(w.out, in[h.len:h.len+h.content]...)
		return h.len + h.content
	}
	return h.each(in, w.pieces)
}

// each calls do with the rest of a constructed element, once for each element inside.
func (h header) each(in []byte, do func([]byte) int) int {
	at := h.len
	for h.content != indefinite && at < h.len+h.content || h.content == indefinite && !endOfContents(in[at:]) {
		at += do(in[at:])
	}
	if h.content == indefinite {
		at += 2
	}
	return at
}
