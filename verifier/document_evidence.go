package verifier

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/primitive"
)

// evidenceVersion is the form of Evidence that is written and read.
const evidenceVersion = 1

// Evidence is all that a verdict was reached from, so that it can be reached again, or another under another policy, when
// the document is gone: what computing found out about the signatures, and every certificate, list and answer. Its JSON form is
// for storing. It has signers' certificates and with them the four attributes: store it like the document. It is not signed:
// whoever can change what is stored can change what is judged.
type Evidence struct {
	Version        int                `json:"version"`
	ID             string             `json:"id"` // of the result
	Format         Format             `json:"format"`
	SHA256         string             `json:"document_sha256"`
	ValidationTime time.Time          `json:"validation_time"`
	Existed        time.Time          `json:"existed,omitzero"`
	Signatures     []Facts            `json:"signatures"`
	Certificates   [][]byte           `json:"certificates"` // DER; nothing is trusted in them
	Revocations    []StoredRevocation `json:"revocations"`
}

// A StoredRevocation is a list or an answer as it was found.
type StoredRevocation struct {
	Kind   string `json:"kind"`   // crl or ocsp
	Source string `json:"source"` // "document", or the name of the RevocationSource
	DER    []byte `json:"der"`
}

// fromDocument is the source of what a document brings.
const fromDocument = "document"

// Facts are what computing alone found out about one signature.
type Facts struct {
	Integrity    Code         `json:"integrity"` // ok, or why it is not intact
	Detail       string       `json:"detail,omitempty"`
	Certificate  []byte       `json:"certificate,omitempty"` // the signer's, DER
	Algorithm    string       `json:"algorithm"`             // as policies call it; empty if they have no name for it
	KeyBits      int          `json:"key_bits"`
	Hash         string       `json:"hash"`
	Named        bool         `json:"named"`               // the signature covers a reference to the certificate
	PolicyID     string       `json:"policy_id,omitempty"` // of the signature policy; "implied" or "unreadable" without an identifier
	Policy       *PolicyFacts `json:"policy,omitempty"`    // of its document; nil without an identifier
	Commitments  []string     `json:"commitments,omitempty"`
	ClaimsRoles  bool         `json:"claims_roles,omitempty"`
	ClaimedTime  time.Time    `json:"claimed_time,omitzero"`
	NotBefore    time.Time    `json:"not_before,omitzero"` // what the signer says of the signature itself
	NotAfter     time.Time    `json:"not_after,omitzero"`
	Level        string       `json:"level"`
	Scope        Scope        `json:"scope"`
	Countersigns bool         `json:"countersigns,omitempty"`
	Stamps       []StampFacts `json:"stamps,omitempty"`
	Binding      *Binding     `json:"binding,omitempty"` // only if it is intact and DocumentInput.TokenHash asked for it
}

// A Binding has digests by which a validation token refers to one signature and to nothing else (RFC 9321 §3.2.5 and §3.2.6).
type Binding struct {
	Hash  string      `json:"hash"`         // sha256, sha384 or sha512
	ID    string      `json:"id,omitempty"` // of an XML signature
	Value []byte      `json:"value"`        // of the signature value
	Bytes []byte      `json:"bytes"`        // of what the value is over
	Data  []BoundData `json:"data"`         // of what was signed
}

// BoundData is the digest of something that was signed, under the name that the format gives it.
type BoundData struct {
	Ref    string `json:"ref"`
	Digest []byte `json:"digest"`
}

// A StampKind says what a time-stamp covers.
type StampKind string

// The kinds of time-stamps.
const (
	ContentStamp   StampKind = "content"   // what was signed, before it was
	SignatureStamp StampKind = "signature" // the signature
	ArchiveStamp   StampKind = "archive"   // the signature and all that came with it
	OtherStamp     StampKind = "other"     // of a kind that is recognised and not checked, by name: it proves nothing
)

// StampFacts are what computing alone found out about one time-stamp: of the token's own signature, and whether it covers
// what its kind says.
type StampFacts struct {
	Kind             StampKind `json:"kind"`
	Time             time.Time `json:"time,omitzero"`
	OnlyTimeStamping bool      `json:"only_time_stamping"` // RFC 3161 §2.3
	ImprintHash      string    `json:"imprint_hash"`
	Token            Facts     `json:"token"`
}

// sign fills in with which key and algorithm a signature was made.
func (f *Facts) sign(key *primitive.Key, alg primitive.Algorithm) {
	f.Algorithm, f.Hash = algorithmName(key, alg), hashName(alg.Hash)
	if alg.Scheme == primitive.Ed25519 {
		f.Hash = "sha512" // RFC 8032 §5.1
	}
	if key != nil {
		f.KeyBits = key.Bits
	}
}

// bring adds what a document brings.
func (e *Evidence) bring(certificates, crls, ocsps [][]byte) {
	e.Certificates = append(e.Certificates, certificates...)
	for _, der := range crls {
		e.Revocations = append(e.Revocations, StoredRevocation{"crl", fromDocument, der})
	}
	for _, der := range ocsps {
		e.Revocations = append(e.Revocations, StoredRevocation{"ocsp", fromDocument, der})
	}
}

// Reevaluate gives the verdict anew from stored evidence, as of the time of its verification, under a policy that may be
// another. Neither the document nor any source is needed, and none is asked. The trust anchors are the Verifier's of now.
func (v *Verifier) Reevaluate(ctx context.Context, e Evidence, p DocumentPolicy) (*DocumentResult, error) {
	if v.documents == nil {
		return nil, errors.New("reevaluate: no Documents are configured")
	}
	if e.Version != evidenceVersion || e.ValidationTime.IsZero() {
		return nil, jpki.Errorf(jpki.Malformed, "evidence is not of version %d", evidenceVersion)
	}
	for i := range e.Signatures {
		f := &e.Signatures[i]
		if !isCode(f.Integrity) || slices.ContainsFunc(f.Stamps, func(s StampFacts) bool { return !isCode(s.Token.Integrity) }) {
			return nil, jpki.Errorf(jpki.Malformed, "evidence has a code that is none")
		}
	}
	demand, err := p.compile()
	if err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "the policy is not fit")
	}
	validators, err := v.documents.validatorsFor(demand)
	if err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "the policy names other trust anchors than are configured")
	}
	return v.documents.judge(ctx, &e, demand, validators, nil)
}
