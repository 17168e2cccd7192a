package acme

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// oidAppleNonce marks the extension in which Apple's attestation repeats the SHA-256 of the challenge's token.
var oidAppleNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 11, 1}

// attestationMode reads CBOR (RFC 8949) with the limits of a statement that holds one chain of certificates.
var attestationMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxNestedLevels: 8, MaxArrayElements: 32, MaxMapPairs: 32, DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode()
	if err != nil {
		panic("CBOR options: " + err.Error()) // constants
	}
	return m
}()

// checkFreshness closes a gap of smallstep's: it compares the nonce in an Apple attestation only if there is one, so that
// an old attestation would do whose certificate has none. In the step format the phone signs the challenge.
func checkFreshness(format string, payload []byte) error {
	if format != "apple" {
		return nil
	}
	leaf, err := attestationLeaf(payload)
	if err != nil {
		return err
	}
	for _, x := range leaf.Extensions {
		if x.Id.Equal(oidAppleNonce) && len(x.Value) > 0 {
			return nil
		}
	}
	return errors.New("the attestation has no nonce")
}

// attestationLeaf reads the certificate of the attested key from the payload of a challenge's response
// (draft-ietf-acme-device-attest §5): JSON around base64url around CBOR in the form of WebAuthn.
func attestationLeaf(payload []byte) (*x509.Certificate, error) {
	var p struct {
		AttObj string `json:"attObj"`
	}
	if len(payload) > maxBody {
		return nil, errors.New("the attestation is too large")
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, errors.New("the attestation is not JSON")
	}
	raw, err := base64.RawURLEncoding.DecodeString(p.AttObj)
	if err != nil {
		return nil, errors.New("the attestation is not base64url")
	}
	var object struct {
		Statement struct {
			X5C [][]byte `cbor:"x5c"`
		} `cbor:"attStmt"`
	}
	if err := attestationMode.Unmarshal(raw, &object); err != nil {
		return nil, errors.New("the attestation is not the CBOR of an attestation")
	}
	if len(object.Statement.X5C) == 0 || slices.ContainsFunc(object.Statement.X5C, func(b []byte) bool { return len(b) == 0 }) {
		return nil, errors.New("the attestation has no certificates")
	}
	leaf, err := x509.ParseCertificate(object.Statement.X5C[0])
	if err != nil {
		return nil, errors.New("the attestation's certificate cannot be read")
	}
	return leaf, nil
}
