package phone

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// AppID is the virtual phone's application, as its statements in the format apple-appattest say.
const AppID = "JPKISANDBX.org.openjpki.phone"

// oidAppAttestNonce marks the extension in which Apple repeats what was attested.
var oidAppAttestNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 2}

// vouch is what an application on an iPhone answers a challenge with. App Attest's key is made for this one statement, whose
// client data are challenge and certificate key (docs/decisions/0072).
func (c Config) vouch(key crypto.Signer, authorization string) (json.RawMessage, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	b := base64.RawURLEncoding
	message := "JPKI phone key, version 1\n" + authorization + "\n" + b.EncodeToString(spki) + "\n"
	_, signature, err := signChallenge(key, message)
	if err != nil {
		return nil, err
	}
	attested, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	data, err := authenticatorData(&attested.PublicKey)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(message))
	nonce := sha256.Sum256(slices.Concat(data, hash[:]))
	value, err := asn1.Marshal(struct {
		Nonce []byte `asn1:"tag:1,explicit"`
	}{nonce[:]})
	if err != nil {
		return nil, err
	}
	leaf, err := c.certify(attested.Public(), pkix.Extension{Id: oidAppAttestNonce, Value: value})
	if err != nil {
		return nil, err
	}
	object, err := cbor.Marshal(map[string]any{
		"fmt": "apple-appattest", "authData": data, "attStmt": map[string]any{"x5c": [][]byte{leaf}, "receipt": []byte("a receipt that nobody can redeem")},
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"attObj": b.EncodeToString(object), "key": b.EncodeToString(spki), "sig": b.EncodeToString(signature)})
}

// authenticatorData is WebAuthn's (§6.1), for a key that has never been used: application, flags, counter, authenticator, and the
// key's identifier and value (COSE, RFC 9053 §7.1.1).
func authenticatorData(key *ecdsa.PublicKey) ([]byte, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	const attested, size = 0x40, 32
	cose, err := cbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1 : 1+size], -3: point[1+size:]})
	if err != nil {
		return nil, err
	}
	app, id := sha256.Sum256([]byte(AppID)), sha256.Sum256(point)
	out := binary.BigEndian.AppendUint32(append(app[:], attested), 0)
	out = append(out, "appattest\x00\x00\x00\x00\x00\x00\x00"...)
	return slices.Concat(binary.BigEndian.AppendUint16(out, size), id[:], cose), nil
}
