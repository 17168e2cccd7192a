package pkcs11_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/hsm/pkcs11"
)

func TestParseURI(t *testing.T) {
	slot := uint64(901279138)
	for _, c := range []struct {
		in   string
		want pkcs11.URI
	}{
		{"pkcs11:", pkcs11.URI{}},
		{"pkcs11:token=jpki;object=sign-1?module-path=/usr/lib/m.so&pin-source=file:/etc/pin", pkcs11.URI{Token: "jpki", Object: "sign-1", Module: "/usr/lib/m.so", PINFile: "/etc/pin"}},
		{"pkcs11:token=jpki;object=k?pin-source=file:///etc/pin", pkcs11.URI{Token: "jpki", Object: "k", PINFile: "/etc/pin"}},
		// RFC 7512 §3, where what we refuse is left out.
		{"pkcs11:object=my-pubkey;type=private", pkcs11.URI{Object: "my-pubkey"}},
		{"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;id=%69%95%3E%5C%F4%BD%EC%91;serial=", pkcs11.URI{}},
		{
			"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;id=%69%95%3E%5C%F4%BD%EC%91",
			pkcs11.URI{Token: "The Software PKCS#11 Softtoken", Manufacturer: "Snake Oil, Inc.", Model: "1.0", Object: "my-certificate", ID: "\x69\x95\x3E\x5C\xF4\xBD\xEC\x91"},
		},
		{"pkcs11:slot-id=901279138;object=%E7%BD%B2%E5%90%8D", pkcs11.URI{SlotID: &slot, Object: "署名"}},
	} {
		got, err := pkcs11.ParseURI(c.in)
		if strings.HasSuffix(c.in, "serial=") {
			if err == nil {
				t.Errorf("%s: an empty attribute was accepted", c.in)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.in, d)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "not pkcs11:"},
		{"PKCS11:token=a", "not pkcs11:"},
		{"file:/key", "not pkcs11:"},
		{"pkcs11:token=a?", "empty query"},
		{"pkcs11:token=a;token=b", "comes twice"},
		{"pkcs11:token", "no value"},
		{"pkcs11:token=a;;object=b", "no value"},
		{"pkcs11:token=", "empty"},
		{"pkcs11:token=a b", "must be escaped"},
		{"pkcs11:token=a#b", "must be escaped"},
		{"pkcs11:token=a/b", "must be escaped"},
		{"pkcs11:token=署名", "must be escaped"},
		{"pkcs11:token=%6", "broken escape"},
		{"pkcs11:token=%6g", "broken escape"},
		{"pkcs11:token=%00", "not printable"},
		{"pkcs11:token=%ff", "not printable"},
		{"pkcs11:library-version=1", "unknown"},
		{"pkcs11:x-vendor=1", "unknown"},
		{"pkcs11:module-path=m.so", "unknown"},
		{"pkcs11:?token=a", "unknown"},
		{"pkcs11:?module-name=softhsm", "unknown"},
		{"pkcs11:type=public", "only private"},
		{"pkcs11:slot-id=01", "not a number"},
		{"pkcs11:slot-id=-1", "not a number"},
		{"pkcs11:?pin-value=1234", "does not belong into a URI"},
		{"pkcs11:?pin-source=/etc/pin", "only file:"},
		{"pkcs11:?pin-source=%7Cprogram", "only file:"},
		{"pkcs11:?pin-source=file:pin", "absolute"},
		{"pkcs11:?pin-source=file://h/../", "absolute"},
		{"pkcs11:?module-path=m.so", "absolute"},
		{"pkcs11:?module-path=/a/../m.so", "absolute"},
		{"pkcs11:token=" + strings.Repeat("a", 33), "longer than 32"},
		{"pkcs11:object=" + strings.Repeat("a", 1024), "at most 1024"},
	} {
		if _, err := pkcs11.ParseURI(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.in, err, c.want)
		}
	}
	_, err := pkcs11.ParseURI("pkcs11:?pin-value=1234")
	if strings.Contains(err.Error(), "1234") {
		t.Errorf("a PIN is in an error: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for in, want := range map[string]string{
		"pkcs11:token=a;object=k?module-path=/m.so&pin-source=file:/pin":  "",
		"pkcs11:serial=1;id=%01?module-path=/m.so&pin-source=file:/pin":   "",
		"pkcs11:slot-id=1;id=%01?module-path=/m.so&pin-source=file:/pin":  "",
		"pkcs11:token=a;object=k?pin-source=file:/pin":                    "no module-path",
		"pkcs11:token=a;object=k?module-path=/m.so":                       "no pin-source",
		"pkcs11:model=a;object=k?module-path=/m.so&pin-source=file:/pin":  "tells no token",
		"pkcs11:token=a;type=private?module-path=/m&pin-source=file:/pin": "tells no key",
	} {
		u, err := pkcs11.ParseURI(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

// What is read is written so that the same is read again, and nothing in it goes beyond the limits.
func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=jpki;object=sign-1;id=%01?module-path=/usr/lib/m.so&pin-source=file:/etc/pin")
	f.Add("pkcs11:slot-id=12;type=private;serial=%20a;model=m;manufacturer=x&y")
	f.Fuzz(func(t *testing.T, in string) {
		u, err := pkcs11.ParseURI(in)
		if err != nil {
			return
		}
		if len(u.Token) > 32 || len(u.ID) > 64 || len(u.Object) > 128 || strings.ContainsRune(u.Token+u.Object, 0) {
			t.Errorf("%q goes beyond a limit", u)
		}
		out := u.String()
		if len(out) > 1024 {
			return // escapes that were not there made it too long
		}
		again, err := pkcs11.ParseURI(out)
		if err != nil {
			t.Fatalf("%q was read, but %q is not: %v", in, out, err)
		}
		if d := cmp.Diff(u, again); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	})
}
