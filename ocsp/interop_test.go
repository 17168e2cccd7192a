package ocsp_test

import (
	"bytes"
	"crypto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// interopWorld is a world of today: other people's clients look at their own clocks.
func interopWorld(t testing.TB, ca, responder func() crypto.Signer) *world {
	t.Helper()
	w := newWorld(t, ca(), p384(), responder(), time.Now())
	w.clock.run = true
	return w
}

func TestOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, keys := range []struct {
		name          string
		ca, responder func() crypto.Signer
	}{
		{"RSA by RSA", func() crypto.Signer { return rsaKey(0) }, func() crypto.Signer { return rsaKey(1) }},
		{"P-256 by RSA", func() crypto.Signer { return rsaKey(0) }, p256},
		{"P-256 by P-256", p256, p256},
		{"P-384 by P-384", p384, p384},
	} {
		t.Run(keys.name, func(t *testing.T) {
			w := interopWorld(t, keys.ca, keys.responder)
			first := writePEM(t, "first.pem", "CERTIFICATE", w.first.cert.Raw)
			second := writePEM(t, "second.pem", "CERTIFICATE", w.second.cert.Raw)
			good := writePEM(t, "good.pem", "CERTIFICATE", w.first.subscriber(w.good).Raw)
			hex := func(s jpki.Serial) string { return "0x" + s.String() }
			for _, test := range []struct {
				name string
				args []string
				want []string // on standard output
				not  []string // neither there nor on standard error
			}{
				{"certificate", []string{"-issuer", first, "-cert", good, "-no_nonce"}, []string{"good.pem: good"}, []string{"WARNING"}},
				{"nonce", []string{"-issuer", first, "-cert", good, "-nonce"}, []string{"good.pem: good"}, []string{"WARNING"}},
				{"SHA-256", []string{"-issuer", first, "-sha256", "-cert", good}, []string{"good.pem: good"}, []string{"WARNING"}},
				{"SHA-384", []string{"-issuer", first, "-sha384", "-cert", good}, []string{"good.pem: good"}, []string{"WARNING"}},
				{"suspended", []string{"-issuer", first, "-serial", hex(w.hold)}, []string{": revoked", "Reason: certificateHold", "Revocation Time: " + w.sinceHold.UTC().Format("Jan _2 15:04:05 2006 GMT")}, nil},
				{"revoked", []string{"-issuer", first, "-serial", hex(w.revoked)}, []string{": revoked", "Reason: affiliationChanged"}, nil},
				{"discarded", []string{"-issuer", first, "-serial", hex(w.discarded)}, []string{": revoked"}, []string{"Reason:"}},
				{"never issued", []string{"-issuer", first, "-serial", hex(w.never)}, []string{": unknown"}, []string{"WARNING"}},
				{
					"several",
					[]string{"-issuer", first, "-serial", hex(w.hold), "-sha256", "-serial", hex(w.good), "-cert", good, "-serial", hex(w.never)},
					[]string{hex(w.hold) + ": revoked", hex(w.good) + ": good", "good.pem: good", hex(w.never) + ": unknown"},
					[]string{"WARNING", "ERROR"},
				},
				{"second generation", []string{"-issuer", second, "-serial", hex(w.never)}, []string{": good"}, []string{"WARNING"}},
				{"two generations at once", []string{"-issuer", first, "-serial", hex(w.good), "-issuer", second, "-serial", hex(w.never)}, []string{"unauthorized (6)"}, []string{": good"}},
			} {
				t.Run(test.name, func(t *testing.T) {
					var stdout, stderr bytes.Buffer
					// Both generations are trusted: what tells them apart is not the anchor.
					anchors := filepath.Join(t.TempDir(), "anchors.pem")
					if err := os.WriteFile(anchors, append(must(os.ReadFile(first)), must(os.ReadFile(second))...), 0o600); err != nil {
						t.Fatal(err)
					}
					cmd := exec.Command(openssl, append([]string{"ocsp", "-url", w.url, "-CAfile", anchors, "-timeout", "30"}, test.args...)...)
					cmd.Stdout, cmd.Stderr = &stdout, &stderr
					_ = cmd.Run() // it also fails when the answer is a refusal, which is what some ask for
					for _, s := range test.want {
						if !strings.Contains(stdout.String(), s) {
							t.Errorf("no %q", s)
						}
					}
					for _, s := range test.not {
						if strings.Contains(stdout.String()+stderr.String(), s) {
							t.Errorf("%q", s)
						}
					}
					if ok := strings.Contains(stderr.String(), "Response verify OK"); ok == strings.Contains(stdout.String(), "unauthorized") {
						t.Errorf("verified: %v", ok)
					}
					if t.Failed() {
						t.Logf("standard output:\n%s\nstandard error:\n%s", &stdout, &stderr)
					}
				})
			}
		})
	}
}

// Our client believes OpenSSL's responder, so that the two sides of this package do not only agree with each other.
func TestOpenSSLResponder(t *testing.T) {
	openssl := tool(t, "openssl")
	at := time.Now()
	a := newAuthority(jpki.IssuerID{CA: jpki.SignCA, Generation: 1}, rsaKey(0), at)
	key := rsaKey(1)
	d := a.delegate(key)
	good, hold, never := newSerial(), newSerial(), newSerial()
	dir := t.TempDir()
	index := filepath.Join(dir, "index.txt")
	end := at.Add(24 * time.Hour).UTC().Format("060102150405Z")
	lines := "V\t" + end + "\t\t" + good.String() + "\tunknown\t/CN=a\n" +
		"R\t" + end + "\t" + at.Add(-time.Hour).UTC().Format("060102150405Z") + ",certificateHold\t" + hold.String() + "\tunknown\t/CN=b\n"
	if err := os.WriteFile(index, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, byKey := range []bool{false, true} {
		nonce := []byte("0123456789abcdef0123456789abcdef")
		in, out := filepath.Join(dir, "request.der"), filepath.Join(dir, "response.der")
		der := must(must(ocsp.NewRequest(a.cert, crypto.SHA256, nonce, good, hold, never)).Marshal())
		if err := os.WriteFile(in, der, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{
			"ocsp", "-index", index, "-CA", writePEM(t, "ca.pem", "CERTIFICATE", a.cert.Raw), "-rsigner", writePEM(t, "responder.pem", "CERTIFICATE", d.Certificate.Raw),
			"-rkey", writePEM(t, "key.pem", "PRIVATE KEY", marshalKey(t, key)), "-reqin", in, "-respout", out, "-nmin", "5",
		}
		if byKey {
			args = append(args, "-resp_key_id")
		}
		if b, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		r, err := ocsp.ParseResponse(must(os.ReadFile(out)))
		if err != nil {
			t.Fatal(err)
		}
		if (r.ResponderKeyHash != nil) != byKey {
			t.Errorf("responder by key: %v", r.ResponderKeyHash != nil)
		}
		if err := r.Verify(ocsp.VerifyOptions{Issuer: a.cert, At: time.Now(), Nonce: nonce, Skew: time.Minute}); err != nil {
			t.Error(err)
		}
		for serial, want := range map[jpki.Serial]string{good: "good", hold: "revoked", never: "unknown"} {
			got, err := r.Answer(a.cert, serial)
			if err != nil || answer(got) != want || got.Fresh(time.Now(), time.Minute, 0) != nil || got.Revoked && got.Reason != jpki.CertificateHold {
				t.Errorf("%+v, %v; want %s", got, err, want)
			}
		}
	}
}

func TestOCSPTool(t *testing.T) {
	ocsptool := tool(t, "ocsptool")
	w := interopWorld(t, func() crypto.Signer { return rsaKey(0) }, p256)
	ca := writePEM(t, "ca.pem", "CERTIFICATE", w.first.cert.Raw)
	for serial, want := range map[jpki.Serial]string{w.good: "Certificate Status: good", w.hold: "Certificate Status: revoked", w.never: "Certificate Status: unknown"} {
		cert := writePEM(t, "cert.pem", "CERTIFICATE", w.first.subscriber(serial).Raw)
		out, _ := exec.Command(ocsptool, "--ask="+w.url, "--load-issuer", ca, "--load-cert", cert, "--load-trust", ca, "--nonce").CombinedOutput()
		if !bytes.Contains(out, []byte(want)) || !bytes.Contains(out, []byte("Success")) {
			t.Errorf("no %q and success in:\n%s", want, out)
		}
	}
}
