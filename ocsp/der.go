package ocsp

import (
	"crypto"
	"crypto/x509"
	encodingasn1 "encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Limits on what is read from outside. A message beyond them is refused as a whole.
const (
	MaxRequestBytes  = 64 << 10
	MaxResponseBytes = 256 << 10
	MaxCertIDs       = 100 // certificates asked about in one request, answers in one response
	MaxNonceBytes    = 128 // RFC 9654 §2.1; the least is 1
	maxCertificates  = 8   // embedded in one response
	maxExtensions    = 16  // in one list
	maxRequestors    = 4   // certificates that come with a signed request
	maxPreferred     = 16  // preferred signature algorithms
)

// The contents octets of the object identifiers in use.
const (
	oidBasic     = "\x2b\x06\x01\x05\x05\x07\x30\x01\x01" // id-pkix-ocsp-basic
	oidNonce     = "\x2b\x06\x01\x05\x05\x07\x30\x01\x02" // id-pkix-ocsp-nonce
	oidCRL       = "\x2b\x06\x01\x05\x05\x07\x30\x01\x03" // id-pkix-ocsp-crl
	oidCutoff    = "\x2b\x06\x01\x05\x05\x07\x30\x01\x06" // id-pkix-ocsp-archive-cutoff
	oidPreferred = "\x2b\x06\x01\x05\x05\x07\x30\x01\x08" // id-pkix-ocsp-pref-sig-algs
	oidExtended  = "\x2b\x06\x01\x05\x05\x07\x30\x01\x09" // id-pkix-ocsp-extended-revoke
	oidSHA1      = "\x2b\x0e\x03\x02\x1a"
	oidSHA256    = "\x60\x86\x48\x01\x65\x03\x04\x02\x01"
	oidSHA384    = "\x60\x86\x48\x01\x65\x03\x04\x02\x02"
	oidRSA256    = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b" // sha256WithRSAEncryption
	oidRSA384    = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c" // sha384WithRSAEncryption
	oidECDSA256  = "\x2a\x86\x48\xce\x3d\x04\x03\x02"     // ecdsa-with-SHA256
	oidECDSA384  = "\x2a\x86\x48\xce\x3d\x04\x03\x03"     // ecdsa-with-SHA384
)

// hashes are the algorithms a CertID may use; any other makes the CertID one of nobody's, not a malformed one.
var hashes = []struct {
	hash crypto.Hash
	oid  string
}{{crypto.SHA1, oidSHA1}, {crypto.SHA256, oidSHA256}, {crypto.SHA384, oidSHA384}}

type signatureAlgorithm struct {
	algorithm x509.SignatureAlgorithm
	oid       string
	hash      crypto.Hash
	rsa       bool // its parameters are NULL (RFC 4055 §5); those of ECDSA are absent (RFC 5758 §3.2)
}

// signatures are the algorithms a response or a request may be signed with. SHA-1 is not among them.
var signatures = []signatureAlgorithm{
	{x509.SHA256WithRSA, oidRSA256, crypto.SHA256, true},
	{x509.SHA384WithRSA, oidRSA384, crypto.SHA384, true},
	{x509.ECDSAWithSHA256, oidECDSA256, crypto.SHA256, false},
	{x509.ECDSAWithSHA384, oidECDSA384, crypto.SHA384, false},
}

// acceptedAlgorithm returns the algorithm that an AlgorithmIdentifier means, or 0 for one that is not accepted.
func acceptedAlgorithm(oid string, params []byte) x509.SignatureAlgorithm {
	for _, s := range signatures {
		if s.oid == oid && (s.rsa && isNULL(params) || !s.rsa && len(params) == 0) {
			return s.algorithm
		}
	}
	return x509.UnknownSignatureAlgorithm
}

var oidNoCheck = encodingasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5} // id-pkix-ocsp-nocheck

var errDER = errors.New("not DER of the expected form")

func explicit(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }
func implicit(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific() }

// readOID reads an object identifier's contents octets, each arc in its shortest form.
func readOID(s *cryptobyte.String) (string, bool) {
	var oid cryptobyte.String
	if !s.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || len(oid) == 0 || oid[len(oid)-1]&0x80 != 0 {
		return "", false
	}
	first := true
	for _, b := range oid {
		if first && b == 0x80 {
			return "", false
		}
		first = b&0x80 == 0
	}
	for _, known := range known {
		if string(oid) == known {
			return known, true // without a copy
		}
	}
	return string(oid), true
}

// known are the object identifiers that nearly all messages have.
var known = []string{oidSHA1, oidSHA256, oidECDSA256, oidRSA256, oidBasic, oidNonce, oidCutoff, oidSHA384, oidECDSA384, oidCRL}

// readAlgorithm reads an AlgorithmIdentifier; params is its one optional element, with header.
func readAlgorithm(s *cryptobyte.String) (oid string, params cryptobyte.String, ok bool) {
	var alg cryptobyte.String
	if !s.ReadASN1(&alg, asn1.SEQUENCE) {
		return "", nil, false
	}
	if oid, ok = readOID(&alg); !ok {
		return "", nil, false
	}
	if !alg.Empty() {
		var tag asn1.Tag
		if !alg.ReadAnyASN1Element(&params, &tag) || !alg.Empty() {
			return "", nil, false
		}
	}
	return oid, params, true
}

// readTime reads a GeneralizedTime as DER has it, in UTC to the second (X.690 §11.7).
func readTime(s *cryptobyte.String, t *time.Time) bool {
	var text cryptobyte.String
	if !s.ReadASN1(&text, asn1.GeneralizedTime) || len(text) != timeOctets || text[timeOctets-1] != 'Z' {
		return false
	}
	var n [7]int // century, year, month, day, hour, minute, second
	for i := range n {
		tens, ones := text[2*i]-'0', text[2*i+1]-'0'
		if tens > 9 || ones > 9 {
			return false
		}
		n[i] = 10*int(tens) + int(ones)
	}
	if n[2] < 1 || n[2] > 12 || n[3] < 1 || n[3] > 31 || n[4] > 23 || n[5] > 59 || n[6] > 59 {
		return false
	}
	*t = time.Date(100*n[0]+n[1], time.Month(n[2]), n[3], n[4], n[5], n[6], 0, time.UTC)
	return t.Day() == n[3] // there is no 31st of June
}

func isNULL(params []byte) bool { return string(params) == "\x05\x00" }

// readExtensions reads the optional [tag] EXPLICIT Extensions that ends a structure. take, if not nil, is given each one
// and says whether it understood it and wants it written as it came. Extensions not understood are counted unless
// critical, which is an error, as is an extension that comes twice.
func readExtensions(s *cryptobyte.String, tag uint8, take func(oid string, value cryptobyte.String) (understood bool, err error)) (others int, err error) {
	var wrapped, list cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&wrapped, &present, explicit(tag)) || !s.Empty() {
		return 0, errDER
	}
	if !present {
		return 0, nil
	}
	if !wrapped.ReadASN1(&list, asn1.SEQUENCE) || !wrapped.Empty() || list.Empty() {
		return 0, errDER
	}
	seen := make([]string, 0, 4)
	for !list.Empty() {
		var ext, value cryptobyte.String
		var critical bool
		if !list.ReadASN1(&ext, asn1.SEQUENCE) {
			return 0, errDER
		}
		oid, ok := readOID(&ext)
		if !ok {
			return 0, errDER
		}
		if ext.PeekASN1Tag(asn1.BOOLEAN) && (!ext.ReadASN1Boolean(&critical) || !critical) {
			return 0, errDER // DER omits a default
		}
		if !ext.ReadASN1(&value, asn1.OCTET_STRING) || !ext.Empty() {
			return 0, errDER
		}
		if slices.Contains(seen, oid) {
			return 0, errors.New("an extension occurs twice")
		}
		if seen = append(seen, oid); len(seen) > maxExtensions {
			return 0, errors.New("too many extensions")
		}
		understood := false
		if take != nil {
			if understood, err = take(oid, value); err != nil {
				return 0, err
			}
		}
		switch {
		case understood && critical:
			others++ // not the form we write
		case understood:
		case critical:
			return 0, errors.New("a critical extension is not understood")
		default:
			others++
		}
	}
	return others, nil
}

func readNonce(value cryptobyte.String) ([]byte, error) {
	var nonce []byte
	if !value.ReadASN1Bytes(&nonce, asn1.OCTET_STRING) || !value.Empty() {
		return nil, fmt.Errorf("nonce: %w", errDER)
	}
	if len(nonce) == 0 || len(nonce) > MaxNonceBytes {
		return nil, fmt.Errorf("nonce of %d octets", len(nonce))
	}
	return nonce, nil
}

// addNonce writes the [tag] EXPLICIT Extensions that hold nothing but a nonce, or nothing for a nil nonce.
func addNonce(b *cryptobyte.Builder, tag uint8, nonce []byte) {
	if nonce == nil {
		return
	}
	b.AddASN1(explicit(tag), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(oidNonce)) })
				b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
			})
		})
	})
}
