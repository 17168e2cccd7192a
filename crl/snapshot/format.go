package snapshot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/openjpki/jpki"
)

// A header is the signed part of a file; what follows it is under a hash in it. See docs/snapshot-format.md.
type header struct {
	Info
	magic     string
	issuerKey [sha256.Size]byte
	salt      [saltOctets]byte
	units     uint32 // blocks of a snapshot, changes of a delta
	length    uint32 // of the body
	sum       [sha256.Size]byte
}

// Info is what a snapshot says about itself.
type Info struct {
	Issuer     jpki.IssuerID
	Sequence   uint64    // grows from file to file of one issuer, deltas included
	ThisUpdate time.Time // what the statuses are true of
	NextUpdate time.Time // when the next file is there at the latest; from then on there are no answers

	// Which certificates are covered: those with notBefore up to IssuedUntil and notAfter from ExpiresFrom on.
	IssuedUntil, ExpiresFrom time.Time

	Good, Suspended, Revoked uint64 // how many certificates are covered
}

const (
	magicSnapshot = "JPKISNAP"
	magicDelta    = "JPKIDELT"
	formatVersion = 1

	headerOctets = 168
	saltOctets   = 16
	maxSignature = 1024
	maxBody      = 1 << 28
	maxBlocks    = 1 << 20
	maxCount     = 1 << 40
	maxTime      = 253402300799 // the end of the year 9999
)

var issuerOctets = map[jpki.CA]byte{jpki.SignCA: 1, jpki.AuthCA: 2}

// check reports what no file may say about itself.
func (i *Info) check() error {
	switch {
	case issuerOctets[i.Issuer.CA] == 0 || i.Issuer.Generation < 1 || i.Issuer.Generation > 1<<31-1:
		return errors.New("the issuer is none")
	case i.Sequence == 0:
		return errors.New("the sequence number is 0")
	case i.Good > maxCount || i.Suspended > maxCount || i.Revoked > maxCount:
		return errors.New("too many certificates")
	case !i.NextUpdate.After(i.ThisUpdate):
		return errors.New("nextUpdate is not after thisUpdate")
	case i.IssuedUntil.After(i.ThisUpdate):
		return errors.New("certificates are covered that did not exist at thisUpdate")
	}
	for _, t := range []time.Time{i.ThisUpdate, i.NextUpdate, i.IssuedUntil, i.ExpiresFrom} {
		if t.Unix() < 0 || t.Unix() > maxTime {
			return errors.New("a time is before 1970 or after 9999")
		}
	}
	return nil
}

func (h *header) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint16([]byte(h.magic), formatVersion)
	b = append(b, issuerOctets[h.Issuer.CA], 0)
	b = le.AppendUint32(b, uint32(h.Issuer.Generation))
	b = append(b, h.issuerKey[:]...)
	b = le.AppendUint64(b, h.Sequence)
	for _, t := range []time.Time{h.ThisUpdate, h.NextUpdate, h.IssuedUntil, h.ExpiresFrom} {
		b = le.AppendUint64(b, uint64(t.Unix()))
	}
	b = append(b, h.salt[:]...)
	for _, n := range []uint64{h.Good, h.Suspended, h.Revoked} {
		b = le.AppendUint64(b, n)
	}
	b = le.AppendUint32(b, h.units)
	b = le.AppendUint32(b, h.length)
	return append(b, h.sum[:]...)
}

// parseHeader reads what encode wrote and nothing else.
func parseHeader(b []byte) (*header, error) {
	le := binary.LittleEndian
	h := &header{magic: string(b[:8])}
	switch {
	case h.magic != magicSnapshot && h.magic != magicDelta:
		return nil, errors.New("neither a snapshot nor a delta")
	case le.Uint16(b[8:]) != formatVersion:
		return nil, fmt.Errorf("version %d of the format, want %d", le.Uint16(b[8:]), formatVersion)
	}
	for ca, octet := range issuerOctets {
		if b[10] == octet {
			h.Issuer.CA = ca
		}
	}
	h.Issuer.Generation = int(le.Uint32(b[12:]))
	copy(h.issuerKey[:], b[16:])
	h.Sequence = le.Uint64(b[48:])
	for i, t := range []*time.Time{&h.ThisUpdate, &h.NextUpdate, &h.IssuedUntil, &h.ExpiresFrom} {
		*t = time.Unix(int64(le.Uint64(b[56+8*i:])), 0).UTC()
	}
	copy(h.salt[:], b[88:])
	for i, n := range []*uint64{&h.Good, &h.Suspended, &h.Revoked} {
		*n = le.Uint64(b[104+8*i:])
	}
	h.units, h.length = le.Uint32(b[128:]), le.Uint32(b[132:])
	copy(h.sum[:], b[136:])
	if err := h.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(h.encode(), b[:headerOctets]) {
		return nil, errors.New("the header is not in its only form")
	}
	return h, nil
}

// hasher returns what makes keys of serials: the first 16 octets of SHA-256 over 16 octets that belong to this snapshot and
// issuer, and the serial. Who learns the salt only with the file cannot have chosen serials for it.
func (h *header) hasher() hasher {
	return newHasher(h.salt, h.issuerKey)
}

type hasher [16]byte

func newHasher(salt [saltOctets]byte, issuerKey [sha256.Size]byte) hasher {
	sum := sha256.Sum256(append(append([]byte(nil), salt[:]...), issuerKey[:]...))
	return hasher(sum[:16])
}

func (h hasher) key(serial jpki.Serial) key {
	var buf [64]byte
	n := copy(buf[:], h[:])
	sum := sha256.Sum256(serial.Append(buf[:n]))
	return key{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

// keyHash is the SHA-256 of the issuer's subjectPublicKey bit string, as in OCSP's issuerKeyHash.
func keyHash(cert *x509.Certificate) ([sha256.Size]byte, error) {
	var spki struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.RawSubjectPublicKeyInfo, &spki); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("the issuer's key: %w", err)
	}
	return sha256.Sum256(spki.Key.RightAlign()), nil
}

// hashFor returns the hash with which a key signs: the one it signs CRLs with.
func hashFor(pub crypto.PublicKey) (crypto.Hash, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 && k.Size() <= maxSignature {
			return crypto.SHA256, nil
		}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return crypto.SHA256, nil
		case elliptic.P384():
			return crypto.SHA384, nil
		}
	}
	return 0, errors.New("the issuer's key is neither RSA of at least 2048 bits nor P-256 nor P-384")
}

// mayIssue reports whether a certificate lets its key sign snapshots: it does if it lets it sign CRLs.
func mayIssue(cert *x509.Certificate) error {
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return errors.New("the issuer's certificate does not let it sign CRLs")
	}
	return nil
}

// seal completes a header for its body, signs it and returns all that comes before the body.
func (h *header) seal(body []byte, cert *x509.Certificate, signer crypto.Signer) ([]byte, error) {
	if len(body) > maxBody {
		return nil, errors.New("larger than the format allows")
	}
	h.length, h.sum = uint32(len(body)), sha256.Sum256(body)
	if err := h.check(); err != nil {
		return nil, err
	}
	hash, err := hashFor(cert.PublicKey)
	if err != nil {
		return nil, err
	}
	b := h.encode()
	digest := hash.New()
	_, _ = digest.Write(b)
	signature, err := signer.Sign(rand.Reader, digest.Sum(nil), hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if err := verify(cert, hash, digest.Sum(nil), signature); err != nil || len(signature) > maxSignature {
		return nil, errors.Join(errors.New("the signer made a signature that is none"), err)
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(signature)))
	return append(b, signature...), nil
}

func verify(cert *x509.Certificate, hash crypto.Hash, digest, signature []byte) error {
	switch k := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, digest, signature)
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(k, digest, signature) {
			return nil
		}
	}
	return errors.New("the signature is wrong")
}

// unseal checks a file up to its last octet and returns its header and body.
func unseal(file []byte, magic string, cert *x509.Certificate) (*header, []byte, error) {
	if len(file) < headerOctets+2 {
		return nil, nil, errors.New("cut off")
	}
	h, err := parseHeader(file)
	if err != nil {
		return nil, nil, err
	}
	n := int(binary.LittleEndian.Uint16(file[headerOctets:]))
	rest := file[headerOctets+2:]
	switch {
	case h.magic != magic:
		return nil, nil, errors.New("a snapshot in the place of a delta, or the other way round")
	case n > maxSignature || h.length > maxBody:
		return nil, nil, errors.New("larger than the format allows")
	case len(rest) != n+int(h.length):
		return nil, nil, errors.New("cut off, or something follows")
	}
	want, err := keyHash(cert)
	switch {
	case err != nil:
		return nil, nil, err
	case want != h.issuerKey:
		return nil, nil, errors.New("of another issuer key")
	}
	if err := mayIssue(cert); err != nil {
		return nil, nil, err
	}
	hash, err := hashFor(cert.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	digest := hash.New()
	_, _ = digest.Write(file[:headerOctets])
	if err := verify(cert, hash, digest.Sum(nil), rest[:n]); err != nil {
		return nil, nil, errors.New("the signature is wrong")
	}
	body := rest[n:]
	if sha256.Sum256(body) != h.sum {
		return nil, nil, errors.New("the body is not the one that was signed for")
	}
	return h, body, nil
}

// Verify checks of a snapshot or a delta all but that it fits its time and others: its form up to the body, the issuer's signature and
// the body's hash. It returns what the file says about itself; a file that is refused is [jpki.Malformed].
func Verify(file []byte, issuer *x509.Certificate) (i Info, delta bool, err error) {
	magic := magicSnapshot
	if delta = bytes.HasPrefix(file, []byte(magicDelta)); delta {
		magic = magicDelta
	}
	h, _, err := unseal(file, magic, issuer)
	if err != nil {
		return Info{}, false, refuse(err)
	}
	return h.Info, delta, nil
}
