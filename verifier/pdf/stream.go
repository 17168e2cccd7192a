package pdf

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
)

var errFilter = errors.New("a stream is compressed in a way that is not read here, or beyond a limit")

// maxDecoded bounds what one stream may become.
const maxDecoded = 32 << 20

// decode returns a stream's octets. Only FlateDecode with PNG predictors is read: it is what cross-reference and object
// streams and those in a DSS are written with (ISO 32000-2 §7.4.4).
func (f *file) decode(view int, s *stream) ([]byte, error) {
	filter, params := f.resolve(view, s.dict["Filter"]), f.resolve(view, s.dict["DecodeParms"])
	if list, ok := filter.(array); ok {
		switch len(list) {
		case 0:
			filter = nil
		case 1:
			filter = f.resolve(view, list[0])
			if p, ok := params.(array); ok && len(p) == 1 {
				params = f.resolve(view, p[0])
			}
		default:
			return nil, errFilter
		}
	}
	raw := io.NewSectionReader(f.r, s.from, s.to-s.from)
	if filter == nil {
		return readAll(raw)
	}
	if filter != name("FlateDecode") {
		return nil, errFilter
	}
	z, err := zlib.NewReader(raw)
	if err != nil {
		return nil, errFilter
	}
	out, err := readAll(z)
	if err != nil {
		return nil, err
	}
	p, _ := params.(dict)
	predictor, _ := asInt(p["Predictor"])
	if predictor <= 1 {
		return out, nil
	}
	columns, ok := asInt(p["Columns"])
	if !ok {
		columns = 1
	}
	for key, want := range map[name]int64{"Colors": 1, "BitsPerComponent": 8} {
		if v, ok := asInt(p[key]); ok && v != want {
			return nil, errFilter
		}
	}
	if predictor < 10 || predictor > 15 || columns < 1 || columns > 1<<16 {
		return nil, errFilter
	}
	return unpredict(out, int(columns))
}

func readAll(r io.Reader) ([]byte, error) {
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(r, maxDecoded+1))
	if err != nil || n > maxDecoded {
		return nil, errFilter
	}
	return out.Bytes(), nil
}

// unpredict undoes the PNG filters on rows of one octet a pixel (RFC 2083 §6).
func unpredict(in []byte, columns int) ([]byte, error) {
	out := make([]byte, 0, len(in))
	above := make([]byte, columns)
	for len(in) > 0 {
		if len(in) < columns+1 {
			return nil, errFilter
		}
		kind, row := in[0], in[1:columns+1]
		in = in[columns+1:]
		var left, corner byte
		for i := range row {
			switch kind {
			case 0:
			case 1:
				row[i] += left
			case 2:
				row[i] += above[i]
			case 3:
				row[i] += byte((int(left) + int(above[i])) / 2)
			case 4:
				row[i] += paeth(left, above[i], corner)
			default:
				return nil, errFilter
			}
			left, corner = row[i], above[i]
		}
		out, above = append(out, row...), row
	}
	return out, nil
}

// paeth is the predictor of RFC 2083 §6.6.
func paeth(left, above, corner byte) byte {
	p := int(left) + int(above) - int(corner)
	distance := func(b byte) int {
		if d := p - int(b); d < 0 {
			return -d
		}
		return p - int(b)
	}
	a, b, c := distance(left), distance(above), distance(corner)
	switch {
	case a <= b && a <= c:
		return left
	case b <= c:
		return above
	}
	return corner
}
