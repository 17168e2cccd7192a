package verifier

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/path"
)

// DocumentConfig is what documents are held against.
type DocumentConfig struct {
	// Policy says what is demanded (required). See [DocumentPolicies].
	Policy DocumentPolicy
	// Anchors are the trust anchors of signers (required). If the policy names anchors, those that it does not name are left out.
	Anchors []*x509.Certificate
	// TimeStampAnchors are the trust anchors of time-stamping authorities. Without any, no time-stamp proves anything.
	TimeStampAnchors []*x509.Certificate
	// Certificates may stand between a signer and an anchor; nothing is trusted in them.
	Certificates []*x509.Certificate
	// Sources are asked in their order, after what the document brings, until a status is established. None means that only
	// documents that bring current lists or answers can pass: nothing is fetched unless a source fetches it.
	Sources []RevocationSource
	// PolicyDocuments are the texts of signature policies that the relying party has read. A signature that names one of them must have
	// signed its digest; one without is compared with the text that it brings itself.
	PolicyDocuments []SignaturePolicyDocument
	// TokenIssuers are those whose validation tokens are believed ([Verifier.VerifyToken]); nobody's without any.
	TokenIssuers []TokenIssuer
	// TokenAudience are the names under which this relying party is one that a token is for. One for others only is refused.
	TokenAudience []string
	// CacheEntries is how many verified signatures and certificates are remembered; 0 means 4096. A validity never is.
	CacheEntries int
}

// MaxDocumentBytes is the size beyond which nothing but a PDF is read.
const MaxDocumentBytes = 64 << 20

// A Format is how signature and document belong together.
type Format string

// The formats. FormatAuto finds out by the first octets.
const (
	FormatAuto Format = ""
	FormatCMS  Format = "cms"
	FormatXML  Format = "xml"
	FormatPDF  Format = "pdf"
	FormatJSON Format = "json"
)

// DocumentInput is a signed document.
type DocumentInput struct {
	// Data is the document, or Reader has it, Size octets long. PDF is read in place, other formats as a whole.
	Data   []byte
	Reader io.ReaderAt
	Size   int64
	Format Format
	// Detached returns what is signed but not in the document, and nil for what is not at hand. The name is the one the
	// signature gives, which an outsider chose: look it up in a list, open nothing by it. CMS and a detached JWS give none.
	Detached func(name string) io.Reader
	// At is the time at which the verdict is given: only data on revocation that are current then count. Zero means now.
	At time.Time
	// Existed is a time at which the caller knows that the document existed, having kept it or its digest on record. Never
	// take it from the document.
	Existed time.Time
	// TokenHash has the digests computed that [DocumentResult.Tokens] needs. Zero computes none; see [TokenHash].
	TokenHash crypto.Hash

	keys     *cms.Cache
	policies map[string][]byte
}

// A DocumentResult is a verdict with its reasons and its evidence. It contains personal data in the signers' Attributes,
// if the policy hands them out, and in the certificates of Evidence, and never shows them to a log.
type DocumentResult struct {
	ID             string            `json:"id"` // 32 hexadecimal digits, to refer to this verification
	Verdict                          // the worst of the signatures'
	Format         Format            `json:"format"`
	SHA256         string            `json:"document_sha256,omitempty"` // of the document
	Signatures     []SignatureResult `json:"signatures"`
	Policy         PolicyRef         `json:"policy"`
	ValidationTime time.Time         `json:"validation_time"`
	Fetches        []Fetch           `json:"fetches"` // what was asked of sources
	Evidence       Evidence          `json:"-"`       // to be stored apart: see [Verifier.Reevaluate]
}

// OK reports whether the document may be relied upon: every signature is TOTAL-PASSED, there is at least one, and they leave
// nothing uncovered. It is the only value to decide by.
func (r *DocumentResult) OK() bool {
	return r != nil && r.Indication == TotalPassed && r.Code == OK && len(r.Signatures) > 0 &&
		!slices.ContainsFunc(r.Signatures, func(s SignatureResult) bool { return s.Indication != TotalPassed || s.Code != OK })
}

// LogValue shows verdict and policy and leaves out persons.
func (r DocumentResult) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", r.ID), slog.String("indication", string(r.Indication)),
		slog.String("code", string(r.Code)), slog.String("policy", r.Policy.Name))
}

// A SignatureResult is the verdict on one signature.
type SignatureResult struct {
	Verdict
	Checks        []Check           `json:"checks"`               // in order; the last is the one that failed, if any
	Signer        *DocumentSigner   `json:"signer,omitempty"`     // nil if the certificate is not at hand
	Attributes    *jpki.Attributes  `json:"attributes,omitempty"` // only if TOTAL-PASSED, and the policy hands them out
	Level         string            `json:"level"`                // as in CAdES-B-T
	Scope         Scope             `json:"scope"`
	Countersigns  bool              `json:"countersigns,omitempty"`              // it is over another signature
	PolicyID      string            `json:"signature_policy,omitempty"`          // the signer's, by identifier; "implied" or "unreadable" without one
	Policy        *PolicyFacts      `json:"signature_policy_document,omitempty"` // of what the signer's rules are written in; nil without an identifier
	Commitments   []string          `json:"commitments,omitempty"`               // what the signer says the signature is for: identifiers
	ClaimsRoles   bool              `json:"claims_roles,omitempty"`              // the signer says who else she is, without proof
	ClaimedTime   time.Time         `json:"claimed_time,omitzero"`               // what the signer says, without proof
	BestTime      time.Time         `json:"best_time"`                           // the earliest at which it is proven to have existed
	BestTimeProof TimeProof         `json:"best_time_proof"`
	TimeStamps    []TimeStampResult `json:"time_stamps"`
	StatusFailure path.StatusCode   `json:"status_failure,omitempty"` // with [StatusNotEstablished]: why
	Evidence      []EvidenceRef     `json:"evidence"`                 // what the verdict rests on
	Token         *TokenRef         `json:"token,omitempty"`          // the validation token it rests on instead
}

// A DocumentSigner says whose certificate it was. It has no personal data, but the fingerprint is the same for everybody.
type DocumentSigner struct {
	SHA256       string    `json:"certificate_sha256"`
	Kind         jpki.Kind `json:"kind,omitempty"` // empty unless the policy knows kinds and it is established
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
	AnchorSHA256 string    `json:"anchor_sha256,omitempty"`
}

// A Scope says what a signature covers.
type Scope struct {
	Whole bool     `json:"whole"`           // all of the document, as far as it is content
	Parts []string `json:"parts,omitempty"` // what it names
	Note  string   `json:"note,omitempty"`
}

// A TimeProof says by what a signature is known to have existed.
type TimeProof string

// The proofs.
const (
	ByValidation TimeProof = "validation" // it exists now
	ByCaller     TimeProof = "caller"     // DocumentInput.Existed
	ByTimeStamp  TimeProof = "time-stamp"
	ByToken      TimeProof = "token" // a validation token says so
)

// A TimeStampResult is the verdict on one time-stamp.
type TimeStampResult struct {
	Kind            StampKind `json:"kind"`
	Time            time.Time `json:"time,omitzero"`
	Code            Code      `json:"code"`
	Detail          string    `json:"detail,omitempty"`
	AuthoritySHA256 string    `json:"authority_sha256,omitempty"`
}

// An EvidenceRef is a list or an answer that a status rests on.
type EvidenceRef struct {
	Kind        string    `json:"kind"` // crl, delta-crl or ocsp
	SHA256      string    `json:"sha256"`
	Certificate string    `json:"certificate_sha256"` // whose status
	Source      string    `json:"source"`             // "document", or the name of the RevocationSource
	ThisUpdate  time.Time `json:"this_update"`
	NextUpdate  time.Time `json:"next_update,omitzero"`
	Age         int       `json:"age_seconds"` // at the validation time
}

// A Fetch is one question to a source.
type Fetch struct {
	Source      string    `json:"source"`
	Certificate string    `json:"certificate_sha256"`
	At          time.Time `json:"at"`
	Found       int       `json:"found"`
	Err         error     `json:"-"` // for logs
	Failed      bool      `json:"failed,omitempty"`
}

// The building blocks of EN 319 102-1 §5.2, in the order in which they are gone through here.
const (
	CheckFC  CheckID = "FC"  // format
	CheckISC CheckID = "ISC" // identification of the signing certificate
	CheckVCI CheckID = "VCI" // validation context: the policy
	CheckCV  CheckID = "CV"  // cryptographic verification
	CheckSAV CheckID = "SAV" // signature acceptance
	CheckVTS CheckID = "VTS" // time-stamps and the best signature time
	CheckXCV CheckID = "XCV" // X.509: the certification path
	CheckRFC CheckID = "RFC" // revocation, and how fresh it is
)

// documents is what Document works with.
type documents struct {
	demand                *documentDemand
	anchors, stampAnchors []*path.Certificate
	known                 []*path.Certificate
	sources               []RevocationSource
	policies              map[string][]byte // documents of signature policies, by identifier
	tokenIssuers          []TokenIssuer
	tokenAudience         []string
	cache                 *path.Cache
	keys                  *cms.Cache
	skew                  time.Duration
	validators
}

// validators belong to one policy. That of time-stamps is nil without anchors for them.
type validators struct{ signers, stamps *path.Validator }

func newDocuments(cfg DocumentConfig, skew time.Duration) (*documents, error) {
	d := &documents{sources: slices.Clone(cfg.Sources), skew: skew}
	for _, s := range cfg.Sources {
		if s.Name == "" || s.Find == nil {
			return nil, errors.New("documents: a RevocationSource needs Name and Find")
		}
	}
	if cfg.CacheEntries == 0 {
		cfg.CacheEntries = 4096
	}
	var err error
	if d.cache, err = path.NewCache(cfg.CacheEntries); err != nil {
		return nil, fmt.Errorf("documents: CacheEntries: %w", err)
	}
	if d.keys, err = cms.NewCache(cfg.CacheEntries); err != nil {
		return nil, fmt.Errorf("documents: CacheEntries: %w", err)
	}
	for _, list := range []struct {
		from []*x509.Certificate
		to   *[]*path.Certificate
	}{{cfg.Anchors, &d.anchors}, {cfg.TimeStampAnchors, &d.stampAnchors}, {cfg.Certificates, &d.known}} {
		for _, c := range list.from {
			if c == nil {
				return nil, errors.New("documents: a certificate is nil")
			}
			parsed, err := path.ParseCertificate(c.Raw)
			if err != nil {
				return nil, fmt.Errorf("documents: %w", err)
			}
			*list.to = append(*list.to, parsed)
		}
	}
	if d.policies, err = policyDocuments(cfg.PolicyDocuments); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	if d.tokenIssuers, err = tokenIssuers(cfg.TokenIssuers); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	d.tokenAudience = slices.Clone(cfg.TokenAudience)
	if d.demand, err = cfg.Policy.compile(); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	if d.validators, err = d.validatorsFor(d.demand); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	return d, nil
}

// validatorsFor makes the validators of a policy.
func (d *documents) validatorsFor(demand *documentDemand) (out validators, err error) {
	var anchors []*path.Certificate
	for _, a := range d.anchors {
		if len(demand.AnchorSHA256) == 0 || slices.Contains(demand.AnchorSHA256, hex.EncodeToString(a.SHA256[:])) {
			anchors = append(anchors, a)
		}
	}
	if len(anchors) == 0 {
		return out, fmt.Errorf("none of %d Anchors is one that policy %s names", len(d.anchors), demand.Name)
	}
	cfg := path.Config{Anchors: anchors, Certificates: d.known, Algorithms: &demand.algorithms, Cache: d.cache, Skew: d.skew}
	if out.signers, err = path.New(cfg); err != nil || len(d.stampAnchors) == 0 {
		return out, err
	}
	cfg.Anchors = d.stampAnchors
	out.stamps, err = path.New(cfg)
	return out, err
}

// Document says whether a signed document may be relied upon. It returns an error only for misuse ([jpki.Malformed],
// [jpki.TooLarge]) or if the document could not be read or no verdict reached; a bad signature is a result. Steps:
//  1. find out the format
//  2. have its room say what the signatures are, whether they are intact and what they cover (document_cms.go and its neighbours)
//  3. judge each by the building blocks of EN 319 102-1 (document_judge.go)
//  4. the document's verdict is the worst of them; content that none covers is one, too
func (v *Verifier) Document(ctx context.Context, in DocumentInput) (*DocumentResult, error) {
	e, err := v.read(in)
	if err != nil {
		return nil, err
	}
	// 3 and 4.
	return v.documents.judge(ctx, e, v.documents.demand, v.documents.validators, v.documents.sources)
}

// read does steps 1 and 2.
func (v *Verifier) read(in DocumentInput) (*Evidence, error) {
	if v.documents == nil {
		return nil, errors.New("verify document: no Documents are configured")
	}
	now := v.now()
	if in.At.IsZero() {
		in.At = now
	}
	switch {
	case in.At.After(now.Add(v.skew)):
		return nil, jpki.Errorf(jpki.Malformed, "the time asked about lies in the future")
	case in.Existed.After(in.At.Add(v.skew)):
		return nil, jpki.Errorf(jpki.Malformed, "the document was not yet known at the time asked about")
	case in.TokenHash != 0 && !slices.Contains(tokenHashes, in.TokenHash):
		return nil, jpki.Errorf(jpki.Malformed, "TokenHash is none of SHA-256, SHA-384 and SHA-512")
	case in.Data != nil && in.Reader != nil, in.Data == nil && in.Reader == nil, in.Reader != nil && in.Size < 0:
		return nil, jpki.Errorf(jpki.Malformed, "want the document as Data, or as Reader and Size")
	}
	if in.Reader == nil {
		in.Reader, in.Size = bytes.NewReader(in.Data), int64(len(in.Data))
	}
	id, err := v.newID()
	if err != nil {
		return nil, err
	}
	in.keys, in.policies = v.documents.keys, v.documents.policies
	// 1.
	if in.Format == FormatAuto {
		if in.Format, err = detect(in.Reader, in.Size); err != nil {
			return nil, err
		}
	}
	read, ok := formats[in.Format]
	if !ok {
		return nil, jpki.Errorf(jpki.Malformed, "there is no format %.16q", string(in.Format))
	}
	// 2.
	e := &Evidence{Version: evidenceVersion, ID: id, Format: in.Format, ValidationTime: in.At.UTC(), Existed: in.Existed.UTC()}
	if e.SHA256, err = sum(in.Reader, in.Size); err != nil {
		return nil, err
	}
	return e, read(&in, e)
}

// formats has the reader of each format: it fills in what the document brings.
var formats = map[Format]func(*DocumentInput, *Evidence) error{FormatCMS: readCMS, FormatXML: readXML, FormatPDF: readPDF, FormatJSON: readJSON}

// detect tells the formats apart by how they begin; each has its own first octet.
func detect(r io.ReaderAt, size int64) (Format, error) {
	head := make([]byte, min(size, 1024))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", jpki.WrapError(jpki.Unavailable, err, "the document cannot be read")
	}
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case bytes.Contains(head, []byte("%PDF-")):
		return FormatPDF, nil
	case bytes.HasPrefix(head, []byte{0x30}):
		return FormatCMS, nil
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		return FormatCMS, nil
	case bytes.HasPrefix(text, []byte("<")), bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return FormatXML, nil
	case bytes.HasPrefix(text, []byte("{")), bytes.HasPrefix(text, []byte("ey")):
		return FormatJSON, nil
	}
	return "", jpki.Errorf(jpki.Malformed, "the document is none of CMS, XML, PDF and JSON")
}

func sum(r io.ReaderAt, size int64) (string, error) {
	h := sha256.New()
	if n, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil || n != size {
		return "", jpki.WrapError(jpki.Unavailable, errors.Join(err, io.ErrUnexpectedEOF), "the document cannot be read")
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// whole returns all of a document of a format that is not read in place.
func (in *DocumentInput) whole() ([]byte, error) {
	if in.Size > MaxDocumentBytes {
		return nil, jpki.Errorf(jpki.TooLarge, "the document is longer than %d octets", MaxDocumentBytes)
	}
	if in.Data != nil {
		return in.Data, nil
	}
	out := make([]byte, in.Size)
	if _, err := io.ReadFull(io.NewSectionReader(in.Reader, 0, in.Size), out); err != nil {
		return nil, jpki.WrapError(jpki.Unavailable, err, "the document cannot be read")
	}
	return out, nil
}

// detached returns what is signed elsewhere; nil if it is not at hand.
func (in *DocumentInput) detached(name string) io.Reader {
	if in.Detached == nil {
		return nil
	}
	return in.Detached(name)
}

// detachedBytes is detached for formats that want all of it.
func (in *DocumentInput) detachedBytes(name string) ([]byte, bool) {
	r := in.detached(name)
	if r == nil {
		return nil, false
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxDocumentBytes+1))
	if out == nil {
		out = []byte{}
	}
	return out, err == nil && len(out) <= MaxDocumentBytes
}
