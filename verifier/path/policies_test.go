package path_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openjpki/jpki/verifier/path"
)

const anyPolicy = path.AnyPolicy

// A leafy tree is RFC 5280's valid_policy_tree as §6.1 has it, word for word: a node for every way to a policy.
type leafy struct {
	depth    int
	policy   string
	expected []string
	children []*leafy
}

func (n *leafy) at(depth int, visit func(*leafy)) {
	if n.depth == depth {
		visit(n)
		return
	}
	for _, c := range n.children {
		c.at(depth, visit)
	}
}

// prune removes what has no child above a depth; it reports whether n itself must go.
func (n *leafy) prune(depth int) bool {
	if n.depth >= depth {
		return false
	}
	n.children = slices.DeleteFunc(n.children, func(c *leafy) bool { return c.prune(depth) })
	return len(n.children) == 0
}

func (n *leafy) child(policy string, expected ...string) {
	n.children = append(n.children, &leafy{n.depth + 1, policy, expected, nil})
}

// byTheBook is RFC 5280 §6.1.2 to §6.1.5 for policies alone.
func byTheBook(steps []path.PolicyStep, initial []string, explicit, mapping, noAny bool) (valid bool, set []string) {
	n := len(steps)
	tree := &leafy{policy: anyPolicy, expected: []string{anyPolicy}}
	start := func(zero bool) int {
		if zero {
			return 0
		}
		return n + 1
	}
	explicitPolicy, policyMapping, inhibitAny := start(explicit), start(mapping), start(noAny)
	for i := 1; i <= n; i++ {
		st := steps[i-1]
		if st.Policies == nil {
			tree = nil
		}
		if tree != nil { // §6.1.3 (d)
			for _, p := range st.Policies {
				if p == anyPolicy {
					continue
				}
				matched := false
				tree.at(i-1, func(node *leafy) {
					if slices.Contains(node.expected, p) {
						matched = true
						node.child(p, p)
					}
				})
				if !matched {
					tree.at(i-1, func(node *leafy) {
						if node.policy == anyPolicy {
							node.child(p, p)
						}
					})
				}
			}
			if slices.Contains(st.Policies, anyPolicy) && (inhibitAny > 0 || i < n && st.SelfIssued) {
				tree.at(i-1, func(node *leafy) {
					for _, p := range node.expected {
						if !slices.ContainsFunc(node.children, func(c *leafy) bool { return c.policy == p }) {
							node.child(p, p)
						}
					}
				})
			}
			if tree.prune(i) {
				tree = nil
			}
		}
		if explicitPolicy == 0 && tree == nil {
			return false, nil
		}
		if i == n {
			break
		}
		byIssuer := map[string][]string{} // §6.1.4 (b)
		for _, m := range st.Mappings {
			if m[0] == anyPolicy || m[1] == anyPolicy {
				return false, nil
			}
			byIssuer[m[0]] = append(byIssuer[m[0]], m[1])
		}
		if tree != nil {
			for p, to := range byIssuer {
				found := false
				if policyMapping > 0 {
					tree.at(i, func(node *leafy) {
						if node.policy == p {
							found = true
							node.expected = to
						}
					})
					if !found {
						tree.at(i-1, func(node *leafy) {
							if slices.ContainsFunc(node.children, func(c *leafy) bool { return c.policy == anyPolicy }) {
								node.child(p, to...)
							}
						})
					}
				} else {
					tree.at(i-1, func(node *leafy) {
						node.children = slices.DeleteFunc(node.children, func(c *leafy) bool { return c.policy == p })
					})
				}
			}
			if tree.prune(i) {
				tree = nil
			}
		}
		if !st.SelfIssued {
			explicitPolicy, policyMapping, inhibitAny = max(explicitPolicy-1, 0), max(policyMapping-1, 0), max(inhibitAny-1, 0)
		}
		if st.Explicit >= 0 {
			explicitPolicy = min(explicitPolicy, st.Explicit)
		}
		if st.Mapping >= 0 {
			policyMapping = min(policyMapping, st.Mapping)
		}
		if st.Any >= 0 {
			inhibitAny = min(inhibitAny, st.Any)
		}
	}
	explicitPolicy = max(explicitPolicy-1, 0)
	if steps[n-1].Explicit == 0 {
		explicitPolicy = 0
	}
	if tree != nil { // §6.1.5 (g): the nodes right below an anyPolicy, and what the user takes of them
		var authority []string
		var below func(*leafy)
		below = func(node *leafy) {
			for _, c := range node.children {
				if node.policy == anyPolicy && (c.policy != anyPolicy || c.depth == n) {
					authority = append(authority, c.policy)
				}
				below(c)
			}
		}
		below(tree)
		slices.Sort(authority)
		set = slices.Compact(authority)
		if !slices.Contains(initial, anyPolicy) {
			hasAny := slices.Contains(set, anyPolicy)
			set = slices.DeleteFunc(slices.Clone(initial), func(p string) bool { return !hasAny && !slices.Contains(set, p) })
			slices.Sort(set)
			set = slices.Compact(set)
		}
	}
	return explicitPolicy > 0 || len(set) > 0, set
}

// The graph says what the tree of the standard says, of any path.
func TestPoliciesAgainstTheTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policies := []string{"\x2a\x01", "\x2a\x02", "\x2a\x03"}
		withAny := append(slices.Clone(policies), anyPolicy)
		limit := rapid.SampledFrom([]int{-1, -1, -1, 0, 1, 2})
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) path.PolicyStep {
			s := path.PolicyStep{SelfIssued: rapid.IntRange(0, 4).Draw(t, "self") == 0, Explicit: limit.Draw(t, "explicit"), Mapping: limit.Draw(t, "mapping"), Any: limit.Draw(t, "any")}
			if rapid.IntRange(0, 9).Draw(t, "has") > 0 {
				s.Policies = rapid.SliceOfNDistinct(rapid.SampledFrom(withAny), 1, 4, rapid.ID).Draw(t, "policies")
			}
			if rapid.Bool().Draw(t, "maps") {
				s.Mappings = rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) [2]string {
					return [2]string{rapid.SampledFrom(policies).Draw(t, "from"), rapid.SampledFrom(policies).Draw(t, "to")}
				}), 1, 4, rapid.ID).Draw(t, "mappings")
			}
			return s
		}), 1, 5).Draw(t, "steps")
		initial := rapid.SliceOfNDistinct(rapid.SampledFrom(withAny), 1, 3, rapid.ID).Draw(t, "initial")
		explicit, mapping, noAny := rapid.Bool().Draw(t, "e"), rapid.Bool().Draw(t, "m"), rapid.Bool().Draw(t, "a")
		valid, set := byTheBook(steps, initial, explicit, mapping, noAny)
		if !valid {
			set = nil
		}
		var ids []path.OID
		for _, p := range initial {
			ids = append(ids, path.OID(p))
		}
		gotValid, got := path.PolicyOutcome(steps, ids, explicit, mapping, noAny)
		if len(set) == 0 {
			set = nil
		}
		if valid != gotValid || !cmp.Equal(set, got) {
			t.Fatalf("valid %v %q, by the book %v %q", gotValid, got, valid, set)
		}
	})
}

// What makes a tree explode leaves the graph small: each certificate maps each of two hundred policies to two.
func TestPoliciesStaySmall(t *testing.T) {
	var steps []path.PolicyStep
	id := func(i int) string { return fmt.Sprintf("\x2a\x81%c%c", 0x80|i>>7&0x7f, i&0x7f) }
	for range 15 {
		s := path.PolicyStep{Explicit: -1, Mapping: -1, Any: -1}
		for i := range 200 {
			s.Policies = append(s.Policies, id(i))
			s.Mappings = append(s.Mappings, [2]string{id(i), id((i + 1) % 200)}, [2]string{id(i), id((i + 7) % 200)})
		}
		steps = append(steps, s)
	}
	steps = append(steps, path.PolicyStep{Policies: []string{id(3)}, Explicit: -1, Mapping: -1, Any: -1})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if valid, _ := path.PolicyOutcome(steps, nil, true, false, false); !valid {
		t.Error("no policy")
	}
	runtime.ReadMemStats(&after)
	allocated := after.TotalAlloc - before.TotalAlloc
	if allocated > 16<<20 {
		t.Errorf("%d MiB for 16 certificates", allocated>>20)
	}
}
