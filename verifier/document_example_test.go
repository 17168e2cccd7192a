package verifier_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier"
	"github.com/openjpki/jpki/verifier/cms"
)

// A customer signs a contract with her card; the bank asks whether it may rely on it, and stores what the answer rests on. Two days
// later she moves house and her certificate is revoked: the signature is still good, as the bank has on record when it got it.
func ExampleVerifier_Document() {
	t := &testing.T{} // makes the certificates
	a := newArchive(t)
	file, err := cms.Sign(bytes.NewReader(contract), cms.SignConfig{
		Certificate: a.signer.der, Signer: a.signer.key, Rand: rand.Reader, SigningTime: t0, Attached: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	policy, err := verifier.FindDocumentPolicy("sandbox-signature-2026")
	if err != nil {
		fmt.Println(err)
		return
	}
	verify := func(now, existed time.Time, crl []byte) *verifier.DocumentResult {
		v, err := verifier.New(verifier.Config{
			Documents: &verifier.DocumentConfig{
				Policy: policy, Anchors: []*x509.Certificate{a.sign[1].cert},
				Sources: []verifier.RevocationSource{pool(crl)}, // a CRL that the bank fetched
			},
			Now: func() time.Time { return now }, Rand: rand.Reader,
		})
		if err != nil {
			fmt.Println(err)
			return nil
		}
		res, err := v.Document(context.Background(), verifier.DocumentInput{Data: file, Existed: existed})
		if err != nil {
			fmt.Println(err)
			return nil
		}
		return res
	}

	accepted := verify(t0, time.Time{}, list(t, a.sign[1], t0.Add(-time.Hour)))
	fmt.Println(accepted.OK(), accepted.Indication, accepted.Signatures[0].Level)
	stored, err := json.Marshal(accepted.Evidence)
	fmt.Println(len(stored) > 0, err)

	moved := list(t, a.sign[1], t0.Add(71*time.Hour), a.signer.revoked(t0.Add(48*time.Hour), 3))
	forgotten := verify(t0.Add(72*time.Hour), time.Time{}, moved)
	fmt.Println(forgotten.OK(), forgotten.Indication, forgotten.SubIndication, forgotten.Code)
	recorded := verify(t0.Add(72*time.Hour), t0, moved)
	fmt.Println(recorded.OK(), recorded.Signatures[0].BestTimeProof)

	// Output:
	// true TOTAL-PASSED CAdES-B-B
	// true <nil>
	// false INDETERMINATE REVOKED_NO_POE revoked-attributes-changed
	// true caller
}
