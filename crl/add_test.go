package crl_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// A new generation's CRLs are published by a publisher that is under way, and follow its changes.
func TestAddIssuerWhileRunning(t *testing.T) {
	a := newAuthority(t, "p-384")
	sign2 := jpki.IssuerID{CA: jpki.SignCA, Generation: 2}
	issuer := crl.Issuer{ID: sign2, Cert: a.cert, Signer: a.key, Partitions: []crl.Scope{partition(t, sign2, "99101")}}
	foreign := issuer
	foreign.Partitions = []crl.Scope{partition(t, sign1, "99103")}
	bubble(t, time.Hour, func(w *world, p *crl.Publisher, dir string, dirty chan crl.ID) {
		time.Sleep(time.Minute)
		synctest.Wait()
		w.takeAsked()
		if err := p.AddIssuer(foreign); err == nil {
			t.Error("took another issuer's partition")
		}
		if err := p.AddIssuer(issuer); err != nil {
			t.Fatal(err)
		}
		if err := p.AddIssuer(issuer); err == nil {
			t.Error("took an issuer twice")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if diff := cmp.Diff([]string{"sign-2/99101", "sign-2/full"}, w.takeAsked()); diff != "" {
			t.Errorf("added (-want +got)\n%s", diff)
		}
		dirty <- crl.ID{Issuer: sign2, Partition: "99101"}
		time.Sleep(time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"sign-2/99101", "sign-2/full"}, w.takeAsked()); diff != "" {
			t.Errorf("changed (-want +got)\n%s", diff)
		}
	})
}
