package path

import (
	"cmp"
	"slices"
	"time"
)

// A search looks for one path, depth first, the likeliest issuer first.
type search struct {
	j       *job
	target  *Certificate
	at      time.Time
	inputs  *Request     // nil for the signer of a list or an answer, of whom only the path is asked
	anchor  *Certificate // only this anchor will do; nil for any
	nesting int

	path  []*Certificate
	best  *Result // of all that failed the one that came furthest
	stage int     // how far that was
	found bool
	stop  bool // nothing else can help
}

// How far a path came before it failed. Before an anchor is reached, that is how many signatures were right, times two,
// and one more if somebody was tried as the next issuer.
const (
	stageAnchor = 1 << 20 // all signatures were right
	stageStatus = 1 << 21 // and it was valid but for the status
)

// algorithmsAt returns when the path's signatures must be relied upon.
func (s *search) algorithmsAt() time.Time {
	if s.nesting > 0 { // of who signed data on revocation
		return s.j.dataAt
	}
	return s.j.certificatesAt
}

func (s *search) run() {
	if s.nesting == 0 {
		s.path = s.j.way[:0]
	}
	s.path = append(s.path, s.target)
	s.extend()
}

// fail records a failure if it came further than those before.
func (s *search) fail(stage, index int, p *problem, anchor *Certificate) {
	if s.best != nil && stage <= s.stage {
		return
	}
	s.stage = stage
	s.best = &Result{Code: p.code, Detail: p.detail, Index: index, Path: slices.Clone(s.path), Anchor: anchor}
}

func (s *search) result() *Result {
	if !s.found && s.j.exhausted && s.stage < stageStatus {
		s.best.Code, s.best.Detail, s.best.Index = LimitReached, "there was more to try than is admitted", -1
	}
	return s.best
}

// A candidate may be the issuer of the last certificate of a path.
type candidate struct {
	cert   *Certificate
	anchor bool
	score  int
}

// extend tries everybody who may have issued the last certificate of the path.
func (s *search) extend() {
	index := len(s.path) - 1
	s.try(index)
	if !s.found {
		s.fail(2*index, index, &problem{NoIssuer, "no certificate of the issuer is at hand"}, nil)
	}
}

func (s *search) try(index int) {
	last := s.path[index]
	for _, c := range s.candidates(last) {
		if s.found || s.stop {
			return
		}
		if s.j.ctx.Err() != nil {
			s.stop = true
			return
		}
		if s.j.work.Candidates >= s.j.v.limits.Candidates {
			s.j.exhausted, s.stop = true, true
			return
		}
		s.j.work.Candidates++
		// 1. who could not be an issuer costs no signature
		if !c.anchor {
			if slices.ContainsFunc(s.path, c.cert.sameEntity) {
				continue
			}
			if len(s.path) >= s.j.v.limits.Depth {
				s.fail(2*index+1, index, &problem{PathTooLong, "more certificates than admitted"}, nil)
				s.j.exhausted = true
				continue
			}
			if p := checkIssuer(c.cert, s.at, s.below(c.cert)); p != nil {
				s.path = append(s.path, c.cert)
				s.fail(2*index+1, index+1, p, nil)
				s.path = s.path[:index+1]
				continue
			}
		}
		// 2. the signature
		part := last.signedPart()
		if p := s.j.verify(&part, c.cert, s.algorithmsAt()); p != nil {
			s.fail(2*index+1, index, p, nil)
			s.stop = s.stop || p.code == LimitReached
			continue
		}
		// 3. on, or to the end
		if c.anchor {
			s.complete(c.cert)
			continue
		}
		s.path = append(s.path, c.cert)
		s.extend()
		s.path = s.path[:index+1]
	}
}

// below counts the authorities in the path that count against a path length of an issuer above it (RFC 5280 §6.1.4 (l)).
func (s *search) below(issuer *Certificate) int {
	if issuer.PathLength < 0 {
		return 0
	}
	n := 0
	for _, c := range s.path[1:] {
		if !c.SelfIssued() {
			n++
		}
	}
	return n
}

// candidates returns everybody with the issuer's name, in the order in which they are tried: those whose key identifier is
// named first, since one name may have many keys; anchors, certificates valid at the time, those that live longest.
func (s *search) candidates(c *Certificate) []candidate {
	var all []candidate
	for _, a := range s.j.v.anchors {
		if a.Subject.Equal(c.Issuer) && (s.anchor == nil || a.sameEntity(s.anchor)) {
			all = append(all, candidate{cert: a, anchor: true, score: s.score(c, a) + 2})
		}
	}
	if len(all) == 0 {
		s.j.fetchIssuers(c)
	}
	for _, o := range s.j.named(c.Issuer.key) {
		if o.SHA256 != c.SHA256 {
			all = append(all, candidate{cert: o, score: s.score(c, o)})
		}
	}
	if len(all) > 1 {
		slices.SortStableFunc(all, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(b.score, a.score), b.cert.NotAfter.Compare(a.cert.NotAfter))
		})
	}
	return all
}

func (s *search) score(c, issuer *Certificate) int {
	score := 0
	switch {
	case len(c.AuthorityKeyID) == 0 || len(issuer.SubjectKeyID) == 0:
		score = 8
	case string(c.AuthorityKeyID) == string(issuer.SubjectKeyID):
		score = 16
	}
	if !s.at.Before(issuer.NotBefore) && !s.at.After(issuer.NotAfter) {
		score += 4
	}
	if !issuer.SelfIssued() {
		score++
	}
	return score
}

// complete judges a path whose signatures are right up to an anchor.
func (s *search) complete(anchor *Certificate) {
	res := &Result{Code: OK, Index: -1, Path: slices.Clone(s.path), Anchor: anchor}
	// 1. RFC 5280 §6.1
	policies, index, p := s.process(anchor)
	if p == nil && s.inputs != nil {
		index, p = s.wanted(anchor)
	}
	if p != nil {
		s.fail(stageAnchor, index, p, anchor)
		if p.code == LimitReached {
			s.j.exhausted = true
		}
		return
	}
	res.Policies = policies
	// 2. revocation, from the anchor on: what a revoked authority says counts for nothing
	res.Statuses = make([]Status, len(s.path))
	issuer := anchor
	for i := len(s.path) - 1; i >= 0; i-- {
		if s.j.r.Revocation == RevocationOff {
			res.Statuses[i] = unasked(s.path[i])
			continue
		}
		st := s.j.status(s.path[i], issuer, anchor, s.nesting)
		res.Statuses[i] = *st
		if p := s.judge(st); p != nil {
			for k := range i { // nobody asks about these any more
				res.Statuses[k] = Status{Certificate: s.path[k], State: Undetermined, Why: NotChecked}
			}
			res.Code, res.Detail, res.Index = p.code, p.detail, i
			// That the certificate itself is revoked no other path makes undone. That one of its issuers is leaves room
			// for another path, and if that is only not established, so is the verdict.
			final := i == 0 && p.code == Revoked
			if s.stage < stageStatus || final || s.best.Code == Revoked && p.code != Revoked {
				s.stage, s.best = stageStatus, res
			}
			s.stop = s.stop || final
			return
		}
		issuer = s.path[i]
	}
	s.best, s.found = res, true
}

// judge returns why a status makes the path invalid.
func (s *search) judge(st *Status) *problem {
	switch {
	case st.State == Good:
		return nil
	case st.State == IsRevoked:
		return &problem{Revoked, st.Reason.String() + " since " + st.Since.Format(time.RFC3339)}
	case s.j.tolerates(st):
		return nil
	}
	return &problem{StatusUndetermined, string(st.Why) + ": " + st.Detail}
}
