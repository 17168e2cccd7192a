package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

type numbered struct {
	Number int
	Text   string // "…" for one too long
}

func allLines(t *testing.T, r io.Reader, size int) (out []numbered) {
	t.Helper()
	for lines := newLineReader(r, size); ; {
		text, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return out
		case errors.Is(err, jpki.TooLarge):
			text = []byte("…")
		case err != nil:
			t.Fatal(err)
		}
		out = append(out, numbered{lines.number, string(text)})
	}
}

// FuzzLine feeds the reader of lines in two ways, compares it with a plain split, and checks that what a line says
// survives being written and read again and that no My Number gets through.
func FuzzLine(f *testing.F) {
	for _, s := range []string{
		"", "\n\n", "a\nb", "a\r\n\nb\n", strings.Repeat("x", 63) + "\n" + strings.Repeat("y", 64) + "\n" + strings.Repeat("z", 65) + "\nend", strings.Repeat("x", 200),
		`{"key":"k","op":"deliver","token":"t"}`, `{"key":"k","holder":"h","token":"t","requests":[{"kind":"card-sign","request":"AAAA"}],"parent":"sign-1/41"}`,
		`{"key":"621498320257"}`, `{"key":"\u0036214-9832-0257"}`, `{"key":"a","key":"b"}`, "{\"key\":\"\xff\"}", `{}{}`, `[]`, `null`,
	} {
		f.Add([]byte(s), uint8(64))
	}
	f.Fuzz(func(t *testing.T, body []byte, limit uint8) {
		size := max(int(limit), 16) // bufio's smallest
		var want []numbered
		for i, text := range strings.Split(string(body), "\n") {
			switch {
			case len(text) > size:
				want = append(want, numbered{i + 1, "…"})
			case strings.TrimSpace(text) != "":
				want = append(want, numbered{i + 1, text})
			}
		}
		if diff := cmp.Diff(want, allLines(t, bytes.NewReader(body), size)); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(want, allLines(t, iotest.OneByteReader(bytes.NewReader(body)), size)); diff != "" {
			t.Fatal("octet by octet", diff)
		}
		for text := range bytes.SplitSeq(body, []byte("\n")) {
			var l, again client.BatchLine
			if parseLine(text, &l) != nil {
				continue
			}
			written, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			if err := parseLine(written, &again); err != nil {
				t.Fatalf("%s: %v", written, err)
			}
			if diff := cmp.Diff(l, again, cmp.Comparer(func(a, b jpki.Serial) bool { return a == b }), cmpopts.EquateEmpty()); diff != "" {
				t.Fatal(diff)
			}
			if jpki.ContainsMyNumber(l.Key) || jpki.ContainsMyNumber(l.Token) || jpki.ContainsMyNumber(l.Holder) {
				t.Fatal("a My Number got through")
			}
		}
	})
}

func TestATornLineIsNotALine(t *testing.T) {
	lines := newLineReader(io.MultiReader(strings.NewReader("whole\ntorn"), iotest.ErrReader(io.ErrUnexpectedEOF)), 64)
	if text, err := lines.next(); string(text) != "whole" || err != nil {
		t.Error(string(text), err)
	}
	if text, err := lines.next(); text != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(string(text), err)
	}
}
