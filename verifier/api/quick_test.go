package api_test

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/api"
)

// Bodies that are read quickly, or not. Those that are not may still be good.
var bodies = []struct {
	body  string
	quick bool
}{
	{`{"certificate":"AAAA"}`, true},
	{" {\t\"certificate\" : \"AAAA\" ,\r\n \"store_attributes\": true } \n", true},
	{`{"store_attributes":false,"user":"青葉"}`, true},
	{`{"user":"a\u0062"}`, false},
	{`{"user":"` + "\x01" + `"}`, false},
	{`{"user":"` + "\x00" + `"}`, false},
	{`{}`, false},
	{`{"user":"a",}`, false},
	{`{"user":"a"`, false},
	{`{"user":"a"}{`, false},
	{`{"user":"a"}` + "\x00", false},
	{"{\"user\":\x00\"a\"}", false},
	{`{"user":"a","user":"b"}`, false},
	{`{"user":true}`, false},
	{`{"user":1}`, false},
	{`{"user" "a"}`, false},
	{`{,"user":"a"}`, false},
	{`,"user":"a"}`, false},
	{`{{"user":"a"}`, false},
	{`{"user":"a"{"digest":"b"}`, false},
	{`{"other":"a"}`, false},
	{`{"store_attributes":"true"}`, false},
	{`{"store_attributes":truefalse}`, false},
	{`{"store_attributes":`, false},
	{`{"store_attributes":t`, false},
	{``, false},
	{"\ufeff{}", false},
}

func TestQuick(t *testing.T) {
	for _, c := range bodies {
		if _, _, taken, _ := api.ReadMembers([]byte(c.body)); taken != c.quick {
			t.Errorf("%q: read quickly: %t, want %t", c.body, taken, c.quick)
		}
	}
}

// What is read quickly is what encoding/json reads, and nothing is read quickly that it would refuse.
func FuzzQuick(f *testing.F) {
	for _, c := range bodies {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) {
			return
		}
		quick, flat, taken, detail := api.ReadMembers(body)
		if !taken {
			return
		}
		if detail != "" {
			t.Fatalf("%q was read quickly, but: %s", body, detail)
		}
		if diff := cmp.Diff(flat, quick); diff != "" {
			t.Errorf("%q (-flat +quick):\n%s", body, diff)
		}
	})
}

// Evidence that is written by hand reads like what encoding/json writes.
func TestKeptIsJSON(t *testing.T) {
	octets := []byte{0, 0xFB, 0xFF, '"'}
	for _, c := range []struct {
		certificate, digest, signature []byte
		evidence                       *verifier.Evidence
	}{
		{},
		{nil, octets, octets, nil},
		{octets, octets, octets, nil},
		{nil, nil, nil, &verifier.Evidence{ID: `"<`, Certificates: [][]byte{octets}}},
	} {
		for _, attributes := range []bool{true, false} {
			byHand, marshaled, err := api.Kept("signature", attributes, []byte(`{"id":"\u003c"}`), c.certificate, c.digest, c.signature, c.evidence)
			if err != nil {
				t.Fatal(err)
			}
			var got, want any
			if err := json.Unmarshal(byHand, &got); err != nil {
				t.Fatalf("%s: %v", byHand, err)
			}
			if err := json.Unmarshal(marshaled, &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
	}
}
