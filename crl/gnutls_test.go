package crl_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// GnuTLS keeps of all lists of one issuer's name the newest, whatever its scope, takes a delta for a complete list, and removeFromCRL for
// revoked: docs/crl.md tells people what to give it.
func TestGnuTLSAndDeltas(t *testing.T) {
	certtool := tool(t, "certtool")
	a, dir, now := newAuthority(t, "rsa"), t.TempDir(), time.Now().Truncate(time.Second)
	scope, other := partition(t, a.id, "99101"), partition(t, a.id, "99202")
	scope.DeltaURL = host + "/crl/sign-1/99101-delta.crl"
	held, moved, kept, fine := serial(t, "1111"), serial(t, "2222"), serial(t, "3333"), serial(t, "4444")
	list := func(s crl.Scope, age time.Duration, number, base int64, entries ...crl.Entry) []byte {
		tm := crl.Template{IssuerCert: a.cert, Signer: a.key, Scope: s, Number: big.NewInt(number), ThisUpdate: now.Add(-age), NextUpdate: now.Add(time.Hour)}
		if base > 0 {
			tm.Base = big.NewInt(base)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: build(t, tm, entries)})
	}
	entry := func(s jpki.Serial, reason jpki.Reason) crl.Entry {
		return crl.Entry{Serial: s, At: now.Add(-2 * time.Hour), Reason: reason}
	}
	complete := list(scope, time.Hour, 1, 0, entry(held, jpki.CertificateHold), entry(kept, jpki.Superseded))
	delta := list(scope, time.Minute, 2, 1, entry(held, jpki.RemoveFromCRL), entry(moved, jpki.AffiliationChanged))
	newer := list(other, time.Minute, 2, 0)
	ca := write(t, dir, "ca.pem", "CERTIFICATE", a.cert.Raw)
	cdp, _ := distributionPoints(t, scope)
	for _, c := range []struct {
		what    string
		lists   [][]byte
		revoked []jpki.Serial // says GnuTLS
	}{
		{"complete", [][]byte{complete}, []jpki.Serial{held, kept}},
		{"delta", [][]byte{delta}, []jpki.Serial{held, moved}},
		{"complete and delta", [][]byte{complete, delta}, []jpki.Serial{held, moved}},
		{"delta and complete", [][]byte{delta, complete}, []jpki.Serial{held, moved}},
		{"complete and another municipality's", [][]byte{complete, newer}, nil},
		{"another municipality's and complete", [][]byte{newer, complete}, nil},
	} {
		var all []byte
		for _, l := range c.lists {
			all = append(all, l...)
		}
		crls := write(t, dir, "crls.pem", "", all)
		for _, number := range []jpki.Serial{held, moved, kept, fine} {
			der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
				SerialNumber: number.Big(), Subject: pkix.Name{CommonName: "subscriber"}, KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
				AuthorityKeyId: a.cert.SubjectKeyId, ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: cdp}},
			}, a.cert, generate(t, "p-256").Public(), a.key)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := exec.Command(certtool, "--verify", "--load-ca-certificate", ca, "--load-crl", crls, "--infile", write(t, dir, "cert.pem", "CERTIFICATE", der)).CombinedOutput()
			want := "Verified. The certificate is trusted."
			if slices.Contains(c.revoked, number) {
				want = "The certificate chain is revoked."
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("%s, %s: want %q\n%s", c.what, number, want, out)
			}
		}
	}
}
