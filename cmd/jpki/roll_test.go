package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// Both authorities get a new key while a sandbox serves: issuances go on without a refusal, from some moment on by the new
// generation, and relying parties verify what either issued. The signature CA goes to P-384, the other stays with RSA.
func TestRollWhileRunning(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("openssl is missing")
	}
	dir := t.TempDir()
	orders := makeOrders(t, 16)
	p, env := start(t, dir, 0)
	register(t, env, orders)
	station, err := env.Station()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(o *order) {
		got, err := station.Issue(t.Context(), o.key, o.CertificateOrder)
		if err != nil {
			t.Errorf("refused during the roll: %v", err)
		}
		o.answer = &got
	}

	// The first four before, the next eight while both authorities roll, the last four behind it.
	before, during, after := orders[:4], orders[4:12], orders[12:]
	for _, o := range before {
		ask(o)
	}
	var next atomic.Int64
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() {
			for n := next.Add(1); n <= int64(len(during)); n = next.Add(1) {
				ask(during[n-1])
			}
		})
	}
	rolls := map[jpki.CA]string{jpki.SignCA: "p-384", jpki.AuthCA: "rsa-2048"}
	for _, name := range jpki.CAs {
		out, errOut, code := tool(t, "generation", "roll", "-dir", dir, "-ca", string(name), "-alg", rolls[name])
		if code != 0 || !strings.HasPrefix(out, fmt.Sprintf("%s-2 (%s) issues from now on", name, rolls[name])) {
			t.Fatalf("exit code %d: %s%s", code, out, errOut)
		}
		// Whoever needs it finds it, before anything is issued.
		file, err := sandbox.ReadCertificate(sandbox.CertificateFile(dir, jpki.IssuerID{CA: name, Generation: 2}))
		if err != nil {
			t.Fatal(err)
		}
		if served := get(t, env.StatusURL()+"/ca/"+string(name)+"-2.cer"); !bytes.Equal([]byte(served), file.Raw) {
			t.Errorf("/ca/%s-2.cer is not the new CA certificate", name)
		}
		if first, err := sandbox.ReadCertificate(map[jpki.CA]string{jpki.SignCA: env.TrustSign, jpki.AuthCA: env.TrustAuth}[name]); err != nil || !bytes.Equal(first.RawSubject, file.RawSubject) || first.Equal(file) {
			t.Errorf("the generations of %s have not one name and two certificates (%v)", name, err)
		}
	}
	load.Wait()
	if t.Failed() {
		return
	}
	// The authority follows within a second; how many cards fall into that second is nobody's promise.
	if err := p.waitFor(func() bool {
		return strings.Count(read(t, filepath.Join(dir, "log")), `"another generation issues"`) == 2
	}); err != nil {
		t.Fatal(err)
	}
	for _, o := range after {
		ask(o)
	}
	if t.Failed() {
		return
	}

	// Every certificate is its generation's, signed as that signs, and good to our tools, to OpenSSL and to the bank.
	checkAnswered(t, env, orders, "good")
	var trusted bytes.Buffer
	anchors := map[jpki.IssuerID]*x509.Certificate{}
	for _, name := range jpki.CAs {
		for g := 1; g <= 2; g++ {
			id := jpki.IssuerID{CA: name, Generation: g}
			if anchors[id], err = sandbox.ReadCertificate(sandbox.CertificateFile(dir, id)); err != nil {
				t.Fatal(err)
			}
			_ = pem.Encode(&trusted, &pem.Block{Type: "CERTIFICATE", Bytes: anchors[id].Raw})
		}
	}
	all := filepath.Join(t.TempDir(), "anchors.pem")
	if err := os.WriteFile(all, trusted.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	algorithms := map[jpki.IssuerID]x509.SignatureAlgorithm{
		{CA: jpki.SignCA, Generation: 1}: x509.SHA256WithRSA, {CA: jpki.SignCA, Generation: 2}: x509.ECDSAWithSHA384,
		{CA: jpki.AuthCA, Generation: 1}: x509.SHA256WithRSA, {CA: jpki.AuthCA, Generation: 2}: x509.SHA256WithRSA,
	}
	asked := map[jpki.IssuerID]client.Certificate{}
	for i, o := range orders {
		for _, c := range o.answer.Certificates {
			der, err := client.DER(c.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			if g := c.ID.Issuer.Generation; i < len(before) && g != 1 || i >= len(before)+len(during) && g != 2 {
				t.Errorf("order %s was issued by %s", o.key, c.ID.Issuer)
			}
			if issuer, _ := client.DER(c.Issuer); cert.SignatureAlgorithm != algorithms[c.ID.Issuer] || cert.CheckSignatureFrom(anchors[c.ID.Issuer]) != nil || !bytes.Equal(issuer, anchors[c.ID.Issuer].Raw) {
				t.Errorf("%s is signed with %s and not by its generation, or was handed out with another CA certificate", c.ID, cert.SignatureAlgorithm)
			}
			asked[c.ID.Issuer] = c
		}
	}
	if len(asked) != 4 {
		t.Fatalf("certificates of %d generations, want 4", len(asked))
	}
	bank := env.Bank()
	hotline, err := env.Hotline()
	if err != nil {
		t.Fatal(err)
	}
	for id, c := range asked {
		file := filepath.Join(t.TempDir(), "certificate.pem")
		if err := os.WriteFile(file, []byte(c.Certificate), 0o600); err != nil {
			t.Fatal(err)
		}
		run := func(args ...string) string {
			t.Helper()
			out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput()
			if err != nil {
				t.Errorf("%s: openssl %s: %v\n%s", id, strings.Join(args, " "), err, out)
			}
			return string(out)
		}
		run("verify", "-CAfile", all, file)
		anchor := sandbox.CertificateFile(dir, id)
		ocsp := []string{"ocsp", "-issuer", anchor, "-cert", file, "-url", env.OCSPURL, "-CAfile", anchor}
		if out := run(ocsp...); !strings.Contains(out, ": good") || !strings.Contains(out, "Response verify OK") {
			t.Errorf("%s: OpenSSL says\n%s", id, out)
		}
		der, _ := client.DER(c.Certificate)
		if v, err := bank.Status(t.Context(), der); err != nil || v.Indication != "TOTAL-PASSED" {
			t.Errorf("%s: the bank says %s (%s), %v", id, v.Indication, v.Code, err)
		}

		// A loss is seen in OCSP and in its own generation's list, and in no other's.
		if _, err := hotline.Suspend(t.Context(), "lost-"+id.String(), client.Change{Certificate: &c.ID, Cause: jpki.Lost}); err != nil {
			t.Fatal(err)
		}
		cert, _ := x509.ParseCertificate(der)
		expectOCSP(t, env, cert, anchors[id], "revoked (certificateHold)")
		on := func(list jpki.IssuerID) bool {
			l, err := x509.ParseRevocationList([]byte(get(t, env.CRLURL+"/"+list.String()+"/full.crl")))
			if err != nil {
				t.Fatal(err)
			}
			if err := l.CheckSignatureFrom(anchors[list]); err != nil {
				t.Errorf("CRL of %s: %v", list, err)
			}
			return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 })
		}
		if err := p.waitFor(func() bool { return on(id) }); err != nil {
			t.Errorf("%s is not on its generation's list: %v", c.ID, err)
		}
		if other := (jpki.IssuerID{CA: id.CA, Generation: 3 - id.Generation}); on(other) {
			t.Errorf("%s is on the list of %s", c.ID, other)
		}
		if out, _ := exec.CommandContext(t.Context(), openssl, ocsp...).CombinedOutput(); !strings.Contains(string(out), ": revoked") {
			t.Errorf("%s: OpenSSL says\n%s", id, out)
		}
	}
	if out, _, code := tool(t, "audit", "verify", "-dir", dir); code != 0 {
		t.Errorf("exit code %d: %s", code, out)
	}
	p.end(t)
	checkDatabase(t, dir, orders)

	// The next start issues with the new generations from the beginning, and so do its samples.
	_, env = start(t, dir, p.offset)
	for _, path := range []string{env.SampleSignCert, env.SampleAuthCert} {
		cert, err := sandbox.ReadCertificate(path)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := env.CertID(cert); err != nil || id.Issuer.Generation != 2 {
			t.Errorf("%s is issued by %s (%v)", path, id.Issuer, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
