package pdf

import (
	"crypto/sha1" //nolint:gosec // names a signature in a VRI (EN 319 142-1 §5.4.2.2), proves nothing
	"encoding/hex"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// maxClaim is how long a text from a file may be to be repeated.
const maxClaim = 1024

// pdfDoc is where PDFDocEncoding differs from Latin-1 (ISO 32000-2 annex D.2).
var pdfDoc = map[byte]rune{
	0x18: '˘', 0x19: 'ˇ', 0x1a: 'ˆ', 0x1b: '˙', 0x1c: '˝', 0x1d: '˛', 0x1e: '˚', 0x1f: '˜',
	0x80: '•', 0x81: '†', 0x82: '‡', 0x83: '…', 0x84: '—', 0x85: '–', 0x86: 'ƒ', 0x87: '⁄', 0x88: '‹', 0x89: '›', 0x8a: '−', 0x8b: '‰',
	0x8c: '„', 0x8d: '“', 0x8e: '”', 0x8f: '‘', 0x90: '’', 0x91: '‚', 0x92: '™', 0x93: 'ﬁ', 0x94: 'ﬂ', 0x95: 'Ł', 0x96: 'Œ', 0x97: 'Š',
	0x98: 'Ÿ', 0x99: 'Ž', 0x9a: 'ı', 0x9b: 'ł', 0x9c: 'œ', 0x9d: 'š', 0x9e: 'ž', 0xa0: '€',
}

// decodeText reads a text string (ISO 32000-2 §7.9.2.2): UTF-16, UTF-8 or PDFDocEncoding.
func decodeText(in []byte) string {
	in = in[:min(len(in), maxClaim)]
	var out strings.Builder
	switch {
	case len(in) >= 2 && in[0] == 0xfe && in[1] == 0xff:
		units := make([]uint16, 0, len(in)/2)
		for i := 2; i+1 < len(in); i += 2 {
			units = append(units, uint16(in[i])<<8|uint16(in[i+1]))
		}
		return string(utf16.Decode(units))
	case strings.HasPrefix(string(in), "\xef\xbb\xbf"):
		return strings.ToValidUTF8(string(in[3:]), "\ufffd")
	}
	for _, b := range in {
		if r, ok := pdfDoc[b]; ok {
			out.WriteRune(r)
		} else {
			out.WriteRune(rune(b))
		}
	}
	return out.String()
}

// encodeText writes a text string: ASCII as it is, all else in UTF-16, which every reader knows.
func encodeText(in string) []byte {
	ascii := true
	for _, r := range in {
		ascii = ascii && r >= 0x20 && r < 0x7f
	}
	if ascii {
		return []byte(in)
	}
	out := []byte{0xfe, 0xff}
	for _, u := range utf16.Encode([]rune(in)) {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}

// parseDate reads a date (ISO 32000-2 §7.9.4), "D:20261123173000+09'00'"; zero if it is none.
func parseDate(in string) time.Time {
	in = strings.TrimPrefix(in, "D:")
	digits := 0
	for digits < len(in) && digits < 14 && isDigit(in[digits]) {
		digits++
	}
	layout := "20060102150405"
	if digits < 4 || digits%2 != 0 {
		return time.Time{}
	}
	zone := strings.ReplaceAll(in[digits:], "'", "")
	location := time.UTC
	if len(zone) >= 3 && (zone[0] == '+' || zone[0] == '-') {
		hours, err := strconv.Atoi(zone[1:3])
		minutes := 0
		if err == nil && len(zone) >= 5 {
			minutes, err = strconv.Atoi(zone[3:5])
		}
		if err != nil || hours > 23 || minutes > 59 {
			return time.Time{}
		}
		offset := hours*3600 + minutes*60
		if zone[0] == '-' {
			offset = -offset
		}
		location = time.FixedZone("", offset)
	}
	at, err := time.ParseInLocation(layout[:digits], in[:digits], location)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// formatDate writes a date.
func formatDate(at time.Time) string { return at.UTC().Format("D:20060102150405") + "+00'00'" }

func asFloat(v any) float64 {
	n, _ := v.(number)
	x, _ := strconv.ParseFloat(string(n), 64)
	return x
}

// keys returns what a VRI may call the signature: the digest of its value, with the padding and without.
func (s *Signature) keys() []string {
	var out []string
	for _, octets := range [][]byte{s.Contents, trimPadding(s.Contents)} {
		sum := sha1.Sum(octets) //nolint:gosec // see the import
		out = append(out, strings.ToUpper(hex.EncodeToString(sum[:])))
	}
	return out
}

// trimPadding cuts what stands behind the first element of an encoding of definite length; for others, zeros.
func trimPadding(in []byte) []byte {
	if len(in) >= 2 && in[1] != 0x80 {
		n, length := 2, int(in[1])
		if in[1] > 0x80 {
			length = 0
			for n < len(in) && n < 2+int(in[1]&0x7f) && n < 6 {
				length = length<<8 | int(in[n])
				n++
			}
		}
		if n+length <= len(in) && strings.Trim(string(in[n+length:]), "\x00") == "" {
			return in[:n+length]
		}
	}
	return in
}
