package verifier

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openjpki/jpki/verifier/primitive"
)

// A SignaturePolicyDocument is the text of a signature policy that the relying party has, from a place that it trusts.
type SignaturePolicyDocument struct {
	ID   string // as signers name it: an object identifier, dotted or as a URN, or a URI. Required.
	Data []byte // its octets as published: a digest is over them. Required, at most MaxPolicyBytes.
}

// MaxPolicyBytes is the size beyond which the document of a signature policy is not read.
const MaxPolicyBytes = 4 << 20

// A PolicyDocumentState says whether the document of a signature policy is the one that the signer signed the digest of.
type PolicyDocumentState string

// The states.
const (
	PolicyMatches      PolicyDocumentState = "matches"      // a document is at hand, and it is
	PolicyDiffers      PolicyDocumentState = "differs"      // a document is at hand, and it is another
	PolicyMissing      PolicyDocumentState = "missing"      // none is at hand: nothing was compared
	PolicyWithoutHash  PolicyDocumentState = "no-digest"    // the signer did not know the digest: nothing can be compared
	PolicyNotProcessed PolicyDocumentState = "not-computed" // by a hash function or transform that is not known here
)

// PolicyFacts are what is known of the document of a signature policy. In RFC 5126's words, of an explicit one: an implied policy has none.
type PolicyFacts struct {
	State  PolicyDocumentState `json:"state"`
	Source string              `json:"source,omitempty"` // of the document: "caller", or "document" for what came with the signature
	SHA256 string              `json:"sha256,omitempty"` // of all its octets
	Hash   string              `json:"hash,omitempty"`   // that the signer used
	Digest []byte              `json:"digest,omitempty"` // that the signer signed
	URI    string              `json:"uri,omitempty"`    // where the signer says it is; nothing is fetched
	Detail string              `json:"detail,omitempty"`
}

// fromCaller is the source of what [DocumentConfig] has.
const fromCaller = "caller"

// barePolicy returns the identifier of a signature policy without what XAdES and JAdES put before an object identifier.
func barePolicy(id string) string { return strings.TrimPrefix(id, "urn:oid:") }

// policyDocuments checks those of a configuration.
func policyDocuments(list []SignaturePolicyDocument) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, p := range list {
		id := barePolicy(p.ID)
		switch _, twice := out[id]; {
		case id == "" || len(p.Data) == 0 || len(p.Data) > MaxPolicyBytes:
			return nil, fmt.Errorf("a SignaturePolicyDocument needs ID, and Data of at most %d octets", MaxPolicyBytes)
		case twice:
			return nil, fmt.Errorf("two SignaturePolicyDocuments for %.100q", id)
		}
		out[id] = slices.Clone(p.Data)
	}
	return out, nil
}

// comparePolicy finds out what is known of the document of a signature policy: the caller's, who has it from a place of trust, or one of
// those that came along, which anybody can have added (EN 319 122-1 §5.2.10, EN 319 132-1 §5.2.10, TS 119 182-1 §5.3.3).
func (in *DocumentInput) comparePolicy(id string, ref *primitive.PolicyReference) *PolicyFacts {
	if ref == nil {
		return nil
	}
	out := &PolicyFacts{State: PolicyMissing, URI: ref.URI, Digest: ref.Digest}
	if ref.Digest == nil {
		out.State = PolicyWithoutHash
		return out
	}
	if out.Hash = hashName(ref.Hash); ref.Hash == crypto.Hash(0) {
		out.Hash, out.State, out.Detail = "", PolicyNotProcessed, "a hash function that is not known here"
		return out
	}
	source, documents := fromDocument, ref.Stored
	if own := in.policies[barePolicy(id)]; own != nil {
		source, documents = fromCaller, [][]byte{own}
	}
	for _, document := range documents {
		sum := sha256.Sum256(document)
		out.Source, out.SHA256, out.Detail = source, hex.EncodeToString(sum[:]), ""
		err := ref.Check(document)
		switch {
		case err == nil:
			out.State = PolicyMatches
			return out
		case errors.Is(err, primitive.ErrWrong):
			out.State = PolicyDiffers
		default:
			out.State, out.Detail = PolicyNotProcessed, err.Error()
		}
	}
	return out
}

// signaturePolicy says whether the signer's rules are agreed to, and their text the one that was signed (EN 319 102-1 §5.2.4). An
// identifier that the policy names wants its document; "*" agrees to any unread, and then that it was not compared is a fact. A
// document that is at hand and another one is refused whatever was agreed to.
func (t *trial) signaturePolicy() (code Code, detail string) {
	f, p := t.f, t.f.Policy
	what := fmt.Sprintf("signature policy %.200q", f.PolicyID)
	named, agreed := t.demand.agrees(f.PolicyID)
	switch {
	case f.PolicyID == "":
		return OK, "no signature policy"
	case !agreed:
		return SignaturePolicyUnknown, what
	case p == nil: // implied, or unreadable
		return OK, what + ", without a document"
	}
	switch p.State {
	case PolicyMatches:
		return OK, fmt.Sprintf("%s, its document (from %s) is the one that was signed", what, p.Source)
	case PolicyDiffers:
		return SignaturePolicyMismatch, fmt.Sprintf("%s: the document (from %s, sha256 %s) is another than the one that was signed", what, p.Source, p.SHA256)
	case PolicyWithoutHash:
		return OK, what + ", by its name alone: the signer did not know the digest of its document"
	case PolicyNotProcessed:
		if named || p.Source == fromCaller {
			return SignaturePolicyMismatch, what + ": " + p.Detail
		}
	}
	if named {
		return SignaturePolicyMissing, what + ": its document is not at hand"
	}
	return OK, what + ", unread: its document was not compared"
}
