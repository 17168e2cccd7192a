package card

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/openjpki/jpki"
)

// Kinds are the kinds of certificate a card can hold.
var Kinds = []jpki.Kind{jpki.CardSign, jpki.CardAuth}

// maxCertificate bounds a certificate that is written to a card, in octets of DER.
const maxCertificate = 8 << 10

// ErrNoCertificate is the error of reading a certificate that was not written yet.
var ErrNoCertificate = errors.New("the card has no such certificate")

// A KeyType is the kind of key that a generation of cards makes.
type KeyType string

// The key types. One card has keys of one type.
const (
	RSA2048 KeyType = "rsa-2048" // today's cards: RSASSA-PKCS1-v1_5 with SHA-256
	P384    KeyType = "p-384"    // announced for the next generation: ECDSA with SHA-384
)

// HashFor returns the hash function with which cards use a key of this kind: SHA-384 for P-384, SHA-256 otherwise.
func HashFor(key crypto.PublicKey) crypto.Hash {
	if k, ok := key.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P384() {
		return crypto.SHA384
	}
	return crypto.SHA256
}

// A Config says what a new card is to be. All fields but Keys and Blank are required.
type Config struct {
	Dir     string    // where the card's file goes, ID + ".card"; made with mode 0700 if it is missing
	ID      string    // the card number: 1 to 64 ASCII letters, digits and hyphens; never a My Number
	SignPIN string    // see CheckPIN
	AuthPIN string    // see CheckPIN
	Keys    KeyType   // of both keys; default RSA2048
	Blank   bool      // made for personalisation through a reader: without keys, and without PINs, which must be empty
	Rand    io.Reader // for salts; the keys come from the system's generator, which Go does not let callers replace
}

// A Card is one card. What it remembers is in its file only, so any number of Cards may stand for the same card.
type Card struct {
	path, id string
	rand     io.Reader // for salts
}

// New makes a card with two new keys and full retry counters, without certificates. It fails with an [io/fs.ErrExist]
// if there is one with this number.
func New(cfg Config) (*Card, error) {
	switch {
	case cfg.Dir == "":
		return nil, errors.New("card.Config.Dir is missing")
	case cfg.Rand == nil:
		return nil, errors.New("card.Config.Rand is missing")
	}
	if err := checkID(cfg.ID); err != nil {
		return nil, err
	}
	if cfg.Keys == "" {
		cfg.Keys = RSA2048
	}
	data := &content{Version: version, ID: cfg.ID}
	fill := data.fill
	if cfg.Blank {
		fill = data.leaveBlank
	}
	if err := fill(cfg); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make card: %w", err)
	}
	c := &Card{filepath.Join(cfg.Dir, cfg.ID+suffix), cfg.ID, cfg.Rand}
	held, err := lock(c.path)
	if err != nil {
		return nil, fmt.Errorf("make card: %w", err)
	}
	defer held.Close()
	if err := write(c.path, data, os.Link); err != nil { // a link does not replace
		return nil, fmt.Errorf("make card: %w", err)
	}
	return c, nil
}

// fill makes the keys and sets the PINs of a new card.
func (c *content) fill(cfg Config) error {
	pins := map[jpki.Kind]string{jpki.CardSign: cfg.SignPIN, jpki.CardAuth: cfg.AuthPIN}
	for _, kind := range Kinds {
		if err := CheckPIN(kind, pins[kind]); err != nil {
			return err
		}
	}
	for _, kind := range Kinds {
		s, tries, err := c.slot(kind)
		if err != nil {
			return err
		}
		s.Tries = tries
		if s.PIN, err = newPINHash(cfg.Rand, pins[kind]); err != nil {
			return err
		}
		if s.Key, err = newKey(cfg.Keys); err != nil {
			return err
		}
	}
	return nil
}

// Open returns the card that lies at path.
func Open(path string) (*Card, error) {
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("open card: %w", err)
	}
	return &Card{path, data.ID, rand.Reader}, nil
}

// List returns the paths of the cards in a directory, sorted.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list cards: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), suffix); ok && checkID(id) == nil {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// ID returns the card number.
func (c *Card) ID() string { return c.id }

// Path returns where the card lies.
func (c *Card) Path() string { return c.path }

var requestAlgorithms = map[crypto.Hash]x509.SignatureAlgorithm{crypto.SHA256: x509.SHA256WithRSA, crypto.SHA384: x509.ECDSAWithSHA384}

// CertificateRequest returns a PKCS #10 request, in DER, for the key of the given kind, signed by that key. The subject is
// empty: the authority knows the holder, the card does not. Several requests for the same key are possible as long as the
// authority has certified none.
func (c *Card) CertificateRequest(kind jpki.Kind, pin string) (der []byte, err error) {
	err = c.verified(kind, pin, func(s *slot, _ func() error) error {
		key, err := s.privateKey()
		if err != nil {
			return err
		}
		der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: requestAlgorithms[HashFor(key.Public())]}, key)
		return err
	})
	return der, err
}

// Sign returns the signature by the key of the given kind: RSASSA-PKCS1-v1_5, 256 octets, or for a P-384 key an ECDSA-Sig-Value
// in DER (RFC 3279 §2.2.3). With hash 0 a card with RSA keys pads digest, then 1 to 245 octets, as it is: the caller has made
// the DigestInfo, as with the real card. One with P-384 keys then signs a digest of 32, 48 or 64 octets.
func (c *Card) Sign(kind jpki.Kind, pin string, digest []byte, hash crypto.Hash) (signature []byte, err error) {
	err = c.verified(kind, pin, func(s *slot, _ func() error) error {
		signature, err = s.sign(digest, hash)
		return err
	})
	return signature, err
}

func (s *slot) sign(digest []byte, hash crypto.Hash) ([]byte, error) {
	key, err := s.privateKey()
	if err != nil {
		return nil, err
	}
	_, isRSA := key.(*rsa.PrivateKey)
	switch hash {
	case 0:
		switch n := len(digest); {
		case isRSA && (n == 0 || n > 245):
			return nil, fmt.Errorf("%d octets to sign are not 1 to 245", n)
		case !isRSA && n != 32 && n != 48 && n != 64:
			return nil, fmt.Errorf("%d octets to sign are not a digest of 32, 48 or 64", n)
		}
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		if len(digest) != hash.Size() {
			return nil, fmt.Errorf("%d octets to sign are not the length of %v", len(digest), hash)
		}
	default:
		return nil, fmt.Errorf("the card does not sign %v", hash)
	}
	return key.Sign(rand.Reader, digest, hash)
}

// Signer presents the PIN once and returns the key of the given kind as a [crypto.Signer], as a session with a real card
// would. It signs, without the PIN, until the key is made anew; the card's file stays the only place of the key.
func (c *Card) Signer(kind jpki.Kind, pin string) (crypto.Signer, error) {
	var pub crypto.PublicKey
	err := c.verified(kind, pin, func(s *slot, _ func() error) error {
		key, err := s.privateKey()
		if err != nil {
			return err
		}
		pub = key.Public()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &signer{c, kind, pub}, nil
}

type signer struct {
	card *Card
	kind jpki.Kind
	pub  crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign makes a PKCS #1 v1.5 or an ECDSA signature; other paddings are refused. It draws nothing from the reader.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if _, ok := opts.(*rsa.PSSOptions); ok || opts == nil {
		return nil, errors.New("the card signs PKCS #1 v1.5 or ECDSA only")
	}
	err = s.card.with(func(data *content, _ func() error) error {
		sl, _, err := data.slot(s.kind)
		if err != nil {
			return err
		}
		key, err := sl.privateKey()
		if err != nil {
			return err
		}
		if !samePublic(key, s.pub) {
			return errors.New("the card's key was made anew since the PIN was presented")
		}
		signature, err = sl.sign(digest, opts.HashFunc())
		return err
	})
	return signature, err
}

// samePublic reports whether a key's public half is the given one.
func samePublic(key crypto.Signer, pub crypto.PublicKey) bool {
	k, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(pub)
}

// WriteCertificate puts the certificate, in DER, for the key of the given kind on the card. It refuses one for another key,
// and a second one for the same key; writing the same again does nothing.
func (c *Card) WriteCertificate(kind jpki.Kind, der []byte) error {
	cert, err := parseCertificate(der)
	if err != nil {
		return err
	}
	return c.slot(kind, func(s *slot, save func() error) error {
		key, err := s.privateKey()
		switch {
		case err != nil:
			return err
		case !samePublic(key, cert.PublicKey):
			return fmt.Errorf("the certificate is not for the card's key of kind %s", kind)
		case bytes.Equal(s.Certificate, der):
			return nil
		case s.Certificate != nil:
			return errors.New("the key has a certificate; a new certificate needs a new key")
		}
		s.Certificate = der
		return save()
	})
}

// WriteCACertificate puts the certificate, in DER, of the authority that certified the key of the given kind on the card.
func (c *Card) WriteCACertificate(kind jpki.Kind, der []byte) error {
	cert, err := parseCertificate(der)
	if err != nil {
		return err
	}
	if !cert.BasicConstraintsValid || !cert.IsCA {
		return errors.New("the certificate is not an authority's")
	}
	return c.slot(kind, func(s *slot, save func() error) error {
		s.CACertificate = der
		return save()
	})
}

func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("the certificate is longer than %d octets", maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	return cert, nil
}

// Certificate returns the DER of the certificate of the given kind, or [ErrNoCertificate]. The signature certificate, which
// carries the holder's attributes, is readable only with its PIN; for the authentication certificate pin is not looked at.
func (c *Card) Certificate(kind jpki.Kind, pin string) (der []byte, err error) {
	read := func(s *slot, _ func() error) error {
		if der = s.Certificate; der == nil {
			return ErrNoCertificate
		}
		return nil
	}
	if kind == jpki.CardAuth {
		err = c.slot(kind, read)
	} else {
		err = c.verified(kind, pin, read)
	}
	return der, err
}

// CACertificate returns the DER of the authority's certificate for the given kind, or [ErrNoCertificate]. It needs no PIN.
func (c *Card) CACertificate(kind jpki.Kind) (der []byte, err error) {
	err = c.slot(kind, func(s *slot, _ func() error) error {
		if der = s.CACertificate; der == nil {
			return ErrNoCertificate
		}
		return nil
	})
	return der, err
}

// Tries returns how many wrong PINs in a row the card still takes for the given kind. Asking costs none.
func (c *Card) Tries(kind jpki.Kind) (n int, err error) {
	err = c.slot(kind, func(s *slot, _ func() error) error { n = s.Tries; return nil })
	return n, err
}

// Locked reports whether the PIN of the given kind is locked.
func (c *Card) Locked(kind jpki.Kind) (bool, error) {
	n, err := c.Tries(kind)
	return err == nil && n == 0, err
}

// RegenerateKey makes a new key of the given kind and the card's type on the card and erases the old one with its certificate, for a re-issue
// on the same card: a key is never certified twice.
func (c *Card) RegenerateKey(kind jpki.Kind, pin string) error {
	return c.verified(kind, pin, func(s *slot, save func() error) error {
		old, err := s.privateKey()
		if err != nil {
			return err
		}
		if s.Key, err = newKey(typeOf(old)); err != nil {
			return err
		}
		s.Certificate = nil
		return save()
	})
}

// ResetPIN gives the key of the given kind a new PIN and a full retry counter, locked or not. It needs no PIN: it is what a
// municipality's counter does once it has identified the holder.
func (c *Card) ResetPIN(kind jpki.Kind, newPIN string) error {
	if err := CheckPIN(kind, newPIN); err != nil {
		return err
	}
	return c.with(func(data *content, save func() error) error {
		s, tries, err := data.slot(kind)
		if err != nil {
			return err
		}
		if s.PIN, err = newPINHash(c.rand, newPIN); err != nil {
			return err
		}
		s.Tries = tries
		return save()
	})
}

// slot runs f on the part of the card that kind is about.
func (c *Card) slot(kind jpki.Kind, f func(s *slot, save func() error) error) error {
	return c.with(func(data *content, save func() error) error {
		s, _, err := data.slot(kind)
		if err != nil {
			return err
		}
		return f(s, save)
	})
}

// verified runs f if pin is right. The try is taken before the PIN is compared and given back after: whatever happens to
// this process in between, the card has counted it.
func (c *Card) verified(kind jpki.Kind, pin string, f func(s *slot, save func() error) error) error {
	return c.with(func(data *content, save func() error) error {
		s, tries, err := data.slot(kind)
		if err != nil {
			return err
		}
		if !s.PIN.valid() {
			return ErrBlank
		}
		if s.Tries == 0 {
			return ErrLocked
		}
		s.Tries--
		if err := save(); err != nil {
			return err
		}
		switch ok, err := s.PIN.matches(pin); {
		case err != nil:
			return fmt.Errorf("compare PIN: %w", err)
		case !ok:
			return &WrongPINError{Remaining: s.Tries}
		}
		s.Tries = tries
		if err := save(); err != nil {
			return err
		}
		return f(s, save)
	})
}

// newKey makes a key as the card does and proves that it works.
func newKey(of KeyType) ([]byte, error) {
	var key crypto.Signer
	var err error
	switch of {
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		return nil, fmt.Errorf("card.Config.Keys is %q; want %s or %s", string(of), RSA2048, P384)
	}
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	digest := sha256.Sum256(nil)
	sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("test key: %w", err)
	}
	ok := false
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], sig) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(pub, digest[:], sig)
	}
	if !ok {
		return nil, errors.New("test key: its signature does not verify")
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func typeOf(key crypto.Signer) KeyType {
	if _, ok := key.(*ecdsa.PrivateKey); ok {
		return P384
	}
	return RSA2048
}

// checkID keeps card numbers fit for file names, and My Numbers out.
func checkID(id string) error {
	ok := len(id) >= 1 && len(id) <= 64
	for _, c := range []byte(id) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '-')
	}
	switch {
	case !ok:
		return errors.New("the card number is not 1 to 64 letters, digits and hyphens")
	case jpki.ContainsMyNumber(id):
		return jpki.Errorf(jpki.MyNumberPresent, "the card number is a My Number")
	}
	return nil
}
