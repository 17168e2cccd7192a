package nightcheck_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/openjpki/jpki/verifier/nightcheck"
)

// Whatever a line is, it has exactly one result, which encoding/csv and encoding/json read, which we read back, and whose reference is the
// line's, as encoding/csv has it.
func FuzzLine(f *testing.F) {
	a := newAuthority(f, sign1)
	sources := []nightcheck.Source{{ID: sign1, Cert: a.cert, List: a.list(f, t0)}}
	for _, seed := range []string{strings.TrimSpace(row("anna", "sign-1", 1)), `"a ""b"", c",sign-1,40,x,y`, `"a`, `a"b`, ",,,,", `{"customer":"a\"b\\","issuer":"sign-1"}`, `{"customer":"c","certificate":"AAAA"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n") || line == "" {
			return
		}
		for _, in := range []nightcheck.Format{nightcheck.CSV, nightcheck.NDJSON} {
			for _, out := range []nightcheck.Format{nightcheck.CSV, nightcheck.NDJSON} {
				head := map[nightcheck.Format]string{nightcheck.CSV: csvHead}[in]
				got, summary := check(t, nightcheck.Config{Sources: sources, In: in, Out: out, Workers: 1}, head+line+"\n")
				if summary.Lines != 1 {
					t.Fatalf("%d lines", summary.Lines)
				}
				customer := ""
				if out == nightcheck.CSV {
					records, err := csv.NewReader(strings.NewReader(got)).ReadAll()
					if err != nil || len(records) != 2 {
						t.Fatalf("%v: %s", err, got)
					}
					customer = records[1][0]
				} else {
					var object map[string]string
					if err := json.Unmarshal([]byte(got), &object); err != nil {
						t.Fatalf("%v: %s", err, got)
					}
					customer = object["customer"]
				}
				if in == nightcheck.CSV && customer != "" {
					r := csv.NewReader(bytes.NewReader([]byte(line)))
					if record, err := r.Read(); err != nil || record[0] != customer {
						t.Errorf("%q is of %q, encoding/csv: %q %v", line, customer, record, err)
					}
				}
				if !utf8.ValidString(got) {
					t.Errorf("%q", got)
				}
				// The same line the next night is compared with itself.
				_, again := check(t, nightcheck.Config{Sources: sources, In: in, Out: out, Workers: 1, Previous: strings.NewReader(got)}, head+line+"\n")
				if want := summary.Classes[nightcheck.Unreadable]; again.Changed != want || again.Gone != 0 {
					t.Errorf("%q: %+v after itself, want %d changed", line, again, want)
				}
			}
		}
	})
}

// Whatever the earlier night's file is, it is refused or compared with: it adds and hides no line.
func FuzzPrevious(f *testing.F) {
	a := newAuthority(f, sign1)
	sources := []nightcheck.Source{{ID: sign1, Cert: a.cert, List: a.list(f, t0)}}
	f.Add("anna,sign-1/40000001,changed,affiliationChanged,2026-03-31T22:00:00Z,,crl,2026-04-01T03:00:00Z,,\nbert,,unreadable,,,,,,,no")
	f.Add(`{"customer":"anna","certificate":"sign-1/40000001","result":"suspended"}` + "\n{}")
	f.Fuzz(func(t *testing.T, previous string) {
		for _, out := range []nightcheck.Format{nightcheck.CSV, nightcheck.NDJSON} {
			head := map[nightcheck.Format]string{nightcheck.CSV: resultHead}[out]
			c, err := nightcheck.New(nightcheck.Config{Now: clock, Sources: sources, Out: out, Workers: 1, Previous: strings.NewReader(head + previous)})
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			summary, err := c.Check(t.Context(), strings.NewReader(csvHead+row("anna", "sign-1", 1)+row("bert", "sign-1", 2)), &got)
			if err != nil {
				continue
			}
			if lines := int64(strings.Count(previous, "\n")) + 1; summary.Lines != 2 || summary.Changed > 2 || summary.Gone < 0 || summary.Gone > lines || strings.Count(got.String(), "\n") != strings.Count(head, "\n")+2 {
				t.Errorf("%+v\n%s", summary, got.String())
			}
		}
	})
}
