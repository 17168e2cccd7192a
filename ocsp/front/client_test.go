package front_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

// Who asks is the peer, unless the peer is a proxy of ours that says otherwise: over the listener and over net/http.
func TestClients(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(der)
	b64 := base64.StdEncoding.EncodeToString(der)
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	for _, test := range []struct {
		name, fields string
		proxies      []netip.Prefix
		address      string
		certificate  []byte
	}{
		{"nobody is believed", "X-Forwarded-For: 192.0.2.1\r\nClient-Cert: :" + b64 + ":\r\n", nil, "127.0.0.1", nil},
		{"a proxy that says nothing", "", loopback, "127.0.0.1", nil},
		{"address", "X-Forwarded-For: 192.0.2.1\r\n", loopback, "192.0.2.1", nil},
		{"what the client wrote itself", "X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n", loopback, "192.0.2.1", nil},
		{"the same in two lines", "X-Forwarded-For: 198.51.100.7\r\nx-forwarded-for: 192.0.2.1\r\n", loopback, "192.0.2.1", nil},
		{"two proxies of ours", "X-Forwarded-For: 198.51.100.7, 192.0.2.1, 2001:db8::1 ,127.0.0.9\r\n", loopback, "192.0.2.1", nil},
		{"only proxies of ours", "X-Forwarded-For: 127.0.0.8, 127.0.0.9\r\n", loopback, "127.0.0.8", nil},
		{"with ports", "X-Forwarded-For: 192.0.2.1:99, [2001:db8::1]:80\r\n", loopback, "192.0.2.1", nil},
		{"mapped", "X-Forwarded-For: ::ffff:192.0.2.1\r\n", loopback, "192.0.2.1", nil},
		{"no address", "X-Forwarded-For: 192.0.2.1, unknown\r\n", loopback, "127.0.0.1", nil},
		{"certificate, RFC 9440", "Client-Cert: :" + b64 + ":\r\n", loopback, "127.0.0.1", digest[:]},
		{"certificate, base64", "client-cert: " + b64 + "\r\n", loopback, "127.0.0.1", digest[:]},
		{"certificate, escaped PEM", "Client-Cert: " + url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))) + "\r\n", loopback, "127.0.0.1", digest[:]},
		{"certificate, digest", "Client-Cert: " + hex.EncodeToString(digest[:]) + "\r\n", loopback, "127.0.0.1", digest[:]},
		{"certificate, none", "Client-Cert: \r\n", loopback, "127.0.0.1", nil},
		{"certificate, nonsense", "Client-Cert: :AAAA:\r\n", loopback, "127.0.0.1", nil},
		{"certificate, one of two", "Client-Cert: :" + b64 + ":\r\nClient-Cert: :" + b64 + ":\r\n", loopback, "127.0.0.1", nil},
		{"another header", "Client_Cert: :" + b64 + ":\r\nX-Client-Cert: :" + b64 + ":\r\n", loopback, "127.0.0.1", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, address := start(t, front.Config{Proxies: test.proxies, CertificateHeader: "Client-Cert"})
			h := httptest.NewServer(s)
			defer h.Close()
			want := seen(&ocsp.Query{Request: []byte("x"), Client: ocsp.Client{Address: test.address, Certificate: test.certificate}})
			for _, at := range []string{address, strings.TrimPrefix(h.URL, "http://")} {
				got := talk(t, at, "POST /ocsp HTTP/1.1\r\nHost: x\r\n"+test.fields+"Content-Length: 1\r\n\r\nx")
				if len(got) != 1 || got[0].Body != want {
					t.Errorf("got %v, want %s", got, want)
				}
			}
			if unreadable := strings.Contains(test.name, "nonsense") || strings.Contains(test.name, "one of two"); unreadable != (s.Outcomes()["unreadable-certificate"] == 2) {
				t.Error(s.Outcomes())
			}
		})
	}
}
