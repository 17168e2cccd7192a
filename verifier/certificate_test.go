package verifier_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier"
)

func TestParseCertificate(t *testing.T) {
	w := newWorld(t)
	good := w.signCert(t).der
	if c, err := verifier.ParseCertificate(good); err != nil || !bytes.Equal(c.Raw, good) {
		t.Fatal(err)
	}
	// crypto/x509 writes neither of these, so octets are changed: version 3 to 2, and the serial 0x77 to 0 and to -1.
	version := bytes.Replace(good, []byte{0xa0, 3, 2, 1, 2}, []byte{0xa0, 3, 2, 1, 1}, 1)
	numbered := w.signCert(t, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0x77) }).der
	serial := func(b byte) []byte {
		return bytes.Replace(numbered, []byte{0xa0, 3, 2, 1, 2, 2, 1, 0x77}, []byte{0xa0, 3, 2, 1, 2, 2, 1, b}, 1)
	}
	long := w.signCert(t, func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid("2.999.1"), Value: make([]byte, verifier.MaxCertificateBytes)})
	}).der
	for name, tc := range map[string]struct {
		der  []byte
		want string
	}{
		"version 2": {version, "version 2"}, "serial 0": {serial(0), "not positive"}, "serial -1": {serial(0xff), "not a certificate"},
		"too long": {long, "longer than"}, "empty": {nil, "not a certificate"}, "cut": {good[:len(good)-1], "not a certificate"},
		"two": {append(slices.Clone(good), good...), "not a certificate"},
	} {
		if _, err := verifier.ParseCertificate(tc.der); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseCertificate: an accepted certificate is the whole input, has a serial of ours, no extension twice, and none
// critical beyond those that are acted upon.
func FuzzParseCertificate(f *testing.F) {
	a := newAuthority(f, "sign", ecKey(elliptic.P256()), t0)
	f.Add(a.cert.Raw)
	for _, change := range []func(*x509.Certificate){
		likeSign,
		func(c *x509.Certificate) { likeSign(c); c.KeyUsage, c.NotAfter = 0, t0.AddDate(100, 0, 0) },
		func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: oid("2.999.1"), Critical: true, Value: []byte{5, 0}}}
		},
	} {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(5), NotBefore: t0, NotAfter: t0.Add(time.Hour)}
		change(tmpl)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, a.key.Public(), a.key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := verifier.ParseCertificate(der)
		if err != nil {
			return
		}
		if !bytes.Equal(c.Raw, der) || c.Version != 3 {
			t.Fatal("not the whole input, or not version 3")
		}
		if _, err := jpki.SerialFromBig(c.SerialNumber); err != nil {
			t.Fatal(err)
		}
		var seen []string
		for _, e := range c.Extensions {
			id := e.Id.String()
			if slices.Contains(seen, id) {
				t.Fatalf("%s twice", id)
			}
			if seen = append(seen, id); e.Critical && !slices.Contains([]string{"2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.32", "2.5.29.37"}, id) {
				t.Fatalf("critical %s", id)
			}
		}
	})
}

// TestRealAnchors: the JPKI's own CA certificates, public data, are fit to be trust anchors: several generations of two
// authorities under two names.
func TestRealAnchors(t *testing.T) {
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "vectors")
	}
	files, err := filepath.Glob(filepath.Join(dir, "jpki-ca", "*"))
	if err != nil || len(files) == 0 {
		t.Skipf("no vectors in %s", dir)
	}
	w := newWorld(t)
	cfg := w.config(t)
	cfg.Anchors = nil
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(data); block != nil {
			data = block.Bytes
		}
		if cert, err := x509.ParseCertificate(data); err == nil {
			cfg.Anchors = append(cfg.Anchors, cert)
		}
	}
	v, err := verifier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	for _, a := range v.Anchors() {
		names[string(a.RawSubject)]++
	}
	if len(v.Anchors()) != 5 || len(names) != 2 {
		t.Errorf("%d anchors under %d names", len(v.Anchors()), len(names))
	}
}
