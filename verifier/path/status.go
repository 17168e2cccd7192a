package path

import (
	"bytes"
	"math/big"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A doubt is why a status is undetermined.
type doubt struct {
	why    StatusCode
	detail string
}

// worse keeps of two doubts the one that tells more.
func (d *doubt) worse(why StatusCode, detail string) {
	if slices.Index(StatusCodes, why) > slices.Index(StatusCodes, d.why) {
		*d = doubt{why, detail}
	}
}

// unasked is the status of a certificate under RevocationOff, which every path tolerates.
func unasked(c *Certificate) Status {
	return Status{Certificate: c, State: Undetermined, Why: NotChecked, Detail: "nobody asked for it"}
}

// status establishes whether c, issued by issuer's key in a path from anchor, is revoked. Steps:
//  1. answers by OCSP, of which the newest that is fit counts
//  2. if none is, or it says good and there are lists: these, as RFC 5280 §6.3 says (revocation.go)
//  3. if these do not tell either: both again with what can be fetched
func (j *job) status(c, issuer, anchor *Certificate, nesting int) *Status {
	if j.r.Revocation == RevocationOff {
		st := unasked(c)
		return &st
	}
	id := [3][32]byte{c.SHA256, issuer.SPKISHA256, anchor.SPKISHA256}
	if st := j.statuses[id]; st != nil {
		return st
	}
	switch {
	case j.open[c.SHA256]:
		return &Status{Certificate: c, State: Undetermined, Why: StatusCircular, Detail: "its status depends on itself"}
	case nesting > j.v.limits.Nesting:
		j.exhausted = true
		return &Status{Certificate: c, State: Undetermined, Why: StatusLimitReached, Detail: "more signers of signers than admitted"}
	}
	j.open[c.SHA256] = true
	defer delete(j.open, c.SHA256)
	d := doubt{NoData, "no list and no answer is about it"}
	st := j.look(c, issuer, anchor, nesting, &d)
	if st == nil && j.fetchStatus(c, issuer) {
		st = j.look(c, issuer, anchor, nesting, &d)
	}
	if st == nil {
		st = &Status{Certificate: c, State: Undetermined, Why: d.why, Detail: d.detail}
	}
	if st.Why != StatusCircular {
		j.statuses[id] = st
	}
	return st
}

// look asks what is at hand. That an answer says good does not outdo a list that says revoked: a revocation other than a
// hold is final, and a hold stands unless the answer is the newer of the two.
func (j *job) look(c, issuer, anchor *Certificate, nesting int, d *doubt) *Status {
	st := j.fromOCSP(c, issuer, anchor, nesting, d)
	switch {
	case st == nil:
		return j.fromLists(c, issuer, anchor, nesting, d)
	case st.State != Good || st.Later || len(j.crls) == 0:
		return st
	}
	listed := j.fromLists(c, issuer, anchor, nesting, &doubt{})
	if listed != nil && (listed.State == IsRevoked || listed.Later) && (listed.Reason != jpki.CertificateHold || listed.asOf().After(st.asOf())) {
		return listed
	}
	return st
}

// asOf returns the time of the newest evidence.
func (st *Status) asOf() (t time.Time) {
	for _, e := range st.Evidence {
		if e.ThisUpdate.After(t) {
			t = e.ThisUpdate
		}
	}
	return t
}

// current reports whether data with these times may be used, and if not, why.
func (j *job) current(thisUpdate, nextUpdate time.Time) string {
	switch {
	case thisUpdate.After(j.at.Add(j.v.skew)):
		return "issued after the time asked about"
	case nextUpdate.IsZero() && j.r.MaxAge == 0:
		return "no nextUpdate, and no greatest age was asked for"
	case !nextUpdate.IsZero() && nextUpdate.Before(j.at.Add(-j.v.skew)):
		return "out of date since " + nextUpdate.Format(time.RFC3339)
	case j.r.MaxAge > 0 && thisUpdate.Before(j.at.Add(-j.r.MaxAge)):
		return "older than asked for, of " + thisUpdate.Format(time.RFC3339)
	}
	return ""
}

// revoked returns the status of a certificate that is on a list or revoked by an answer, as it was at the time asked about.
func (j *job) revoked(st Status) *Status {
	if st.State = IsRevoked; st.Since.After(j.r.At) && j.at.After(j.r.At) {
		st.State, st.Later = Good, true
	}
	return &st
}

// fromOCSP is RFC 6960 §3.2 and §4.2.2.2. It returns nil if no answer tells the status.
func (j *job) fromOCSP(c, issuer, anchor *Certificate, nesting int, d *doubt) *Status {
	var best *OCSPAnswer
	var from *OCSP
	var by *Certificate
	considered := 0
	for _, o := range j.answers {
		a, misnamed := o.answer(c, issuer)
		if misnamed {
			d.worse(DataMisnamed, "an answer about this number names the issuer by other hashes")
		}
		if a == nil {
			continue
		}
		if considered++; considered > j.v.limits.Lists {
			j.exhausted = true
			d.worse(StatusLimitReached, "more answers than admitted")
			return nil
		}
		if best != nil && (a.ThisUpdate.Before(best.ThisUpdate) || a.ThisUpdate.Equal(best.ThisUpdate) && a.State != IsRevoked) {
			continue
		}
		if o.fault != "" {
			d.worse(DataMalformed, o.fault)
			continue
		}
		if why := j.current(a.ThisUpdate, a.NextUpdate); why != "" {
			d.worse(DataNotCurrent, why)
			continue
		}
		signer := j.responder(o, issuer, anchor, nesting, d)
		if signer == nil {
			continue
		}
		switch {
		case a.State == Undetermined:
			d.worse(CertificateUnknown, "the responder does not know it")
		case a.State == Good && a.ThisUpdate.After(c.NotAfter) && (a.Cutoff.IsZero() || a.Cutoff.After(c.NotAfter)):
			d.worse(AfterExpiry, "an answer of after the certificate's end, without an archive that reaches back") // §4.4.4
		default:
			best, from, by = a, o, signer
		}
	}
	if best == nil {
		return nil
	}
	st := Status{Certificate: c, State: Good, Evidence: []Evidence{{"ocsp", from.SHA256, best.ThisUpdate, best.NextUpdate, by, from.Raw}}}
	if best.State == IsRevoked {
		st.Reason, st.Since, st.InvalidSince = best.Reason, best.Since, best.InvalidSince
		return j.revoked(st)
	}
	return &st
}

// responder returns the certificate of who signed a response, if that may answer for issuer's certificates: the issuer's
// key itself, one the configuration names, or one that issuer certified for it (RFC 6960 §4.2.2.2).
func (j *job) responder(o *OCSP, issuer, anchor *Certificate, nesting int, d *doubt) *Certificate {
	signed := o.signedPart()
	// 1. the issuer's key, under whatever name the responder has
	embeddedIssuer := slices.ContainsFunc(o.certificates, func(e *Certificate) bool { return e.SPKISHA256 == issuer.SPKISHA256 && o.names(e) })
	if o.names(issuer) || embeddedIssuer {
		p := j.verifyData(signed, issuer)
		if p == nil {
			return issuer
		}
		d.signature(p)
	}
	// 2. whoever else the response may mean
	candidates := slices.Concat(j.v.responders, o.certificates)
	if o.responderKey == nil {
		candidates = append(candidates, j.named(o.responderName.key)...)
	} else {
		candidates = append(candidates, j.v.known...)
		candidates = append(candidates, j.r.Certificates...)
	}
	tried := 0
	for i, r := range candidates {
		if !o.names(r) || r.SPKISHA256 == issuer.SPKISHA256 {
			continue
		}
		configured := i < len(j.v.responders)
		if !configured && !slices.Contains(r.Purposes, OCSPSigning) {
			d.worse(SignerRefused, "the responder's certificate is not for OCSP signing")
			continue
		}
		if tried++; tried > maxOCSPEmbedded {
			break
		}
		if p := j.verifyData(signed, r); p != nil {
			d.signature(p)
			continue
		}
		if why := j.mayRespond(r, issuer, anchor, configured, nesting); why != "" {
			d.worse(SignerRefused, why)
			continue
		}
		return r
	}
	d.worse(DataForged, "nobody who may answer for the issuer is the responder")
	return nil
}

// signature records why a signature was not accepted.
func (d *doubt) signature(p *problem) {
	switch p.code {
	case LimitReached:
		d.worse(StatusLimitReached, p.detail)
	case SignatureWrong:
		d.worse(DataForged, p.detail)
	default:
		d.worse(SignerRefused, p.detail)
	}
}

// mayRespond returns why a certificate whose key signed a response may not speak for issuer.
func (j *job) mayRespond(r, issuer, anchor *Certificate, configured bool, nesting int) string {
	if p := checkForm(r); p != nil {
		return "the responder's certificate: " + p.detail
	}
	if p := checkValidity(r, j.at); p != nil {
		return "the responder's certificate: " + p.detail
	}
	if r.HasKeyUsage && r.KeyUsage&(DigitalSignature|ContentCommitment) == 0 {
		return "the responder's key may not sign"
	}
	if configured {
		return ""
	}
	// Certified by the very key that issued what is asked about: a name alone would let another authority's responder in.
	if !r.Issuer.Equal(issuer.Subject) {
		return "the responder was not certified by the issuer"
	}
	if p := j.verifyData(r.signedPart(), issuer); p != nil {
		return "the responder was not certified by the issuer: " + p.detail
	}
	if r.OCSPNoCheck {
		return ""
	}
	st := j.status(r, issuer, anchor, nesting+1)
	if st.State == Good || j.tolerates(st) {
		return ""
	}
	return "the responder's certificate is " + string(st.State)
}

// tolerates reports whether the mode admits that a status is undetermined.
func (j *job) tolerates(st *Status) bool {
	switch j.r.Revocation {
	case RevocationOff:
		return st.State == Undetermined
	case RevocationIfOffered:
		return st.Why == NoData
	}
	return false
}

// number returns a CRL number as one.
func number(octets []byte) *big.Int { return new(big.Int).SetBytes(octets) }

// sameKeyID reports whether two lists name one key: both the same, or both none.
func sameKeyID(a, b *CRL) bool { return bytes.Equal(a.AuthorityKeyID, b.AuthorityKeyID) }
