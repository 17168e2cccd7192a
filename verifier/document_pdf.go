package verifier

import (
	"errors"
	"fmt"
	"strings"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/pdf"
)

// pdfCodes gives our code to the errors of package pdf that are not those of the CMS value.
var pdfCodes = []struct {
	err  error
	code Code
}{
	{pdf.ErrModified, ChangedAfterSigning},
	{pdf.ErrCoverage, MalformedSignature},
	{pdf.ErrUnsupported, MalformedSignature},
	{pdf.ErrDigest, DigestMismatch},
	{pdf.ErrMalformed, MalformedSignature},
	{pdf.ErrSignature, SignatureWrong},
}

// readPDF reads the signatures of a PDF document. A document time-stamp is none of them: it proves the time of those before it.
func readPDF(in *DocumentInput, e *Evidence) error {
	doc, err := pdf.Read(in.Reader, in.Size)
	if err != nil {
		return jpki.WrapError(jpki.Malformed, err, "the document is no PDF that is read here")
	}
	doc.Hashes = in.tokenHashes()
	verdicts := doc.Verify(nil)
	for i, v := range verdicts {
		if v.Data != nil {
			e.bring(v.Data.Certificates, v.Data.CRLs, v.Data.OCSPs)
		}
		if s := doc.Signatures[i]; s.SubFilter != pdf.DocStamp {
			f := pdfFacts(in, doc, verdicts, i, e)
			if len(v.Signatures) == 1 {
				f.bindCMS(in, v.Signatures[0], strings.Trim(fmt.Sprint(s.ByteRange), "[]")) // RFC 9321 appendix B.2.3
			}
			e.Signatures = append(e.Signatures, f)
		}
	}
	if s := doc.Store(len(doc.Revisions) - 1); s != nil {
		e.bring(s.Certificates, s.CRLs, s.OCSPs)
		for _, v := range s.VRI {
			e.bring(v.Certificates, v.CRLs, v.OCSPs)
		}
	}
	return nil
}

// pdfFacts collects what is known of one signature, with the document time-stamps over it.
func pdfFacts(in *DocumentInput, doc *pdf.Document, verdicts []pdf.Verdict, i int, e *Evidence) Facts {
	s, v := doc.Signatures[i], verdicts[i]
	note := fmt.Sprintf("revision %d of %d", s.Revision+1, len(doc.Revisions))
	if v.Modification != pdf.Unchanged {
		note += ", later changes: " + v.Modification.String()
	}
	scope := Scope{Whole: v.Err == nil && v.Modification < pdf.Annotations, Parts: []string{s.Field}, Note: note}
	f := Facts{Integrity: OK, Level: string(v.Baseline), Scope: scope}
	switch {
	case len(v.Signatures) == 1:
		f = cmsFacts(in, e, v.Signatures[0], scope, string(v.Baseline), false)
	case v.Err == nil:
		f.Integrity, f.Detail = MalformedSignature, "no CMS signature"
	}
	if v.Err != nil && f.Integrity == OK {
		if f.Integrity, f.Detail = codeFor(v.Err, pdfCodes); errors.Is(v.Err, pdf.ErrDigest) {
			f.Integrity = DigestMismatch
		}
	}
	if f.ClaimedTime.IsZero() {
		f.ClaimedTime = s.Claims.Time.UTC()
	}
	for k, later := range doc.Signatures {
		if later.SubFilter == pdf.DocStamp && later.Revision > s.Revision && verdicts[k].TimeStamp != nil {
			stamp := stampFacts(e, ArchiveStamp, *verdicts[k].TimeStamp)
			if stamp.Token.Integrity == OK && verdicts[k].Err != nil {
				stamp.Token.Integrity, stamp.Token.Detail = codeFor(verdicts[k].Err, pdfCodes)
			}
			f.Stamps = append(f.Stamps, stamp)
		}
	}
	return f
}
