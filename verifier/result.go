package verifier

import (
	"log/slog"
	"time"

	"github.com/openjpki/jpki"
)

// A Result is a verdict with its reasons and its evidence. Its JSON form is that of the HTTP API. It contains personal
// data, if any, only in Attributes, and never shows them to a log.
type Result struct {
	ID             string           `json:"id"` // 32 hexadecimal digits, to refer to this verification
	Indication     Indication       `json:"indication"`
	SubIndication  SubIndication    `json:"sub_indication,omitempty"`
	Code           Code             `json:"code"`
	Message        Text             `json:"message"`                       // what the code means
	Action         Text             `json:"action"`                        // what to do next
	RetryAfter     int              `json:"retry_after_seconds,omitempty"` // with [StatusNotEstablished]: when to ask again
	StatusFailure  StatusFailure    `json:"status_failure,omitempty"`      // with [StatusNotEstablished]: why
	Cause          error            `json:"-"`                             // with [StatusNotEstablished]: the checker's error, for logs; may be nil
	Checks         []Check          `json:"checks"`                        // in order; the last is the one that failed, if any
	Signer         *Signer          `json:"signer,omitempty"`              // nil if the certificate could not be read
	Attributes     *jpki.Attributes `json:"attributes,omitempty"`          // of a signature certificate, only if OK
	Revocation     *Revocation      `json:"revocation,omitempty"`          // nil if the status was not established
	Policy         PolicyRef        `json:"policy"`                        // what was demanded
	ValidationTime time.Time        `json:"validation_time"`               // the time the verdict is about
}

// OK reports whether the certificate or signature may be relied upon. It is the only value to decide by.
func (r *Result) OK() bool { return r != nil && r.Indication == TotalPassed && r.Code == OK }

// LogValue shows verdict and policy and leaves out persons.
func (r Result) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", r.ID), slog.String("indication", string(r.Indication)),
		slog.String("code", string(r.Code)), slog.String("policy", r.Policy.Name))
}

// A CheckID names a check.
type CheckID string

// The checks, in the order in which they are made.
const (
	CheckFormat     CheckID = "certificate.format"
	CheckIssuer     CheckID = "certificate.issuer"
	CheckValidity   CheckID = "certificate.validity"
	CheckPurpose    CheckID = "certificate.purpose"
	CheckKeyUsage   CheckID = "certificate.key-usage"
	CheckAttributes CheckID = "certificate.attributes"
	CheckAlgorithm  CheckID = "signature.algorithm"
	CheckSignature  CheckID = "signature.value"
	CheckStatus     CheckID = "certificate.status"
)

// A Check is one link of the chain of reasons.
type Check struct {
	ID     CheckID `json:"id"`
	OK     bool    `json:"ok"`
	Detail string  `json:"detail"` // for developers, in English; no personal data
}

// A Signer says which certificate it was about. It has no personal data, but issuer and serial are the same for every
// relying party: keep them as such.
type Signer struct {
	IssuerKeyID string      `json:"issuer_key_id"` // subject key identifier of the trust anchor, hexadecimal; as claimed until certificate.issuer passed
	Serial      jpki.Serial `json:"serial"`
	Kind        jpki.Kind   `json:"kind,omitempty"` // empty until established
	NotBefore   time.Time   `json:"not_before"`
	NotAfter    time.Time   `json:"not_after"`
	SHA256      string      `json:"certificate_sha256"` // of the DER, hexadecimal
}

// A PolicyRef names a policy and pins its content.
type PolicyRef struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // see [Policy.Digest]
}
