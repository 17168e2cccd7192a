package path_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/path"
)

func responderTemplate(cn string, noCheck bool) *x509.Certificate {
	c := template(cn, false)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	if noCheck {
		c.ExtraExtensions = append(c.ExtraExtensions, extension("1.3.6.1.5.5.7.48.1.5", false, []byte{5, 0}))
	}
	return c
}

// Who may answer, with what, and when.
func TestOCSP(t *testing.T) {
	root := newCA(t, "Root", nil)
	twin := issue(t, template("Root", true), nil, nil) // another generation of the same name
	leaf := newLeaf(t, "leaf", root)
	other := newLeaf(t, "other", root)
	good := xocsp.Response{Status: xocsp.Good}
	responder := issue(t, responderTemplate("Responder", true), root, nil)
	old := responderTemplate("Responder", true)
	old.NotAfter = noon.Add(-time.Minute)
	noEKU := template("Responder", false)
	noSign := responderTemplate("Responder", true)
	noSign.KeyUsage = x509.KeyUsageKeyEncipherment
	revokedOne := issue(t, responderTemplate("Responder", false), root, nil)
	tests := map[string]struct {
		answers []*path.OCSP
		lists   []*path.CRL
		maxAge  time.Duration
		state   path.State
		why     path.StatusCode
	}{
		"nothing":                         {state: path.Undetermined, why: path.NoData},
		"the issuer":                      {answers: []*path.OCSP{answer(t, leaf, root, root, good)}, state: path.Good},
		"CertID by SHA-256":               {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, IssuerHash: crypto.SHA256})}, state: path.Good},
		"CertID by SHA-384":               {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, IssuerHash: crypto.SHA384})}, state: path.Good},
		"CertID by SHA-512":               {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, IssuerHash: crypto.SHA512})}, state: path.Good},
		"delegated":                       {answers: []*path.OCSP{answer(t, leaf, root, responder, good)}, state: path.Good},
		"about another":                   {answers: []*path.OCSP{answer(t, other, root, root, good)}, state: path.Undetermined, why: path.NoData},
		"of another generation":           {answers: []*path.OCSP{answer(t, leaf, twin, twin, good)}, state: path.Undetermined, why: path.DataMisnamed},
		"signed by another generation":    {answers: []*path.OCSP{answer(t, leaf, root, twin, good)}, state: path.Undetermined, why: path.SignerRefused},
		"delegated by another generation": {answers: []*path.OCSP{answer(t, leaf, root, issue(t, responderTemplate("Responder", true), twin, nil), good)}, state: path.Undetermined, why: path.SignerRefused},
		"delegated without purpose":       {answers: []*path.OCSP{answer(t, leaf, root, issue(t, noEKU, root, nil), good)}, state: path.Undetermined, why: path.SignerRefused},
		"delegated without key usage":     {answers: []*path.OCSP{answer(t, leaf, root, issue(t, noSign, root, nil), good)}, state: path.Undetermined, why: path.SignerRefused},
		"expired responder":               {answers: []*path.OCSP{answer(t, leaf, root, issue(t, old, root, nil), good)}, state: path.Undetermined, why: path.SignerRefused},
		"responder of unknown status":     {answers: []*path.OCSP{answer(t, leaf, root, revokedOne, good)}, state: path.Undetermined, why: path.SignerRefused},
		"revoked responder": {
			answers: []*path.OCSP{answer(t, leaf, root, revokedOne, good), answer(t, revokedOne, root, root, xocsp.Response{Status: xocsp.Revoked, RevokedAt: noon.Add(-time.Hour)})},
			state:   path.Undetermined, why: path.SignerRefused,
		},
		"good responder":         {answers: []*path.OCSP{answer(t, leaf, root, revokedOne, good), answer(t, revokedOne, root, root, good)}, state: path.Good},
		"responder about itself": {answers: []*path.OCSP{answer(t, leaf, root, revokedOne, good), answer(t, revokedOne, root, revokedOne, good)}, state: path.Undetermined, why: path.SignerRefused},
		"unknown":                {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Unknown})}, state: path.Undetermined, why: path.CertificateUnknown},
		"revoked":                {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Revoked, RevokedAt: noon.Add(-time.Hour), RevocationReason: 3})}, state: path.IsRevoked},
		"of the future":          {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, ThisUpdate: noon.Add(time.Minute)})}, state: path.Undetermined, why: path.DataNotCurrent},
		"out of date":            {answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.Add(-time.Second)})}, state: path.Undetermined, why: path.DataNotCurrent},
		"older than asked": {
			answers: []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, ThisUpdate: noon.Add(-time.Hour)})}, maxAge: time.Minute,
			state: path.Undetermined, why: path.DataNotCurrent,
		},
		"the newer counts": {answers: []*path.OCSP{
			answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, ThisUpdate: noon.Add(-time.Hour)}),
			answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Revoked, RevokedAt: noon.Add(-2 * time.Hour), ThisUpdate: noon.Add(-time.Minute)}),
		}, state: path.IsRevoked},
		"a forged newer one does not": {answers: []*path.OCSP{
			answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Revoked, RevokedAt: noon.Add(-2 * time.Hour), ThisUpdate: noon.Add(-time.Hour)}),
			answer(t, leaf, root, twin, good),
		}, state: path.IsRevoked},
		"a list that says revoked": {
			answers: []*path.OCSP{answer(t, leaf, root, root, good)}, lists: []*path.CRL{root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(leaf, noon.Add(-2*time.Hour), 1)}})},
			state: path.IsRevoked,
		},
		"a list with a hold that was released": {
			answers: []*path.OCSP{answer(t, leaf, root, root, good)}, lists: []*path.CRL{root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(leaf, noon.Add(-2*time.Hour), 6)}})},
			state: path.Good,
		},
		"a list with a newer hold": {
			answers: []*path.OCSP{answer(t, leaf, root, root, good)}, lists: []*path.CRL{root.list(t, list{number: 1, at: noon, revoked: []x509.RevocationListEntry{entry(leaf, noon, 6)}})},
			state: path.IsRevoked,
		},
		"a list that cannot be used": {
			answers: []*path.OCSP{answer(t, leaf, root, root, good)}, lists: []*path.CRL{twin.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(leaf, noon.Add(-2*time.Hour), 1)}})},
			state: path.Good,
		},
		"a list instead": {answers: []*path.OCSP{answer(t, leaf, root, twin, good)}, lists: []*path.CRL{root.list(t, list{number: 1})}, state: path.Good},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			res := validate(t, root, path.Request{Certificate: leaf.Certificate, OCSP: test.answers, CRLs: test.lists, MaxAge: test.maxAge})
			if len(res.Statuses) != 1 {
				t.Fatalf("%s: %s", res.Code, res.Detail)
			}
			st := res.Statuses[0]
			if st.State != test.state || st.Why != test.why {
				t.Errorf("%s %s: %s", st.State, st.Why, st.Detail)
			}
			want := map[path.State]path.Code{path.Good: path.OK, path.IsRevoked: path.Revoked, path.Undetermined: path.StatusUndetermined}[test.state]
			if res.Code != want || (st.State != path.Undetermined) != (len(st.Evidence) > 0) {
				t.Errorf("%s: %s with %d pieces of evidence", res.Code, res.Detail, len(st.Evidence))
			}
		})
	}
}

// A responder may have the issuer's key under a name of its own, or be one the configuration names.
func TestOtherResponders(t *testing.T) {
	root := newCA(t, "Root", nil)
	leaf := newLeaf(t, "leaf", root)
	foreign := newCA(t, "Elsewhere", nil)
	local := issue(t, template("Local responder", false), foreign, nil)
	o := answer(t, leaf, root, local, xocsp.Response{Status: xocsp.Good})
	req := path.Request{Certificate: leaf.Certificate, At: noon, OCSP: []*path.OCSP{o}}
	if res := validate(t, root, req); res.OK() {
		t.Error("anybody may answer")
	}
	v := must(path.New(path.Config{Anchors: certificates(root), Responders: certificates(local)}))
	if res := must(v.Validate(t.Context(), req)); !res.OK() {
		t.Errorf("%s: %s", res.Code, res.Detail)
	}
	same := issue(t, template("Another name", true), foreign, root.key)
	req.OCSP = []*path.OCSP{answer(t, leaf, root, same, xocsp.Response{Status: xocsp.Good})}
	if res := validate(t, root, req); !res.OK() {
		t.Errorf("the issuer's key under another name: %s: %s", res.Code, res.Detail)
	}
}

func TestLists(t *testing.T) {
	root := newCA(t, "Root", nil)
	twin := issue(t, template("Root", true), nil, nil)
	leaf, held := newLeaf(t, "leaf", root), newLeaf(t, "held", root)
	since := noon.Add(-2 * time.Hour)
	critical := []pkix.Extension{extension("1.3.6.1.4.1.99999.1", true, []byte{5, 0})}
	idp := func(value ...byte) []pkix.Extension {
		return []pkix.Extension{extension("2.5.29.28", true, append([]byte{0x30, byte(len(value))}, value...))}
	}
	badEntry := entry(held, since, 1)
	badEntry.ExtraExtensions = critical
	forgery := template("Root", true)
	forgery.SubjectKeyId = root.SubjectKeyID
	holding := root.list(t, list{number: 5, revoked: []x509.RevocationListEntry{entry(leaf, since, 6)}})
	tests := map[string]struct {
		lists []*path.CRL
		state path.State
		why   path.StatusCode
	}{
		"not on it":                    {lists: []*path.CRL{root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(held, since, 6)}})}, state: path.Good},
		"on it":                        {lists: []*path.CRL{root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(held, since, 6), entry(leaf, since, 1)}})}, state: path.IsRevoked},
		"of another generation":        {lists: []*path.CRL{twin.list(t, list{number: 1})}, state: path.Undetermined, why: path.NoData},
		"forged":                       {lists: []*path.CRL{issue(t, forgery, nil, nil).list(t, list{number: 1})}, state: path.Undetermined, why: path.DataForged},
		"out of date":                  {lists: []*path.CRL{root.list(t, list{number: 1, next: noon.Add(-time.Second)})}, state: path.Undetermined, why: path.DataNotCurrent},
		"of the future":                {lists: []*path.CRL{root.list(t, list{number: 1, at: noon.Add(time.Second)})}, state: path.Undetermined, why: path.DataNotCurrent},
		"with an unknown extension":    {lists: []*path.CRL{root.list(t, list{number: 1, extension: critical})}, state: path.Undetermined, why: path.DataMalformed},
		"with an unknown entry":        {lists: []*path.CRL{root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{badEntry}})}, state: path.Undetermined, why: path.DataMalformed},
		"for authorities only":         {lists: []*path.CRL{root.list(t, list{number: 1, extension: idp(0x82, 1, 0xff)})}, state: path.Undetermined, why: path.NoData},
		"for users only":               {lists: []*path.CRL{root.list(t, list{number: 1, extension: idp(0x81, 1, 0xff)})}, state: path.Good},
		"for attributes only":          {lists: []*path.CRL{root.list(t, list{number: 1, extension: idp(0x85, 1, 0xff)})}, state: path.Undetermined, why: path.NoData},
		"for some reasons":             {lists: []*path.CRL{root.list(t, list{number: 1, extension: idp(0x83, 2, 5, 0x60)})}, state: path.Undetermined, why: path.ReasonsIncomplete},
		"for the other reasons, too":   {lists: []*path.CRL{root.list(t, list{number: 1, extension: idp(0x83, 2, 5, 0x60)}), root.list(t, list{number: 2, extension: idp(0x83, 3, 7, 0x1f, 0x80)})}, state: path.Good},
		"a delta alone":                {lists: []*path.CRL{root.list(t, list{number: 6, base: 5})}, state: path.Undetermined, why: path.NoData},
		"a delta that revokes":         {lists: []*path.CRL{root.list(t, list{number: 5}), root.list(t, list{number: 6, base: 5, revoked: []x509.RevocationListEntry{entry(leaf, since, 4)}})}, state: path.IsRevoked},
		"a delta that releases":        {lists: []*path.CRL{holding, root.list(t, list{number: 6, base: 5, revoked: []x509.RevocationListEntry{entry(leaf, since, 8)}})}, state: path.Good},
		"a delta of a later base":      {lists: []*path.CRL{holding, root.list(t, list{number: 8, base: 7, revoked: []x509.RevocationListEntry{entry(leaf, since, 8)}})}, state: path.IsRevoked},
		"a delta older than the list":  {lists: []*path.CRL{holding, root.list(t, list{number: 4, base: 3, revoked: []x509.RevocationListEntry{entry(leaf, since, 8)}})}, state: path.IsRevoked},
		"a delta of another scope":     {lists: []*path.CRL{holding, root.list(t, list{number: 6, base: 5, extension: idp(0x81, 1, 0xff), revoked: []x509.RevocationListEntry{entry(leaf, since, 8)}})}, state: path.IsRevoked},
		"a delta of another key":       {lists: []*path.CRL{holding, twin.list(t, list{number: 6, base: 5, revoked: []x509.RevocationListEntry{entry(leaf, since, 8)}})}, state: path.IsRevoked},
		"an old list with a delta":     {lists: []*path.CRL{root.list(t, list{number: 5, next: noon.Add(-time.Second)}), root.list(t, list{number: 6, base: 5})}, state: path.Good},
		"removed from a complete list": {lists: []*path.CRL{root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(leaf, since, 8)}})}, state: path.Undetermined, why: path.DataMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			res := validate(t, root, path.Request{Certificate: leaf.Certificate, CRLs: test.lists})
			if len(res.Statuses) != 1 {
				t.Fatalf("%s: %s", res.Code, res.Detail)
			}
			if st := res.Statuses[0]; st.State != test.state || st.Why != test.why {
				t.Errorf("%s %s: %s", st.State, st.Why, st.Detail)
			}
		})
	}
}

// A certificate revoked after the time asked about was good then; one that has expired may be forgotten.
func TestPast(t *testing.T) {
	root := newCA(t, "Root", nil)
	c := template("leaf", false)
	c.NotAfter = noon.AddDate(0, 1, 0)
	leaf := issue(t, c, root, nil)
	revoked := []x509.RevocationListEntry{entry(leaf, noon.Add(time.Hour), 3)}
	day := noon.AddDate(0, 0, 1)
	req := path.Request{Certificate: leaf.Certificate, At: noon, StatusAt: day, CRLs: []*path.CRL{root.list(t, list{number: 1, at: day, next: day.Add(time.Hour), revoked: revoked})}}
	res := validate(t, root, req)
	if st := res.Statuses[0]; !res.OK() || !st.Later || st.Reason != jpki.AffiliationChanged || !st.Since.Equal(noon.Add(time.Hour)) {
		t.Errorf("revoked an hour later: %s: %s, %+v", res.Code, res.Detail, st)
	}
	req.At = noon.Add(time.Hour)
	if res := validate(t, root, req); res.Code != path.Revoked {
		t.Errorf("revoked at that time: %s: %s", res.Code, res.Detail)
	}
	// At the present a revocation counts even if its time lies ahead.
	req.At, req.StatusAt = noon, noon
	req.CRLs = []*path.CRL{root.list(t, list{number: 1, revoked: revoked})}
	if res := validate(t, root, req); res.Code != path.Revoked {
		t.Errorf("revoked from an hour ahead: %s: %s", res.Code, res.Detail)
	}
	later := noon.AddDate(0, 2, 0)
	req = path.Request{Certificate: leaf.Certificate, At: noon, StatusAt: later, CRLs: []*path.CRL{root.list(t, list{number: 9, at: later, next: later.Add(time.Hour)})}}
	if res := validate(t, root, req); res.Code != path.StatusUndetermined || res.Statuses[0].Why != path.AfterExpiry {
		t.Errorf("after expiry: %s: %s", res.Code, res.Detail)
	}
	req.CRLs, req.OCSP = nil, []*path.OCSP{answer(t, leaf, root, root, xocsp.Response{Status: xocsp.Good, ThisUpdate: later, NextUpdate: later.Add(time.Hour)})}
	if res := validate(t, root, req); res.OK() {
		t.Errorf("after expiry: %s: %s", res.Code, res.Detail)
	}
}

// A revoked authority takes all below it with it; an undetermined one is not good; the modes differ only in what they
// bear, never in what is called good.
func TestChainStatus(t *testing.T) {
	root := newCA(t, "Root", nil)
	middle := newCA(t, "Middle", root)
	leaf := newLeaf(t, "leaf", middle)
	req := path.Request{Certificate: leaf.Certificate, Certificates: certificates(middle), CRLs: []*path.CRL{
		middle.list(t, list{number: 1}), root.list(t, list{number: 1, revoked: []x509.RevocationListEntry{entry(middle, noon.Add(-time.Hour), 2)}}),
	}}
	res := validate(t, root, req)
	if res.Code != path.Revoked || res.Index != 1 || res.Statuses[0].State != path.Undetermined {
		t.Errorf("%s at %d: %s", res.Code, res.Index, res.Detail)
	}
	// Another certificate of the same authority is not revoked: the path goes there.
	req.Certificates = append(req.Certificates, issue(t, template("Middle", true), root, middle.key).Certificate)
	if res = validate(t, root, req); !res.OK() || res.Statuses[1].State != path.Good {
		t.Errorf("%s at %d: %s", res.Code, res.Index, res.Detail)
	}
	req.CRLs = req.CRLs[1:]
	for mode, want := range map[path.RevocationMode]path.Code{path.RevocationRequired: path.StatusUndetermined, path.RevocationIfOffered: path.OK, path.RevocationOff: path.OK} {
		req.Revocation = mode
		res := validate(t, root, req)
		if res.Code != want || res.Statuses[0].State != path.Undetermined {
			t.Errorf("mode %d: %s: %s", mode, res.Code, res.Detail)
		}
	}
	req.Revocation = path.RevocationIfOffered
	req.CRLs = append(req.CRLs, middle.list(t, list{number: 1, next: noon.Add(-time.Second)}))
	if res := validate(t, root, req); res.Code != path.StatusUndetermined {
		t.Errorf("an unfit list was offered: %s: %s", res.Code, res.Detail)
	}
}

// Data come from Fetch only when they are missing, once, and an error there is as if there were none.
func TestFetch(t *testing.T) {
	root := newCA(t, "Root", nil)
	m := template("Middle", true)
	m.CRLDistributionPoints = []string{"http://crl.example/root.crl"}
	middle := issue(t, m, root, nil)
	c := template("leaf", false)
	c.IssuingCertificateURL, c.OCSPServer = []string{"http://ca.example/middle.cer"}, []string{"http://ocsp.example/"}
	leaf := issue(t, c, middle, nil)
	var asked []string
	fail := false
	v := must(path.New(path.Config{Anchors: certificates(root), Fetch: func(_ context.Context, w path.Want) ([][]byte, error) {
		asked = append(asked, w.Kind+" "+w.URLs[0])
		switch {
		case fail:
			return nil, errors.New("no network")
		case w.Kind == "issuer":
			return [][]byte{{1}, middle.Raw}, nil
		case w.Kind == "crl":
			return [][]byte{root.list(t, list{number: 1}).Raw}, nil
		}
		return [][]byte{answer(t, leaf, middle, middle, xocsp.Response{Status: xocsp.Good}).Raw}, nil
	}}))
	req := path.Request{Certificate: leaf.Certificate, At: noon}
	if res := must(v.Validate(t.Context(), req)); !res.OK() || len(asked) != 3 || res.Work.Fetches != 3 {
		t.Errorf("%s: %s after %v", res.Code, res.Detail, asked)
	}
	fail, asked = true, nil
	if res := must(v.Validate(t.Context(), req)); res.Code != path.NoIssuer || len(asked) != 1 {
		t.Errorf("%s: %s after %v", res.Code, res.Detail, asked)
	}
	req.Certificates = certificates(middle)
	asked = nil
	if res := must(v.Validate(t.Context(), req)); res.Code != path.StatusUndetermined || res.Statuses[1].State != path.Undetermined {
		t.Errorf("%s: %s after %v", res.Code, res.Detail, asked)
	}
}

// An indirect list counts only for whom a certificate names it, under the issuer its entries name.
func TestIndirect(t *testing.T) {
	root := newCA(t, "Root", nil)
	lister := template("Lister", false)
	lister.KeyUsage, lister.SubjectKeyId = x509.KeyUsageCRLSign, []byte{1, 2, 3}
	by := issue(t, lister, root, nil)
	name := must(asn1.Marshal(asn1.RawValue{Class: 2, Tag: 4, IsCompound: true, Bytes: by.x.RawSubject}))
	point := must(asn1.Marshal(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: must(asn1.Marshal(asn1.RawValue{Class: 2, Tag: 2, IsCompound: true, Bytes: name}))}))
	c := template("leaf", false)
	c.ExtraExtensions = append(c.ExtraExtensions, extension("2.5.29.31", false, must(asn1.Marshal(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: point}))))
	leaf := issue(t, c, root, nil)
	indirect := []pkix.Extension{extension("2.5.29.28", true, []byte{0x30, 3, 0x84, 1, 0xff})}
	of := func(e x509.RevocationListEntry, issuer *entity) x509.RevocationListEntry {
		name := must(asn1.Marshal(asn1.RawValue{Class: 2, Tag: 4, IsCompound: true, Bytes: issuer.x.RawSubject}))
		e.ExtraExtensions = append(e.ExtraExtensions, extension("2.5.29.29", true, must(asn1.Marshal(asn1.RawValue{Tag: 16, IsCompound: true, Bytes: name}))))
		return e
	}
	own := root.list(t, list{number: 1})
	elsewhere := newCA(t, "Elsewhere", nil)
	for name, test := range map[string]struct {
		list *path.CRL
		want path.Code
	}{
		"listed under its issuer":     {by.list(t, list{number: 1, extension: indirect, revoked: []x509.RevocationListEntry{of(entry(leaf, noon, 1), root)}}), path.Revoked},
		"listed under another":        {by.list(t, list{number: 1, extension: indirect, revoked: []x509.RevocationListEntry{of(entry(leaf, noon, 1), elsewhere)}}), path.OK},
		"listed under the list's own": {by.list(t, list{number: 1, extension: indirect, revoked: []x509.RevocationListEntry{entry(leaf, noon, 1)}}), path.OK},
		"not listed":                  {by.list(t, list{number: 1, extension: indirect}), path.OK},
	} {
		// The list of the issuer itself says nothing of leaf; of by it does.
		req := path.Request{Certificate: leaf.Certificate, Certificates: certificates(by), CRLs: []*path.CRL{own, test.list}}
		res := validate(t, root, req)
		if res.Code != test.want {
			t.Errorf("%s: %s: %s", name, res.Code, res.Detail)
		}
	}
	// Not indirect: it is a list of Lister's certificates, of which there are none.
	req := path.Request{Certificate: leaf.Certificate, Certificates: certificates(by), CRLs: []*path.CRL{by.list(t, list{number: 1})}}
	if res := validate(t, root, req); res.Code != path.StatusUndetermined {
		t.Errorf("not indirect: %s: %s", res.Code, res.Detail)
	}
}
