package path

import (
	"fmt"
	"time"
)

// checkValidity is RFC 5280 §6.1.3 (a)(2): both ends belong to the period.
func checkValidity(c *Certificate, at time.Time) *problem {
	switch {
	case at.Before(c.NotBefore):
		return &problem{NotYetValid, "valid from " + c.NotBefore.Format(time.RFC3339)}
	case at.After(c.NotAfter):
		return &problem{Expired, "valid until " + c.NotAfter.Format(time.RFC3339)}
	}
	return nil
}

// checkForm refuses what cannot be relied upon wherever it stands in a path.
func checkForm(c *Certificate) *problem {
	switch alternative := c.extension(extAlternative); {
	case c.fault != "":
		return &problem{Malformed, c.fault}
	case c.unknown != "":
		return &problem{UnknownCritical, "critical extension " + dotted(c.unknown)}
	case c.Issuer.Empty(): // §4.1.2.4
		return &problem{Malformed, "the issuer has no name"}
	case c.Subject.Empty() && c.CA: // §4.1.2.6
		return &problem{Malformed, "an authority has no name"}
	case c.Subject.Empty() && (alternative == nil || !alternative.critical): // §4.1.2.6, §4.2.1.6
		return &problem{Malformed, "no subject, and no critical subjectAltName instead"}
	case c.constraints != nil && !c.CA: // §4.2.1.10
		return &problem{Malformed, "nameConstraints of what is no authority"}
	}
	return nil
}

// checkIssuer is what must be true of an authority wherever it stands: §6.1.3 (a)(2), §6.1.4 (k), (m), (n), (o). below is
// how many authorities that are not self-issued stand below it.
func checkIssuer(c *Certificate, at time.Time, below int) *problem {
	if p := checkForm(c); p != nil {
		return p
	}
	if p := checkValidity(c, at); p != nil {
		return p
	}
	switch {
	case c.Version < 3:
		return &problem{NotCA, fmt.Sprintf("a certificate of version %d", c.Version)}
	case !c.CA:
		return &problem{NotCA, "basicConstraints do not make it an authority"}
	case c.HasKeyUsage && c.KeyUsage&CertSign == 0:
		return &problem{KeyUsageWrong, "the key may not sign certificates"}
	case c.PathLength >= 0 && below > c.PathLength:
		return &problem{PathTooLong, fmt.Sprintf("%d authorities below one that admits %d", below, c.PathLength)}
	}
	return nil
}

// process is RFC 5280 §6.1.2 to §6.1.5 without signatures, which the search has checked, and revocation, which comes
// later. It returns the valid policies, or what is wrong with which certificate of the path.
func (s *search) process(anchor *Certificate) (policies []ValidPolicy, index int, p *problem) {
	n := len(s.path)
	// §6.1.2 initialization
	graph := &policyGraph{} // without policies in the topmost certificate nothing would be left of it
	if s.path[n-1].HasPolicies {
		graph = newPolicyGraph()
	}
	explicit, mapping, inhibitAny, length := n+1, n+1, n+1, n
	var initial []OID
	if in := s.inputs; in != nil {
		initial = in.Policies
		if in.RequireExplicitPolicy {
			explicit = 0
		}
		if in.InhibitPolicyMapping {
			mapping = 0
		}
		if in.InhibitAnyPolicy {
			inhibitAny = 0
		}
		if in.PathLength != nil {
			length = min(length, *in.PathLength)
		}
	}
	var constraints []*nameConstraints
	if !s.j.v.bare {
		if p := s.checkAnchor(anchor); p != nil {
			return nil, n, p
		}
		if anchor.constraints != nil {
			constraints = append(constraints, anchor.constraints)
		}
		if anchor.PathLength >= 0 {
			length = min(length, anchor.PathLength)
		}
		explicit, mapping, inhibitAny = lower(explicit, anchor.requireExplicit), lower(mapping, anchor.inhibitMapping), lower(inhibitAny, anchor.inhibitAny)
	}
	for i := n - 1; i >= 0; i-- {
		c := s.path[i]
		selfIssued, final := c.SelfIssued(), i == 0
		// §6.1.3 basic processing
		if final {
			if p := checkForm(c); p != nil {
				return nil, i, p
			}
			if p := checkValidity(c, s.at); p != nil {
				return nil, i, p
			}
			if _, p := s.j.v.algorithms.checkKey(c); p != nil {
				return nil, i, p
			}
		}
		if len(constraints) > 0 && (!selfIssued || final) { // (b), (c)
			if p := s.admitNames(constraints, c); p != nil {
				return nil, i, p
			}
		}
		if c.HasPolicies { // (d)
			graph.add(c, inhibitAny > 0 || !final && selfIssued)
		} else { // (e)
			graph.levels = nil
		}
		if explicit == 0 && graph.empty() { // (f)
			return nil, i, &problem{PolicyMissing, "no policy is valid up to here"}
		}
		if final {
			break
		}
		// §6.1.4 preparation for the next certificate
		for _, m := range c.mappings { // (a)
			if m.issuer == AnyPolicy || m.subject == AnyPolicy {
				return nil, i, &problem{PolicyMappingWrong, "anyPolicy is mapped"}
			}
		}
		graph.apply(c, mapping > 0) // (b)
		if c.constraints != nil {   // (g)
			constraints = append(constraints, c.constraints)
		}
		if !selfIssued { // (h), (l)
			explicit, mapping, inhibitAny = max(explicit-1, 0), max(mapping-1, 0), max(inhibitAny-1, 0)
			if length == 0 {
				return nil, i, &problem{PathTooLong, "more authorities than those above admit"}
			}
			length--
		}
		explicit, mapping = lower(explicit, c.requireExplicit), lower(mapping, c.inhibitMapping) // (i)
		inhibitAny = lower(inhibitAny, c.inhibitAny)                                             // (j)
		if c.PathLength >= 0 {                                                                   // (m)
			length = min(length, c.PathLength)
		}
		if p := checkIssuer(c, s.at, 0); p != nil { // (k), (n), (o)
			return nil, i, p
		}
	}
	// §6.1.5 wrap-up
	explicit = max(explicit-1, 0)       // (a)
	if s.path[0].requireExplicit == 0 { // (b)
		explicit = 0
	}
	policies = graph.valid(initial) // (g)
	if explicit == 0 && len(policies) == 0 {
		return nil, 0, &problem{PolicyMissing, "no policy that is wanted is valid for the whole path"}
	}
	return policies, -1, nil
}

// lower returns the smaller of a counter and an extension's value, -1 if that is absent.
func lower(counter, value int) int {
	if value < 0 {
		return counter
	}
	return min(counter, value)
}

// checkAnchor holds an anchor to what its own certificate says (RFC 5937 §3.2). One without version 3 says nothing.
func (s *search) checkAnchor(a *Certificate) *problem {
	if a.Version < 3 {
		return checkValidity(a, s.at)
	}
	return checkIssuer(a, s.at, 0)
}

// admitNames holds a certificate's names against all constraints above it.
func (s *search) admitNames(constraints []*nameConstraints, c *Certificate) *problem {
	names := c.subjectNames()
	for _, nc := range constraints {
		s.j.work.Comparisons += len(names) * (len(nc.permitted) + len(nc.excluded))
		if s.j.work.Comparisons > s.j.v.limits.Comparisons {
			return &problem{LimitReached, "more names and constraints than admitted"}
		}
		for i := range names {
			if why := nc.admit(&names[i]); why != "" {
				return &problem{NameNotAdmitted, why}
			}
		}
	}
	return nil
}
