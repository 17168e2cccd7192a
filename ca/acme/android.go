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
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// androidKey is the format in which Android's phones attest their keys (WebAuthn §8.4), which smallstep does not know.
const androidKey = "android-key"

// An AndroidPolicy says which of the keys that Android attests are good enough. Software keys never are, nor keys that were
// made elsewhere, that do more than sign, or that every application of the phone may use.
type AndroidPolicy struct {
	StrongBox bool         // only keys in a chip of their own; otherwise a trusted environment will do, too
	Boot      []BootState  // what may have been started; none: BootVerified. BootUnverified lets unlocked boot loaders in
	UserAuth  bool         // only keys that the phone uses when its user has shown to be there
	Apps      []AndroidApp // only keys that one of these has asked for; none: any application's

	// StatusList is the file with the maker's list of keys not to be believed any more, in the format of Google's. The operator
	// fetches it, and puts the new one in the old one's place by renaming. When the file is older than MaxListAge, or cannot be
	// read, nobody is let in. Both are required.
	StatusList string
	MaxListAge time.Duration
}

// A BootState is what the boot loader made of the system that it has started.
type BootState int64

// What a boot loader can find: verifiedBootState.
const (
	BootVerified   BootState = iota // the maker's, unchanged
	BootSelfSigned                  // signed by a key that the user has chosen
	BootUnverified                  // anything; the boot loader is unlocked
	BootFailed                      // changed
)

// An AndroidApp is an application, by its package and the SHA-256 of the certificate that it is signed with.
type AndroidApp struct {
	Package string
	Signer  [sha256.Size]byte
}

// androids judges the attestations of one directory.
type androids struct {
	AndroidPolicy
	roots  *x509.CertPool
	status *statusList
	now    func() time.Time
}

func newAndroids(a Attestation, now func() time.Time) (*androids, error) {
	p := a.Android
	if p.StatusList == "" || p.MaxListAge <= 0 {
		return nil, errors.New("acme: the format android-key needs the maker's status list and how old it may be")
	}
	if len(p.Boot) == 0 {
		p.Boot = []BootState{BootVerified}
	}
	out := &androids{AndroidPolicy: p, roots: x509.NewCertPool(), status: &statusList{path: p.StatusList, maxAge: p.MaxListAge, now: now}, now: now}
	for _, root := range a.Roots {
		out.roots.AddCert(root)
	}
	return out, nil
}

// An androidStatement is what of an attestation object counts. WebAuthn's authData has no part in ACME.
type androidStatement struct {
	Format    string `cbor:"fmt"`
	Statement struct {
		Algorithm int64    `cbor:"alg"`
		Signature []byte   `cbor:"sig"`
		X5C       [][]byte `cbor:"x5c"`
	} `cbor:"attStmt"`
}

// judge returns the key that a challenge's response attests. Steps:
//  1. read the response
//  2. the chain of certificates, to one of the maker's roots, with one description of a key, the first certificate's
//  3. none of its keys is on the maker's status list
//  4. what the description says of challenge, phone, system and use
//  5. what it says of the key is what the certificate's key is
//  6. the key has signed the key authorization
func (a *androids) judge(payload []byte, authorization string) (crypto.PublicKey, error) {
	// 1.
	object, err := readAndroidStatement(payload)
	if err != nil {
		return nil, err
	}
	// 2.
	chain, err := attestationChain(object.Statement.X5C, a.roots, a.now(), oidKeyDescription)
	if err != nil {
		return nil, err
	}
	// 3.
	if err := a.status.check(chain); err != nil {
		return nil, err
	}
	// 4.
	i := slices.IndexFunc(chain[0].Extensions, isKeyDescription)
	if i < 0 {
		return nil, errors.New("the certificate does not describe its key")
	}
	d, err := parseKeyDescription(chain[0].Extensions[i].Value)
	if err != nil {
		return nil, err
	}
	if err := a.admit(d, authorization); err != nil {
		return nil, err
	}
	// 5.
	if err := describes(d.Hardware, chain[0].PublicKey); err != nil {
		return nil, err
	}
	// 6.
	return chain[0].PublicKey, checkPossession(chain[0].PublicKey, object.Statement.Algorithm, []byte(authorization), object.Statement.Signature)
}

func readAndroidStatement(payload []byte) (out androidStatement, err error) {
	var p struct {
		AttObj string `json:"attObj"`
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
	raw, err := base64.RawURLEncoding.DecodeString(p.AttObj)
	if err != nil {
		return out, errors.New("the attestation is not base64url")
	}
	if err := attestationMode.Unmarshal(raw, &out); err != nil {
		return out, errors.New("the attestation is not the CBOR of an attestation")
	}
	if out.Format != androidKey {
		return out, errors.New("the attestation is not in the format android-key")
	}
	return out, nil
}

// admit says whether a description is one of those that the policy lets in.
func (a *androids) admit(d keyDescription, authorization string) error {
	level := int64(levelTrustedEnvironment)
	if a.StrongBox {
		level = levelStrongBox
	}
	h := d.Hardware
	for _, rule := range []struct {
		holds     bool
		otherwise string
	}{
		{subtle.ConstantTimeCompare(d.Challenge, []byte(authorization)) == 1, "the attestation is of another challenge"},
		{secure(d.Level, level), "what has attested the key is not secure enough hardware"},
		{secure(d.KeyMintLevel, level), "the key is not in secure enough hardware"},
		{h.is(tagPurpose, purposeSign), "the key is for something else than signing, or for more"},
		{h.is(tagOrigin, originGenerated), "the key was not made in the phone"},
		{!h.AllApplications && !d.Software.AllApplications, "the key is every application's"},
		{h.Root != nil, "the attestation does not say what the phone has started"},
		{h.Root != nil && slices.Contains(a.Boot, h.Root.State), "the phone has not started a system that is let in"},
		{h.Root != nil && (h.Root.Locked || slices.Contains(a.Boot, BootUnverified)), "the phone's boot loader is unlocked"},
		{!a.UserAuth || !h.NoAuthRequired && !d.Software.NoAuthRequired, "the key is used without asking the phone's user"},
	} {
		if !rule.holds {
			return errors.New(rule.otherwise)
		}
	}
	return a.admitApp(d.Software.Application)
}

// secure reports whether a level is one that we know and at least the one asked for.
func secure(level, least int64) bool { return level >= least && level <= levelStrongBox }

// admitApp looks at who has asked for the key, as the phone's system says.
func (a *androids) admitApp(der []byte) error {
	if len(a.Apps) == 0 {
		return nil
	}
	by, err := parseApplication(der)
	if err != nil {
		return err
	}
	for _, app := range a.Apps {
		if slices.Equal(by.Packages, []string{app.Package}) && len(by.Signers) == 1 && bytes.Equal(by.Signers[0], app.Signer[:]) {
			return nil
		}
	}
	return errors.New("the key was asked for by another application")
}

// What a key is for, where it came from and how it signs, in Android's numbers.
const (
	purposeSign     = 2
	originGenerated = 0
	algorithmRSA    = 1
	algorithmEC     = 3
	digestSHA256    = 4
	digestSHA384    = 5
	paddingPKCS1    = 5
	curveP256       = 1
	curveP384       = 2
	exponentF4      = 65537
)

// describes reports whether a description is of this key, and lets it sign as our certificates' holders do: RSA PKCS #1 v1.5
// and P-256 with SHA-256, P-384 with SHA-384.
func describes(h authorizations, key crypto.PublicKey) error {
	fits := false
	switch k := key.(type) {
	case *rsa.PublicKey:
		fits = k.N.BitLen() >= 2048 && k.E == exponentF4 && h.is(tagAlgorithm, algorithmRSA) && h.is(tagKeySize, int64(k.N.BitLen())) &&
			h.is(tagExponent, exponentF4) && h.has(tagDigest, digestSHA256) && h.has(tagPadding, paddingPKCS1)
	case *ecdsa.PublicKey:
		curve, digest := int64(curveP256), int64(digestSHA256)
		if k.Curve == elliptic.P384() {
			curve, digest = curveP384, digestSHA384
		}
		fits = (k.Curve == elliptic.P256() || k.Curve == elliptic.P384()) && h.is(tagAlgorithm, algorithmEC) &&
			h.is(tagKeySize, int64(k.Params().BitSize)) && h.is(tagCurve, curve) && h.has(tagDigest, digest)
	}
	if !fits {
		return errors.New("the key is not what its description says, or cannot sign as it has to")
	}
	return nil
}

// COSE's numbers for algorithms (RFC 9053 §2.1, RFC 8812 §2).
const (
	coseES256 = -7
	coseES384 = -35
	coseRS256 = -257
)

// checkPossession checks the statement's signature, which with Android is over the key authorization itself. Clients may leave
// out the algorithm: every key has one only.
func checkPossession(key crypto.PublicKey, algorithm int64, message, signature []byte) error {
	want, holds := int64(0), false
	switch k := key.(type) {
	case *rsa.PublicKey:
		sum := sha256.Sum256(message)
		want, holds = coseRS256, rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		h := crypto.SHA256
		want = coseES256
		if k.Curve == elliptic.P384() {
			h, want = crypto.SHA384, coseES384
		}
		digest := h.New()
		_, _ = digest.Write(message)
		holds = ecdsa.VerifyASN1(k, digest.Sum(nil), signature)
	}
	if !holds || algorithm != 0 && algorithm != want {
		return errors.New("the key has not signed the challenge")
	}
	return nil
}
