package path_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/path"
)

// One name, several keys: the generation is found by key identifier and signature, in whatever order they are offered.
func TestGenerations(t *testing.T) {
	first := newCA(t, "Root", nil)
	second := issue(t, template("Root", true), nil, nil)
	third := issue(t, template("Root", true), nil, nil)
	leaf := newLeaf(t, "leaf", second)
	for _, anchors := range [][]*path.Certificate{certificates(first, second, third), certificates(third, second, first)} {
		v := must(path.New(path.Config{Anchors: anchors}))
		res := must(v.Validate(t.Context(), path.Request{Certificate: leaf.Certificate, At: noon, Revocation: path.RevocationOff}))
		if !res.OK() || res.Anchor != second.Certificate || res.Work.Signatures != 1 {
			t.Errorf("%s: %s, %+v", res.Code, res.Detail, res.Work)
		}
	}
	// Without the right generation it was not anybody's.
	v := must(path.New(path.Config{Anchors: certificates(first, third)}))
	if res := must(v.Validate(t.Context(), path.Request{Certificate: leaf.Certificate, At: noon, Revocation: path.RevocationOff})); res.Code != path.SignatureWrong {
		t.Errorf("%s: %s", res.Code, res.Detail)
	}
}

// Old root, new root, and the link between them.
func TestRollover(t *testing.T) {
	older := newCA(t, "Root", nil)
	newer := issue(t, template("Root", true), nil, nil)
	link := issue(t, template("Root", true), older, newer.key) // new key, signed by the old one: self-issued
	leaf := newLeaf(t, "leaf", newer)
	res := validate(t, older, path.Request{Certificate: leaf.Certificate, Certificates: certificates(link, newer), Revocation: path.RevocationOff})
	if !res.OK() || len(res.Path) != 2 || res.Path[1] != link.Certificate {
		t.Errorf("%s: %s", res.Code, res.Detail)
	}
}

// Two authorities that certify each other, with and without a way out.
func TestCrossCertificates(t *testing.T) {
	root := newCA(t, "Root", nil)
	a, b := newCA(t, "A", nil), newCA(t, "B", nil)
	aByB, bByA := issue(t, template("A", true), b, a.key), issue(t, template("B", true), a, b.key)
	leaf := newLeaf(t, "leaf", a)
	req := path.Request{Certificate: leaf.Certificate, Certificates: certificates(aByB, bByA, a, b), Revocation: path.RevocationOff}
	res := validate(t, root, req)
	if res.Code != path.NoIssuer || res.LimitReached || res.Work.Candidates > 16 {
		t.Errorf("a circle: %s: %s, %+v", res.Code, res.Detail, res.Work)
	}
	req.Certificates = append(req.Certificates, issue(t, template("B", true), root, b.key).Certificate)
	if res = validate(t, root, req); !res.OK() || len(res.Path) != 3 {
		t.Errorf("a way out: %s: %s", res.Code, res.Detail)
	}
}

func TestLimits(t *testing.T) {
	root := newCA(t, "Root", nil)
	var all []*path.Certificate
	key := newKey()
	for range 60 { // one name, sixty keys
		c := template("Twin", true)
		c.SubjectKeyId = []byte{1}
		all = append(all, issue(t, c, nil, nil).Certificate)
	}
	twin := issue(t, template("Twin", true), nil, key)
	leaf := newLeaf(t, "leaf", twin)
	v := must(path.New(path.Config{Anchors: certificates(root), Limits: path.Limits{Signatures: 20}}))
	res := must(v.Validate(t.Context(), path.Request{Certificate: leaf.Certificate, Certificates: all, At: noon, Revocation: path.RevocationOff}))
	if res.Code != path.LimitReached || !res.LimitReached || res.Work.Signatures != 20 {
		t.Errorf("%s: %s, %+v", res.Code, res.Detail, res.Work)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Validate(ctx, path.Request{Certificate: leaf.Certificate, Certificates: all, At: noon}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	by := root
	var chain []*path.Certificate
	for i := range 20 {
		by = newCA(t, fmt.Sprintf("CA %d", i), by)
		chain = append(chain, by.Certificate)
	}
	req := path.Request{Certificate: newLeaf(t, "deep", by).Certificate, Certificates: chain, At: noon, Revocation: path.RevocationOff}
	if res := validate(t, root, req); res.OK() || !res.LimitReached {
		t.Errorf("20 authorities: %s: %s", res.Code, res.Detail)
	}
	v = must(path.New(path.Config{Anchors: certificates(root), Limits: path.Limits{Depth: 21}}))
	if res := must(v.Validate(t.Context(), req)); !res.OK() {
		t.Errorf("20 authorities with a limit of 21: %s: %s", res.Code, res.Detail)
	}
}

// The reason given is that of the path that came furthest.
func TestReasons(t *testing.T) {
	root := newCA(t, "Root", nil)
	early, late := noon.AddDate(-1, 0, 0), noon.AddDate(1, 0, 0)
	tests := map[string]struct {
		make func() (*entity, []*path.Certificate)
		at   time.Time
		req  path.Request
		want path.Code
	}{
		"fine":      {want: path.OK},
		"nobody":    {make: func() (*entity, []*path.Certificate) { return newLeaf(t, "x", newCA(t, "Elsewhere", nil)), nil }, want: path.NoIssuer},
		"too early": {at: early, want: path.NotYetValid},
		"too late":  {at: late, want: path.Expired},
		"no authority": {make: func() (*entity, []*path.Certificate) {
			ee := newLeaf(t, "EE", root)
			return newLeaf(t, "x", ee), certificates(ee)
		}, want: path.NotCA},
		"wrong key usage":  {req: path.Request{KeyUsage: path.ContentCommitment}, want: path.KeyUsageWrong},
		"explicit policy":  {req: path.Request{RequireExplicitPolicy: true}, want: path.PolicyMissing},
		"wrong name":       {req: path.Request{Names: []path.WantedName{{Kind: path.Host, Value: "bank.example"}}}, want: path.NameMismatch},
		"status not known": {req: path.Request{Revocation: path.RevocationRequired}, want: path.StatusUndetermined},
		"unknown critical": {make: func() (*entity, []*path.Certificate) {
			c := template("x", false)
			c.ExtraExtensions = append(c.ExtraExtensions, extension("1.3.6.1.4.1.99999.1", true, []byte{5, 0}))
			return issue(t, c, root, nil), nil
		}, want: path.UnknownCritical},
		"path length": {make: func() (*entity, []*path.Certificate) {
			c := template("Narrow", true)
			c.MaxPathLenZero = true
			narrow := issue(t, c, root, nil)
			below := newCA(t, "Below", narrow)
			return newLeaf(t, "x", below), certificates(narrow, below)
		}, want: path.PathTooLong},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			leaf, others := newLeaf(t, "leaf", root), []*path.Certificate(nil)
			if test.make != nil {
				if l, o := test.make(); l != nil {
					leaf, others = l, o
				}
			}
			req := test.req
			req.Certificate, req.Certificates, req.At = leaf.Certificate, others, test.at
			if test.want != path.StatusUndetermined {
				req.Revocation = path.RevocationOff
			}
			res := validate(t, root, req)
			if res.Code != test.want {
				t.Errorf("%s: %s", res.Code, res.Detail)
			}
			for _, st := range res.Statuses {
				if st.State == path.Good {
					t.Error("good without a check")
				}
			}
		})
	}
}

// Every code is listed once.
func TestCodes(t *testing.T) {
	codes := slices.Clone(path.Codes)
	slices.Sort(codes)
	if len(slices.Compact(codes)) != len(path.Codes) {
		t.Error("a code is there twice")
	}
}

func TestConfig(t *testing.T) {
	root := newCA(t, "Root", nil)
	for name, cfg := range map[string]path.Config{
		"no anchor": {}, "nil": {Anchors: []*path.Certificate{nil}}, "skew": {Anchors: certificates(root), Skew: -1},
		"limit": {Anchors: certificates(root), Limits: path.Limits{Depth: -1}},
	} {
		if _, err := path.New(cfg); err == nil {
			t.Errorf("%s is admitted", name)
		}
	}
	v := must(path.New(path.Config{Anchors: certificates(root)}))
	for name, req := range map[string]path.Request{"nothing": {}, "no time": {Certificate: root.Certificate}, "no certificate": {At: noon}} {
		if _, err := v.Validate(t.Context(), req); err == nil {
			t.Errorf("%s is admitted", name)
		}
	}
}

// What the cache remembers costs nothing the second time, and a wrong signature is not remembered.
func TestCache(t *testing.T) {
	root := newCA(t, "Root", nil)
	other := issue(t, template("Root", true), nil, nil)
	leaf := newLeaf(t, "leaf", root)
	cache := must(path.NewCache(100))
	v := must(path.New(path.Config{Anchors: certificates(root), Cache: cache}))
	wrong := must(path.New(path.Config{Anchors: certificates(other), Cache: cache}))
	req := path.Request{Certificate: must(cache.Certificate(leaf.Raw)), At: noon, Revocation: path.RevocationOff}
	for i := range 3 {
		res := must(v.Validate(t.Context(), req))
		if !res.OK() || i == 0 && res.Work.Signatures != 1 || i > 0 && (res.Work.Signatures != 0 || res.Work.Remembered != 1) {
			t.Errorf("time %d: %s, %+v", i, res.Code, res.Work)
		}
		if res := must(wrong.Validate(t.Context(), req)); res.OK() || res.Work.Signatures != 1 {
			t.Errorf("time %d with another root: %s, %+v", i, res.Code, res.Work)
		}
	}
	if again := must(cache.Certificate(leaf.Raw)); again != req.Certificate {
		t.Error("read twice")
	}
	if _, err := path.NewCache(0); err == nil {
		t.Error("a cache without room")
	}
}

// One Validator, one cache and the same certificates serve everybody at once.
func TestConcurrent(t *testing.T) {
	root := newCA(t, "Root", nil)
	middle := newCA(t, "Middle", root)
	var leaves []*entity
	for range 4 {
		leaves = append(leaves, newLeaf(t, "leaf", middle))
	}
	cache := must(path.NewCache(4)) // so small that it forgets all the time
	v := must(path.New(path.Config{Anchors: certificates(root), Certificates: certificates(middle), Cache: cache}))
	lists := []*path.CRL{root.list(t, list{number: 1}), middle.list(t, list{number: 1})}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 20 {
				c, err := cache.Certificate(leaves[(i+k)%len(leaves)].Raw)
				if err != nil {
					t.Error(err)
					return
				}
				res, err := v.Validate(t.Context(), path.Request{Certificate: c, At: noon, CRLs: lists})
				if err != nil || !res.OK() {
					t.Errorf("%v, %+v", err, res)
				}
			}
		})
	}
	all.Wait()
}
