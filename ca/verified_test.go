package ca

import (
	"crypto/x509"
	"testing"
	"time"
)

// A remembered verdict holds as long as the chain and no longer, and for that certificate only.
func TestVerdictsAreRememberedForTheirTime(t *testing.T) {
	k := lintKeys()
	p := Sandbox()
	root := issuerFor(t, p, "sign", k.rsa).Certificate
	stranger := issuerFor(t, p, "auth", k.p384).Certificate
	v := verifiedCerts{roots: x509.NewCertPool()}
	v.roots.AddCert(root)
	at := root.NotBefore.Add(time.Hour)
	for range 2 {
		if err := v.verify(root, at); err != nil {
			t.Fatal(err)
		}
		if v.verify(stranger, at) == nil {
			t.Error("a stranger was let in")
		}
		for _, when := range []time.Time{root.NotBefore.Add(-time.Second), root.NotAfter.Add(time.Second)} {
			if v.verify(root, when) == nil {
				t.Errorf("let in at %s", when)
			}
		}
	}
	if len(v.until) != 1 {
		t.Errorf("%d verdicts remembered", len(v.until))
	}
}
