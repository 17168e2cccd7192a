package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// appAttest is the format in which Apple's phones attest keys of an application, which smallstep does not know. Such a key signs
// nothing but what Apple's system puts together: it is never the key of a certificate, it vouches for one (decision 0072).
const appAttest = "apple-appattest"

// An AppAttestPolicy says which applications may vouch for keys.
type AppAttestPolicy struct {
	Apps        []string // their App IDs, such as TEAMID1234.jp.example.wallet; at least one
	Development bool     // also as they run on their developers' phones; in a sandbox only
}

var appID = regexp.MustCompile(`^[A-Z0-9]{10}\.[A-Za-z0-9.-]{1,155}$`)

// appAttests judges the attestations of one directory.
type appAttests struct {
	apps        [][sha256.Size]byte
	development bool
	roots       *x509.CertPool
	now         func() time.Time
}

func newAppAttests(a Attestation, inSandbox bool, now func() time.Time) (*appAttests, error) {
	switch p := a.AppAttest; {
	case len(p.Apps) == 0 || slices.ContainsFunc(p.Apps, func(id string) bool { return !appID.MatchString(id) }):
		return nil, fmt.Errorf("acme: the format %s needs the App IDs of the applications, with the team's ten characters in front", appAttest)
	case p.Development && !inSandbox:
		return nil, fmt.Errorf("acme: %s takes no applications in development outside a sandbox", appAttest)
	}
	out := &appAttests{development: a.AppAttest.Development, roots: x509.NewCertPool(), now: now}
	for _, id := range a.AppAttest.Apps {
		out.apps = append(out.apps, sha256.Sum256([]byte(id)))
	}
	for _, root := range a.Roots {
		out.roots.AddCert(root)
	}
	return out, nil
}

// judge returns the key that the application vouches for in a challenge's response. Steps, of which 3 to 7 are those of Apple's
// "Validating apps that connect to your server":
//  1. read the response
//  2. the key that is vouched for can be a certificate's
//  3. the chain of certificates, to one of Apple's roots
//  4. the nonce in the first certificate is over the authenticator's data, the challenge and the key of 2
//  5. the data is one of our applications', of a key that was never used, in the environment that we take
//  6. it is about the first certificate's key, by its identifier and by its value
//  7. there is a receipt
//  8. the key of 2 has signed
func (a *appAttests) judge(payload []byte, authorization string) (crypto.PublicKey, error) {
	// 1.
	answer, err := readAppAnswer(payload)
	if err != nil {
		return nil, err
	}
	// 2.
	key, err := vouchedKey(answer.key)
	if err != nil {
		return nil, err
	}
	message := vouchText(authorization, answer.key)
	// 3. to 7.
	if err := a.check(answer.object, sha256.Sum256(message)); err != nil {
		return nil, err
	}
	// 8.
	return key, checkPossession(key, 0, message, answer.signature)
}

// vouchText is what the application puts before App Attest as client data, and what the certificate's key signs. It begins like
// nothing else that such a key signs, and its lines cannot be taken for one another.
func vouchText(authorization string, spki []byte) []byte {
	return []byte("JPKI phone key, version 1\n" + authorization + "\n" + base64.RawURLEncoding.EncodeToString(spki) + "\n")
}

// check judges an attestation object over the hash of an application's client data.
func (a *appAttests) check(object []byte, clientData [sha256.Size]byte) error {
	o, err := parseAppObject(object)
	if err != nil {
		return err
	}
	// 3.
	chain, err := attestationChain(o.Statement.X5C, a.roots, a.now(), oidAppAttestNonce)
	if err != nil {
		return err
	}
	// 4.
	i := slices.IndexFunc(chain[0].Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidAppAttestNonce) })
	if i < 0 {
		return errors.New("the attestation has no nonce")
	}
	nonce, err := parseAppNonce(chain[0].Extensions[i].Value)
	if err != nil {
		return err
	}
	want := sha256.Sum256(append(bytes.Clone(o.AuthData), clientData[:]...))
	if subtle.ConstantTimeCompare(nonce, want[:]) != 1 {
		return errors.New("the attestation is of another challenge or key")
	}
	// 5. and 6.
	if err := a.admit(o, chain[0].PublicKey); err != nil {
		return err
	}
	// 7.
	if len(o.Statement.Receipt) == 0 {
		return errors.New("the attestation has no receipt")
	}
	return nil
}

// What an authenticator of App Attest is called, in place of a model's number.
var (
	inProduction  = [16]byte{'a', 'p', 'p', 'a', 't', 't', 'e', 's', 't'}
	inDevelopment = [16]byte([]byte("appattestdevelop"))
)

// admit says whether an authenticator's data is what we take, and about the key that Apple has certified.
func (a *appAttests) admit(o appObject, certified crypto.PublicKey) error {
	d, err := parseAuthData(o.AuthData)
	if err != nil {
		return err
	}
	key, ok := certified.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return errors.New("the attested key is not one of App Attest's")
	}
	point, err := key.Bytes()
	if err != nil {
		return errors.New("the attested key is not one of App Attest's")
	}
	id := sha256.Sum256(point)
	for _, rule := range []struct {
		holds     bool
		otherwise string
	}{
		{slices.Contains(a.apps, d.App), "the attestation is of another application"},
		{d.Counter == 0, "the attested key has been used before"},
		{d.Authenticator == inProduction || a.development && d.Authenticator == inDevelopment, "the application is not in the environment that is let in"},
		{bytes.Equal(d.KeyID, id[:]), "the attestation names another key than its certificate has"},
		{bytes.Equal(d.Point, point), "the attestation is about another key than its certificate has"},
	} {
		if !rule.holds {
			return errors.New(rule.otherwise)
		}
	}
	return nil
}

// An appAnswer is the response to a challenge: the attestation object as device-attest-01 has it, and what is ours.
type appAnswer struct {
	object    []byte // CBOR
	key       []byte // SubjectPublicKeyInfo, DER
	signature []byte // by that key over vouchText
}

func readAppAnswer(payload []byte) (out appAnswer, err error) {
	var p struct {
		AttObj string `json:"attObj"`
		Key    string `json:"key"`
		Sig    string `json:"sig"`
		Error  string `json:"error"`
	}
	switch {
	case len(payload) > maxBody:
		return out, errors.New("the attestation is too large")
	case len(payload) == 0:
		return out, jpki.Errorf(jpki.Malformed, "the challenge is answered with an attestation")
	case json.Unmarshal(payload, &p) != nil:
		return out, jpki.Errorf(jpki.Malformed, "the attestation is not JSON")
	case p.Error != "":
		return out, errPhoneCannot
	}
	for _, f := range []struct {
		to   *[]byte
		text string
	}{{&out.object, p.AttObj}, {&out.key, p.Key}, {&out.signature, p.Sig}} {
		if *f.to, err = base64.RawURLEncoding.DecodeString(f.text); err != nil {
			return out, errors.New("the attestation is not base64url")
		}
	}
	return out, nil
}

// vouchedKey reads a key that a certificate is wanted for, in the one encoding that it has: RSA, P-256 or P-384. Which of them
// the profile decides.
func vouchedKey(spki []byte) (crypto.PublicKey, error) {
	unfit := errors.New("the key that the application vouches for cannot be read, or is of no kind that certificates have")
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, unfit
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 || k.N.BitLen() > 4096 || k.E != exponentF4 {
			return nil, unfit
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return nil, unfit
		}
	default:
		return nil, unfit
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, spki) {
		return nil, unfit
	}
	return key, nil
}

// An appObject is what of an attestation object counts.
type appObject struct {
	Format    string `cbor:"fmt"`
	Statement struct {
		X5C     [][]byte `cbor:"x5c"`
		Receipt []byte   `cbor:"receipt"` // for asking Apple how many keys a phone has; we do not ask
	} `cbor:"attStmt"`
	AuthData []byte `cbor:"authData"`
}

func parseAppObject(object []byte) (out appObject, err error) {
	if err := attestationMode.Unmarshal(object, &out); err != nil {
		return out, errors.New("the attestation is not the CBOR of an attestation")
	}
	if out.Format != appAttest {
		return out, errors.New("the attestation is not in the format " + appAttest)
	}
	return out, nil
}

// authData is the authenticator's data (WebAuthn §6.1) with attested credential data and no extensions, as App Attest makes it.
type authData struct {
	App           [sha256.Size]byte // hash of the App ID
	Counter       uint32            // how often the key has been used
	Authenticator [16]byte          // AAGUID
	KeyID         []byte
	Point         []byte // the public key, uncompressed (SEC 1 §2.3.3)
}

// Bits of the authenticator's flags, and COSE's numbers for keys (RFC 9052 §7, RFC 9053 §7.1.1).
const (
	flagAttested   = 0x40
	flagExtensions = 0x80
	coseEC2        = 2
	coseP256       = 1
)

var errAuthData = errors.New("the authenticator's data cannot be read")

// parseAuthData reads an authenticator's data, with nothing behind it.
func parseAuthData(raw []byte) (d authData, err error) {
	in := cryptobyte.String(raw)
	var flags uint8
	var id cryptobyte.String
	if !in.CopyBytes(d.App[:]) || !in.ReadUint8(&flags) || flags&(flagAttested|flagExtensions) != flagAttested || !in.ReadUint32(&d.Counter) ||
		!in.CopyBytes(d.Authenticator[:]) || !in.ReadUint16LengthPrefixed(&id) || len(id) != sha256.Size {
		return d, errAuthData
	}
	var key struct {
		Type      int64  `cbor:"1,keyasint"`
		Algorithm int64  `cbor:"3,keyasint"`
		Curve     int64  `cbor:"-1,keyasint"`
		X         []byte `cbor:"-2,keyasint"`
		Y         []byte `cbor:"-3,keyasint"`
	}
	const size = 32 // octets of a coordinate
	if err := attestationMode.Unmarshal(in, &key); err != nil || key.Type != coseEC2 || key.Algorithm != coseES256 || key.Curve != coseP256 || len(key.X) != size || len(key.Y) != size {
		return d, errAuthData
	}
	d.KeyID = id
	d.Point = slices.Concat([]byte{4}, key.X, key.Y)
	return d, nil
}

// oidAppAttestNonce marks the extension of a certificate in which Apple repeats what was attested.
var oidAppAttestNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 2}

// parseAppNonce reads that extension: SEQUENCE { [1] EXPLICIT OCTET STRING }.
func parseAppNonce(der []byte) ([]byte, error) {
	in, body, tagged, nonce := cryptobyte.String(der), cryptobyte.String(nil), cryptobyte.String(nil), cryptobyte.String(nil)
	if !in.ReadASN1(&body, cbasn1.SEQUENCE) || !in.Empty() || !body.ReadASN1(&tagged, cbasn1.Tag(1).Constructed().ContextSpecific()) || !body.Empty() ||
		!tagged.ReadASN1(&nonce, cbasn1.OCTET_STRING) || !tagged.Empty() || len(nonce) != sha256.Size {
		return nil, errors.New("the attestation's nonce cannot be read")
	}
	return nonce, nil
}
