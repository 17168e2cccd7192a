package verifier

import (
	"crypto"
	"encoding/pem"

	"github.com/openjpki/jpki/verifier/cms"
)

// cmsCodes gives our code to what package cms says of a signature that is not intact.
var cmsCodes = map[cms.Integrity]Code{
	cms.Intact:              OK,
	cms.Malformed:           MalformedSignature,
	cms.UnknownAlgorithm:    WeakAlgorithm,
	cms.AlgorithmMismatch:   SignatureWrong,
	cms.AttributesMissing:   MalformedSignature,
	cms.AttributesAmbiguous: MalformedSignature,
	cms.AttributesAsContent: MalformedSignature,
	cms.ContentTypeMismatch: MalformedSignature,
	cms.NoCertificate:       SigningCertificateMissing,
	cms.CertificateMismatch: SigningCertificateMissing,
	cms.SignatureWrong:      SignatureWrong,
	cms.ContentMissing:      SignedDataMissing,
	cms.ContentMismatch:     DigestMismatch,
	cms.NotChecked:          WeakAlgorithm,
}

// readCMS reads a CMS file, DER, BER or PEM.
func readCMS(in *DocumentInput, e *Evidence) error {
	raw, err := in.whole()
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	data, err := cms.Parse(raw)
	if err != nil {
		return err
	}
	input := cms.Input{Cache: in.keys, Hashes: in.tokenHashes()}
	if data.Detached {
		input.Content = in.detached("")
	}
	signatures, err := data.Verify(input)
	if err != nil {
		return err
	}
	e.bring(data.Certificates, data.CRLs, data.OCSPs)
	for _, s := range signatures {
		addCMS(in, e, s, Scope{Whole: true}, string(s.Level), false)
	}
	return nil
}

// addCMS adds a signature and those that countersign it.
func addCMS(in *DocumentInput, e *Evidence, s *cms.Signature, scope Scope, level string, counter bool) {
	f := cmsFacts(in, e, s, scope, level, counter)
	ref := "content"
	if counter {
		ref = "signature"
	}
	f.bindCMS(in, s, ref)
	e.Signatures = append(e.Signatures, f)
	for _, c := range s.CounterSignatures {
		addCMS(in, e, c, Scope{Note: "another signature"}, string(c.Level), true)
	}
}

// bindCMS computes the digests that a token needs.
func (f *Facts) bindCMS(in *DocumentInput, s *cms.Signature, ref string) {
	if in.TokenHash == 0 || f.Integrity != OK {
		return
	}
	octets, content := s.Covered(in.TokenHash)
	if octets != nil && content != nil {
		f.Binding = in.binding(s.Value, octets, BoundData{ref, content})
	}
}

func cmsFacts(in *DocumentInput, e *Evidence, s *cms.Signature, scope Scope, level string, counter bool) Facts {
	f := Facts{
		Integrity: cmsCodes[s.Integrity], Detail: s.Detail, Certificate: s.Certificate, Named: s.Reference != "", PolicyID: s.PolicyID, Policy: in.comparePolicy(s.PolicyID, s.Policy), Commitments: s.Commitments, ClaimsRoles: s.ClaimsRoles,
		ClaimedTime: s.SigningTime.UTC(), Level: level, Scope: scope, Countersigns: counter,
	}
	f.sign(s.Key, s.Algorithm)
	for _, t := range s.TimeStamps {
		kind, ok := map[cms.TimeStampKind]StampKind{
			cms.ContentTimeStamp: ContentStamp, cms.SignatureTimeStamp: SignatureStamp, cms.ArchiveTimeStamp: ArchiveStamp,
		}[t.Kind]
		if ok {
			f.Stamps = append(f.Stamps, stampFacts(e, kind, t))
		} else {
			f.Stamps = append(f.Stamps, otherStamp(string(t.Kind), t.Token))
		}
	}
	return f
}

// otherStamp reports a time-stamp that nothing is computed about. name is one that the format's room knows, no outsider's.
func otherStamp(name string, token *cms.Token) StampFacts {
	out := StampFacts{Kind: OtherStamp, Token: Facts{Integrity: TimeStampNotChecked, Detail: name}}
	if token != nil {
		out.Time, out.ImprintHash = token.Time.UTC(), hashName(token.Hash)
	}
	return out
}

// stampFacts keeps what is known of a time-stamp, and adds what its token brings.
func stampFacts(e *Evidence, kind StampKind, t cms.TimeStamp) StampFacts {
	out := StampFacts{Kind: kind, OnlyTimeStamping: t.OnlyTimeStamping}
	if t.Token != nil {
		out.Time, out.ImprintHash = t.Token.Time.UTC(), hashName(t.Token.Hash)
		e.bring(t.Token.Data.Certificates, t.Token.Data.CRLs, t.Token.Data.OCSPs)
	}
	if t.Authority != nil {
		out.Token = cmsFacts(&DocumentInput{}, e, t.Authority, Scope{}, "RFC3161", false)
	}
	out.Token.Integrity, out.Token.Detail = cmsCodes[t.Integrity], t.Detail
	return out
}

// unreadStamp is otherStamp for a token that stands in another format.
func unreadStamp(name string, token []byte) StampFacts {
	t, err := cms.ParseToken(token)
	if err != nil {
		t = nil
	}
	return otherStamp(name, t)
}

// readStamp checks a time-stamp that stands in another format.
func readStamp(e *Evidence, kind StampKind, token []byte, imprint func(crypto.Hash) ([]byte, error), certificates [][]byte) StampFacts {
	t, err := cms.ParseToken(token)
	if err != nil {
		return StampFacts{Kind: kind, Token: Facts{Integrity: MalformedSignature, Detail: err.Error()}}
	}
	digest, err := imprint(t.Hash)
	if err != nil {
		return StampFacts{Kind: kind, Time: t.Time.UTC(), Token: Facts{Integrity: MalformedSignature, Detail: err.Error()}}
	}
	return stampFacts(e, kind, t.Verify(digest, certificates))
}
