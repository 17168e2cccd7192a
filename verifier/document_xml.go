package verifier

import (
	"errors"
	"slices"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/xmldsig"
	"github.com/openjpki/jpki/verifier/xmldsig/c14n"
)

// xmlCodes gives our code to the errors of package xmldsig.
var xmlCodes = []struct {
	err  error
	code Code
}{
	{xmldsig.ErrDigest, DigestMismatch},
	{xmldsig.ErrNotFound, SignedDataMissing},
	{xmldsig.ErrNoKey, SigningCertificateMissing},
	{xmldsig.ErrCertificate, SigningCertificateMissing},
	{xmldsig.ErrValue, SignatureWrong},
	{xmldsig.ErrUnsupported, WeakAlgorithm},
	{xmldsig.ErrWrapped, MalformedSignature},
	{xmldsig.ErrMalformed, MalformedSignature},
}

const xmlSignatures = "http://www.w3.org/2000/09/xmldsig#"

// readXML reads the XML-DSig and XAdES signatures of a document.
func readXML(in *DocumentInput, e *Evidence) error {
	data, err := in.whole()
	if err != nil {
		return err
	}
	signatures, err := xmldsig.Read(data, xmldsig.Options{Resolve: in.detachedBytes})
	if err != nil {
		return jpki.WrapError(jpki.Malformed, err, "the document is no XML that is read here")
	}
	for _, s := range signatures {
		v := s.Verify()
		f := Facts{Integrity: OK, Certificate: v.Certificate, Level: "XML-DSig", Scope: xmlScope(data, s), Countersigns: s.Inside}
		f.sign(v.Key, s.Algorithm)
		f.Integrity, f.Detail = codeFor(v.Err, xmlCodes)
		if f.Integrity == OK && v.Certificate == nil {
			f.Integrity, f.Detail = SigningCertificateMissing, "the signature brings a bare key"
		}
		if in.TokenHash != 0 && f.Integrity == OK {
			info, digests, err := s.Covered(in.TokenHash)
			if err != nil {
				return jpki.WrapError(jpki.Malformed, err, "what a token must name cannot be read")
			}
			f.Binding = in.binding(s.Value, info)
			f.Binding.ID = s.ID
			for i, d := range digests {
				f.Binding.Data = append(f.Binding.Data, BoundData{s.References[i].URI, d})
			}
		}
		e.bring(s.KeyInfo.Certificates, s.KeyInfo.CRLs, nil)
		if p := s.Properties; p != nil {
			e.bring(p.CertificateValues, p.CRLs, p.OCSPs)
			f.ClaimedTime, f.PolicyID, f.Named, f.Level = p.SigningTime.UTC(), p.PolicyID, len(p.Certificates) > 0, "XAdES"
			f.Policy = in.comparePolicy(p.PolicyID, p.Policy)
			f.Commitments, f.ClaimsRoles = p.Commitments, p.ClaimsRoles
			certificates := slices.Concat(s.KeyInfo.Certificates, p.CertificateValues)
			for i := range p.Stamps {
				kind, ok := map[string]StampKind{xmldsig.SignatureStamp: SignatureStamp, xmldsig.ArchiveStamp: ArchiveStamp}[p.Stamps[i].Kind]
				if ok {
					f.Stamps = append(f.Stamps, readStamp(e, kind, p.Stamps[i].Token, p.Stamps[i].Imprint, certificates))
				} else {
					f.Stamps = append(f.Stamps, unreadStamp(p.Stamps[i].Kind, p.Stamps[i].Token))
				}
			}
		}
		e.Signatures = append(e.Signatures, f)
	}
	return nil
}

// codeFor gives our code to an error of a format's room: that of the first row it wraps.
func codeFor(err error, rows []struct {
	err  error
	code Code
},
) (Code, string) {
	if err == nil {
		return OK, ""
	}
	for _, row := range rows {
		if errors.Is(err, row.err) {
			return row.code, err.Error()
		}
	}
	return MalformedSignature, err.Error()
}

// xmlScope says what a signature covers: all, if a reference is to the whole document, or if the document is the signature and
// each of its objects is covered.
func xmlScope(data []byte, s *xmldsig.Signature) Scope {
	var out Scope
	var covered []c14n.Node
	outside := false
	for i := range s.References {
		r := &s.References[i]
		switch r.Scope {
		case xmldsig.SignedProps, xmldsig.KeyMaterial:
			continue
		case xmldsig.WholeDocument:
			out.Whole = out.Whole || !r.Filtered
		case xmldsig.Outside:
			outside = true
		case xmldsig.ManifestScope:
			out.Note = "a list of references: each has to be checked by itself"
		}
		if r.Filtered {
			out.Note = "some of what is named was left out by a filter"
		}
		if n, ok := r.Signed(); ok && !r.Filtered {
			covered = append(covered, n)
		}
		out.Parts = append(out.Parts, r.URI)
	}
	if out.Whole || len(covered) == 0 && !outside {
		return out
	}
	out.Whole = enveloping(data, covered)
	return out
}

// enveloping reports whether the document is a signature all of whose objects are covered; properties are none of its content.
func enveloping(data []byte, covered []c14n.Node) bool {
	var root c14n.Node
	if len(covered) > 0 {
		root = covered[0].Document().Element()
	} else if d, err := c14n.Parse(data, c14n.Limits{}); err == nil {
		root = d.Element()
	} else {
		return false
	}
	if !root.Is(xmlSignatures, "Signature") {
		return false
	}
	for _, object := range root.Elements() {
		if !object.Is(xmlSignatures, "Object") || isProperties(object) {
			continue
		}
		if !slices.ContainsFunc(covered, func(n c14n.Node) bool { return n.Contains(object) }) {
			return false
		}
	}
	return true
}

func isProperties(object c14n.Node) bool {
	children := object.Elements()
	if len(children) != 1 {
		return false
	}
	_, name := children[0].Name()
	return name == "QualifyingProperties"
}
