package path

import (
	"bytes"
	"errors"
	"maps"
	"slices"
)

// AnyPolicy is the contents octets of anyPolicy's identifier.
const AnyPolicy = "\x55\x1d\x20\x00"

// A Qualifier is a policyQualifierInfo (RFC 5280 §4.2.1.4).
type Qualifier struct {
	ID    OID    // QualifierCPS, QualifierNotice or another
	Value []byte // DER
}

// The qualifiers that are known.
const (
	QualifierCPS    = "\x2b\x06\x01\x05\x05\x07\x02\x01"
	QualifierNotice = "\x2b\x06\x01\x05\x05\x07\x02\x02"
)

type policyInformation struct {
	policy     string
	qualifiers []Qualifier
}

type policyMapping struct{ issuer, subject string }

// Limits on the policies of one certificate. Real ones have fewer than twenty.
const (
	maxPolicies   = 256
	maxQualifiers = 64
)

// readPolicies reads certificatePolicies. understood says that every qualifier is of a known kind.
func readPolicies(value der) (all []policyInformation, understood bool, err error) {
	var list der
	if !value.ReadASN1(&list, tagSequence) || !value.Empty() || list.Empty() {
		return nil, false, errDER
	}
	understood = true
	seen := map[string]bool{}
	for !list.Empty() {
		var one, qualifiers der
		if !list.ReadASN1(&one, tagSequence) {
			return nil, false, errDER
		}
		var p policyInformation
		var ok bool
		if p.policy, ok = readOID(&one); !ok {
			return nil, false, errDER
		}
		switch {
		case len(all) == maxPolicies:
			return nil, false, errors.New("more policies than admitted")
		case seen[p.policy]:
			return nil, false, errors.New("a policy is there twice")
		}
		seen[p.policy] = true
		if !one.Empty() {
			if !one.ReadASN1(&qualifiers, tagSequence) || !one.Empty() || qualifiers.Empty() {
				return nil, false, errDER
			}
		}
		for !qualifiers.Empty() {
			var info der
			if len(p.qualifiers) == maxQualifiers || !qualifiers.ReadASN1(&info, tagSequence) {
				return nil, false, errDER
			}
			id, ok := readOID(&info)
			if !ok {
				return nil, false, errDER
			}
			understood = understood && (id == QualifierCPS || id == QualifierNotice)
			p.qualifiers = append(p.qualifiers, Qualifier{ID: OID(id), Value: info})
		}
		all = append(all, p)
	}
	return all, understood, nil
}

func readMappings(value der) ([]policyMapping, error) {
	var list der
	if !value.ReadASN1(&list, tagSequence) || !value.Empty() || list.Empty() {
		return nil, errDER
	}
	var all []policyMapping
	seen := map[policyMapping]bool{}
	for !list.Empty() {
		var one der
		var m policyMapping
		var ok1, ok2 bool
		if !list.ReadASN1(&one, tagSequence) {
			return nil, errDER
		}
		m.issuer, ok1 = readOID(&one)
		m.subject, ok2 = readOID(&one)
		if !ok1 || !ok2 || !one.Empty() {
			return nil, errDER
		}
		if len(all) == maxPolicies {
			return nil, errors.New("more policy mappings than admitted")
		}
		if !seen[m] {
			seen[m] = true
			all = append(all, m)
		}
	}
	return all, nil
}

func (c *Certificate) readPolicyLimits(value der) bool {
	var body der
	if !value.ReadASN1(&body, tagSequence) || !value.Empty() || body.Empty() {
		return false
	}
	ok := true
	if body.PeekASN1Tag(tagged(0, false)) {
		c.requireExplicit, ok = readCount(&body, tagged(0, false))
	}
	if ok && body.PeekASN1Tag(tagged(1, false)) {
		c.inhibitMapping, ok = readCount(&body, tagged(1, false))
	}
	return ok && body.Empty()
}

// A policyNode is a node of the graph of RFC 9618 §5.1: a policy some certificate asserts or is taken to assert.
type policyNode struct {
	policy     string
	qualifiers []Qualifier
	expected   []string // the policies the next certificate may assert in its place
	parents    []*policyNode
	mapped     bool
	alive      bool // has a descendant at the depth reached; used while pruning
	reached    int  // used while collecting qualifiers
}

// A policyGraph is the valid_policy_graph of RFC 9618: of RFC 5280's valid_policy_tree, nodes of one depth and policy are
// one, so that it cannot grow beyond the sum of what the certificates hold.
type policyGraph struct {
	levels []map[string]*policyNode // nil once the graph is empty
}

func newPolicyGraph() *policyGraph {
	return &policyGraph{levels: []map[string]*policyNode{{AnyPolicy: {policy: AnyPolicy, expected: []string{AnyPolicy}}}}}
}

func (g *policyGraph) empty() bool { return g.levels == nil }

// add is RFC 9618 §5.3 (RFC 5280 §6.1.3 (d)): the next certificate's policies. anyAllowed is whether its anyPolicy counts.
func (g *policyGraph) add(c *Certificate, anyAllowed bool) {
	if g.empty() {
		return
	}
	last := g.levels[len(g.levels)-1]
	expecting := map[string][]*policyNode{}
	for _, n := range sorted(last) {
		for _, p := range n.expected {
			expecting[p] = append(expecting[p], n)
		}
	}
	next := map[string]*policyNode{}
	var any *policyInformation
	for i := range c.policies {
		p := &c.policies[i]
		if p.policy == AnyPolicy {
			any = p
			continue
		}
		parents := expecting[p.policy]
		if parents == nil && last[AnyPolicy] != nil {
			parents = []*policyNode{last[AnyPolicy]}
		}
		if parents != nil {
			next[p.policy] = &policyNode{policy: p.policy, qualifiers: p.qualifiers, expected: []string{p.policy}, parents: parents}
		}
	}
	if any != nil && anyAllowed {
		for p, parents := range expecting {
			if next[p] == nil {
				next[p] = &policyNode{policy: p, qualifiers: any.qualifiers, expected: []string{p}, parents: parents}
			}
		}
	}
	g.levels = append(g.levels, next)
	g.prune()
}

// apply is RFC 9618 §5.4 (RFC 5280 §6.1.4 (b)): the certificate's mappings, which count or delete what they map.
func (g *policyGraph) apply(c *Certificate, allowed bool) {
	if g.empty() || len(c.mappings) == 0 {
		return
	}
	last := g.levels[len(g.levels)-1]
	if !allowed {
		for _, m := range c.mappings {
			delete(last, m.issuer)
		}
		g.prune()
		return
	}
	for _, m := range c.mappings {
		n := last[m.issuer]
		if n == nil {
			any := last[AnyPolicy]
			if any == nil {
				continue
			}
			n = &policyNode{policy: m.issuer, qualifiers: any.qualifiers, parents: any.parents}
			last[m.issuer] = n
		}
		if !n.mapped {
			n.mapped, n.expected = true, nil
		}
		n.expected = append(n.expected, m.subject)
	}
}

// prune removes what has no descendant at the last depth.
func (g *policyGraph) prune() {
	last := len(g.levels) - 1
	for _, n := range g.levels[last] {
		n.alive = true
	}
	for i := last; i >= 0; i-- {
		for p, n := range g.levels[i] {
			if !n.alive {
				delete(g.levels[i], p)
				continue
			}
			n.alive = false
			for _, parent := range n.parents {
				parent.alive = true
			}
		}
	}
	if len(g.levels[last]) == 0 {
		g.levels = nil
	}
}

// A ValidPolicy is a policy, by its name in the trust anchor's domain, that every certificate of the path was issued under.
type ValidPolicy struct {
	Policy     OID // AnyPolicy if nothing limits it
	Qualifiers []Qualifier
}

// valid returns the user-constrained-policy-set (RFC 9618 §5.6), in the order of identifiers, with the qualifiers that the
// certificates of the path have for each. initial is the user-initial-policy-set; nil stands for {anyPolicy}.
func (g *policyGraph) valid(initial []OID) []ValidPolicy {
	if g.empty() {
		return nil
	}
	// 1. the nodes right below an anyPolicy, whose policies are named in the anchor's domain
	authority := map[string][]*policyNode{}
	for i := 1; i < len(g.levels); i++ {
		for p, n := range g.levels[i] {
			if slices.ContainsFunc(n.parents, isAny) && (p != AnyPolicy || i == len(g.levels)-1) {
				authority[p] = append(authority[p], n)
			}
		}
	}
	if len(g.levels) == 1 {
		authority[AnyPolicy] = []*policyNode{g.levels[0][AnyPolicy]}
	}
	// 2. those the user named
	anyNodes := authority[AnyPolicy]
	if initial != nil && !slices.Contains(initial, AnyPolicy) {
		named := map[string][]*policyNode{}
		for _, id := range initial {
			p := string(id)
			switch {
			case authority[p] != nil:
				named[p] = authority[p]
			case anyNodes != nil:
				named[p] = anyNodes
			}
		}
		authority = named
	}
	// 3. what the certificates say about each, in its own name or what it was mapped to
	levels := make([][]*policyNode, len(g.levels))
	for i, level := range g.levels {
		levels[i] = sorted(level)
	}
	var out []ValidPolicy
	for i, p := range slices.Sorted(maps.Keys(authority)) {
		v := ValidPolicy{Policy: OID(p)}
		for _, n := range authority[p] {
			n.reached = i + 1
			for up := slices.IndexFunc(n.parents, isAny); up >= 0; up = slices.IndexFunc(n.parents, isAny) { // the chain above it
				n = n.parents[up]
				v.add(n.qualifiers)
			}
		}
		v.collect(levels, i+1)
		out = append(out, v)
	}
	return out
}

func isAny(n *policyNode) bool { return n.policy == AnyPolicy }

// collect adds the qualifiers of the marked nodes and of those that descend from one.
func (v *ValidPolicy) collect(levels [][]*policyNode, mark int) {
	for _, level := range levels {
		for _, n := range level {
			if n.reached != mark && slices.ContainsFunc(n.parents, func(parent *policyNode) bool { return parent.reached == mark }) {
				n.reached = mark
			}
			if n.reached == mark {
				v.add(n.qualifiers)
			}
		}
	}
}

// add adds qualifiers that are not there yet.
func (v *ValidPolicy) add(qualifiers []Qualifier) {
	for _, q := range qualifiers {
		if len(v.Qualifiers) < maxQualifiers && !slices.ContainsFunc(v.Qualifiers, func(o Qualifier) bool { return o.ID == q.ID && bytes.Equal(o.Value, q.Value) }) {
			v.Qualifiers = append(v.Qualifiers, q)
		}
	}
}

// sorted returns a level's nodes in the order of their policies.
func sorted(level map[string]*policyNode) []*policyNode {
	out := make([]*policyNode, 0, len(level))
	for _, p := range slices.Sorted(maps.Keys(level)) {
		out = append(out, level[p])
	}
	return out
}
