package pdf_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/openjpki/jpki/verifier/pdf"
)

// A document is signed, and then somebody changes what it shows. The signature is intact, and not valid.
func Example() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	contract := document(sample())

	var signed bytes.Buffer
	if err := pdf.Sign(&signed, bytes.NewReader(contract), int64(len(contract)), pdf.SignConfig{
		Certificate: certificate, Signer: key, Rand: rand.Reader, Time: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), Reason: "Agreed",
	}); err != nil {
		panic(err)
	}
	changed := update(signed.Bytes(), objects{4: stream("", "other words")}, "")

	for _, file := range [][]byte{signed.Bytes(), changed} {
		d, err := pdf.Read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			panic(err)
		}
		for i, v := range d.Verify(nil) {
			fmt.Println(d.Signatures[i].Field, v.Signatures[0].Integrity, v.Baseline, v.Modification, v.Err)
		}
	}
	// Output:
	// Signature2 intact PAdES-B-B unchanged <nil>
	// Signature2 intact PDF other document was changed after signing in a way that is not allowed: other, in revision 3 at "trailer/Root/Pages/Kids/0/Contents": is another stream
}
