package pdf_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openjpki/jpki/verifier/pdf"
)

// Whatever is read: nothing panics, and a signature that is found valid covers what it must.
func FuzzRead(f *testing.F) {
	s := p256(f)
	c := s.config()
	c.Reserve = 1500
	for _, file := range [][]byte{document(sample()), streamed(split(sample()))} {
		signed := sign(f, file, c)
		f.Add(signed)
		f.Add(update(signed, objects{6: strings.Replace(sample()[6], "V(100)", "V(900)", 1), 4: ""}, ""))
		f.Add(update(signed, objects{1: strings.Replace(sample()[1], "/Outlines", "/DSS<</Certs[4 0 R]/VRI<</A<</TU(D:2026)/TS 4 0 R>>>>>>/Outlines", 1)}, ""))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := pdf.Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		for i := range d.Revisions {
			d.Store(i)
		}
		for i, v := range d.Verify(nil) {
			if v.Err == nil {
				covered(t, data, d, d.Signatures[i])
			}
		}
	})
}

// covered checks what must hold of a valid signature, from the octets alone.
func covered(t *testing.T, data []byte, d *pdf.Document, s *pdf.Signature) {
	t.Helper()
	b := s.ByteRange
	if len(b) != 4 || b[0] != 0 || b[1] >= b[2] || s.Revision < 0 || b[2]+b[3] < d.Revisions[s.Revision] {
		t.Fatalf("valid over %v, revision %d of %v", b, s.Revision, d.Revisions)
	}
	gap := strings.ToLower(string(data[b[1]:b[2]]))
	if gap != "<"+hexOf(s.Contents)+">" {
		t.Fatalf("valid with a gap of %d octets and a value of %d", len(gap), len(s.Contents))
	}
}

// Of all ranges only the right one is valid.
func FuzzByteRange(f *testing.F) {
	signed := sign(f, document(sample()), p256(f).config())
	d, err := pdf.Read(bytes.NewReader(signed), int64(len(signed)))
	if err != nil {
		f.Fatal(err)
	}
	b := d.Signatures[0].ByteRange
	right := fmt.Sprintf("[0 %d %d %d]", b[1], b[2], b[3])
	at := bytes.Index(signed, []byte(right))
	const room = 60
	for _, seed := range []string{right, "[0 1 2 3]", "[0 0 0 0]", "[]", "null", "[0 1 2 3 4]", "[-1 2 3 4]", "[0 1 2 99999999999999999999]", "1 0 R", "[1 0 R 1 2 3]", "[0.0 1 2 3]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, ranges string) {
		if len(ranges) > room {
			return
		}
		file := bytes.Clone(signed)
		copy(file[at:at+room], ranges+strings.Repeat(" ", room-len(ranges)))
		d, err := pdf.Read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		for i, v := range d.Verify(nil) {
			if v.Err == nil && !bytes.Equal(file, signed) {
				t.Fatalf("valid over %q: %v", ranges, d.Signatures[i].ByteRange)
			}
		}
	})
}

// No octet of a signed revision can be another, wherever it stands.
func TestEveryOctet(t *testing.T) {
	for _, file := range [][]byte{document(sample()), streamed(split(sample()))} {
		signed := sign(t, file, p256(t).config())
		from, to, _ := signedParts(t, signed)
		rapid.Check(t, func(t *rapid.T) {
			changed := bytes.Clone(signed)
			n := rapid.IntRange(0, len(signed)-(to-from)-1).Draw(t, "place")
			if n >= from {
				n += to - from
			}
			changed[n] ^= byte(rapid.IntRange(1, 255).Draw(t, "change"))
			d, err := pdf.Read(bytes.NewReader(changed), int64(len(changed)))
			if err != nil {
				return
			}
			for _, v := range d.Verify(nil) {
				if v.Err == nil {
					t.Fatalf("valid with octet %d changed from %q to %q", n, signed[n], changed[n])
				}
			}
		})
	}
}

// A readerAt has a document with one large stream, which is not in memory.
type readerAt struct {
	head, tail []byte
	size       int64 // of the stream between them
}

func (r *readerAt) length() int64 { return int64(len(r.head)) + r.size + int64(len(r.tail)) }

func (r *readerAt) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		at := off + int64(n)
		switch tail := at - int64(len(r.head)) - r.size; {
		case at < int64(len(r.head)):
			n += copy(p[n:], r.head[at:])
		case tail < 0:
			k := int(min(int64(len(p)-n), -tail))
			for i := range k {
				p[n+i] = byte((at+int64(i))>>16) + 'a' // the same however it is read
			}
			n += k
		case tail < int64(len(r.tail)):
			n += copy(p[n:], r.tail[tail:])
		default:
			return n, io.EOF
		}
	}
	return n, nil
}

// large makes a document of a given size out of the sample.
func large(size int64) *readerAt {
	o := sample()
	const mark = "@@@@"
	o[10] = strings.Replace(stream("/Type/XObject/Subtype/Form/BBox[0 0 99 99]", mark), "/Length 4", fmt.Sprintf("/Length %d", size), 1)
	head, tail, _ := bytes.Cut(update([]byte("%PDF-1.7\n"), o, ""), []byte(mark))
	// What lies behind the stream stands further behind now.
	text := string(tail)
	shift := size - int64(len(mark))
	table := text[strings.Index(text, "xref\n"):]
	for n := range 15 {
		at := bytes.Index(append(bytes.Clone(head), "@@@@"+text...), fmt.Appendf(nil, "\n%d 0 obj", n)) + 1
		if at > len(head) {
			table = strings.Replace(table, fmt.Sprintf("%010d 00000 n", at), fmt.Sprintf("%010d 00000 n", int64(at)+shift), 1)
		}
	}
	start := int64(len(head)) + 4 + int64(strings.Index(text, "xref\n"))
	table = strings.Replace(table, fmt.Sprintf("startxref\n%d", start), fmt.Sprintf("startxref\n%d", start+shift), 1)
	return &readerAt{head, []byte(text[:strings.Index(text, "xref\n")] + table), size}
}
