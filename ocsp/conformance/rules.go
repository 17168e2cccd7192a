package conformance

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A judge is what a requirement looks at: the reply and what was asked.
type judge struct {
	cfg *Config
	*reply
	all   []*reply
	alive func() error // a plain question on a new connection is answered
}

// A rule judges a reply by the words of a requirement; nil means that it is met.
type rule struct {
	name  string
	words int // behind the name, at least
	meets func(j *judge, words []string) error
}

// rules are the words that requirements are written in. kit/README.md says what each demands.
var rules = []rule{
	{"http", 1, (*judge).http},
	{"type", 1, (*judge).contentType},
	{"length", 0, (*judge).contentLength},
	{"bodiless", 0, (*judge).bodiless},
	{"closed", 0, (*judge).closes},
	{"header", 2, (*judge).header},
	{"header-time", 2, (*judge).headerTime},
	{"max-age", 0, (*judge).maxAge},
	{"etag-of-body", 0, (*judge).etagOfBody},
	{"not-modified", 0, (*judge).notModified},
	{"cache-refusal", 0, (*judge).cacheRefusal},
	{"allow", 0, (*judge).allow},
	{"in-order", 0, (*judge).inOrder},
	{"status", 1, (*judge).status},
	{"refused", 0, (*judge).refused},
	{"not-answered", 0, (*judge).notAnswered},
	{"answered", 0, (*judge).answered},
	{"alive", 0, func(j *judge, _ []string) error { return j.alive() }},
	{"says", 2, (*judge).says},
	{"never-good", 0, (*judge).neverGood},
	{"reason", 1, (*judge).reason},
	{"revoked-before", 0, (*judge).revokedBefore},
	{"answers", 1, (*judge).answers},
	{"same-hash", 0, (*judge).sameHash},
	{"agree", 0, (*judge).agree},
	{"nonce", 1, (*judge).nonce},
	{"current", 0, (*judge).current},
	{"times", 0, (*judge).times},
	{"next-update", 0, (*judge).nextUpdate},
	{"by-key", 0, (*judge).byKey},
	{"signed", 0, (*judge).signedBy},
	{"verified", 0, (*judge).verified},
	{"modern-signature", 0, (*judge).modernSignature},
	{"delegate", 1, (*judge).delegate},
}

// findRule returns the rule a requirement begins with.
func findRule(requirement string) (func(*judge) error, error) {
	words := strings.Fields(requirement)
	for _, r := range rules {
		if len(words) > 0 && r.name == words[0] {
			if len(words)-1 < r.words {
				return nil, fmt.Errorf("requirement %q lacks words", requirement)
			}
			return func(j *judge) error { return r.meets(j, words[1:]) }, nil
		}
	}
	return nil, fmt.Errorf("no such requirement: %q", requirement)
}

// errNotApplicable says that a requirement has no object, such as a delegate where the issuer itself signed.
var errNotApplicable = errors.New("not applicable")

func inapplicable(why string) error { return fmt.Errorf("%w: %s", errNotApplicable, why) }

// http demands one of some status codes; 4xx is all of that class.
func (j *judge) http(codes []string) error {
	if j.err != nil {
		return j.err
	}
	for _, c := range codes {
		if c == strconv.Itoa(j.code) || strings.HasSuffix(c, "xx") && c[:1] == strconv.Itoa(j.code/100) {
			return nil
		}
	}
	return fmt.Errorf("HTTP status %d, want %s", j.code, strings.Join(codes, " or "))
}

func (j *judge) contentType(want []string) error {
	if j.err != nil {
		return j.err
	}
	if got := j.head.Get("Content-Type"); !strings.EqualFold(got, want[0]) {
		return fmt.Errorf("Content-Type %q, want %s", got, want[0])
	}
	return nil
}

// contentLength demands that the body's end was announced, not made by closing the connection.
func (j *judge) contentLength([]string) error {
	switch {
	case j.err != nil:
		return j.err
	case j.length != int64(len(j.body)):
		return errors.New("no Content-Length, or another than the body has")
	}
	return nil
}

func (j *judge) bodiless([]string) error {
	switch {
	case j.err != nil:
		return j.err
	case len(j.body)+len(j.after) > 0:
		return fmt.Errorf("%d octets where no body may be", len(j.body)+len(j.after))
	}
	return nil
}

func (j *judge) closes([]string) error {
	if j.err == nil && !j.closed {
		return errors.New("the connection stays open")
	}
	return nil
}

// header demands that a field is present, or has or lacks a word in its comma-separated list.
func (j *judge) header(words []string) error {
	if j.err != nil {
		return j.err
	}
	got := strings.Join(j.head.Values(words[0]), ",")
	var list []string
	for item := range strings.SplitSeq(got, ",") {
		list = append(list, strings.ToLower(strings.TrimSpace(item)))
	}
	switch words[1] {
	case "present":
		if got == "" {
			return fmt.Errorf("no %s", words[0])
		}
		return nil
	case "strong":
		if got == "" || strings.HasPrefix(got, "W/") {
			return fmt.Errorf("%s is %q, not a strong validator", words[0], got)
		}
		return nil
	}
	for _, word := range words[2:] {
		if has := slices.Contains(list, strings.ToLower(word)); has != (words[1] == "has") {
			return fmt.Errorf("%s is %q: must have %s be %t", words[0], got, word, !has)
		}
	}
	return nil
}

// headerTime demands that a field is one of some times in the answer.
func (j *judge) headerTime(words []string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	got, err := http.ParseTime(j.head.Get(words[0]))
	if err != nil {
		return fmt.Errorf("%s is %q, not an HTTP date", words[0], j.head.Get(words[0]))
	}
	times := map[string]time.Time{"thisUpdate": a.singles[0].thisUpdate, "nextUpdate": a.singles[0].nextUpdate, "producedAt": a.producedAt}
	for _, w := range words[1:] {
		if w == "now" && got.Sub(j.at).Abs() <= j.cfg.Skew || got.Equal(times[w]) {
			return nil
		}
	}
	return fmt.Errorf("%s is %s, not %s", words[0], got.Format(time.RFC3339), strings.Join(words[1:], " or "))
}

// maxAge demands a max-age that ends before the answer does.
func (j *judge) maxAge([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	for item := range strings.SplitSeq(j.head.Get("Cache-Control"), ",") {
		if n, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(item)), "max-age="); ok {
			seconds, err := strconv.Atoi(n)
			if err != nil || seconds < 0 {
				return fmt.Errorf("max-age is %q", n)
			}
			if end := j.at.Add(time.Duration(seconds)*time.Second - j.cfg.Skew); end.After(a.singles[0].nextUpdate) {
				return fmt.Errorf("a cache may keep it for %d s, beyond nextUpdate", seconds)
			}
			return nil
		}
	}
	return errors.New("Cache-Control has no max-age")
}

func (j *judge) etagOfBody([]string) error {
	if j.err != nil {
		return j.err
	}
	sum := sha256.Sum256(j.body)
	if got := strings.Trim(j.head.Get("ETag"), `"`); !strings.EqualFold(got, hex.EncodeToString(sum[:])) {
		return errors.New("ETag is not the hexadecimal SHA-256 of the response")
	}
	return nil
}

// notModified demands of a 304 that it has no body, and of anything else that it is the answer.
func (j *judge) notModified([]string) error {
	if j.err == nil && j.code == http.StatusNotModified {
		return j.bodiless(nil)
	}
	return j.says([]string{"good", "good"})
}

// cacheRefusal demands of what is no authoritative answer that nobody keeps it.
func (j *judge) cacheRefusal([]string) error {
	if a, err := j.parsed(); j.err == nil && err == nil && a.status == "successful" {
		return inapplicable("the answer is signed")
	}
	for _, word := range []string{"no-store", "no-cache", "max-age=0"} {
		if j.header([]string{"Cache-Control", "has", word}) == nil {
			return nil
		}
	}
	if j.err != nil {
		return j.err
	}
	return errors.New("a cache may keep the refusal")
}

func (j *judge) allow([]string) error {
	switch {
	case j.err != nil:
		return j.err
	case j.code != http.StatusMethodNotAllowed:
		return inapplicable("the refusal is not 405")
	}
	return j.header([]string{"Allow", "has", "POST"})
}

// inOrder demands that each of several replies on a connection is about what its own message asked.
func (j *judge) inOrder([]string) error {
	which := j.to.sent.With["serial"]
	if which == "" {
		which = "good"
	}
	if which == "unknown" && j.status([]string{"unauthorized"}) == nil {
		return nil
	}
	a, err := j.successful()
	if err != nil {
		return err
	}
	s, err := j.cfg.serial(which)
	if err == nil && a.singles[0].serial.Cmp(s.Big()) != 0 {
		err = errors.New("the reply is about another certificate")
	}
	return err
}

// parsed returns the OCSP response in a reply.
func (j *judge) parsed() (*answer, error) {
	switch {
	case j.err != nil:
		return nil, j.err
	case j.code != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %d instead of an OCSP response", j.code)
	case j.answerErr != nil:
		return nil, j.answerErr
	case j.reply.answer == nil:
		return nil, errors.New("no OCSP response")
	}
	return j.reply.answer, nil
}

func (j *judge) successful() (*answer, error) {
	a, err := j.parsed()
	if err == nil && a.status != "successful" {
		return nil, fmt.Errorf("OCSP status %s", a.status)
	}
	return a, err
}

func (j *judge) status(want []string) error {
	a, err := j.parsed()
	if err != nil {
		return err
	}
	if !slices.Contains(want, a.status) {
		return fmt.Errorf("OCSP status %s, want %s", a.status, strings.Join(want, " or "))
	}
	return nil
}

// refused demands a reply that says no: an HTTP error or an OCSP status other than successful.
func (j *judge) refused([]string) error {
	if j.err == nil && j.code/100 == 4 || j.err == nil && j.code == http.StatusNotImplemented {
		return nil
	}
	a, err := j.parsed()
	if err == nil && a.status == "successful" {
		return errors.New("answered as if nothing were wrong")
	}
	return err
}

// notAnswered is refused, or a connection that was closed without a word.
func (j *judge) notAnswered([]string) error {
	if j.err != nil && j.err.Error() != "no reply in time" {
		return nil
	}
	return j.refused(nil)
}

// answered demands any well-formed reply: an OCSP response or an HTTP error.
func (j *judge) answered([]string) error {
	if j.err == nil && j.code/100 == 4 {
		return nil
	}
	_, err := j.parsed()
	return err
}

// says demands what is said of a serial. "unknown" may also be the status unauthorized, where that is among the words.
func (j *judge) says(words []string) error {
	a, err := j.parsed()
	if err != nil {
		return err
	}
	if a.status != "successful" {
		if slices.Contains(words[1:], a.status) {
			return nil
		}
		return fmt.Errorf("OCSP status %s, want successful", a.status)
	}
	s, err := j.cfg.serial(words[0])
	if err != nil {
		return err
	}
	found := false
	for _, one := range a.singles {
		if one.serial.Cmp(s.Big()) != 0 {
			continue
		}
		found = true
		if !slices.Contains(words[1:], one.says) {
			return fmt.Errorf("says %s of the %s certificate", one.says, words[0])
		}
	}
	if !found {
		return fmt.Errorf("says nothing of the %s certificate", words[0])
	}
	return nil
}

func (j *judge) neverGood([]string) error {
	a, err := j.parsed()
	if err != nil {
		return nil //nolint:nilerr // no answer is not a good one
	}
	for _, one := range a.singles {
		if one.says == "good" {
			return errors.New("says good")
		}
	}
	return nil
}

func (j *judge) reason(words []string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	if got := strconv.Itoa(a.singles[0].reason); a.singles[0].says != "revoked" || got != words[0] {
		return fmt.Errorf("says %s with reason %s, want %s", a.singles[0].says, got, words[0])
	}
	return nil
}

func (j *judge) revokedBefore([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	for _, one := range a.singles {
		if one.says == "revoked" && one.revokedAt.After(j.at.Add(j.cfg.Skew)) {
			return errors.New("revoked in the future")
		}
	}
	return nil
}

func (j *judge) answers(words []string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	if got := strconv.Itoa(len(a.singles)); got != words[0] {
		return fmt.Errorf("%s answers, want %s", got, words[0])
	}
	return nil
}

// sameHash demands a CertID under the hash algorithm of the question, with the issuer's hashes.
func (j *judge) sameHash([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	want := j.to.sent.With["hash"]
	if want == "" {
		want = "sha256"
	}
	_, name, key, err := hashesOf(j.cfg.Issuer, want)
	if err != nil {
		return err
	}
	var oid asn1.ObjectIdentifier
	for _, h := range hashNames {
		if h.name == want {
			oid = h.oid
		}
	}
	for _, one := range a.singles {
		if one.hash.Equal(oid) && bytes.Equal(one.name, name) && bytes.Equal(one.key, key) {
			return nil
		}
	}
	return fmt.Errorf("no CertID in the answer is that of the question (%s)", want)
}

// agree demands that all replies say the same.
func (j *judge) agree([]string) error {
	var first string
	for i, r := range j.all {
		a, err := (&judge{cfg: j.cfg, reply: r}).successful()
		if err != nil {
			return err
		}
		said := fmt.Sprint(a.singles[0].says, a.singles[0].reason, a.singles[0].revokedAt)
		if i > 0 && said != first {
			return errors.New("two ways of asking get two answers")
		}
		first = said
	}
	return nil
}

func (j *judge) nonce(words []string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	sent := []byte(nil)
	if j.to.filling != nil {
		sent = j.to.filling.nonce()
	}
	for _, w := range words {
		if w == "absent" && a.nonce == nil || w == "echo" && a.nonce != nil && bytes.Equal(a.nonce, sent) {
			return nil
		}
	}
	if a.nonce == nil {
		return errors.New("the nonce does not come back")
	}
	return fmt.Errorf("a nonce of %d octets comes back that was not sent so", len(a.nonce))
}

func (j *judge) current([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	for _, one := range a.singles {
		switch {
		case one.thisUpdate.After(j.at.Add(j.cfg.Skew)):
			return errors.New("thisUpdate is in the future")
		case !one.nextUpdate.IsZero() && one.nextUpdate.Before(j.at.Add(-j.cfg.Skew)):
			return fmt.Errorf("nextUpdate was %s ago", j.at.Sub(one.nextUpdate).Round(time.Second))
		}
	}
	return nil
}

func (j *judge) times([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	if a.producedAt.After(j.at.Add(j.cfg.Skew)) {
		return errors.New("producedAt is in the future")
	}
	for _, one := range a.singles {
		switch {
		case one.thisUpdate.After(a.producedAt):
			return errors.New("thisUpdate is later than producedAt")
		case !one.nextUpdate.IsZero() && !one.nextUpdate.After(one.thisUpdate):
			return errors.New("nextUpdate is not later than thisUpdate")
		}
	}
	return nil
}

func (j *judge) nextUpdate([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(a.singles, func(s single) bool { return s.nextUpdate.IsZero() }) {
		return errors.New("no nextUpdate")
	}
	return nil
}

func (j *judge) byKey([]string) error {
	a, err := j.successful()
	if err == nil && a.byKey == nil {
		return errors.New("the responder is named by its name")
	}
	return err
}

// signedBy demands a signature that verifies under the issuer's key or that of an embedded certificate.
func (j *judge) signedBy([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	_, err = a.signer(j.cfg.Issuer)
	return err
}

// verified demands what a relying party must find before it believes an answer (RFC 6960 §3.2).
func (j *judge) verified([]string) error {
	if err := j.signedBy(nil); err != nil {
		return err
	}
	for _, what := range []string{"issued", "eku", "valid"} {
		if err := j.delegate([]string{what}); err != nil && !errors.Is(err, errNotApplicable) {
			return err
		}
	}
	return j.current(nil)
}

func (j *judge) modernSignature([]string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	switch a.algorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.UnknownSignatureAlgorithm:
		return fmt.Errorf("signed with %s", a.algorithm)
	}
	return nil
}

// delegate looks at one property of the certificate that signed on the issuer's behalf.
func (j *judge) delegate(words []string) error {
	a, err := j.successful()
	if err != nil {
		return err
	}
	c, err := a.signer(j.cfg.Issuer)
	if err != nil {
		return err
	}
	if c.Equal(j.cfg.Issuer) {
		return inapplicable("the issuer's own key signed")
	}
	switch words[0] {
	case "issued":
		if !bytes.Equal(c.RawIssuer, j.cfg.Issuer.RawSubject) || j.cfg.Issuer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
			return errors.New("the delegate's certificate is not from the key that issued the certificate asked about")
		}
	case "eku":
		if !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return errors.New("the delegate lacks the extended key usage OCSPSigning")
		}
	case "nocheck":
		if !slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNoCheck) }) {
			return errors.New("the delegate lacks id-pkix-ocsp-nocheck")
		}
	case "valid":
		if j.at.Before(c.NotBefore.Add(-j.cfg.Skew)) || j.at.After(c.NotAfter.Add(j.cfg.Skew)) {
			return errors.New("the delegate's certificate is outside its validity")
		}
	case "usage":
		if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
			return errors.New("the delegate lacks the key usage digitalSignature")
		}
	case "end-entity":
		if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 {
			return errors.New("the delegate is a certification authority")
		}
	case "outlives":
		if slices.ContainsFunc(a.singles, func(s single) bool { return s.nextUpdate.After(c.NotAfter) }) {
			return errors.New("nextUpdate lies beyond the delegate's validity")
		}
	default:
		return fmt.Errorf("no property %q of a delegate", words[0])
	}
	return nil
}
