package reader_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
)

// OpenSSL 3 signs, and logs in by TLS, with the card through the provider pkcs11 and OpenSC. Debian has it from 13 on; elsewhere
// JPKI_PKCS11_PROVIDER says where it is, and without it there is nothing to be tested.
func TestOpenSSLProvider(t *testing.T) {
	provider := os.Getenv("JPKI_PKCS11_PROVIDER")
	if provider == "" {
		found, err := filepath.Glob("/usr/lib/*/ossl-modules/pkcs11.so")
		if err != nil || len(found) == 0 {
			t.Skip("this release has no package pkcs11-provider")
		}
		provider = found[0]
	}
	o := withOpenSC(t)
	der, err := o.card.Certificate(jpki.CardAuth, "")
	if err != nil {
		t.Fatal(err)
	}
	o.file("certificate.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	o.file("message", []byte("口座開設申込書"))
	o.file("openssl.cnf", fmt.Appendf(nil, `openssl_conf = init
[init]
providers = two
[two]
default = its_own
pkcs11 = the_card
[its_own]
activate = 1
[the_card]
module = %s
pkcs11-module-path = %s
activate = 1
`, provider, module(t)))
	t.Setenv("OPENSSL_CONF", filepath.Join(o.dir, "openssl.cnf"))
	key := func(pin string) string {
		return "pkcs11:token=JPKI%20%28User%20Authentication%20PIN%29;id=%01;type=private;pin-value=" + pin
	}
	o.says("openssl list -providers", `name: PKCS#11 Provider`)
	o.says("openssl dgst -sha256 -sign " + key(authPIN) + " -out signature message")
	o.says("openssl x509 -in certificate.pem -pubkey -noout -out public.pem")
	o.says("openssl dgst -sha256 -verify public.pem -signature signature message", `^Verified OK`)

	server := o.bank(tls.VersionTLS12)
	o.file("request", []byte("GET / HTTP/1.0\r\n\r\n"))
	login := func(certificate ...string) string {
		t.Helper()
		const client = `exec openssl s_client -connect "$0" -CAfile server.pem -ign_eof -client_sigalgs RSA+SHA256 "$@" < request`
		out, _ := o.run("sh", append([]string{"-c", client, server.Listener.Addr().String()}, certificate...)...)
		return out
	}
	if out := login("-cert", "certificate.pem", "-key", key(authPIN)); !strings.Contains(out, "hello, card-auth") {
		t.Errorf("not logged in\n%s", out)
	}
	if out := login(); strings.Contains(out, "hello") {
		t.Errorf("logged in without the card\n%s", out)
	}

	o.fails("openssl dgst -sha256 -sign "+key("9999")+" -out signature2 message", `(?i)error|fail|unable|could not`)
	if n, err := o.card.Tries(jpki.CardAuth); err != nil || n > 2 {
		t.Errorf("a wrong PIN has left %d tries, %v", n, err)
	}
}
