package path

import (
	"bytes"
	"slices"
)

// fromLists is RFC 5280 §6.3.3 for every distribution point and, last, for the lists that are the issuer's own without a
// point naming them. It returns nil if the lists do not tell.
func (j *job) fromLists(c, issuer, anchor *Certificate, nesting int, d *doubt) *Status {
	own := Point{names: []generalName{{kind: directoryName, dn: c.Issuer}}, reasons: allReasons}
	covered := reasonMask(0) // reasons_mask
	var evidence []Evidence
	considered := 0
	for _, p := range append(slices.Clone(c.Points), own) {
		for _, l := range j.listsFor(&p, c) {
			if covered == allReasons {
				break
			}
			if considered++; considered > j.v.limits.Lists {
				j.exhausted = true
				d.worse(StatusLimitReached, "more lists than admitted")
				return nil
			}
			if l.Base != nil || !concerns(l, &p, c) {
				continue
			}
			interim := l.reasons & p.reasons // (d)
			if interim&^covered == 0 {       // (e)
				continue
			}
			entry, proof, ok := j.consult(l, &p, c, issuer, anchor, nesting, d)
			if !ok {
				continue
			}
			if entry != nil {
				st := Status{Certificate: c, Reason: entry.reason, Since: entry.at, InvalidSince: entry.invalid, Evidence: proof}
				return j.revoked(st)
			}
			evidence = append(evidence, proof...)
			covered |= interim // (l)
		}
	}
	switch {
	case covered == allReasons:
		return &Status{Certificate: c, State: Good, Evidence: evidence}
	case covered != 0:
		d.worse(ReasonsIncomplete, "the lists do not cover every reason")
	}
	return nil
}

// listsFor returns the lists of whoever issues them for a point, the newest first.
func (j *job) listsFor(p *Point, c *Certificate) []*CRL {
	var all []*CRL
	if p.issuers == nil {
		all = slices.Clone(j.crls[c.Issuer.key])
	}
	for _, g := range p.issuers {
		if g.kind == directoryName {
			all = append(all, j.crls[g.dn.key]...)
		}
	}
	slices.SortStableFunc(all, func(a, b *CRL) int { return b.ThisUpdate.Compare(a.ThisUpdate) })
	return all
}

// concerns is (b): whether a list's scope has the certificate, for a point.
func concerns(l *CRL, p *Point, c *Certificate) bool {
	if p.issuers != nil {
		isNamed := slices.ContainsFunc(p.issuers, func(g generalName) bool { return g.kind == directoryName && g.dn.Equal(l.Issuer) })
		if !isNamed || !l.indirect {
			return false
		}
	} else if !l.Issuer.Equal(c.Issuer) {
		return false
	}
	if l.points != nil {
		names := p.names
		if names == nil {
			names = p.issuers
		}
		if !common(l.points, names) {
			return false
		}
	}
	return !(l.onlyUser && c.CA || l.onlyCA && !c.CA || l.onlyAttribute)
}

// consult looks a certificate up in a complete list and its newest delta: (a), (c), (f) to (k). ok says that the lists may
// be used; then entry is nil if the certificate is not revoked.
func (j *job) consult(l *CRL, p *Point, c, issuer, anchor *Certificate, nesting int, d *doubt) (entry *crlEntry, proof []Evidence, ok bool) {
	if l.fault != "" {
		d.worse(DataMalformed, l.fault)
		return nil, nil, false
	}
	// 1. a delta, which also makes good that the list is out of date (§5.2.4)
	delta := j.deltaOf(l, d)
	if why := j.current(l.ThisUpdate, l.NextUpdate); why != "" && (delta == nil || l.ThisUpdate.After(j.at.Add(j.v.skew))) {
		d.worse(DataNotCurrent, why)
		return nil, nil, false
	}
	// 2. who signed them
	signer := j.listSigner(l, p, c, issuer, anchor, nesting, d)
	if signer == nil {
		return nil, nil, false
	}
	if delta != nil {
		if p := j.verifyData(delta.signedPart(), signer); p != nil {
			d.signature(p)
			delta = nil
			if why := j.current(l.ThisUpdate, l.NextUpdate); why != "" {
				d.worse(DataNotCurrent, why)
				return nil, nil, false
			}
		}
	}
	// 3. what they say; the delta has the last word
	proof = []Evidence{{"crl", l.SHA256, l.ThisUpdate, l.NextUpdate, signer, l.Raw}}
	newest := l.ThisUpdate
	if delta != nil {
		proof = append(proof, Evidence{"delta-crl", delta.SHA256, delta.ThisUpdate, delta.NextUpdate, signer, delta.Raw})
		newest = delta.ThisUpdate
		entry = delta.find(c.Issuer, c.Serial)
	}
	switch {
	case entry != nil && entry.removed:
		entry = nil
	case entry == nil:
		entry = l.find(c.Issuer, c.Serial)
	}
	// 4. an entry may be gone with the certificate's validity (§3.3)
	if entry == nil && newest.After(c.NotAfter) {
		d.worse(AfterExpiry, "a list of after the certificate's end")
		return nil, nil, false
	}
	return entry, proof, true
}

// deltaOf returns the newest delta that fits a complete list: (c), with §5.2.4's rules on numbers.
func (j *job) deltaOf(l *CRL, d *doubt) *CRL {
	var best *CRL
	for i, delta := range j.crls[l.Issuer.key] {
		if i > j.v.limits.Lists {
			j.exhausted = true
			break
		}
		if delta.Base == nil || !bytes.Equal(delta.scope, l.scope) || !sameKeyID(delta, l) {
			continue
		}
		if delta.fault != "" {
			d.worse(DataMalformed, delta.fault)
			continue
		}
		own := number(l.Number)
		if number(delta.Base).Cmp(own) > 0 || number(delta.Number).Cmp(own) < 0 {
			continue
		}
		if why := j.current(delta.ThisUpdate, delta.NextUpdate); why != "" {
			continue
		}
		if best == nil || number(delta.Number).Cmp(number(best.Number)) > 0 {
			best = delta
		}
	}
	return best
}

// listSigner returns the certificate of who signed a list, if that may: (f), (g). It is the issuer of the certificate
// asked about, or somebody of the list's issuer's name with a valid path from the same anchor.
func (j *job) listSigner(l *CRL, p *Point, c, issuer, anchor *Certificate, nesting int, d *doubt) *Certificate {
	signed := l.signedPart()
	candidates := []*Certificate{issuer}
	if !anchor.sameEntity(issuer) {
		candidates = append(candidates, anchor)
	}
	candidates = append(candidates, j.named(l.Issuer.key)...)
	slices.SortStableFunc(candidates, func(a, b *Certificate) int { return keyFits(l, b) - keyFits(l, a) })
	meant := false // somebody at hand may be whom the list says it is from
	for i, k := range candidates {
		if !k.Subject.Equal(l.Issuer) {
			continue
		}
		if i > j.v.limits.Lists {
			j.exhausted = true
			break
		}
		if p := j.verifyData(signed, k); p != nil {
			if keyFits(l, k) > 0 {
				meant = true
				d.signature(p)
			}
			continue
		}
		meant = true
		if k.HasKeyUsage && k.KeyUsage&CRLSign == 0 {
			d.worse(SignerRefused, "the key may not sign lists")
			continue
		}
		if k == issuer || k == anchor {
			return k
		}
		// Whom an issuer names as the issuer of the list that has its own certificate may say that it is good: that is the
		// issuer's choice. Of its path, which is being judged, nothing else is missing.
		if k.SHA256 == c.SHA256 && p.issuers != nil {
			return k
		}
		if why := j.signerPath(k, anchor, nesting); why != "" {
			d.worse(SignerRefused, why)
			continue
		}
		return k
	}
	// A list that names another key is another generation's under the same name, and says nothing here.
	if !meant && keyFits(l, issuer) > 0 {
		d.worse(DataForged, "nobody of the list's issuer's name is at hand")
	}
	return nil
}

// keyFits says how well a certificate's key identifier fits a list's: not, perhaps, exactly.
func keyFits(l *CRL, c *Certificate) int {
	switch {
	case len(l.AuthorityKeyID) == 0 || len(c.SubjectKeyID) == 0:
		return 1
	case bytes.Equal(l.AuthorityKeyID, c.SubjectKeyID):
		return 2
	}
	return 0
}

// signerPath returns why there is no valid path from the anchor to the signer of a list, whose status counts too.
func (j *job) signerPath(k, anchor *Certificate, nesting int) string {
	if nesting >= j.v.limits.Nesting {
		j.exhausted = true
		return "more signers of signers than admitted"
	}
	if j.open[k.SHA256] {
		return "the status of the list's signer depends on itself"
	}
	s := &search{j: j, target: k, at: j.at, anchor: anchor, nesting: nesting + 1}
	s.run()
	if !s.found {
		return "the list's signer: " + string(s.best.Code) + ": " + s.best.Detail
	}
	return ""
}

// Want says what could not be found in what was given.
type Want struct {
	Kind        string // "issuer", "crl" or "ocsp"
	URLs        []string
	Certificate *Certificate // whose issuer or status is wanted
	Issuer      *Certificate // nil for "issuer"
}

// ask fetches what is wanted, once.
func (j *job) ask(w Want) [][]byte {
	id := w.Kind + string(w.Certificate.SHA256[:])
	if j.v.fetch == nil || len(w.URLs) == 0 || j.fetched[id] || j.work.Fetches >= j.v.limits.Fetches {
		return nil
	}
	j.fetched[id] = true
	j.work.Fetches++
	found, err := j.v.fetch(j.ctx, w)
	if err != nil {
		return nil
	}
	return found
}

// fetchIssuers asks for certificates of c's issuer.
func (j *job) fetchIssuers(c *Certificate) {
	for _, raw := range j.ask(Want{Kind: "issuer", URLs: c.IssuerURLs, Certificate: c}) {
		if cert, err := j.v.cache.Certificate(raw); err == nil {
			j.addCertificate(cert)
		}
	}
}

// fetchStatus asks for answers and lists about c and reports whether there is something new.
func (j *job) fetchStatus(c, issuer *Certificate) bool {
	news := false
	for _, raw := range j.ask(Want{Kind: "ocsp", URLs: c.OCSPURLs, Certificate: c, Issuer: issuer}) {
		if o, err := ParseOCSP(raw); err == nil {
			j.answers, news = append(j.answers, o), true
		}
	}
	var urls []string
	for _, p := range slices.Concat(c.Points, c.Freshest) {
		urls = append(urls, p.URLs...)
	}
	for _, raw := range j.ask(Want{Kind: "crl", URLs: urls, Certificate: c, Issuer: issuer}) {
		if l, err := ParseCRL(raw); err == nil {
			j.addCRL(l)
			news = true
		}
	}
	return news
}
