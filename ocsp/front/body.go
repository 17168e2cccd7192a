package front

import "bytes"

// maxChunkLine is the longest line between chunks, extensions included, and maxFraming all that is not data.
const (
	maxChunkLine = 256
	maxFraming   = 16 << 10
)

// chunks decodes a chunked body in place (RFC 9112 §7.1): what it has decoded lies at the beginning, what it has not yet
// read behind. It goes on where it stopped when more has come.
type chunks struct {
	in, out int // how far it has read, how much it has decoded
	left    int // octets of the present chunk still to come
	state   chunkState
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CRLF behind the data
	chunkTrailer
	chunkDone
)

// decode reads on in b, which begins with the body, and returns why the body is refused, or nil. When it returns with
// state chunkDone, the body is b[:out] and what follows the request begins at in.
func (c *chunks) decode(b []byte, limit int) *refusal {
	for {
		switch c.state {
		case chunkData:
			n := min(c.left, len(b)-c.in)
			copy(b[c.out:], b[c.in:c.in+n])
			c.in, c.out, c.left = c.in+n, c.out+n, c.left-n
			if c.left > 0 {
				return nil
			}
			c.state = chunkEnd
		case chunkDone:
			return nil
		default:
			i := bytes.IndexByte(b[c.in:min(len(b), c.in+maxChunkLine)], '\n')
			if i < 0 {
				if len(b)-c.in >= maxChunkLine {
					return malformed
				}
				return nil
			}
			if i == 0 || b[c.in+i-1] != '\r' {
				return malformed
			}
			line := b[c.in : c.in+i-1]
			if c.in += i + 1; c.in-c.out > maxFraming {
				return malformed
			}
			if why := c.line(line, limit); why != nil {
				return why
			}
		}
	}
}

// line takes a line between chunks.
func (c *chunks) line(line []byte, limit int) *refusal {
	switch c.state {
	case chunkSize:
		n, ok := chunkLength(line)
		switch {
		case !ok:
			return malformed
		case n > limit-c.out:
			return tooLarge
		case n == 0:
			c.state = chunkTrailer
		default:
			c.left, c.state = n, chunkData
		}
	case chunkEnd:
		if len(line) > 0 {
			return malformed
		}
		c.state = chunkSize
	case chunkTrailer:
		if len(line) == 0 {
			c.state = chunkDone
			return nil
		}
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 || !isToken(line[:colon]) || !isFieldValue(line[colon+1:]) {
			return malformed
		}
	}
	return nil
}

// chunkLength reads a chunk's length, which an extension may follow that means nothing to us.
func chunkLength(line []byte) (int, bool) {
	digits, extension, extended := bytes.Cut(line, []byte(";"))
	if extended { // space before it has been seen (RFC 9112 §7.1.1)
		digits = bytes.TrimRight(digits, " \t")
	}
	if !isFieldValue(extension) {
		return 0, false
	}
	n := 0
	for _, c := range digits {
		d := unhex(c)
		if d > 15 || n > 1<<40 {
			return 0, false
		}
		n = n<<4 | int(d)
	}
	return n, len(digits) > 0
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
