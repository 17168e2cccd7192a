package phone

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
)

// oidKeyDescription marks the extension in which an Android phone describes a key.
var oidKeyDescription = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 17}

// A keyDescription is what Android's key attestation says of a key (Android Open Source Project, "Key and ID attestation").
type keyDescription struct {
	Version       int
	Level         asn1.Enumerated
	KeyMint       int
	KeyMintLevel  asn1.Enumerated
	Challenge     []byte
	Unique        []byte
	Software      softwareList
	TrustedByChip hardwareList
}

type softwareList struct {
	Application []byte `asn1:"tag:709,explicit"`
}

// hardwareList has numbers that are 0 and not left out: a default of -1 makes encoding/asn1 write them.
type hardwareList struct {
	Purpose   []int       `asn1:"tag:1,explicit,set"`
	Algorithm int         `asn1:"tag:2,explicit"`
	KeySize   int         `asn1:"tag:3,explicit"`
	Digest    []int       `asn1:"tag:5,explicit,set"`
	Padding   []int       `asn1:"tag:6,explicit,set,omitempty"`
	Curve     int         `asn1:"tag:10,explicit,optional"`
	Exponent  int         `asn1:"tag:200,explicit,optional"`
	AuthType  int         `asn1:"tag:504,explicit"`
	Origin    int         `asn1:"tag:702,explicit,optional,default:-1"`
	Root      rootOfTrust `asn1:"tag:704,explicit"`
}

type rootOfTrust struct {
	Key    []byte
	Locked bool
	State  asn1.Enumerated
	Hash   []byte
}

type applicationID struct {
	Packages []packageInfo `asn1:"set"`
	Signers  [][]byte      `asn1:"set"`
}

type packageInfo struct {
	Name    []byte
	Version int
}

// The virtual phone's application, as its attestations say.
const (
	appPackage = "org.openjpki.phone"
	appSigner  = "nobody: a phone in software"
)

// describe is what an Android phone with a trusted environment, as its maker has sold it, says of a key that signs.
func describe(key crypto.PublicKey, challenge []byte) (pkix.Extension, error) {
	const keyMint3, trustedEnvironment, sign, ec, p256, p384, rsaAlgorithm, sha256Digest, sha384Digest, pkcs1, fingerprint = 300, 1, 2, 3, 1, 2, 1, 4, 5, 5, 2
	signer := sha256.Sum256([]byte(appSigner))
	app, err := asn1.Marshal(applicationID{Packages: []packageInfo{{[]byte(appPackage), 1}}, Signers: [][]byte{signer[:]}})
	if err != nil {
		return pkix.Extension{}, err
	}
	boot := sha256.Sum256([]byte("the maker's system"))
	d := keyDescription{
		Version: keyMint3, Level: trustedEnvironment, KeyMint: keyMint3, KeyMintLevel: trustedEnvironment, Challenge: challenge, Software: softwareList{app},
		TrustedByChip: hardwareList{Purpose: []int{sign}, Digest: []int{sha256Digest}, AuthType: fingerprint, Root: rootOfTrust{Key: boot[:], Locked: true, Hash: boot[:]}},
	}
	h := &d.TrustedByChip
	switch k := key.(type) {
	case *rsa.PublicKey:
		h.Algorithm, h.KeySize, h.Padding, h.Exponent = rsaAlgorithm, k.N.BitLen(), []int{pkcs1}, k.E
	case *ecdsa.PublicKey:
		h.Algorithm, h.KeySize, h.Curve = ec, k.Params().BitSize, p256
		if h.KeySize == 384 {
			h.Curve, h.Digest = p384, []int{sha384Digest}
		}
	default:
		return pkix.Extension{}, fmt.Errorf("a phone has no keys of type %T", key)
	}
	value, err := asn1.Marshal(d)
	return pkix.Extension{Id: oidKeyDescription, Value: value}, err
}

// signChallenge signs a key authorization, and says how in COSE's numbers (RFC 9053 §2.1, RFC 8812 §2).
func signChallenge(key crypto.Signer, authorization string) (algorithm int, signature []byte, err error) {
	hash := crypto.SHA256
	algorithm = -257
	if k, ok := key.Public().(*ecdsa.PublicKey); ok {
		algorithm = -7
		if k.Params().BitSize == 384 {
			hash, algorithm = crypto.SHA384, -35
		}
	}
	digest := hash.New()
	_, _ = digest.Write([]byte(authorization))
	signature, err = key.Sign(rand.Reader, digest.Sum(nil), hash)
	return algorithm, signature, err
}
