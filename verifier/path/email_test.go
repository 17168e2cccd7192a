package path_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/openjpki/jpki/verifier/path"
)

// An address in the subject is bound by constraints also beside an alternative name that they admit, and whatever kind of
// string it is: a reader would show it either way.
func TestConstrainedSubjectAddress(t *testing.T) {
	root := newCA(t, "Root", nil)
	sub := template("Sub", true)
	sub.PermittedEmailAddresses, sub.PermittedDNSDomainsCritical = []string{"example.com"}, true
	ca := issue(t, sub, root, nil)
	for _, test := range []struct {
		address string
		tag     int
		want    path.Code
	}{
		{"a@example.com", asn1.TagIA5String, path.OK},
		{"a@example.com", asn1.TagUTF8String, path.OK},
		{"a@evil.test", asn1.TagIA5String, path.NameNotAdmitted},
		{"a@evil.test", asn1.TagUTF8String, path.NameNotAdmitted},
		{"\x00a\x00@\x00e\x00v\x00i\x00l", asn1.TagBMPString, path.NameNotAdmitted},
	} {
		for _, alternative := range [][]string{nil, {"b@example.com"}} {
			leaf := template("", false)
			leaf.EmailAddresses = alternative
			leaf.Subject.ExtraNames = []pkix.AttributeTypeAndValue{{
				Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: asn1.RawValue{Tag: test.tag, Bytes: []byte(test.address)},
			}}
			c := issue(t, leaf, ca, nil)
			res := validate(t, root, path.Request{Certificate: c.Certificate, Certificates: certificates(ca), At: noon, Revocation: path.RevocationOff})
			if res.Code != test.want {
				t.Errorf("%q, tag %d, beside %q: %s: %s; want %s", test.address, test.tag, alternative, res.Code, res.Detail, test.want)
			}
		}
	}
}
