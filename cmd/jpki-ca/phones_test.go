package main_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/ca/acme"
	main "github.com/openjpki/jpki/cmd/jpki-ca"
)

// What the file says of phones is what the authority asks of them.
func TestPhonesPolicies(t *testing.T) {
	signer := [32]byte{0xab, 31: 0xcd}
	hex := "ab" + strings.Repeat("00", 30) + "cd"
	for _, c := range []struct {
		text string
		want acme.Attestation
		ok   bool
	}{
		{"{format: step}", acme.Attestation{Format: "step"}, true},
		{"{format: apple-appattest, apps: [TEAMID1234.jp.example.wallet]}", acme.Attestation{Format: "apple-appattest", AppAttest: acme.AppAttestPolicy{Apps: []string{"TEAMID1234.jp.example.wallet"}}}, true},
		{"{format: android-key, status_list: /s.json, max_list_age: 168h, strongbox: true, user_auth: true, apps: [jp.example.wallet " + hex + "]}", acme.Attestation{
			Format: "android-key", Android: acme.AndroidPolicy{StatusList: "/s.json", MaxListAge: 168 * time.Hour, StrongBox: true, UserAuth: true, Apps: []acme.AndroidApp{{Package: "jp.example.wallet", Signer: signer}}},
		}, true},
		{"{format: android-key, apps: [jp.example.wallet]}", acme.Attestation{}, false},
		{"{format: android-key, apps: [jp.example.wallet abcd]}", acme.Attestation{}, false},
		{"{format: apple-appattest, development: true}", acme.Attestation{}, false}, // cannot even be said
	} {
		got, err := main.Phones(c.text)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.text, err)
		}
		if diff := cmp.Diff(c.want, got); c.ok && diff != "" {
			t.Errorf("%s: %s", c.text, diff)
		}
	}
}
