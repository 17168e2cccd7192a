package pdf

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// The objects of PDF (ISO 32000-2 §7.3): nil, bool, number, name, text, array, dict, ref, *stream. A key that stands twice
// in a dictionary has the value ambiguous, which is good for nothing: readers disagree on which of the two counts.
type (
	number string // as it is written
	name   string
	array  []any
	dict   map[name]any
	ref    struct {
		num uint32
		gen uint16
	}
	ambiguous struct{}
	keyword   string
)

// A text is a string, with the place it has in the file, delimiters included; from is −1 in an object stream.
type text struct {
	octets   []byte
	hex      bool // written in hexadecimal, nothing but digits between the delimiters
	from, to int64
}

// A stream is a dictionary and octets elsewhere in the file.
type stream struct {
	dict     dict
	from, to int64
}

// Limits on the shape of what is read.
const (
	maxNesting = 64
	maxString  = 64 << 20 // octets as written
	maxToken   = 1 << 12
	maxItems   = 1 << 20 // of one object, nested ones included
)

var errSyntax = errors.New("not the syntax of PDF, or beyond a limit")

// int returns a number that is an integer of sensible size.
func (n number) int() (int64, bool) {
	v, err := strconv.ParseInt(string(n), 10, 64)
	return v, err == nil && v > -1<<53 && v < 1<<53
}

func asInt(v any) (int64, bool) {
	n, ok := v.(number)
	if !ok {
		return 0, false
	}
	return n.int()
}

// A scanner reads tokens and objects from a part of a file.
type scanner struct {
	r        io.ReaderAt
	pos, end int64
	placed   bool // positions are positions in the file
	items    int

	window [1024]byte
	from   int64
	filled int
}

func newScanner(r io.ReaderAt, pos, end int64) *scanner {
	return &scanner{r: r, pos: pos, end: end, placed: true}
}

// peek returns the octet at pos; false at the end.
func (s *scanner) peek() (byte, bool) {
	if s.pos >= s.end || s.pos < 0 {
		return 0, false
	}
	if s.pos < s.from || s.pos >= s.from+int64(s.filled) {
		s.from = s.pos
		s.filled, _ = s.r.ReadAt(s.window[:min(int64(len(s.window)), s.end-s.pos)], s.pos)
		if s.filled <= 0 {
			s.filled = 0
			return 0, false
		}
	}
	return s.window[s.pos-s.from], true
}

func (s *scanner) next() (byte, bool) {
	b, ok := s.peek()
	if ok {
		s.pos++
	}
	return b, ok
}

func isSpace(b byte) bool {
	return b == ' ' || b == '\n' || b == '\r' || b == '\t' || b == '\f' || b == 0
}

func isDelimiter(b byte) bool { return bytes.IndexByte([]byte("()<>[]{}/%"), b) >= 0 }

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// space skips white space and, where comments says so, comments.
func (s *scanner) space(comments bool) {
	for {
		b, ok := s.peek()
		switch {
		case ok && isSpace(b):
			s.pos++
		case ok && comments && b == '%':
			for ok && b != '\n' && b != '\r' {
				s.pos++
				b, ok = s.peek()
			}
		default:
			return
		}
	}
}

// word reads regular characters; empty if there are none.
func (s *scanner) word() string {
	var out []byte
	for {
		b, ok := s.peek()
		if !ok || isSpace(b) || isDelimiter(b) || len(out) == maxToken {
			return string(out)
		}
		out = append(out, b)
		s.pos++
	}
}

// expect reads a certain word after white space.
func (s *scanner) expect(want string) bool {
	s.space(true)
	return s.word() == want
}

// integer reads an unsigned integer after white space.
func (s *scanner) integer() (int64, bool) {
	s.space(true)
	w := s.word()
	if w == "" || !isDigit(w[0]) {
		return 0, false
	}
	return number(w).int()
}

// value reads one object, references included.
func (s *scanner) value(depth int) (any, error) {
	v, err := s.item(depth)
	if _, ok := v.(keyword); ok {
		return nil, errSyntax
	}
	return v, err
}

// item reads one object or keyword.
func (s *scanner) item(depth int) (any, error) {
	if s.items++; depth > maxNesting || s.items > maxItems {
		return nil, errSyntax
	}
	s.space(true)
	b, ok := s.peek()
	if !ok {
		return nil, errSyntax
	}
	switch b {
	case '/':
		s.pos++
		return s.name()
	case '(':
		return s.literal()
	case '[':
		s.pos++
		return s.array(depth)
	case '<':
		from := s.pos
		s.pos++
		if b, ok = s.peek(); ok && b == '<' {
			s.pos++
			return s.dict(depth)
		}
		return s.hex(from)
	}
	switch w := s.word(); {
	case w == "":
		return nil, errSyntax
	case w == "true":
		return true, nil
	case w == "false":
		return false, nil
	case w == "null":
		return nil, nil
	case isDigit(w[0]) || w[0] == '+' || w[0] == '-' || w[0] == '.':
		for i := range len(w) {
			if !isDigit(w[i]) && w[i] != '.' && (w[i] != '-' && w[i] != '+' || i > 0) {
				return nil, errSyntax
			}
		}
		return number(w), nil
	default:
		return keyword(w), nil
	}
}

func (s *scanner) name() (any, error) {
	w := s.word()
	if len(w) == maxToken {
		return nil, errSyntax
	}
	if bytes.IndexByte([]byte(w), '#') < 0 {
		return name(w), nil
	}
	var out []byte
	for i := 0; i < len(w); i++ {
		if w[i] == '#' && i+2 < len(w) {
			if n, err := strconv.ParseUint(w[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, w[i])
	}
	return name(out), nil
}

// list reads objects up to a closing delimiter and makes references of numbers in front of R.
func (s *scanner) list(depth int, closing string) (array, error) {
	out := array{}
	for {
		s.space(true)
		b, ok := s.peek()
		if !ok {
			return nil, errSyntax
		}
		if b == closing[0] {
			for i := range len(closing) {
				if b, ok = s.next(); !ok || b != closing[i] {
					return nil, errSyntax
				}
			}
			return out, nil
		}
		v, err := s.item(depth + 1)
		if err != nil {
			return nil, err
		}
		if k, ok := v.(keyword); ok {
			n := len(out)
			if k != "R" || n < 2 {
				return nil, errSyntax
			}
			num, ok1 := asInt(out[n-2])
			gen, ok2 := asInt(out[n-1])
			if !ok1 || !ok2 || num < 0 || num >= maxNumber || gen < 0 || gen > 65535 {
				return nil, errSyntax
			}
			out, v = out[:n-2], ref{uint32(num), uint16(gen)}
		}
		out = append(out, v)
	}
}

func (s *scanner) array(depth int) (any, error) {
	out, err := s.list(depth, "]")
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *scanner) dict(depth int) (any, error) {
	list, err := s.list(depth, ">>")
	if err != nil || len(list)%2 != 0 {
		return nil, errSyntax
	}
	out := make(dict, len(list)/2)
	for i := 0; i < len(list); i += 2 {
		key, ok := list[i].(name)
		if !ok {
			return nil, errSyntax
		}
		if _, twice := out[key]; twice {
			out[key] = ambiguous{}
		} else if list[i+1] != nil { // an entry of null is one that is not there (§7.3.7)
			out[key] = list[i+1]
		}
	}
	return out, nil
}

func (s *scanner) text(from int64, octets []byte, hex bool) any {
	if !s.placed {
		return text{octets: octets, hex: hex, from: -1, to: -1}
	}
	return text{octets: octets, hex: hex, from: from, to: s.pos}
}

// digits has the value of each hexadecimal digit; other octets have 0xff.
var digits = func() (out [256]byte) {
	for b := range out {
		switch {
		case b >= '0' && b <= '9':
			out[b] = byte(b - '0')
		case b >= 'a' && b <= 'f':
			out[b] = byte(b - 'a' + 10)
		case b >= 'A' && b <= 'F':
			out[b] = byte(b - 'A' + 10)
		default:
			out[b] = 0xff
		}
	}
	return out
}()

// hex reads a hexadecimal string whose < has been read.
func (s *scanner) hex(from int64) (any, error) {
	var out []byte
	var high byte
	odd, clean := false, true
	for s.pos-from <= maxString {
		if _, ok := s.peek(); !ok {
			return nil, errSyntax
		}
		for _, b := range s.window[s.pos-s.from : s.filled] { // values are long
			s.pos++
			n := digits[b]
			switch {
			case n != 0xff && odd:
				out, odd = append(out, high<<4|n), false
			case n != 0xff:
				high, odd = n, true
			case b == '>':
				if odd { // the last digit is taken to be 0 (§7.3.4.3)
					out, clean = append(out, high<<4), false
				}
				return s.text(from, out, clean), nil
			case isSpace(b):
				clean = false
			default:
				return nil, errSyntax
			}
		}
	}
	return nil, errSyntax
}

// escapes are the one-letter escape sequences of literal strings (ISO 32000-2 table 3).
var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f', '(': '(', ')': ')', '\\': '\\'}

// literal reads a string in parentheses.
func (s *scanner) literal() (any, error) {
	from, depth := s.pos, 0
	var out []byte
	for s.pos-from <= maxString {
		b, ok := s.next()
		switch {
		case !ok:
			return nil, errSyntax
		case b == '(':
			if depth++; depth > 1 {
				out = append(out, b)
			}
		case b == ')':
			if depth--; depth == 0 {
				return s.text(from, out, false), nil
			}
			out = append(out, b)
		case b == '\\':
			out = s.escape(out)
		default:
			out = append(out, b)
		}
	}
	return nil, errSyntax
}

// escape reads what stands behind a backslash.
func (s *scanner) escape(out []byte) []byte {
	b, ok := s.next()
	if !ok {
		return out
	}
	if c, ok := escapes[b]; ok {
		return append(out, c)
	}
	switch {
	case b >= '0' && b <= '7':
		n := int(b - '0')
		for range 2 {
			if b, ok = s.peek(); !ok || b < '0' || b > '7' {
				break
			}
			n = n<<3 | int(b-'0')
			s.pos++
		}
		return append(out, byte(n))
	case b == '\r': // a line that goes on
		if b, ok = s.peek(); ok && b == '\n' {
			s.pos++
		}
	case b == '\n':
	default:
		out = append(out, b)
	}
	return out
}
