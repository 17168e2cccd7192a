package ocsp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
)

// A Delegate signs the answers about one issuer's certificates: a key of the responder's own with a certificate that
// exactly this generation of the issuer gave it.
type Delegate struct {
	Issuer            jpki.IssuerID
	IssuerCertificate *x509.Certificate
	Certificate       *x509.Certificate
	Key               crypto.Signer // RSA of 2048 bits or more, P-256 or P-384; used by several goroutines at once
}

// A delegate is a Delegate that was checked, with what every answer needs of it computed once.
type delegate struct {
	Delegate
	algorithm signatureAlgorithm
	id        []byte // DER of the ResponderID
	signedBy  []byte // DER of the signature's AlgorithmIdentifier
	certs     []byte // DER of the field certs
	keyKind   []byte // contents of the key's AlgorithmIdentifier
	tag       [24]byte
	link      string // URL of the issuer's CRL; "" for none
	retention time.Duration

	here    bool          // the key is in our own memory: signing takes no longer than the processor needs
	quick   bool          // and it signs so fast that its answers go out together, see gathering
	every   uint32        // one signature of so many is checked by the certificate's key
	made    atomic.Uint32 // signatures
	doubted atomic.Bool   // one was wrong: from then on each is checked
}

// checkOneOf is how many ECDSA signatures by a key in our own memory share one check of the signature itself: checking
// costs 2.4 signatures there. Keys elsewhere and RSA keys, where it costs a thirtieth, have every signature checked.
const checkOneOf = 256

func newDelegate(d Delegate, cfg *Config) (*delegate, error) {
	if d.IssuerCertificate == nil || d.Certificate == nil || d.Key == nil {
		return nil, errors.New("issuer certificate, certificate and key are required")
	}
	pub, ok := d.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(d.Certificate.PublicKey) {
		return nil, errors.New("key is not that of the certificate")
	}
	if !d.IssuerCertificate.IsCA {
		return nil, errors.New("issuer is not a certification authority")
	}
	if err := checkDelegate(d.Certificate, d.IssuerCertificate); err != nil {
		return nil, err
	}
	out := &delegate{Delegate: d, every: 1, link: cfg.CRLs[d.Issuer], retention: cfg.Retention}
	switch d.Key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
		out.here = true
	}
	want := x509.SHA256WithRSA
	switch key := d.Certificate.PublicKey.(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		if want = x509.ECDSAWithSHA256; key.Curve == elliptic.P384() {
			want = x509.ECDSAWithSHA384
		}
		if out.here {
			out.every, out.quick = checkOneOf, key.Curve == elliptic.P256()
		}
	}
	for _, s := range signatures {
		if s.algorithm == want {
			out.algorithm = s
		}
	}
	if err := out.prepare(cfg); err != nil {
		return nil, err
	}
	// A key that cannot sign, or signs with another, shall be found out now and not by relying parties.
	probe := []byte("a key signs and its certificate verifies")
	signature, err := out.sign(probe)
	if err != nil {
		return nil, fmt.Errorf("try the key: %w", err)
	}
	if err := checkSignature(d.Certificate, want, probe, signature); err != nil {
		return nil, fmt.Errorf("try the key: %w", err)
	}
	return out, nil
}

// prepare makes the parts that are the same in every answer.
func (d *delegate) prepare(cfg *Config) error {
	var kind cryptobyte.String
	spki := cryptobyte.String(d.Certificate.RawSubjectPublicKeyInfo)
	if !spki.ReadASN1(&spki, asn1.SEQUENCE) || !spki.ReadASN1(&kind, asn1.SEQUENCE) {
		return errDER
	}
	d.keyKind = kind
	w := newBackwards(len(d.Certificate.RawSubject) + 32)
	if cfg.ByName {
		w.raw(d.Certificate.RawSubject)
		w.wrap(tagExplicit+1, 0)
	} else {
		hash, err := responderKeyHash(d.Certificate)
		if err != nil {
			return err
		}
		w.element(tagOctets, hash)
		w.wrap(tagExplicit+2, 0)
	}
	d.id = w.bytes()
	w = newBackwards(16)
	if d.algorithm.rsa {
		w.raw([]byte{5, 0})
	}
	mark := w.len()
	w.text(d.algorithm.oid)
	w.wrap(tagOID, mark)
	w.wrap(tagSequence, 0)
	d.signedBy = w.bytes()
	w = newBackwards(len(d.Certificate.Raw) + 8)
	w.element(tagSequence, d.Certificate.Raw)
	w.wrap(tagExplicit, 0)
	d.certs = w.bytes()

	h := sha256.New()
	fmt.Fprintf(h, "%s %t %s %s %s\n", d.Issuer, cfg.ByName, cfg.Validity, cfg.Retention, d.link)
	h.Write(d.IssuerCertificate.Raw)
	h.Write(d.Certificate.Raw)
	copy(d.tag[:], h.Sum(nil))
	return nil
}

// valid reports whether an answer signed at the given time would be accepted.
func (d *delegate) valid(at time.Time) bool {
	return !at.Before(d.Certificate.NotBefore) && !at.After(d.Certificate.NotAfter)
}

func (d *delegate) sign(data []byte) ([]byte, error) {
	var sum [sha512.Size384]byte
	digest := sum[:0]
	switch d.algorithm.hash {
	case crypto.SHA256:
		s := sha256.Sum256(data)
		digest = append(digest, s[:]...)
	case crypto.SHA384:
		s := sha512.Sum384(data)
		digest = append(digest, s[:]...)
	}
	return d.Key.Sign(rand.Reader, digest, d.algorithm.hash)
}

// answers are what one response says.
type answers struct {
	producedAt time.Time
	list       []Answer
	nonce      []byte
	extended   bool
}

// complete enters what the policy adds to answers whose times are known. An answer that is revoked for never having been
// issued gets nothing (RFC 6960 §2.2).
func (d *delegate) complete(x *answers) {
	for i := range x.list {
		if x.extended {
			continue
		}
		x.list[i].CRL = d.link
		if d.retention > 0 {
			x.list[i].ArchiveCutoff = latest(x.producedAt.Add(-d.retention), d.IssuerCertificate.NotBefore)
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// errWrong means that a key or our own writer made something that does not say what it should.
var errWrong = errors.New("the response made is not what it should be")

// A draft is what making a response takes besides the response.
type draft struct {
	data backwards // what is signed; it is copied into the response
	read Response
}

var drafts = sync.Pool{New: func() any { return &draft{data: *newBackwards(512), read: Response{Answers: make([]Answer, 0, 1)}} }}

// respond returns the signed DER of a successful response, which was read again and compared.
func (d *delegate) respond(x *answers) ([]byte, error) {
	t := drafts.Get().(*draft)
	defer drafts.Put(t)
	w := &t.data
	w.i = len(w.b)
	w.responseData(d.id, x)
	tbs := w.bytes()
	signature, err := d.sign(tbs)
	if err != nil {
		return nil, fmt.Errorf("sign OCSP response: %w", err)
	}
	var out backwards
	out.i = len(tbs) + len(signature) + len(d.signedBy) + len(d.certs) + 48
	out.b = make([]byte, out.i)
	out.response(tbs, d.signedBy, signature, d.certs)
	check := d.every <= 1 || d.made.Add(1)%d.every == 0 || d.doubted.Load()
	t.read = Response{Raw: out.bytes(), Answers: t.read.Answers[:0], Certificates: t.read.Certificates[:0]}
	err = d.confirm(&t.read, x, check)
	t.read.Raw, t.read.tbs, t.read.signature = nil, nil, nil
	if err != nil {
		d.doubted.Store(true)
		return nil, err
	}
	return out.bytes(), nil
}

// confirm reads a response and reports whether it says what x does, in the delegate's name and, if asked, with its
// signature. It is the reader that relying parties use, not the writer run backwards.
func (d *delegate) confirm(r *Response, x *answers, signature bool) error {
	r.known = d.Certificate
	if err := r.parse(); err != nil {
		return fmt.Errorf("%w: %w", errWrong, err)
	}
	switch {
	case r.Status != Successful, r.algorithm != d.algorithm.algorithm,
		len(r.Certificates) != 1 || r.Certificates[0] != d.Certificate,
		!r.is(d.id),
		!r.ProducedAt.Equal(x.producedAt.Truncate(time.Second)),
		!bytes.Equal(r.Nonce, x.nonce) || r.ExtendedRevoke != x.extended,
		len(r.Answers) != len(x.list):
		return errWrong
	}
	for i := range x.list {
		if !r.Answers[i].same(&x.list[i]) {
			return errWrong
		}
	}
	if signature {
		if err := checkSignature(d.Certificate, r.algorithm, r.tbs, r.signature); err != nil {
			return fmt.Errorf("%w: %w", errWrong, err)
		}
	}
	return nil
}

// is reports whether the response names its responder as the DER of a ResponderID does.
func (r *Response) is(id []byte) bool {
	if r.ResponderName != nil {
		return id[0] == tagExplicit+1 && bytes.HasSuffix(id, r.ResponderName)
	}
	return id[0] == tagExplicit+2 && bytes.HasSuffix(id, r.ResponderKeyHash)
}

// same reports whether two answers say the same, to the second.
func (a *Answer) same(b *Answer) bool {
	return bytes.Equal(a.CertID.Raw, b.CertID.Raw) && a.Unknown == b.Unknown && a.Revoked == b.Revoked && a.Reason == b.Reason && a.CRL == b.CRL &&
		sameSecond(a.RevokedAt, b.RevokedAt) && sameSecond(a.ThisUpdate, b.ThisUpdate) && sameSecond(a.NextUpdate, b.NextUpdate) &&
		sameSecond(a.ArchiveCutoff, b.ArchiveCutoff)
}

func sameSecond(a, b time.Time) bool { return a.IsZero() == b.IsZero() && a.Unix() == b.Unix() }

// refusals are the bodies of the unsigned responses.
var refusals = map[ResponseStatus][]byte{
	MalformedRequest: xocsp.MalformedRequestErrorResponse,
	InternalError:    xocsp.InternalErrorErrorResponse,
	TryLater:         xocsp.TryLaterErrorResponse,
	SigRequired:      xocsp.SigRequredErrorResponse,
	Unauthorized:     xocsp.UnauthorizedErrorResponse,
}
