package path

import "github.com/openjpki/jpki/verifier/primitive"

var testKey = &primitive.Key{Kind: primitive.P256, Bits: 256}

// A PolicyStep is what one certificate of a path says about policies, for tests of the graph without certificates.
type PolicyStep struct {
	Policies   []string
	Mappings   [][2]string
	SelfIssued bool
	Explicit   int // -1 if absent, like the next two
	Mapping    int
	Any        int
}

// PolicyOutcome runs process over certificates that say nothing but policies, the first issued by the anchor.
func PolicyOutcome(steps []PolicyStep, initial []OID, explicit, mapping, anyPolicy bool) (valid bool, policies []string) {
	n := len(steps)
	s := &search{j: &job{v: &Validator{bare: true, algorithms: StandardAlgorithms(), limits: defaultLimits}}, inputs: &Request{
		Policies: initial, RequireExplicitPolicy: explicit, InhibitPolicyMapping: mapping, InhibitAnyPolicy: anyPolicy,
	}, path: make([]*Certificate, n)}
	for i, st := range steps {
		c := &Certificate{
			Version: 3, CA: true, PathLength: -1, requireExplicit: st.Explicit, inhibitMapping: st.Mapping, inhibitAny: st.Any,
			HasPolicies: st.Policies != nil, Issuer: Name{key: "issuer"}, Subject: Name{key: "subject"},
		}
		if st.SelfIssued {
			c.Subject = c.Issuer
		}
		c.keyOnce.Do(func() { c.key = testKey })
		for _, p := range st.Policies {
			c.policies = append(c.policies, policyInformation{policy: p})
		}
		for _, m := range st.Mappings {
			c.mappings = append(c.mappings, policyMapping{m[0], m[1]})
		}
		s.path[n-1-i] = c
	}
	got, _, p := s.process(nil)
	if p != nil {
		return false, nil
	}
	for _, v := range got {
		policies = append(policies, string(v.Policy))
	}
	return true, policies
}

// Admits holds one name against constraints, each a kind with its contents octets.
func Admits(permitted, excluded [][2]string, kind uint8, value string) (why string, err error) {
	nc := &nameConstraints{}
	for i, list := range [][][2]string{permitted, excluded} {
		for _, t := range list {
			s := subtree{generalName: generalName{kind: t[0][0], value: []byte(t[1])}}
			if err := s.read(); err != nil {
				return "", err
			}
			nc.kinds |= 1 << s.kind
			if i == 0 {
				nc.permitted = append(nc.permitted, s)
			} else {
				nc.excluded = append(nc.excluded, s)
			}
		}
	}
	n := readSubjectName(generalName{kind: kind, value: []byte(value)})
	return nc.admit(&n), nil
}

// SameName reports whether two names in DER are equal; ok is false if one is none.
func SameName(a, b []byte) (same, ok bool) {
	x, y := der(a), der(b)
	n, err := readName(&x)
	m, err2 := readName(&y)
	return n.Equal(m), err == nil && err2 == nil
}

// Entry returns what a list says of a serial of its own issuer's.
func (l *CRL) Entry(serial []byte) (reason int, found bool) {
	e := l.find(l.Issuer, serial)
	if e == nil {
		return 0, false
	}
	return int(e.reason), true
}
