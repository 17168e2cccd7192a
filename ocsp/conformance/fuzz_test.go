package conformance_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/conformance"
)

// Two readers that share no code: whatever the strict one takes, the kit's takes too, and they read the same in it.
func FuzzReadAnswer(f *testing.F) {
	w := newWorld(f)
	for _, q := range []*ocsp.Request{
		must(ocsp.NewRequest(w.issuer, 5, nil, w.good)), must(ocsp.NewRequest(w.issuer, 3, make([]byte, 32), w.revoked, w.suspended, w.unknown)),
	} {
		f.Add(ask(w, f, must(q.Marshal())))
	}
	f.Add([]byte{0x30, 3, 0x0a, 1, 6})
	f.Fuzz(func(t *testing.T, der []byte) {
		status, says, nonce, err := conformance.ReadAnswer(der)
		strict, strictErr := ocsp.ParseResponse(der)
		if strictErr != nil {
			return
		}
		// encoding/asn1 and cryptobyte differ on years before 1950 or so, and on nothing that is an answer of today.
		for _, a := range strict.Answers {
			if a.ThisUpdate.Before(time.Unix(0, 0)) || a.Revoked && a.RevokedAt.IsZero() {
				return
			}
		}
		if err != nil {
			if strings.Contains(err.Error(), "structure error") || strings.Contains(err.Error(), "syntax error") || strings.Contains(err.Error(), "certificate") {
				return // encoding/asn1 knows the types of algorithms' parameters and looks into them
			}
			t.Fatalf("the strict reader takes what this one refuses: %v\n%x", err, der)
		}
		if status != strict.Status.String() || len(says) != len(strict.Answers) || !bytes.Equal(nonce, strict.Nonce) {
			t.Fatalf("%s %v %x, the strict reader has %s, %d answers and %x", status, says, nonce, strict.Status, len(strict.Answers), strict.Nonce)
		}
		for i, a := range strict.Answers {
			want := "good"
			switch {
			case a.Revoked:
				want = "revoked"
			case a.Unknown:
				want = "unknown"
			}
			if says[i] != want {
				t.Fatalf("answer %d: %s, the strict reader says %s", i, says[i], want)
			}
		}
	})
}

// Templates come from files of others: reading one ends, and an element's length is that of its contents.
func FuzzTemplate(f *testing.F) {
	f.Add("30{ 30{ 06{$oid} 0500 } } # comment")
	f.Add("3* 02{00} $a 0102")
	f.Fuzz(func(t *testing.T, text string) {
		der, err := conformance.FillTemplate("30{ "+strings.ReplaceAll(text, "}", "} ")+"\n}", []byte{5, 0})
		if err != nil {
			return
		}
		head, content, ok := split(der)
		if ok && (head[0] != 0x30 || len(head)+len(content) > len(der)) {
			t.Fatalf("%x", der)
		}
	})
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"30{ 02{01} $x }":          "3005020101" + "abcd",
		"3* 02{ 01 }":              "020101020101020101",
		"2* 30{ 2* $x } # a":       "3004abcdabcd3004abcdabcd",
		"04{ 129* 00 }":            "048181" + strings.Repeat("00", 129),
		"04{ 300* 00 }":            "0482012c" + strings.Repeat("00", 300),
		"# nothing\n 05 00 # more": "0500",
	} {
		got, err := conformance.FillTemplate(text, []byte{0xab, 0xcd})
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%q is %x, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"30{", "}", "3", "xy", "0* 00", "99999999* 00", "x* 00", "10000* 10000* 00", strings.Repeat("30{", 100) + strings.Repeat("}", 100)} {
		if got, err := conformance.FillTemplate(text, nil); err == nil && len(got) > 10_000 {
			t.Errorf("%.20q: %d octets", text, len(got))
		} else if err == nil && text != "10000* 10000* 00" {
			t.Errorf("%.20q is %x", text, got)
		}
	}
}

// A kit with a mistake in it is refused, with the case's name.
func TestLoadMistakes(t *testing.T) {
	t.Parallel()
	good := `{"id":"a","ref":"r","level":"MUST","title":"t","send":[{"body":"one"}],"require":["http 200"]}`
	for name, text := range map[string]string{
		"twice": "[" + good + "," + good + "]", "none": "[]", "field": strings.Replace("["+good+"]", `"ref"`, `"reff"`, 1),
		"level": strings.Replace("["+good+"]", "MUST", "OUGHT", 1), "rule": strings.Replace("["+good+"]", "http 200", "htttp 200", 1),
		"words": strings.Replace("["+good+"]", "http 200", "http", 1), "file": strings.Replace("["+good+"]", `"one"`, `"two"`, 1), "not JSON": "x",
	} {
		files := fstest.MapFS{"cases.json": {Data: []byte(text)}, "requests/one.tlv": {Data: []byte("30{}")}}
		if _, err := conformance.Load(files); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	files := fstest.MapFS{"cases.json": {Data: []byte("[" + good + "]")}, "requests/one.tlv": {Data: []byte("30{}")}}
	if _, err := conformance.Load(files); err != nil {
		t.Error(err)
	}
}
