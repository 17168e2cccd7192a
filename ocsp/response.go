package ocsp

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
)

// A ResponseStatus says whether a response answers at all (RFC 6960 §4.2.1).
type ResponseStatus int

// The statuses. All but the first come without answer and without signature: they prove nothing.
const (
	Successful       = ResponseStatus(xocsp.Success)
	MalformedRequest = ResponseStatus(xocsp.Malformed)
	InternalError    = ResponseStatus(xocsp.InternalError)
	TryLater         = ResponseStatus(xocsp.TryLater)
	SigRequired      = ResponseStatus(xocsp.SignatureRequired)
	Unauthorized     = ResponseStatus(xocsp.Unauthorized) // also: none of this responder's certificates
)

// String returns the name of RFC 6960.
func (s ResponseStatus) String() string {
	switch s {
	case Successful:
		return "successful"
	case MalformedRequest:
		return "malformedRequest"
	case InternalError:
		return "internalError"
	case TryLater:
		return "tryLater"
	case SigRequired:
		return "sigRequired"
	case Unauthorized:
		return "unauthorized"
	}
	return "status " + strconv.Itoa(int(s))
}

// A Response is an OCSPResponse with, if successful, its BasicOCSPResponse (RFC 6960 §4.2.1). What it says is worth
// nothing before [Response.Verify]. Its slices alias Raw.
type Response struct {
	Status           ResponseStatus
	ResponderName    []byte // DER; exactly one of name and key hash is set when successful
	ResponderKeyHash []byte // SHA-1 of the responder's subjectPublicKey bits
	ProducedAt       time.Time
	Answers          []Answer // 1 to MaxCertIDs when successful
	Nonce            []byte   // nil if absent
	Certificates     []*x509.Certificate
	ExtendedRevoke   bool   // says revoked, on hold since 1970, of what was never issued (RFC 6960 §4.4.8)
	Raw              []byte // the whole DER: evidence

	known     *x509.Certificate // need not be parsed again when embedded
	tbs       []byte
	algorithm x509.SignatureAlgorithm // 0 if not an accepted one
	signature []byte
}

// An Answer is what a response says of one certificate (SingleResponse). If neither Unknown nor Revoked it is good.
type Answer struct {
	CertID     CertID
	Unknown    bool
	Revoked    bool
	Reason     jpki.Reason // if Revoked; Unspecified if the answer has none
	RevokedAt  time.Time   // if Revoked
	ThisUpdate time.Time
	NextUpdate time.Time // zero if absent

	ArchiveCutoff time.Time // since when the status of expired certificates is kept (RFC 6960 §4.4.4); zero if absent
	CRL           string    // URL of the list that has the certificate (RFC 6960 §4.4.2); "" if absent
}

// ParseResponse reads a response of at most [MaxResponseBytes]. A status other than successful is not an error.
func ParseResponse(der []byte) (*Response, error) {
	if len(der) > MaxResponseBytes {
		return nil, fmt.Errorf("parse OCSP response: longer than %d octets", MaxResponseBytes)
	}
	r := &Response{Raw: der}
	if err := r.parse(); err != nil {
		return nil, fmt.Errorf("parse OCSP response: %w", err)
	}
	return r, nil
}

func (r *Response) parse() error {
	var body, wrapped, bytes, octets, basic cryptobyte.String
	var status int
	var present bool
	in := cryptobyte.String(r.Raw)
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() || !body.ReadASN1Enum(&status) ||
		!body.ReadOptionalASN1(&wrapped, &present, explicit(0)) || !body.Empty() {
		return errDER
	}
	switch r.Status = ResponseStatus(status); r.Status {
	case Successful:
	case MalformedRequest, InternalError, TryLater, SigRequired, Unauthorized:
		if present {
			return fmt.Errorf("status %s with an answer", r.Status)
		}
		return nil
	default:
		return fmt.Errorf("unknown response status %d", status)
	}
	if !present {
		return errors.New("successful without an answer")
	}
	if !wrapped.ReadASN1(&bytes, asn1.SEQUENCE) || !wrapped.Empty() {
		return errDER
	}
	kind, ok := readOID(&bytes)
	if !ok || !bytes.ReadASN1(&octets, asn1.OCTET_STRING) || !bytes.Empty() {
		return errDER
	}
	if kind != oidBasic {
		return errors.New("response type is not id-pkix-ocsp-basic")
	}
	if !octets.ReadASN1(&basic, asn1.SEQUENCE) || !octets.Empty() {
		return errDER
	}
	return r.parseBasic(basic)
}

func (r *Response) parseBasic(basic cryptobyte.String) error {
	var tbs, wrapped, list cryptobyte.String
	var present bool
	if !basic.ReadASN1Element(&tbs, asn1.SEQUENCE) {
		return errDER
	}
	r.tbs = tbs
	oid, params, ok := readAlgorithm(&basic)
	if !ok || !basic.ReadASN1BitStringAsBytes(&r.signature) || !basic.ReadOptionalASN1(&wrapped, &present, explicit(0)) || !basic.Empty() {
		return errDER
	}
	r.algorithm = acceptedAlgorithm(oid, params)
	if present {
		if !wrapped.ReadASN1(&list, asn1.SEQUENCE) || !wrapped.Empty() {
			return errDER
		}
		for !list.Empty() {
			var der cryptobyte.String
			if !list.ReadASN1Element(&der, asn1.SEQUENCE) {
				return errDER
			}
			if len(r.Certificates) == maxCertificates {
				return errors.New("too many certificates")
			}
			if r.known != nil && string(r.known.Raw) == string(der) {
				r.Certificates = append(r.Certificates, r.known)
				continue
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return fmt.Errorf("embedded certificate: %w", err)
			}
			r.Certificates = append(r.Certificates, cert)
		}
	}
	return r.parseData(tbs)
}

func (r *Response) parseData(tbs cryptobyte.String) error {
	var data, id, list cryptobyte.String
	var tag asn1.Tag
	// There is only version 1, and DER omits it.
	if !tbs.ReadASN1(&data, asn1.SEQUENCE) || !data.ReadAnyASN1(&id, &tag) {
		return errDER
	}
	switch tag {
	case explicit(1):
		var name cryptobyte.String
		if !id.ReadASN1Element(&name, asn1.SEQUENCE) || !id.Empty() {
			return errDER
		}
		r.ResponderName = name
	case explicit(2):
		if !id.ReadASN1Bytes(&r.ResponderKeyHash, asn1.OCTET_STRING) || !id.Empty() || len(r.ResponderKeyHash) != 20 {
			return errDER
		}
	default:
		return errDER
	}
	if !readTime(&data, &r.ProducedAt) || !data.ReadASN1(&list, asn1.SEQUENCE) {
		return errDER
	}
	for !list.Empty() {
		if len(r.Answers) == MaxCertIDs {
			return errors.New("too many answers")
		}
		var single cryptobyte.String
		if !list.ReadASN1(&single, asn1.SEQUENCE) {
			return errDER
		}
		a, err := readAnswer(single)
		if err != nil {
			return err
		}
		r.Answers = append(r.Answers, a)
	}
	if len(r.Answers) == 0 {
		return errors.New("successful without an answer")
	}
	_, err := readExtensions(&data, 1, func(oid string, value cryptobyte.String) (understood bool, err error) {
		switch oid {
		case oidNonce:
			r.Nonce, err = readNonce(value)
		case oidExtended:
			if r.ExtendedRevoke = true; !isNULL(value) {
				err = fmt.Errorf("extended revoke: %w", errDER)
			}
		default:
			return false, nil
		}
		return true, err
	})
	return err
}

func readAnswer(s cryptobyte.String) (Answer, error) {
	var a Answer
	var err error
	if a.CertID, err = readCertID(&s); err != nil {
		return a, err
	}
	var status cryptobyte.String
	var tag asn1.Tag
	if !s.ReadAnyASN1(&status, &tag) {
		return a, errDER
	}
	switch tag {
	case implicit(0): // good
	case explicit(1):
		a.Revoked = true
		if a.RevokedAt, a.Reason, err = readRevocation(&status); err != nil {
			return a, err
		}
	case implicit(2):
		a.Unknown = true
	default:
		return a, errDER
	}
	if !status.Empty() || !readTime(&s, &a.ThisUpdate) {
		return a, errDER
	}
	var next cryptobyte.String
	var present bool
	if !s.ReadOptionalASN1(&next, &present, explicit(0)) || present && (!readTime(&next, &a.NextUpdate) || !next.Empty()) {
		return a, errDER
	}
	_, err = readExtensions(&s, 1, func(oid string, value cryptobyte.String) (bool, error) {
		switch oid {
		case oidCutoff:
			if !readTime(&value, &a.ArchiveCutoff) || !value.Empty() {
				return true, fmt.Errorf("archive cutoff: %w", errDER)
			}
		case oidCRL:
			var err error
			a.CRL, err = readCrlID(value)
			return true, err
		default:
			return false, nil
		}
		return true, nil
	})
	return a, err
}

// readCrlID reads a CrlID (RFC 6960 §4.4.2) and returns its URL; number and time are checked for form only.
func readCrlID(value cryptobyte.String) (url string, err error) {
	var id, wrapped, text cryptobyte.String
	var present bool
	bad := fmt.Errorf("CRL reference: %w", errDER)
	if !value.ReadASN1(&id, asn1.SEQUENCE) || !value.Empty() || !id.ReadOptionalASN1(&wrapped, &present, explicit(0)) {
		return "", bad
	}
	if present {
		if !wrapped.ReadASN1(&text, asn1.IA5String) || !wrapped.Empty() || !isIA5(string(text)) {
			return "", bad
		}
		url = string(text)
	}
	var number *big.Int
	if !id.ReadOptionalASN1(&wrapped, &present, explicit(1)) {
		return "", bad
	}
	if number = new(big.Int); present && (!wrapped.ReadASN1Integer(number) || !wrapped.Empty()) {
		return "", bad
	}
	var at time.Time
	if !id.ReadOptionalASN1(&wrapped, &present, explicit(2)) || present && (!readTime(&wrapped, &at) || !wrapped.Empty()) || !id.Empty() {
		return "", bad
	}
	return url, nil
}

func isIA5(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

func readRevocation(s *cryptobyte.String) (at time.Time, reason jpki.Reason, err error) {
	var wrapped cryptobyte.String
	var present bool
	if !readTime(s, &at) || !s.ReadOptionalASN1(&wrapped, &present, explicit(0)) {
		return at, 0, errDER
	}
	if present {
		var n int
		if !wrapped.ReadASN1Enum(&n) || !wrapped.Empty() {
			return at, 0, errDER
		}
		if n < 0 || n == 7 || n > 10 { // RFC 5280 §5.3.1
			return at, 0, fmt.Errorf("unknown revocation reason %d", n)
		}
		reason = jpki.Reason(n)
	}
	return at, reason, nil
}
