package pdf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

// A Baseline is how far a signature has been prepared for the future (EN 319 142-1 §6). It says what is there and intact;
// whether any of it is to be trusted is another question.
type Baseline string

// The levels.
const (
	NotPAdES Baseline = "PDF" // no CAdES, or not as the profile wants it
	LevelB   Baseline = "PAdES-B-B"
	LevelT   Baseline = "PAdES-B-T"   // and an intact time-stamp, of the signature or of the document
	LevelLT  Baseline = "PAdES-B-LT"  // and certificates and revocation information in the DSS
	LevelLTA Baseline = "PAdES-B-LTA" // and an intact document time-stamp over the DSS
	Stamp    Baseline = "RFC3161"     // a document time-stamp
)

// A Verdict is what computing alone can say of a signature.
type Verdict struct {
	// Err is nil if the signature is intact, covers its revision, and nothing was changed later that the signer did not
	// allow. Otherwise it wraps one of the errors of this package; if none, then the file could not be read any more.
	Err error
	// Data is the CMS value, with the certificates and revocation information in it; nil if it could not be read. Of a
	// document time-stamp it is the token's.
	Data       *cms.SignedData
	Signatures []*cms.Signature
	// TimeStamp is what was found out about a document time-stamp; nil for other signatures. It covers the revision of the
	// Signature, and all before.
	TimeStamp *cms.TimeStamp

	Modification Level    // of all that came after
	Changes      []Change // those found, the oldest first
	Baseline     Baseline
	// Deviations are what EN 319 142-1 forbids and no other rule refuses.
	Deviations []string
}

// Verify checks all signatures of the document, in their order, and compares its revisions. Certificates are where to look
// for signers' certificates, DER, besides the signatures and the DSS.
func (d *Document) Verify(certificates [][]byte) []Verdict {
	if store := d.Store(len(d.Revisions) - 1); store != nil {
		certificates = append(slices.Clip(certificates), store.Certificates...)
	}
	out := make([]Verdict, len(d.Signatures))
	for i, s := range d.Signatures {
		out[i] = s.verify(certificates)
	}
	d.pictures(out)
	for i, s := range d.Signatures {
		out[i].Baseline = d.baseline(s, &out[i], out)
	}
	return out
}

// pictures holds signatures to those made after them: a signature that can be seen but is not intact puts a picture on the
// page that is nobody's word.
func (d *Document) pictures(all []Verdict) {
	forged := map[int]bool{}
	for i, s := range d.Signatures {
		forged[i] = s.Visible && all[i].Err != nil && !errors.Is(all[i].Err, ErrModified)
	}
	for i, s := range d.Signatures {
		for j, other := range d.Signatures {
			if all[i].Err == nil && forged[j] && (other.Revision > s.Revision || other.Revision < 0) {
				all[i].Err = fmt.Errorf("%w: signature %.64q can be seen, and is not intact", ErrModified, other.Field)
				all[i].Modification = Other
			}
		}
	}
}

// verify checks one signature. Steps:
//  1. could it be read, and does it cover a revision? (see Signature.read)
//  2. is it intact, over the octets of that revision?
//  3. what was changed later, and was it allowed?
func (s *Signature) verify(certificates [][]byte) Verdict {
	var v Verdict
	if s.malformed != nil {
		v.Err = s.malformed
		v.Modification = Other
		return v
	}
	switch s.SubFilter {
	case PKCS7, CAdES:
		v.Err = s.verifyCMS(&v, certificates)
	case DocStamp:
		v.Err = s.verifyStamp(&v, certificates)
	default:
		v.Err = fmt.Errorf("%w: %.64q", ErrUnsupported, string(s.SubFilter))
	}
	if err := s.modifications(&v); v.Err == nil {
		v.Err = err
	}
	if err := s.document.file.source.failure(); err != nil { // then nothing of this is known
		v.Err = err
	}
	return v
}

// signed returns the octets the signature covers, to be read once.
func (s *Signature) signed() io.Reader {
	r, b := s.document.file.r, s.ByteRange
	return io.MultiReader(io.NewSectionReader(r, b[0], b[1]), io.NewSectionReader(r, b[2], b[3]))
}

func (s *Signature) verifyCMS(v *Verdict, certificates [][]byte) error {
	var err error
	if v.Data, err = cms.ParsePadded(s.Contents); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !v.Data.Detached {
		return fmt.Errorf("%w: it has content of its own", ErrSignature)
	}
	if v.Data.Signers() == 0 {
		return fmt.Errorf("%w: it has no signer", ErrSignature)
	}
	if v.Signatures, err = v.Data.Verify(cms.Input{Content: s.signed(), Certificates: certificates, Hashes: s.document.Hashes}); err != nil {
		return err
	}
	v.deviations(s)
	for _, one := range v.Signatures {
		if err := integrity(one.Integrity, one.Detail); err != nil {
			return err
		}
		if s.SubFilter == CAdES && one.Reference == "" { // without it another certificate could be put in the signer's place
			return fmt.Errorf("%w: CAdES without a signed reference to the signer's certificate", ErrSignature)
		}
	}
	return nil
}

// integrity makes an error of what package cms found out.
func integrity(i cms.Integrity, detail string) error {
	switch i {
	case cms.Intact:
		return nil
	case cms.ContentMismatch:
		return fmt.Errorf("%w: %s", ErrDigest, detail)
	}
	return fmt.Errorf("%w: %s: %s", ErrSignature, i, detail)
}

// deviations notes what EN 319 142-1 §6.3 forbids.
func (v *Verdict) deviations(s *Signature) {
	const signingTime = "1.2.840.113549.1.9.5"
	note := func(wrong bool, what string) {
		if wrong {
			v.Deviations = append(v.Deviations, what)
		}
	}
	note(s.SubFilter != CAdES, "SubFilter is not ETSI.CAdES.detached")
	note(len(v.Signatures) != 1, "more than one signer")
	note(s.Claims.Time.IsZero(), "no claimed time (M)")
	for _, one := range v.Signatures {
		note(one.Reference == "", "no signed reference to the signer's certificate")
		for _, a := range one.Signed {
			note(a.OID() == signingTime, "signing-time among the signed attributes")
		}
	}
}

// maxZeros is how many octets of padding may belong to a token of indefinite length.
const maxZeros = 2 * 64

func (s *Signature) verifyStamp(v *Verdict, certificates [][]byte) error {
	raw := trimPadding(s.Contents)
	token, err := cms.ParseToken(raw)
	if err != nil { // of indefinite length, it ends in zeros itself
		short := bytes.TrimRight(raw, "\x00")
		for n := len(short); err != nil && n <= min(len(short)+maxZeros, len(raw)); n++ {
			token, err = cms.ParseToken(raw[:n])
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	v.Data = token.Data
	var digest []byte
	if sum := primitive.NewHash(token.Hash); sum != nil {
		if _, err := io.Copy(sum, s.signed()); err != nil {
			return fmt.Errorf("pdf: cannot be read: %w", err)
		}
		digest = sum.Sum(nil)
	}
	stamp := token.Verify(digest, certificates)
	v.TimeStamp = &stamp
	return integrity(stamp.Integrity, stamp.Detail)
}

// allowed says how much may change after a signature.
var allowed = map[Permissions]Level{Unrestricted: Forms, AllowNone: LTA, AllowForms: Forms, AllowAnnotated: Annotations}

// modifications gathers what came after the signature, and holds it to what the signer allowed.
func (s *Signature) modifications(v *Verdict) error {
	d := s.document
	locked := false
	for i := s.Revision + 1; i < len(d.steps); i++ {
		step := d.steps[i]()
		v.Modification = max(v.Modification, step.level)
		v.Changes = append(v.Changes, step.changes...)
		locked = locked || step.more && len(s.Locks) > 0
		for _, c := range step.changes {
			for _, l := range s.Locks {
				locked = locked || c.Level >= Forms && c.Field != "" && !c.fresh && l.covers(c.Field)
			}
		}
	}
	if d.file.trailing {
		v.Modification = Other
		v.Changes = append(v.Changes, Change{Revision: len(d.steps) - 1, Level: Other, Where: "end", Detail: "something follows the last %%EOF"})
	}
	switch {
	case v.Modification > allowed[s.Permissions]:
		return fmt.Errorf("%w: %s", ErrModified, v.worst())
	case locked:
		return fmt.Errorf("%w: a locked form field", ErrModified)
	}
	return nil
}

// worst describes the first of the changes that weigh most, without the names that a document gives its fields.
func (v *Verdict) worst() string {
	for _, c := range v.Changes {
		if c.Level == v.Modification {
			return fmt.Sprintf("%s, in revision %d at %.100q: %s", c.Level, c.Revision+1, c.Where, c.Detail)
		}
	}
	return v.Modification.String()
}

// baseline says how far a signature has been prepared.
func (d *Document) baseline(s *Signature, v *Verdict, all []Verdict) Baseline {
	if s.SubFilter == DocStamp {
		return Stamp
	}
	if v.Err != nil || len(v.Deviations) > 0 || len(v.Signatures) != 1 {
		return NotPAdES
	}
	complete := func(store *Store) bool {
		return store != nil && len(store.Certificates) > 0 && len(store.CRLs)+len(store.OCSPs) > 0
	}
	stamped, archived := false, false
	for _, t := range v.Signatures[0].TimeStamps {
		stamped = stamped || t.Kind == cms.SignatureTimeStamp && t.Integrity == cms.Intact
	}
	for i, other := range d.Signatures {
		if other.SubFilter == DocStamp && all[i].Err == nil && other.Revision > s.Revision {
			archived = archived || complete(d.Store(other.Revision))
			stamped = true
		}
	}
	switch {
	case !stamped:
		return LevelB
	case archived:
		return LevelLTA
	case complete(d.Store(len(d.Revisions) - 1)):
		return LevelLT
	}
	return LevelT
}
