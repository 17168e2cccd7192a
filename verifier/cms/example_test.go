package cms_test

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"github.com/openjpki/jpki/verifier/cms"
)

// A holder's card signs a contract, detached; a bank reads the file and asks whether the signature is intact. What comes
// next, and is not decided here, is whether the certificate is to be trusted.
func Example() {
	contract := []byte("I open an account.")
	file, err := cms.Sign(bytes.NewReader(contract), cms.SignConfig{
		Certificate: rsaID.der, Signer: rsaID.key, Rand: rand.Reader, SigningTime: noon,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	data, err := cms.Parse(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	signatures, err := data.Verify(cms.Input{Content: bytes.NewReader(contract)})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range signatures {
		fmt.Println(s.Integrity, s.Level, s.Key, s.Algorithm)
	}
	// Output: intact CAdES-B-B RSA-2048 RSA-PKCS1-v1.5 with SHA-256
}
