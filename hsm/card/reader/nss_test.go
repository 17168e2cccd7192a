package reader_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
)

// module is OpenSC's PKCS #11 library.
func module(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/*/opensc-pkcs11.so")
	if err != nil || len(found) == 0 {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal("opensc-pkcs11.so is required")
		}
		t.Skip("opensc-pkcs11.so is not installed")
	}
	return found[0]
}

// bank is a TLS server, of the highest version given, that asks for the card's log-in certificate and greets whoever has it.
func (o *outside) bank(highest uint16) *httptest.Server {
	o.t.Helper()
	ca, err := o.card.CACertificate(jpki.CardAuth)
	if err != nil {
		o.t.Fatal(err)
	}
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		o.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.PeerCertificates[0].Subject.CommonName == string(jpki.CardAuth) {
			_, _ = io.WriteString(w, "hello, card-auth\n")
		}
	}))
	server.TLS = &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12, MaxVersion: highest, Certificates: []tls.Certificate{serverCertificate(o.t, o)},
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	o.t.Cleanup(server.Close)
	return server
}

// nss makes a database of NSS, as browsers have one, that knows OpenSC's module and trusts the bank's certificate.
func (o *outside) nss(dir string) {
	o.t.Helper()
	for _, name := range []string{"certutil", "modutil"} {
		tool(o.t, name)
	}
	if err := os.MkdirAll(filepath.Join(o.dir, dir), 0o700); err != nil {
		o.t.Fatal(err)
	}
	o.says("certutil -N --empty-password -d sql:" + dir)
	o.says("modutil -force -dbdir sql:"+dir+" -add opensc -libfile "+module(o.t), `added to database`)
}

// NSS, the library in Firefox and under Chromium on Linux, finds the card through OpenSC, asks for its PIN and logs in with it.
// TLS 1.2, for the reason of TestOpenSSLEngine: with 1.3 the log-in is refused, which would tell us if that changes.
func TestNSSLogsIn(t *testing.T) {
	o := withOpenSC(t)
	tool(t, "tstclnt")
	server := o.bank(tls.VersionTLS12)
	o.nss("nss")
	o.says("certutil -A -d sql:nss -n bank -t C,, -i server.pem")
	o.file("pins", []byte("JPKI (User Authentication PIN):"+authPIN+"\n"))
	o.file("wrong", []byte("JPKI (User Authentication PIN):9999\n"))
	o.file("request", []byte("GET / HTTP/1.0\r\n\r\n"))
	login := func(server *httptest.Server, args ...string) string {
		t.Helper()
		_, port, err := net.SplitHostPort(server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		out, _ := o.run("tstclnt", append([]string{"-h", "127.0.0.1", "-p", port, "-d", "sql:nss", "-V", "tls1.2:tls1.3", "-A", "request"}, args...)...)
		return out
	}
	certificate := []string{"-n", "JPKI (User Authentication PIN):User Authentication Certificate"}
	if out := login(server, append(certificate, "-W", "pins")...); !strings.Contains(out, "hello, card-auth") {
		t.Errorf("not logged in\n%s", out)
	}
	if out := login(server); strings.Contains(out, "hello") {
		t.Errorf("logged in without the card\n%s", out)
	}
	if out := login(o.bank(tls.VersionTLS13), append(certificate, "-W", "pins")...); strings.Contains(out, "hello") {
		t.Errorf("TLS 1.3 works with this OpenSC: say so in docs/card.md\n%s", out)
	}
	if out := login(server, append(certificate, "-W", "wrong")...); strings.Contains(out, "hello") {
		t.Errorf("logged in with a wrong PIN\n%s", out)
	}
	if n, err := o.card.Tries(jpki.CardAuth); err != nil || n > 2 { // tstclnt tries more than once
		t.Errorf("a wrong PIN has left %d tries, %v", n, err)
	}
}
