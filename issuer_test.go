package jpki_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
)

func TestIssuerID(t *testing.T) {
	for text, want := range map[string]jpki.IssuerID{
		"sign-1":  {CA: jpki.SignCA, Generation: 1},
		"auth-2":  {CA: jpki.AuthCA, Generation: 2},
		"sign-10": {CA: jpki.SignCA, Generation: 10},
	} {
		got, err := jpki.ParseIssuerID(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseIssuerID(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "sign", "sign-", "-1", "sign-0", "sign--1", "sign-+1", "sign-01", "sign-1 ", " sign-1", "Sign-1", "root-1", "sign-1-1",
		"sign-99999999999999999999", "sign-１",
	} {
		if got, err := jpki.ParseIssuerID(text); err == nil || got != (jpki.IssuerID{}) {
			t.Errorf("ParseIssuerID(%q) = %v, %v", text, got, err)
		}
	}
}

func TestCertID(t *testing.T) {
	const text = "auth-3/7F00AB"
	id, err := jpki.ParseCertID(text)
	if err != nil || id.String() != text || id.Issuer != (jpki.IssuerID{CA: jpki.AuthCA, Generation: 3}) || id.Serial.String() != "7F00AB" {
		t.Fatalf("ParseCertID(%q) = %v, %v", text, id, err)
	}
	for _, text := range []string{"", "/", "auth-3", "auth-3/", "/7F", "auth-3/7f", "auth-3/00", "auth-3/7F/01", "auth-0/7F"} {
		if got, err := jpki.ParseCertID(text); err == nil || got != (jpki.CertID{}) {
			t.Errorf("ParseCertID(%q) = %v, %v", text, got, err)
		}
	}
}

func TestIdentifiersInJSON(t *testing.T) {
	id, err := jpki.ParseCertID("sign-1/52A0")
	if err != nil {
		t.Fatal(err)
	}
	type message struct {
		ID     jpki.CertID            `json:"id"`
		Issuer jpki.IssuerID          `json:"issuer"`
		By     map[jpki.CertID]string `json:"by"`
	}
	in := message{id, id.Issuer, map[jpki.CertID]string{id: "x"}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":"sign-1/52A0","issuer":"sign-1","by":{"sign-1/52A0":"x"}}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	var out message
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmp.Comparer(func(a, b jpki.CertID) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// Foreign text in an error message is bounded, so that a log line is.
func TestErrorsQuoteLittle(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for name, parse := range map[string]func(string) error{
		"IssuerID": func(s string) error { _, err := jpki.ParseIssuerID(s); return err },
		"CertID":   func(s string) error { _, err := jpki.ParseCertID(s); return err },
		"Kind":     func(s string) error { _, err := jpki.ParseKind(s); return err },
	} {
		if err := parse(long); err == nil || len(err.Error()) > 200 {
			t.Errorf("%s: the error is missing or has %d octets", name, len(err.Error()))
		}
	}
}

func TestKinds(t *testing.T) {
	for kind, want := range map[jpki.Kind]struct {
		ca    jpki.CA
		token jpki.TokenType
	}{
		jpki.CardSign:  {jpki.SignCA, jpki.Card},
		jpki.CardAuth:  {jpki.AuthCA, jpki.Card},
		jpki.PhoneSign: {jpki.SignCA, jpki.Phone},
		jpki.PhoneAuth: {jpki.AuthCA, jpki.Phone},
	} {
		if kind.CA() != want.ca || kind.Token() != want.token {
			t.Errorf("%s: %s, %s", kind, kind.CA(), kind.Token())
		}
		if got, err := jpki.ParseKind(string(kind)); got != kind || err != nil {
			t.Errorf("ParseKind(%q) = %q, %v", kind, got, err)
		}
	}
	if diff := cmp.Diff(jpki.Kinds, constantsOf[jpki.Kind](t, "kind.go", "Kind")); diff != "" {
		t.Error("Kinds does not list the kinds:", diff)
	}
	if diff := cmp.Diff(jpki.CAs, constantsOf[jpki.CA](t, "issuer.go", "CA")); diff != "" {
		t.Error("CAs does not list the authorities:", diff)
	}
	for _, s := range []string{"", "card", "Card-sign", "card-sign ", "card_sign"} {
		if got, err := jpki.ParseKind(s); err == nil {
			t.Errorf("ParseKind(%q) = %q", s, got)
		}
	}
}

func FuzzParseCertID(f *testing.F) {
	for _, s := range []string{"sign-1/01", "auth-2/7F00", "sign-01/01", "sign-1/", "/", "sign-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := jpki.ParseCertID(text); err == nil && id.String() != text {
			t.Errorf("%q parses, but prints as %q", text, id)
		}
	})
}
