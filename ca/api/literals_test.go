package api

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/openjpki/jpki"
)

// tokensHoldMyNumber asks encoding/json for the strings and numbers of a text.
func tokensHoldMyNumber(text []byte) (holds bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	for {
		t, err := d.Token()
		if err != nil {
			return holds
		}
		switch t := t.(type) {
		case string:
			holds = holds || jpki.ContainsMyNumber(t)
		case json.Number:
			holds = holds || jpki.ContainsMyNumber(t.String())
		}
	}
}

// FuzzLiterals compares with encoding/json which texts hold a My Number: the same, and what is no JSON is refused.
func FuzzLiterals(f *testing.F) {
	for _, s := range []string{
		`{"a":"621498320257"}`, `{"621498320257":1}`, `[621498320257]`, `[-621498320257]`, `{"a":["6214","98320257"]}`, `["６２１４９８３２０２５７"]`, `["\u0036214-9832-0257"]`,
		`["\\","621498320257"]`, `["\"","6214-9832-0257\\"]`, `["6214 9832 0257\n"]`, `[62149832025,7]`, `"621498320257`, `{"a":"62149832\`, `6.21498320257e11`, `["a621498320257"]`, `[621498320257]]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, want := literalsHoldMyNumber(text), tokensHoldMyNumber(text); json.Valid(text) && got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
		if err := parse(text, new(any)); !json.Valid(text) && err == nil {
			t.Errorf("%q was read, which is no JSON", text)
		}
	})
}
