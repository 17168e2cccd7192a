package ocsp_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ocsp"
)

// What is accepted of signed requests that somebody recorded, and what is not (see Access.Anchors): sent again they tell what
// became of the certificate that was asked about, nothing else can be asked with them, and they use up the quota of whoever
// sends them and not the requestor's.
func TestRecordedRequest(t *testing.T) {
	parties := newAuthority(jpki.IssuerID{CA: jpki.AuthCA, Generation: 1}, p256(), now)
	key := rsaKey(0)
	bank := parties.issue(&x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "bank"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, key)
	w := newWorld(t, p256(), p256(), p256(), now, withNear, func(_ *world, c *ocsp.Config) {
		c.Access = ocsp.Access{Who: ocsp.BySignature, Anchors: []*x509.Certificate{parties.cert}, Register: register{sha256.Sum256(bank.Raw): true}}
		c.Quota = ocsp.Quota{Rate: 0.001, Burst: 3}
	})
	recorded := openSSLRequest(t, w, bank, key)
	send := func(from string, der []byte) ocsp.ResponseStatus {
		return statusOf(t, w.responder.Exchange(t.Context(), &ocsp.Query{Request: der, Client: ocsp.Client{Address: from}}).Body)
	}
	const requestor, thief = "192.0.2.1", "192.0.2.66"
	if s := send(requestor, recorded); s != ocsp.Successful {
		t.Fatal(s)
	}
	// About another certificate: the serial number is in what is signed.
	other := bytes.Replace(recorded, w.good.Bytes(), w.hold.Bytes(), 1)
	if bytes.Equal(other, recorded) {
		t.Fatal("the request does not have the number")
	}
	if s := send(thief, other); s != ocsp.Unauthorized {
		t.Errorf("about another certificate: %v", s)
	}
	plain := must(must(ocsp.NewRequest(w.first.cert, crypto.SHA256, nil, w.hold)).Marshal())
	if s := send(thief, plain); s != ocsp.SigRequired {
		t.Errorf("without the signature: %v", s)
	}
	if s := send(thief, recorded); s != ocsp.Successful {
		t.Errorf("as it is: %v", s)
	}
	for range 5 {
		if s := send(thief, recorded); s != ocsp.TryLater {
			t.Errorf("beyond the quota: %v", s)
		}
	}
	if s := send(requestor, recorded); s != ocsp.Successful {
		t.Errorf("the requestor is locked out: %v", s)
	}
}
