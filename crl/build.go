package crl

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki"
)

// A Template says what a CRL is besides its entries.
type Template struct {
	IssuerCert *x509.Certificate // of the issuing key, with a subjectKeyIdentifier and the right to sign CRLs
	Signer     crypto.Signer     // that key: RSA of at least 2048 bits (SHA-256), P-256 (SHA-256) or P-384 (SHA-384)
	Number     *big.Int          // cRLNumber: positive, at most 20 octets
	ThisUpdate time.Time         // what the entries are true of; to the second
	NextUpdate time.Time         // when the next CRL is there at the latest
	Scope      Scope
	Base       *big.Int // of a delta CRL, the number of the complete CRL that it adds to; nil for a complete CRL
}

var (
	oidAuthorityKeyIdentifier   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCRLNumber                = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidFreshestCRL              = asn1.ObjectIdentifier{2, 5, 29, 46}
)

// Build writes the DER of a version 2 CRL to w. The entries must come in strictly ascending order of their serials, so that
// a duplicate is found without remembering any, and the same each time the sequence is walked: once to learn the length and
// once to write, or twice with an ECDSA key, whose signature has to be there before the outermost length is known. Memory use
// does not depend on their number. After an error w may have got a part of a CRL.
func Build(w io.Writer, t Template, entries iter.Seq[Entry]) error {
	list := body{write: func(w io.Writer) (int64, error) {
		return writeEntries(w, entries, t.Base != nil)
	}}
	var err error
	if list.size, err = list.write(io.Discard); err == nil {
		err = t.build(w, list)
	}
	if err != nil {
		return fmt.Errorf("build CRL %s: %w", t.Scope.ID(), err)
	}
	return nil
}

// A body is the encoded entries of a CRL: how many octets they are, and how they are written. For Build the size is true, and they
// are written as often as one likes; for a draft it may be a guess, and they are written once.
type body struct {
	size  int64
	write func(w io.Writer) (size int64, err error)
}

func (t Template) build(w io.Writer, entries body) error {
	alg, err := checkIssuer(t.IssuerCert, t.Signer)
	if err != nil {
		return err
	}
	list, err := t.frame(alg, entries)
	if err != nil {
		return err
	}
	sign := func(digest []byte) (bitString []byte, err error) {
		sig, err := t.Signer.Sign(rand.Reader, digest, alg.hash)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		return append(appendHeader(nil, tagBitString, 1+int64(len(sig))), append([]byte{0}, sig...)...), nil
	}
	start := func(bitString int64) error {
		_, err := w.Write(appendHeader(nil, tagSequence, list.length()+int64(len(alg.identifier))+bitString))
		return err
	}
	finish := func(bitString []byte) error {
		_, err := w.Write(append(bytes.Clone(alg.identifier), bitString...))
		return err
	}
	hash := alg.hash.New()
	if alg.signature == 0 { // its length is not known before it is made
		if err := list.writeTo(hash); err != nil {
			return err
		}
		sig, err := sign(hash.Sum(nil))
		if err != nil {
			return err
		}
		return firstError(
			func() error { return start(int64(len(sig))) },
			func() error { return list.writeTo(w) },
			func() error { return finish(sig) })
	}
	length := int64(len(appendHeader(nil, tagBitString, 1+alg.signature))) + 1 + alg.signature
	if err := firstError(func() error { return start(length) }, func() error { return list.writeTo(io.MultiWriter(w, hash)) }); err != nil {
		return err
	}
	sig, err := sign(hash.Sum(nil))
	if err == nil && int64(len(sig)) != length {
		err = errors.New("the signer's signature has another length than its key")
	}
	if err != nil {
		return err
	}
	return finish(sig)
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// A tbsCertList is the signed part of a CRL, ready to be written: what comes before the entries, the entries, what comes after.
type tbsCertList struct {
	head, tail []byte
	entries    body
}

// frame encodes all but the entries, which it measures.
func (t Template) frame(alg algorithm, entries body) (*tbsCertList, error) {
	switch {
	case t.Number == nil || t.Number.Sign() <= 0 || t.Number.BitLen() > 20*8-1:
		return nil, errors.New("the number is not positive and of at most 20 octets")
	case !t.NextUpdate.After(t.ThisUpdate):
		return nil, errors.New("nextUpdate is not after thisUpdate")
	case t.Base != nil && (t.Base.Sign() <= 0 || t.Base.Cmp(t.Number) > 0):
		return nil, errors.New("the base's number is not positive or comes after the delta's")
	}
	if err := t.Scope.Validate(); err != nil {
		return nil, err
	}
	list := &tbsCertList{entries: entries}
	var err error
	const version2 = 1
	list.head = append([]byte{byte(cryptobyte_asn1.INTEGER), 1, version2}, alg.identifier...)
	list.head = append(list.head, t.IssuerCert.RawSubject...)
	for _, at := range []time.Time{t.ThisUpdate, t.NextUpdate} {
		if list.head, err = appendTime(list.head, at); err != nil {
			return nil, err
		}
	}
	if entries.size > 0 { // an empty list must be absent (RFC 5280 §5.1.2.6)
		list.head = appendHeader(list.head, tagSequence, entries.size)
	}
	list.tail, err = t.extensions()
	return list, err
}

// extensions returns crlExtensions [0]: authorityKeyIdentifier, cRLNumber; of a delta, critical, deltaCRLIndicator; of a
// partition, critical, issuingDistributionPoint; of a complete CRL that has deltas, freshestCRL (RFC 5280 §5.2).
func (t Template) extensions() ([]byte, error) {
	var b cryptobyte.Builder
	add := func(b *cryptobyte.Builder, id asn1.ObjectIdentifier, critical bool, value func(b *cryptobyte.Builder)) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			if critical {
				b.AddASN1Boolean(true)
			}
			b.AddASN1(cryptobyte_asn1.OCTET_STRING, value)
		})
	}
	b.AddASN1(cryptobyte_asn1.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			add(b, oidAuthorityKeyIdentifier, false, func(b *cryptobyte.Builder) {
				b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cryptobyte_asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(t.IssuerCert.SubjectKeyId) })
				})
			})
			add(b, oidCRLNumber, false, func(b *cryptobyte.Builder) { b.AddASN1BigInt(t.Number) })
			if t.Base != nil {
				add(b, oidDeltaCRLIndicator, true, func(b *cryptobyte.Builder) { b.AddASN1BigInt(t.Base) })
			}
			if t.Scope.Partition != "" {
				idp, err := t.Scope.issuingDistributionPoint()
				if err != nil {
					b.SetError(err)
				}
				add(b, oidIssuingDistributionPoint, true, func(b *cryptobyte.Builder) { b.AddBytes(idp) })
			}
			if t.Base == nil && t.Scope.DeltaURL != "" {
				add(b, oidFreshestCRL, false, func(b *cryptobyte.Builder) { b.AddBytes(t.Scope.freshestCRL()) })
			}
		})
	})
	return b.Bytes()
}

func (l *tbsCertList) contents() int64 {
	return int64(len(l.head)) + l.entries.size + int64(len(l.tail))
}

// length returns the octets that writeTo writes.
func (l *tbsCertList) length() int64 {
	return int64(len(appendHeader(nil, tagSequence, l.contents()))) + l.contents()
}

func (l *tbsCertList) writeTo(w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	_, _ = b.Write(appendHeader(nil, tagSequence, l.contents()))
	_, _ = b.Write(l.head)
	if err := b.Flush(); err != nil { // what writes the entries may have a faster way
		return err
	}
	size, err := l.entries.write(w)
	if err == nil && size != l.entries.size {
		err = errors.New("the entries are not the same each time")
	}
	if err != nil {
		return err
	}
	_, _ = b.Write(l.tail)
	return b.Flush() // with the first error of all writes
}

// writeEntries walks entries once, checks and writes them, and returns how many octets they are.
func writeEntries(w io.Writer, entries iter.Seq[Entry], delta bool) (size int64, err error) {
	count := 0
	b := make([]byte, 0, bufferSize)
	flush := func() error {
		n, err := w.Write(b)
		size += int64(n)
		b = b[:0]
		return err
	}
	var last, serial []byte
	for e := range entries {
		last, serial = serial, e.Serial.Append(last[:0])
		if count > 0 && compare(last, serial) >= 0 {
			return 0, fmt.Errorf("entry %s does not come in ascending order of serials, or twice", e.Serial)
		}
		if cap(b)-len(b) < maxEntry {
			if err := flush(); err != nil {
				return 0, err
			}
		}
		if b, err = appendEntry(b, serial, e, delta); err != nil {
			return 0, fmt.Errorf("entry %s: %w", e.Serial, err)
		}
		count++
	}
	return size, flush()
}

// bufferSize is that of buffers between files, hashes and parsers.
const bufferSize = 256 << 10

// compare orders serials as numbers: their octets have no leading zeros, so the longer is the greater.
func compare(a, b []byte) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	if len(a) >= 8 { // which nearly always decide
		x, y := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(b)
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return bytes.Compare(a, b)
}

const (
	tagSequence  = byte(cryptobyte_asn1.SEQUENCE)
	tagBitString = byte(cryptobyte_asn1.BIT_STRING)
)

// appendEntry encodes an entry. There may be millions, so it is written out by hand; every length fits one octet, as a
// serial has at most 21 octets and a time 15.
func appendEntry(b, serial []byte, e Entry, delta bool) ([]byte, error) {
	if len(serial) == 0 {
		return nil, errors.New("no serial")
	}
	start := len(b)
	b = append(b, tagSequence, 0, byte(cryptobyte_asn1.INTEGER), byte(len(serial)))
	if serial[0] >= 0x80 { // a positive INTEGER does not begin with a 1
		b[start+3]++
		b = append(b, 0)
	}
	b = append(b, serial...)
	b, err := appendTime(b, e.At)
	if err != nil {
		return nil, err
	}
	switch {
	case (e.Reason < jpki.Unspecified || e.Reason > jpki.CertificateHold) && (e.Reason != jpki.RemoveFromCRL || !delta):
		return nil, fmt.Errorf("reason %d cannot stand in a complete CRL", int(e.Reason))
	case e.Reason != jpki.Unspecified:
		b = append(b,
			tagSequence, 12, tagSequence, 10,
			byte(cryptobyte_asn1.OBJECT_IDENTIFIER), 3, 0x55, 0x1d, 0x15, // 2.5.29.21, reasonCode
			byte(cryptobyte_asn1.OCTET_STRING), 3, byte(cryptobyte_asn1.ENUM), 1, byte(e.Reason))
	}
	b[start+1] = byte(len(b) - start - 2)
	return b, nil
}

// appendTime encodes a time as RFC 5280 §5.1.2.4 says: UTCTime until 2049, GeneralizedTime from 2050.
func appendTime(b []byte, t time.Time) ([]byte, error) {
	if unix := t.Unix(); unix >= utcTimeFrom && unix < utcTimeUntil {
		return appendUTCTime(b, unix), nil
	}
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	switch {
	case year < 1950 || year > 9999:
		return nil, errors.New("a time is before 1950 or after 9999")
	}
	b = append(b, byte(cryptobyte_asn1.GeneralizedTime), 15, byte('0'+year/1000), byte('0'+year/100%10))
	year %= 100
	return append(b, byte('0'+year/10), byte('0'+year%10), byte('0'+month/10), byte('0'+month%10), byte('0'+day/10), byte('0'+day%10),
		byte('0'+hour/10), byte('0'+hour%10), byte('0'+minute/10), byte('0'+minute%10), byte('0'+second/10), byte('0'+second%10), 'Z'), nil
}

const utcTimeFrom, utcTimeUntil = -7305 * 86400, 29220 * 86400 // 1950 to 2050, in Unix seconds

// appendUTCTime encodes a time for which there is UTCTime. [time.Time] would do the same in three times the time, and there may be
// millions. Years begin in March, so that the day which every fourth has more is its last: between 1900 and 2100 without exception.
func appendUTCTime(b []byte, unix int64) []byte {
	second := uint32((unix - utcTimeFrom) % 86400)
	day := uint32((unix-utcTimeFrom)/86400) + 671 // since March 1st, 1948
	year := (4*day + 3) / 1461
	day -= year * 1461 / 4
	month := (5*day + 2) / 153
	day -= (153*month + 2) / 5
	if month += 3; month > 12 {
		month, year = month-12, year+1
	}
	b = append(b, byte(cryptobyte_asn1.UTCTime), 13)
	for _, n := range [...]uint32{(48 + year) % 100, month, day + 1, second / 3600, second / 60 % 60, second % 60} {
		b = append(b, byte('0'+n/10), byte('0'+n%10))
	}
	return append(b, 'Z')
}

// appendHeader encodes a tag and a length.
func appendHeader(b []byte, tag byte, length int64) []byte {
	b = append(b, tag)
	if length < 0x80 {
		return append(b, byte(length))
	}
	n := 1
	for length>>(8*n) != 0 {
		n++
	}
	b = append(b, 0x80|byte(n))
	for n--; n >= 0; n-- {
		b = append(b, byte(length>>(8*n)))
	}
	return b
}

// An algorithm is how an issuer's key signs.
type algorithm struct {
	name       x509.SignatureAlgorithm
	hash       crypto.Hash
	identifier []byte // DER of the AlgorithmIdentifier
	signature  int64  // octets of every signature; 0 if they differ
}

// algorithmOf returns the one algorithm that goes with a key.
func algorithmOf(pub crypto.PublicKey) (algorithm, error) {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 { // sha256WithRSAEncryption, whose parameters are NULL (RFC 4055 §5)
			return algorithm{x509.SHA256WithRSA, crypto.SHA256, []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"), int64(k.Size())}, nil
		}
	case *ecdsa.PublicKey: // ecdsa-with-SHA256 and -SHA384, without parameters (RFC 5758 §3.2)
		switch k.Curve {
		case elliptic.P256():
			return algorithm{x509.ECDSAWithSHA256, crypto.SHA256, []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"), 0}, nil
		case elliptic.P384():
			return algorithm{x509.ECDSAWithSHA384, crypto.SHA384, []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"), 0}, nil
		}
	}
	return algorithm{}, errors.New("the issuer's key is neither RSA of at least 2048 bits nor P-256 nor P-384")
}

// checkIssuer reports whether the key and the certificate belong together and may sign CRLs.
func checkIssuer(cert *x509.Certificate, signer crypto.Signer) (algorithm, error) {
	if cert == nil || signer == nil {
		return algorithm{}, errors.New("the issuer's certificate or key is missing")
	}
	pub, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !pub.Equal(signer.Public()):
		return algorithm{}, errors.New("the issuer's certificate is for another key")
	case !cert.IsCA || cert.KeyUsage&x509.KeyUsageCRLSign == 0:
		return algorithm{}, errors.New("the issuer's certificate does not let it sign CRLs")
	case len(cert.SubjectKeyId) == 0:
		return algorithm{}, errors.New("the issuer's certificate has no subjectKeyIdentifier")
	}
	return algorithmOf(signer.Public())
}
