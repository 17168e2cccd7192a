package verifier

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/path"
)

// A judgement is the verdict on one document in the making.
type judgement struct {
	d            *documents
	demand       *documentDemand
	validators   validators
	sources      []RevocationSource
	at           time.Time
	evidence     *Evidence
	result       *DocumentResult
	certificates []*path.Certificate
	crls         []*path.CRL
	ocsps        []*path.OCSP
	origin       map[[32]byte]string // of lists and answers, by digest
	times        []time.Time         // of the data that the document itself brings
	asked        map[question]bool
}

// A question is one certificate at one source; it is put once.
type question struct {
	source      int
	certificate [32]byte
}

// judge gives the verdict on what is known of a document. What sources find is added to the evidence.
func (d *documents) judge(ctx context.Context, e *Evidence, demand *documentDemand, vs validators, sources []RevocationSource) (*DocumentResult, error) {
	j := d.judgementOf(e, demand, vs, sources)
	j.read()
	for i := range e.Signatures {
		s, err := j.signature(ctx, &e.Signatures[i])
		if err != nil {
			return nil, err
		}
		j.result.Signatures = append(j.result.Signatures, *s)
	}
	return j.conclude(), nil
}

func (d *documents) judgementOf(e *Evidence, demand *documentDemand, vs validators, sources []RevocationSource) *judgement {
	r := &DocumentResult{
		ID: e.ID, Format: e.Format, SHA256: e.SHA256, Policy: demand.ref, ValidationTime: e.ValidationTime,
		Signatures: []SignatureResult{}, Fetches: []Fetch{}, Verdict: verdictOn(NoSignature, false),
	}
	return &judgement{
		d: d, demand: demand, validators: vs, sources: sources, at: e.ValidationTime, evidence: e, result: r,
		origin: map[[32]byte]string{}, asked: map[question]bool{},
	}
}

// conclude gives the document the worst verdict of its signatures, or that on what none of them covers.
func (j *judgement) conclude() *DocumentResult {
	r, whole := j.result, false
	for i, s := range r.Signatures {
		whole = whole || s.Scope.Whole && !s.Countersigns
		if i == 0 || severity(s.Verdict) > severity(r.Verdict) {
			r.Verdict = s.Verdict
		}
	}
	if r.Code == OK && !whole {
		r.Verdict = verdictOn(UncoveredContent, false)
	}
	r.Evidence = *j.evidence
	return r
}

func severity(v Verdict) int {
	return slices.Index([]Indication{TotalPassed, Indeterminate, TotalFailed}, v.Indication)
}

// read parses what is at hand. What cannot be read is no evidence for anything and left out.
func (j *judgement) read() {
	for _, der := range j.evidence.Certificates {
		if c, err := j.d.cache.Certificate(der); err == nil {
			j.certificates = append(j.certificates, c)
		}
	}
	for _, s := range j.evidence.Revocations {
		switch s.Kind {
		case "crl":
			if l, err := path.ParseCRL(s.DER); err == nil {
				j.addCRL(l, s.Source)
			}
		case "ocsp":
			if o, err := path.ParseOCSP(s.DER); err == nil {
				j.addOCSP(o, s.Source)
			}
		}
	}
}

func (j *judgement) addCRL(l *path.CRL, source string) bool {
	if j.origin[l.SHA256] != "" {
		return false
	}
	j.origin[l.SHA256], j.crls = source, append(j.crls, l)
	if source == fromDocument {
		j.times = append(j.times, l.ThisUpdate)
	}
	return true
}

func (j *judgement) addOCSP(o *path.OCSP, source string) bool {
	if j.origin[o.SHA256] != "" {
		return false
	}
	j.origin[o.SHA256], j.ocsps = source, append(j.ocsps, o)
	for _, a := range o.Answers {
		if source == fromDocument {
			j.times = append(j.times, a.ThisUpdate)
		}
	}
	return true
}

// A trial is the verdict on one signature in the making.
type trial struct {
	*judgement
	f   *Facts
	out *SignatureResult
	// made is a time before which the signature was not there: of its latest content time-stamp. Zero if unknown.
	made time.Time
	// sealed is the time of the earliest archive time-stamp; the validation time without one.
	sealed time.Time
}

func (t *trial) pass(id CheckID, detail string) {
	t.out.Checks = append(t.out.Checks, Check{ID: id, OK: true, Detail: detail})
}

// fail ends the trial.
func (t *trial) fail(id CheckID, code Code, final bool, detail string) (*SignatureResult, error) {
	return t.failed(id, code, final, detail), nil
}

func (t *trial) failed(id CheckID, code Code, final bool, detail string) *SignatureResult {
	t.out.Checks = append(t.out.Checks, Check{ID: id, Detail: detail})
	t.out.Verdict = verdictOn(code, final)
	return t.out
}

func (j *judgement) trial(f *Facts) *trial {
	return &trial{judgement: j, f: f, sealed: j.at, out: &SignatureResult{
		PolicyID: f.PolicyID, Policy: f.Policy, Commitments: f.Commitments, ClaimsRoles: f.ClaimsRoles,
		Level: f.Level, Scope: f.Scope, Countersigns: f.Countersigns, ClaimedTime: f.ClaimedTime, BestTime: j.at, BestTimeProof: ByValidation,
		Checks: []Check{}, TimeStamps: []TimeStampResult{}, Evidence: []EvidenceRef{},
	}}
}

// intact says, by what computing alone found out, whether a signature is intact and whose it is; nil ends the trial.
func (t *trial) intact() *path.Certificate {
	f := t.f
	for _, block := range []CheckID{CheckFC, CheckISC, CheckCV} {
		if f.Integrity != OK && blockOf(f.Integrity) == block {
			t.failed(block, f.Integrity, false, f.Detail)
			return nil
		}
		t.pass(block, map[CheckID]string{CheckFC: f.Level, CheckISC: named(f), CheckCV: f.Algorithm + " with " + f.Hash}[block])
	}
	leaf, err := t.d.cache.Certificate(f.Certificate)
	if err != nil {
		t.failed(CheckISC, MalformedCertificate, false, err.Error())
		return nil
	}
	t.out.Signer = &DocumentSigner{SHA256: hex.EncodeToString(leaf.SHA256[:]), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	return leaf
}

// good ends a trial in which nothing was wrong, and hands out the four attributes if the policy does.
func (t *trial) good(leaf *path.Certificate) *SignatureResult {
	t.out.Verdict = verdictOn(OK, false)
	if !t.demand.Attributes {
		return t.out
	}
	if cert, err := x509.ParseCertificate(leaf.Raw); err == nil {
		san, _ := extension(cert, oidSubjectAltName)
		if t.out.Attributes, err = ParseAttributes(san); err != nil {
			return t.failed(CheckXCV, WrongAttributes, false, err.Error())
		}
	}
	return t.out
}

// signature goes through the building blocks of EN 319 102-1 §5.2 and, for what is past, §5.6 in a simple form: everything is
// judged as of the best signature time, with data on revocation of the validation time or, if there are none, those of
// the document. What computing alone can say comes first, so that no source is asked about a signature that is not one. Steps:
//  1. FC, ISC, CV: is it intact, and whose is it?
//  2. VCI and SAV: does the policy admit it?
//  3. VTS: since when is it known to exist?
//  4. XCV: was there a path to an anchor at that time?
//  5. RFC: and was none of its certificates revoked at that time, by data recent enough?
func (j *judgement) signature(ctx context.Context, f *Facts) (*SignatureResult, error) {
	t := j.trial(f)
	// 1.
	leaf := t.intact()
	if leaf == nil {
		return t.out, nil
	}
	// 2.
	code, detail := t.signaturePolicy()
	if code != OK {
		return t.fail(CheckVCI, code, false, detail)
	}
	t.pass(CheckVCI, "policy "+j.demand.Name+"; "+detail)
	until, admitted := j.demand.admits(f)
	switch {
	case !admitted:
		return t.fail(CheckSAV, WeakAlgorithm, false, fmt.Sprintf("not admitted: %q of %d bits with %s", f.Algorithm, f.KeyBits, f.Hash))
	case j.demand.RequireNamedCertificate && !f.Named:
		return t.fail(CheckSAV, SigningCertificateUnnamed, false, "no signed reference to the certificate")
	case !f.NotBefore.IsZero() && j.at.Before(f.NotBefore), !f.NotAfter.IsZero() && j.at.After(f.NotAfter):
		return t.fail(CheckSAV, SignatureExpired, false, "outside the time the signer gave the signature")
	}
	t.pass(CheckSAV, fmt.Sprintf("%s of %d bits with %s", f.Algorithm, f.KeyBits, f.Hash))
	// 3.
	if detail, ok, err := t.timeStamps(ctx); err != nil {
		return nil, err
	} else if !ok {
		return t.fail(CheckVTS, TimeStampOrder, false, detail)
	}
	if !until.IsZero() && t.out.BestTime.After(until) {
		return t.fail(CheckVTS, AlgorithmExpired, t.made.After(until), fmt.Sprintf("%s of %d bits with %s is relied upon until %s only; known by %s since %s",
			f.Algorithm, f.KeyBits, f.Hash, until.UTC().Format(time.RFC3339), t.out.BestTimeProof, t.out.BestTime.UTC().Format(time.RFC3339)))
	}
	t.pass(CheckVTS, fmt.Sprintf("known by %s since %s", t.out.BestTimeProof, t.out.BestTime.UTC().Format(time.RFC3339)))
	// 4 and 5.
	return t.certificate(ctx, leaf)
}

func named(f *Facts) string {
	if f.Named {
		return "the certificate is named by the signature"
	}
	return "the certificate is at hand; the signature does not name it"
}

// blockOf returns the building block that finds out that a signature is not intact.
func blockOf(code Code) CheckID {
	switch code {
	case SigningCertificateMissing:
		return CheckISC
	case SignatureWrong, DigestMismatch, SignedDataMissing:
		return CheckCV
	}
	return CheckFC
}

// certificate judges the signer's certificate as of the best signature time.
func (t *trial) certificate(ctx context.Context, leaf *path.Certificate) (*SignatureResult, error) {
	d := t.demand
	res, err := t.chain(ctx, t.validators.signers, path.Request{
		Certificate: leaf, Certificates: t.certificates, At: t.out.BestTime, MaxAge: d.maxAge,
		Policies: d.policies, RequireExplicitPolicy: len(d.policies) > 0, KeyUsage: d.required, Purposes: d.purposes, AlgorithmsAt: t.certificatesKnown(),
	}, t.sealed)
	if err != nil {
		return nil, err
	}
	t.cite(res)
	if res.Anchor != nil {
		t.out.Signer.AnchorSHA256 = hex.EncodeToString(res.Anchor.SHA256[:])
	}
	code, detail := codeOf(res), res.Detail
	if code == WrongPolicy && t.otherPurpose(leaf) {
		code = WrongPurpose
	}
	if code == OK && leaf.CA {
		code, detail = CACertificate, "is a certification authority's"
	} else if code == OK && leaf.HasKeyUsage && (leaf.KeyUsage&(path.DigitalSignature|path.ContentCommitment) == 0 || leaf.KeyUsage&d.forbidden != 0) {
		code, detail = WrongKeyUsage, fmt.Sprintf("key usage bits %#x do not fit", int(leaf.KeyUsage))
	} else if code == OK && !leaf.HasKeyUsage && d.required != 0 {
		code, detail = WrongKeyUsage, "no key usage"
	}
	block := CheckXCV
	if res.Code == path.Revoked || res.Code == path.StatusUndetermined {
		block = CheckRFC
		t.pass(CheckXCV, chainDetail(res))
	}
	st := statusOf(res)
	if st != nil && block == CheckRFC {
		t.out.StatusFailure = st.Why
		detail = statusDetail(st)
	}
	if code != OK {
		final := !t.made.IsZero() && (code == Expired && t.made.After(leaf.NotAfter) || st != nil && st.State == path.IsRevoked && !st.Since.After(t.made))
		return t.fail(block, code, final, detail)
	}
	for _, p := range res.Policies {
		if kind := d.kinds[p.Policy]; kind != "" {
			t.out.Signer.Kind = kind
		}
	}
	t.pass(CheckXCV, chainDetail(res))
	for i := range res.Statuses {
		if st := &res.Statuses[i]; st.Later && compromisedBefore(st, t.out.BestTime) {
			return t.fail(CheckRFC, RevokedKeyCompromise, false, "revoked later, but its key was compromised before the signature is known to exist")
		}
	}
	t.pass(CheckRFC, goodDetail(res))
	return t.good(leaf), nil
}

// certificatesKnown returns since when nobody could have put other certificates in the place of the signer's and those above: the
// caller had all of the document, or an archive time-stamp covers them. A time-stamp of the signature alone covers none.
func (t *trial) certificatesKnown() time.Time {
	if e := t.evidence.Existed; !e.IsZero() && e.Before(t.sealed) {
		return e
	}
	return t.sealed
}

func chainDetail(res *path.Result) string {
	if res.Anchor == nil {
		return "no anchor"
	}
	return fmt.Sprintf("%d certificate(s) up to trust anchor %s", len(res.Path), hex.EncodeToString(res.Anchor.SHA256[:]))
}

func statusDetail(st *path.Status) string {
	if st.State == path.IsRevoked {
		return fmt.Sprintf("%s since %s", st.Reason, st.Since.UTC().Format(time.RFC3339))
	}
	return strings.TrimSpace(string(st.Why) + ": " + st.Detail)
}

func goodDetail(res *path.Result) string {
	var parts []string
	for _, st := range res.Statuses {
		text := "good"
		if st.Later {
			text = fmt.Sprintf("good then; %s only since %s", st.Reason, st.Since.UTC().Format(time.RFC3339))
		}
		for _, e := range st.Evidence {
			text += fmt.Sprintf(", by %s of %s", e.Kind, e.ThisUpdate.UTC().Format(time.RFC3339))
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// otherPurpose reports whether a certificate carries the policy of the other purpose.
func (t *trial) otherPurpose(leaf *path.Certificate) bool {
	cert, err := x509.ParseCertificate(leaf.Raw)
	if err != nil {
		return false
	}
	for _, p := range DocumentPolicies() {
		for _, oids := range p.CertificatePolicies {
			for _, oid := range cert.Policies {
				if slices.Contains(oids, oid.String()) {
					return true
				}
			}
		}
	}
	return false
}

// chain looks for a path that was valid at req.At. Data on revocation are first wanted that are current at the validation
// time: what is at hand, then what one source after the other finds. If none tells, those that the document brings are taken as
// of their own time, provided that it is not before req.At: what was known then and is not known any more. Their signers'
// certificates must then reach to sealed, since otherwise anybody who got hold of an old key could have made them since.
func (j *judgement) chain(ctx context.Context, v *path.Validator, req path.Request, sealed time.Time) (*path.Result, error) {
	req.StatusAt = j.at
	var res *path.Result
	var err error
	for next := 0; ; next++ {
		req.CRLs, req.OCSP = j.crls, j.ocsps
		if res, err = v.Validate(ctx, req); err != nil {
			return nil, fmt.Errorf("validate path: %w", err)
		}
		if res.Code != path.StatusUndetermined || next >= len(j.sources) {
			break
		}
		for i, st := range res.Statuses {
			if st.State != path.Undetermined {
				continue
			}
			issuer := res.Anchor
			if i+1 < len(res.Path) {
				issuer = res.Path[i+1]
			}
			if issuer != nil {
				j.ask(ctx, next, st.Certificate, issuer)
			}
		}
	}
	if res.Code != path.StatusUndetermined {
		return res, nil
	}
	for _, at := range j.pastTimes(req.At) {
		req.StatusAt = at
		then, err := v.Validate(ctx, req)
		if err != nil {
			return nil, fmt.Errorf("validate path: %w", err)
		}
		if then.Code != path.StatusUndetermined && j.reaches(then, at, sealed) {
			return then, nil
		}
	}
	return res, nil
}

// maxPastTimes bounds how often a path is tried with what a document brings.
const maxPastTimes = 16

// pastTimes returns the times of the document's data, the latest first, but none before from: data of before that moment speak
// for it as far as they are still current then.
func (j *judgement) pastTimes(from time.Time) (out []time.Time) {
	for _, at := range j.times {
		if at.Before(from) {
			at = from
		}
		if at.Before(j.at) {
			out = append(out, at)
		}
	}
	slices.SortFunc(out, func(a, b time.Time) int { return b.Compare(a) })
	out = slices.CompactFunc(out, time.Time.Equal)
	return out[:min(len(out), maxPastTimes)]
}

// reaches reports whether the certificates of who signed the data of a time were good until these were sealed.
func (j *judgement) reaches(res *path.Result, at, sealed time.Time) bool {
	if sealed.Before(at) {
		sealed = j.at
	}
	for _, st := range res.Statuses {
		for _, e := range st.Evidence {
			if e.Signer.NotAfter.Before(sealed) {
				return false
			}
		}
	}
	return true
}

// ask puts a question to a source and keeps what it finds.
func (j *judgement) ask(ctx context.Context, source int, c, issuer *path.Certificate) {
	q := question{source, c.SHA256}
	if j.asked[q] {
		return
	}
	j.asked[q] = true
	s := j.sources[source]
	data, err := s.Find(ctx, c, issuer, j.at)
	fetch := Fetch{Source: s.Name, Certificate: hex.EncodeToString(c.SHA256[:]), At: j.at, Err: err, Failed: err != nil, Found: len(data.CRLs) + len(data.OCSPs)}
	for _, l := range data.CRLs {
		if l != nil && j.addCRL(l, s.Name) {
			j.evidence.Revocations = append(j.evidence.Revocations, StoredRevocation{"crl", s.Name, l.Raw})
		}
	}
	for _, o := range data.OCSPs {
		if o != nil && j.addOCSP(o, s.Name) {
			j.evidence.Revocations = append(j.evidence.Revocations, StoredRevocation{"ocsp", s.Name, o.Raw})
		}
	}
	j.result.Fetches = append(j.result.Fetches, fetch)
}

// cite lists what statuses rest on.
func (t *trial) cite(res *path.Result) {
	for _, st := range res.Statuses {
		for _, e := range st.Evidence {
			t.out.Evidence = append(t.out.Evidence, EvidenceRef{
				Kind: e.Kind, SHA256: hex.EncodeToString(e.SHA256[:]), Certificate: hex.EncodeToString(st.Certificate.SHA256[:]), Source: t.origin[e.SHA256],
				ThisUpdate: e.ThisUpdate, NextUpdate: e.NextUpdate, Age: int(max(t.at.Sub(e.ThisUpdate), 0).Seconds()),
			})
		}
	}
}

// compromisedBefore reports whether who revoked a certificate later says that its key was compromised by a time
// (invalidityDate, RFC 5280 §5.3.2): the date of the revocation alone would protect the thief.
func compromisedBefore(st *path.Status, at time.Time) bool {
	return (st.Reason == jpki.KeyCompromise || st.Reason == jpki.CACompromise) && !st.InvalidSince.IsZero() && !st.InvalidSince.After(at)
}

// timeStamps finds out since when the signature is known to exist. Going back in time, each archive time-stamp that holds moves
// the moment at which the earlier ones must have held (EN 319 102-1 §5.6.2.3, in a simple form). Content time-stamps prove the
// opposite, that the signature was made later.
func (t *trial) timeStamps(ctx context.Context) (detail string, ok bool, err error) {
	if e := t.evidence.Existed; !e.IsZero() && e.Before(t.out.BestTime) {
		t.out.BestTime, t.out.BestTimeProof = e, ByCaller
	}
	stamps := slices.Clone(t.f.Stamps)
	slices.SortStableFunc(stamps, func(a, b StampFacts) int { return b.Time.Compare(a.Time) })
	control, signed, archived := t.at, time.Time{}, time.Time{}
	for i := range stamps {
		s := &stamps[i]
		r, err := t.timeStamp(ctx, s, control)
		if err != nil {
			return "", false, err
		}
		t.out.TimeStamps = append(t.out.TimeStamps, r)
		if r.Code != OK {
			continue
		}
		switch s.Kind {
		case ContentStamp:
			if s.Time.After(t.made) {
				t.made = s.Time
			}
			continue
		case ArchiveStamp:
			control, archived, t.sealed = s.Time, s.Time, s.Time
		case SignatureStamp:
			if s.Time.After(signed) {
				signed = s.Time
			}
		}
		if s.Time.Before(t.out.BestTime) {
			t.out.BestTime, t.out.BestTimeProof = s.Time, ByTimeStamp
		}
	}
	switch {
	case t.made.After(t.out.BestTime):
		return "the content was stamped after the signature", false, nil
	case !archived.IsZero() && signed.After(archived):
		return "the signature was stamped after its archive", false, nil
	}
	slices.SortStableFunc(t.out.TimeStamps, func(a, b TimeStampResult) int { return cmp.Compare(a.Time.Unix(), b.Time.Unix()) })
	return "", true, nil
}

// timeStamp judges a time-stamp as a signature of its own, that must have been valid at control.
func (t *trial) timeStamp(ctx context.Context, s *StampFacts, control time.Time) (TimeStampResult, error) {
	out := TimeStampResult{Kind: s.Kind, Time: s.Time, Code: s.Token.Integrity, Detail: s.Token.Detail}
	refuse := func(code Code, detail string) (TimeStampResult, error) {
		out.Code, out.Detail = code, detail
		return out, nil
	}
	if out.Code != OK {
		return out, nil
	}
	authority, err := t.d.cache.Certificate(s.Token.Certificate)
	if err != nil {
		return refuse(MalformedCertificate, "of the authority: "+err.Error())
	}
	out.AuthoritySHA256 = hex.EncodeToString(authority.SHA256[:])
	until, admitted := t.demand.admits(&s.Token)
	untilHash, admittedHash := t.demand.admitsHash(s.ImprintHash)
	switch {
	case s.Time.After(t.at.Add(t.d.skew)):
		return refuse(NotYetValid, "of the future")
	case t.validators.stamps == nil:
		return refuse(UntrustedIssuer, "no trust anchors for time-stamps are configured")
	case !s.OnlyTimeStamping:
		return refuse(WrongKeyUsage, "the authority's certificate is not for time-stamps only")
	case !admitted || !admittedHash:
		return refuse(WeakAlgorithm, fmt.Sprintf("not admitted: %q of %d bits with %s over %s", s.Token.Algorithm, s.Token.KeyBits, s.Token.Hash, s.ImprintHash))
	case !until.IsZero() && control.After(until), !untilHash.IsZero() && control.After(untilHash):
		return refuse(AlgorithmExpired, fmt.Sprintf("not relied upon any more at %s: %s of %d bits with %s over %s",
			control.UTC().Format(time.RFC3339), s.Token.Algorithm, s.Token.KeyBits, s.Token.Hash, s.ImprintHash))
	}
	res, err := t.chain(ctx, t.validators.stamps, path.Request{
		Certificate: authority, Certificates: t.certificates, At: control, Purposes: []path.OID{path.TimeStamping}, KeyUsage: 0,
	}, t.sealed)
	if err != nil {
		return out, err
	}
	t.cite(res)
	if out.Code = codeOf(res); out.Code != OK {
		out.Detail = res.Detail
		if st := statusOf(res); st != nil {
			out.Detail = statusDetail(st)
		}
	}
	return out, nil
}
