package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"time"

	xocsp "golang.org/x/crypto/ocsp"
)

// noon is when everything is verified.
var noon = time.Date(2026, 4, 1, 12, 0, 0, 0, time.UTC)

// Kinds of keys. All keys of a world are of one.
const (
	rsa2048 = "RSA-2048"
	p256    = "P-256"
	p384    = "P-384"
)

var kinds = []string{rsa2048, p256, p384}

// A world is a root, an authority below it, a subscriber below that, and a responder for the subscriber's status.
type world struct {
	kind                          string
	hash                          crypto.Hash
	root, middle, leaf, responder *entity
	der, ocsp                     []byte // a CAdES message of the subscriber, and an answer about the subscriber
}

// An entity is a key with its certificate.
type entity struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func newWorld(kind string) (w *world, err error) {
	w = &world{kind: kind, hash: crypto.SHA256}
	if kind == p384 {
		w.hash = crypto.SHA384
	}
	if w.root, err = w.issue(nil, "root", func(*x509.Certificate) {}); err != nil {
		return nil, err
	}
	if w.middle, err = w.issue(w.root, "authority", func(*x509.Certificate) {}); err != nil {
		return nil, err
	}
	if w.leaf, err = w.issue(w.middle, "subscriber", func(t *x509.Certificate) { t.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment }); err != nil {
		return nil, err
	}
	w.responder, err = w.issue(w.middle, "responder", func(t *x509.Certificate) {
		t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
		t.ExtraExtensions = []pkix.Extension{{Id: []int{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, Value: []byte{5, 0}}} // id-pkix-ocsp-nocheck
	})
	return w, err
}

// issue makes a certificate with what those of subscribers have; nobody issues the root's. An authority's has no change.
func (w *world) issue(by *entity, name string, change func(*x509.Certificate)) (*entity, error) {
	key, err := newKey(w.kind)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Country: []string{"JP"}, Organization: []string{"JPKI-SANDBOX"}, CommonName: name},
		NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(4, 0, 0), BasicConstraintsValid: true, SubjectKeyId: id[:20],
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	change(t)
	t.IsCA = t.KeyUsage&x509.KeyUsageCertSign != 0
	if !t.IsCA {
		t.OCSPServer, t.CRLDistributionPoints = []string{"http://ocsp.sandbox.test/"}, []string{"http://crl.sandbox.test/crl/sign/1.crl"}
	}
	e, parent, signer := &entity{key: key}, t, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), signer)
	if err == nil {
		e.cert, err = x509.ParseCertificate(der)
	}
	return e, err
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case rsa2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case p256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case p384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return nil, errors.New("no such kind of key")
}

// answer makes an OCSP response about the subscriber, by the responder, whose certificate comes with it.
func (w *world) answer(age time.Duration) ([]byte, error) {
	return xocsp.CreateResponse(w.middle.cert, w.responder.cert, xocsp.Response{
		Status: xocsp.Good, SerialNumber: w.leaf.cert.SerialNumber, ThisUpdate: noon.Add(-age), NextUpdate: noon.Add(time.Hour), Certificate: w.responder.cert,
	}, w.responder.key)
}

var errWrong = errors.New("not verified")

// A bare signature is what the bound checks: with crypto/rsa or crypto/ecdsa, the key at hand, and nothing around it.
type bare struct {
	public  crypto.PublicKey
	message []byte
	value   []byte
}

// bareOver signs a message of this length: the bound of a message whose signature is over that much.
func (w *world) bareOver(length int) (bare, error) {
	b := bare{public: w.leaf.key.Public(), message: make([]byte, length)}
	var err error
	b.value, err = w.leaf.key.Sign(rand.Reader, w.digest(b.message), w.hash)
	return b, err
}

// bareOf is the signature on a certificate.
func bareOf(e, by *entity) bare {
	return bare{by.key.Public(), e.cert.RawTBSCertificate, e.cert.Signature}
}

func (w *world) digest(message []byte) []byte {
	if w.hash == crypto.SHA384 {
		sum := sha512.Sum384(message)
		return sum[:]
	}
	sum := sha256.Sum256(message)
	return sum[:]
}

// bound returns the work that is left when all is taken away that is not a signature check or a digest.
func (w *world) bound(signatures []bare, digests ...[]byte) func() error {
	return func() error {
		for _, s := range signatures {
			digest, ok := w.digest(s.message), false
			switch key := s.public.(type) {
			case *rsa.PublicKey:
				ok = rsa.VerifyPKCS1v15(key, w.hash, digest, s.value) == nil
			case *ecdsa.PublicKey:
				ok = ecdsa.VerifyASN1(key, digest, s.value)
			}
			if !ok {
				return errWrong
			}
		}
		for _, d := range digests {
			_ = w.digest(d)
		}
		return nil
	}
}
