package ca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/openjpki/jpki/ca"
)

func TestCarriesMyNumber(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	extension := func(value []byte) []pkix.Extension {
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: value}}
	}
	for name, c := range map[string]struct {
		r    x509.CertificateRequest
		want bool
	}{
		"none":                     {x509.CertificateRequest{Subject: pkix.Name{CommonName: "aoba-1", SerialNumber: "123456789012"}}, false},
		"last in the name":         {x509.CertificateRequest{Subject: pkix.Name{CommonName: "aoba-1", SerialNumber: "123456789018"}}, true}, // the next octet is 0x30, a zero
		"full width":               {x509.CertificateRequest{Subject: pkix.Name{CommonName: "１２３４５６７８９０１８"}}, true},
		"among words":              {x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"No. 1234-5678-9018."}}}, true},
		"as another name":          {x509.CertificateRequest{DNSNames: []string{"123456789018"}}, true},
		"in an address":            {x509.CertificateRequest{EmailAddresses: []string{"123456789018@example.jp"}}, true},
		"in an unknown extension":  {x509.CertificateRequest{ExtraExtensions: extension([]byte("123456789018"))}, true},
		"as BMPString":             {x509.CertificateRequest{ExtraExtensions: extension([]byte("\x1e\x18\x001\x002\x003\x004\x005\x006\x007\x008\x009\x000\x001\x008"))}, true},
		"in a constructed context": {x509.CertificateRequest{ExtraExtensions: extension([]byte("\xa0\x0e\x0c\x0c123456789018"))}, true},
	} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &c.r, key)
		if err != nil {
			t.Fatal(name, err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(name, err)
		}
		if got := ca.CarriesMyNumber(csr); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
