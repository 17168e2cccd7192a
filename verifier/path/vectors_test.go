package path_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/verifier/path"
	"github.com/openjpki/jpki/verifier/primitive"
)

// vectors returns a folder of public test vectors.
func vectors(tb testing.TB, folder string) string {
	tb.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		tb.Skip("JPKI_VECTORS names no folder of vectors")
	}
	return filepath.Join(dir, folder)
}

func readJSON(tb testing.TB, name string, out any) {
	tb.Helper()
	if err := json.Unmarshal(must(os.ReadFile(name)), out); err != nil {
		tb.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// fromPEM returns the contents of PEM, or what is given if it is none.
func fromPEM(b []byte) []byte {
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

func certificateFile(tb testing.TB, name string) *path.Certificate {
	tb.Helper()
	c, err := path.ParseCertificate(fromPEM(must(os.ReadFile(name))))
	if err != nil {
		tb.Fatalf("%s: %v", filepath.Base(name), err)
	}
	return c
}

// dsa are the tests of PKITS that need DSA, which is refused by policy: FIPS 186-5 has withdrawn it.
var dsa = []string{"4.1.4 Valid DSA Signatures Test4", "4.1.5 Valid DSA Parameter Inheritance Test5"}

var pkitsTime = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func pkitsPolicies(tb testing.TB, names []string) (out []path.OID) {
	tb.Helper()
	for _, name := range names {
		text := "2.5.29.32.0"
		if n, ok := strings.CutPrefix(name, "NIST-test-policy-"); ok {
			text = "2.16.840.1.101.3.2.1.48." + n
		} else if name != "anyPolicy" {
			text = name
		}
		out = append(out, must(path.ParseOID(text)))
	}
	return out
}

// NIST PKITS, with the verdicts of the Go toolchain's vectors.json: path validation, policies and CRLs.
func TestPKITS(t *testing.T) {
	dir := vectors(t, "nist-pkits")
	var cases []struct {
		Name                                                                        string
		CertPath, CRLPath, InitialPolicySet                                         []string
		ShouldValidate                                                              bool
		InitialPolicyMappingInhibit, InitialExplicitPolicy, InitialAnyPolicyInhibit bool
	}
	readJSON(t, filepath.Join(dir, "vectors.json"), &cases)
	right := 0
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			req := path.Request{
				At: pkitsTime, Policies: pkitsPolicies(t, c.InitialPolicySet), RequireExplicitPolicy: c.InitialExplicitPolicy,
				InhibitPolicyMapping: c.InitialPolicyMappingInhibit, InhibitAnyPolicy: c.InitialAnyPolicyInhibit,
			}
			for _, name := range c.CertPath[1:] {
				req.Certificates = append(req.Certificates, certificateFile(t, filepath.Join(dir, "certs", name)))
			}
			req.Certificate = req.Certificates[len(req.Certificates)-1]
			for _, name := range c.CRLPath {
				req.CRLs = append(req.CRLs, must(path.ParseCRL(must(os.ReadFile(filepath.Join(dir, "crls", name))))))
			}
			v := must(path.New(path.Config{Anchors: []*path.Certificate{certificateFile(t, filepath.Join(dir, "certs", c.CertPath[0]))}}))
			res := must(v.Validate(t.Context(), req))
			if slices.Contains(dsa, c.Name) {
				if (res.Code != path.KeyRefused && res.Code != path.AlgorithmRefused) || !strings.Contains(res.Detail, "DSA") {
					t.Errorf("%s: %s", res.Code, res.Detail)
				}
				right++
				return
			}
			if res.OK() != c.ShouldValidate {
				t.Errorf("%s at %d: %s; want valid %v", res.Code, res.Index, res.Detail, c.ShouldValidate)
				for _, st := range res.Statuses {
					t.Logf("%s %s %s", st.State, st.Why, st.Detail)
				}
				return
			}
			right++
		})
	}
	t.Logf("PKITS: %d of %d as published, %d of these refused by name because of DSA", right, len(cases), len(dsa))
	if len(cases) != 249 {
		t.Errorf("%d cases", len(cases))
	}
}

// The same with all certificates and lists of the suite at hand: the right ones are found among some six hundred, and
// what is wrong stays wrong.
func TestPKITSAmongAll(t *testing.T) {
	dir := vectors(t, "nist-pkits")
	var cases []struct {
		Name                                                                        string
		CertPath, InitialPolicySet                                                  []string
		ShouldValidate                                                              bool
		InitialPolicyMappingInhibit, InitialExplicitPolicy, InitialAnyPolicyInhibit bool
	}
	readJSON(t, filepath.Join(dir, "vectors.json"), &cases)
	var all []*path.Certificate
	var lists []*path.CRL
	for _, file := range must(filepath.Glob(filepath.Join(dir, "certs", "*.crt"))) {
		all = append(all, certificateFile(t, file))
	}
	for _, file := range must(filepath.Glob(filepath.Join(dir, "crls", "*.crl"))) {
		lists = append(lists, must(path.ParseCRL(must(os.ReadFile(file)))))
	}
	cache := must(path.NewCache(10000))
	v := must(path.New(path.Config{Anchors: []*path.Certificate{certificateFile(t, filepath.Join(dir, "certs", "TrustAnchorRootCertificate.crt"))}, Certificates: all, Cache: cache}))
	for _, c := range cases {
		res := must(v.Validate(t.Context(), path.Request{
			Certificate: certificateFile(t, filepath.Join(dir, "certs", c.CertPath[len(c.CertPath)-1])), CRLs: lists,
			At: pkitsTime, Policies: pkitsPolicies(t, c.InitialPolicySet), RequireExplicitPolicy: c.InitialExplicitPolicy,
			InhibitPolicyMapping: c.InitialPolicyMappingInhibit, InhibitAnyPolicy: c.InitialAnyPolicyInhibit,
		}))
		want := c.ShouldValidate && !slices.Contains(dsa, c.Name)
		if res.OK() != want || res.LimitReached {
			t.Errorf("%s: %s at %d: %s, %+v; want valid %v", c.Name, res.Code, res.Index, res.Detail, res.Work, want)
		}
	}
	t.Logf("%d certificates and %d lists at hand", len(all), len(lists))
}

// The same suite as pyHanko has it, with all inputs of the policy tests and the path's length.
func TestPKITSInputs(t *testing.T) {
	dir := vectors(t, "nist-pkits")
	var cases []struct {
		ID, Name, Cert string
		Others         []string `json:"other_certs"`
		CRLs           []string
		PathLength     int `json:"path_len"`
		Params         struct {
			Policies       []string `json:"user_initial_policy_set"`
			Explicit       bool     `json:"initial_explicit_policy"`
			InhibitMapping bool     `json:"initial_policy_mapping_inhibit"`
			InhibitAny     bool     `json:"initial_any_policy_inhibit"`
		}
		Error  json.RawMessage
		Notice string
	}
	right, all := 0, 0
	root := must(os.ReadFile(filepath.Join(dir, "crls", "TrustAnchorRootCRL.crl")))
	for _, file := range []string{"pkits-pyhanko.json", "pkits-user-notice-pyhanko.json"} {
		cases = nil
		readJSON(t, filepath.Join(dir, file), &cases)
		for _, c := range cases {
			if strings.Contains(c.Name, "dsa_") {
				continue
			}
			all++
			req := path.Request{
				At: pkitsTime, Policies: pkitsPolicies(t, c.Params.Policies), RequireExplicitPolicy: c.Params.Explicit,
				InhibitPolicyMapping: c.Params.InhibitMapping, InhibitAnyPolicy: c.Params.InhibitAny,
			}
			for _, name := range append(c.Others, c.Cert) {
				req.Certificates = append(req.Certificates, certificateFile(t, filepath.Join(dir, "certs", name)))
			}
			req.Certificate = req.Certificates[len(req.Certificates)-1]
			req.CRLs = append(req.CRLs, must(path.ParseCRL(root)))
			for _, name := range c.CRLs {
				req.CRLs = append(req.CRLs, must(path.ParseCRL(must(os.ReadFile(filepath.Join(dir, "crls", name))))))
			}
			v := must(path.New(path.Config{Anchors: []*path.Certificate{certificateFile(t, filepath.Join(dir, "certs", "TrustAnchorRootCertificate.crt"))}}))
			res := must(v.Validate(t.Context(), req))
			switch {
			case res.OK() != (c.Error == nil):
				t.Errorf("%s %s: %s at %d: %s; want %s", c.ID, c.Name, res.Code, res.Index, res.Detail, c.Error)
			case res.OK() && c.PathLength > 0 && len(res.Path)+1 != c.PathLength:
				t.Errorf("%s %s: %d certificates, not %d", c.ID, c.Name, len(res.Path)+1, c.PathLength)
			case c.Notice != "" && !slices.ContainsFunc(res.Policies, func(p path.ValidPolicy) bool { return strings.Contains(notices(p), c.Notice) }):
				t.Errorf("%s %s: no policy has the notice %q: %v", c.ID, c.Name, c.Notice, res.Policies)
			default:
				right++
			}
		}
	}
	t.Logf("PKITS, pyHanko's inputs: %d of %d", right, all)
}

// notices returns the explicit texts of a policy's user notices, which PKITS has as VisibleString.
func notices(p path.ValidPolicy) string {
	var b strings.Builder
	for _, q := range p.Qualifiers {
		if q.ID == path.QualifierNotice {
			b.Write(q.Value)
		}
	}
	return b.String()
}

// The certificates of the real authorities are fit to be anchors, and each is what it says it is: its own issuer.
func TestRealAnchors(t *testing.T) {
	for _, file := range must(filepath.Glob(filepath.Join(vectors(t, "jpki-ca"), "*.pem"))) {
		c := certificateFile(t, file)
		v := must(path.New(path.Config{Anchors: []*path.Certificate{c}}))
		res := must(v.Validate(t.Context(), path.Request{Certificate: c, At: c.NotBefore, Revocation: path.RevocationOff}))
		if !res.OK() || c.Fault() != "" || !c.CA || len(c.SubjectKeyID) == 0 {
			t.Errorf("%s: %s: %s %s", filepath.Base(file), res.Code, res.Detail, c.Fault())
		}
	}
}

// limboName is a peer's name in x509-limbo.
type limboName struct{ Kind, Value string }

func (n limboName) wanted() path.WantedName {
	kinds := map[string]path.NameKind{"DNS": path.Host, "IP": path.Address, "RFC822": path.Mailbox}
	return path.WantedName{Kind: kinds[n.Kind], Value: n.Value}
}

// profiled are the classes that ask for what RFC 5280 §4 demands of issuers and validation does not ask about: they are run
// with the full profile, the others with that of critical restrictions.
var profiled = []string{"ca-profile-lint", "pedantic", "key-algorithm-policy"}

// x509-limbo, of whose cases not one is left out.
func TestLimbo(t *testing.T) {
	dir := vectors(t, "x509-limbo")
	type testcase struct {
		ID       string
		Class    string      `json:"x-class"`
		Kind     string      `json:"validation_kind"`
		Trusted  []string    `json:"trusted_certs"`
		Others   []string    `json:"untrusted_intermediates"`
		Peer     string      `json:"peer_certificate"`
		At       *time.Time  `json:"validation_time"`
		Purposes []string    `json:"extended_key_usage"`
		Expected string      `json:"expected_result"`
		Name     *limboName  `json:"expected_peer_name"`
		Names    []limboName `json:"expected_peer_names"`
		Depth    *int        `json:"max_chain_depth"`
		CRLs     []string
	}
	var cases []testcase
	for _, file := range must(filepath.Glob(filepath.Join(dir, "*.json"))) {
		var suite struct{ Testcases []testcase }
		readJSON(t, file, &suite)
		cases = append(cases, suite.Testcases...)
	}
	purposes := map[string]path.OID{"serverAuth": path.ServerAuth, "clientAuth": path.ClientAuth}
	right, all := map[string]int{}, map[string]int{}
	for _, c := range cases {
		t.Run(c.ID, func(t *testing.T) {
			all[c.Class]++
			req := path.Request{ChainPurposes: true, At: time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC), PathLength: c.Depth, Profile: path.CriticalProfile, Revocation: path.RevocationIfOffered}
			if slices.Contains(profiled, c.Class) {
				req.Profile = path.FullProfile
			}
			if c.At != nil {
				req.At = *c.At
			}
			if c.Name != nil {
				req.Names = append(req.Names, c.Name.wanted())
			}
			for _, n := range c.Names {
				req.Names = append(req.Names, n.wanted())
			}
			for _, p := range c.Purposes {
				req.Purposes = append(req.Purposes, purposes[p])
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			res, err := func() (*path.Result, error) {
				var err error
				if req.Certificate, err = path.ParseCertificate(fromPEM([]byte(c.Peer))); err != nil {
					return nil, err
				}
				var cfg path.Config
				for _, raw := range c.Trusted {
					a, err := path.ParseCertificate(fromPEM([]byte(raw)))
					if err != nil {
						return nil, err
					}
					cfg.Anchors = append(cfg.Anchors, a)
				}
				for _, raw := range c.Others {
					if o, err := path.ParseCertificate(fromPEM([]byte(raw))); err == nil {
						cfg.Certificates = append(cfg.Certificates, o)
					}
				}
				for _, raw := range c.CRLs {
					if l, err := path.ParseCRL(fromPEM([]byte(raw))); err == nil {
						req.CRLs = append(req.CRLs, l)
					}
				}
				v, err := path.New(cfg)
				if err != nil {
					return nil, err
				}
				return v.Validate(t.Context(), req)
			}()
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			valid, why := false, ""
			if err != nil {
				why = err.Error()
			} else {
				valid, why = res.OK(), string(res.Code)+": "+res.Detail
			}
			t.Log(c.Expected, why)
			if c.Class == "dos" {
				t.Logf("%v, %d KiB allocated, %+v", took, (after.TotalAlloc-before.TotalAlloc)>>10, res.Work)
				if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
					t.Errorf("%d MiB allocated", used>>20)
				}
			}
			if valid != (c.Expected == "SUCCESS") {
				t.Errorf("%s; want %s", why, c.Expected)
				return
			}
			right[c.Class]++
		})
	}
	t.Logf("x509-limbo: right %v of %v", right, all)
}

// legacy admits what the vectors of 2012 are signed with.
func legacy() *path.Algorithms {
	a := path.StandardAlgorithms()
	a.Hashes = append(a.Hashes, crypto.SHA1)
	a.Keys = append(a.Keys, path.KeyRule{Kind: primitive.RSA, MinBits: 1024, MaxBits: 8192})
	return &a
}

// OpenSSL's tests of OCSP responses and responders. A negative case must fail for its own reason.
func TestOpenSSLOCSP(t *testing.T) {
	dir := vectors(t, "openssl-ocsp")
	var cases []struct {
		Name, Root, Cert string
		Others           []string `json:"other_certs"`
		OCSP             []string `json:"ocsps"`
		Moment           time.Time
		Error            *struct {
			Message string `json:"msg_regex"`
		}
	}
	readJSON(t, filepath.Join(dir, "cases.json"), &cases)
	right := 0
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			file := func(name string) string { return filepath.Join(dir, name) }
			req := path.Request{Certificate: certificateFile(t, file(c.Cert)), At: c.Moment, Revocation: path.RevocationIfOffered}
			for _, name := range c.Others {
				req.Certificates = append(req.Certificates, certificateFile(t, file(name)))
			}
			for _, name := range c.OCSP {
				raw := must(base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(must(os.ReadFile(file(name))))), "")))
				req.OCSP = append(req.OCSP, must(path.ParseOCSP(raw)))
			}
			v := must(path.New(path.Config{Anchors: []*path.Certificate{certificateFile(t, file(c.Root))}, Algorithms: legacy()}))
			res := must(v.Validate(t.Context(), req))
			t.Log(res.Code, res.Index, res.Detail)
			if res.OK() != (c.Error == nil) {
				t.Errorf("%s at %d: %s; want %v", res.Code, res.Index, res.Detail, c.Error)
				return
			}
			if c.Error != nil {
				var want []path.StatusCode
				switch {
				case strings.Contains(c.Error.Message, "hash does not match"):
					want = []path.StatusCode{path.DataMisnamed}
				case strings.Contains(c.Error.Message, "signature"):
					want = []path.StatusCode{path.DataForged, path.SignerRefused}
				default:
					want = []path.StatusCode{path.DataForged}
				}
				if res.Code != path.StatusUndetermined || !slices.Contains(want, res.Statuses[res.Index].Why) {
					t.Errorf("%s: %s, want one of %v", res.Code, res.Detail, want)
					return
				}
			}
			right++
		})
	}
	t.Logf("OpenSSL OCSP: %d of %d", right, len(cases))

	// SHA-1 is refused unless a policy admits it.
	req := path.Request{Certificate: certificateFile(t, filepath.Join(dir, "ND3_Cert_EE.pem")), At: cases[0].Moment, Revocation: path.RevocationOff}
	v := must(path.New(path.Config{Anchors: []*path.Certificate{certificateFile(t, filepath.Join(dir, "ND3_Issuer_Root.pem"))}}))
	if res := must(v.Validate(t.Context(), req)); res.Code != path.AlgorithmRefused {
		t.Errorf("SHA-1 without a policy: %s: %s", res.Code, res.Detail)
	}
}

// pyca/cryptography's OCSP responses, as openssl ocsp -respin … -noverify -resp_text shows them.
func TestPycaOCSP(t *testing.T) {
	dir := vectors(t, "pyca-ocsp")
	type want struct {
		state   path.State // of the first answer
		reason  int
		answers int // 0 means 1
		bad     bool
	}
	all := map[string]want{
		"ocsp-army.deps.mil-resp.der":           {state: path.IsRevoked, answers: 20},
		"resp-delegate-unknown-cert.der":        {state: path.Undetermined},
		"resp-invalid-signature-oid.der":        {state: path.Good},
		"resp-responder-key-hash.der":           {state: path.IsRevoked},
		"resp-response-type-unknown-oid.der":    {bad: true},
		"resp-revoked-no-next-update.der":       {state: path.IsRevoked},
		"resp-revoked-reason.der":               {state: path.IsRevoked, reason: 4},
		"resp-revoked.der":                      {state: path.IsRevoked},
		"resp-sct-extension.der":                {state: path.Good},
		"resp-sha256.der":                       {state: path.Good},
		"resp-single-extension-reason.der":      {state: path.Good},
		"resp-successful-no-response-bytes.der": {bad: true},
		"resp-unauthorized.der":                 {bad: true},
		"resp-unknown-extension.der":            {state: path.IsRevoked, reason: 4},
		"resp-unknown-hash-alg.der":             {state: path.IsRevoked},
		"resp-unknown-response-status.der":      {bad: true},
	}
	files := must(filepath.Glob(filepath.Join(dir, "*resp*.der")))
	read := 0
	for _, file := range files {
		name := filepath.Base(file)
		want, known := all[name]
		if !known {
			if !strings.HasPrefix(name, "req-") {
				t.Errorf("%s has no verdict", name)
			}
			continue
		}
		read++
		o, err := path.ParseOCSP(must(os.ReadFile(file)))
		switch {
		case (err != nil) != want.bad:
			t.Errorf("%s: %v", name, err)
		case err != nil:
		case len(o.Answers) != max(want.answers, 1) || o.Answers[0].State != want.state || int(o.Answers[0].Reason) != want.reason:
			t.Errorf("%s: %d answers, the first %s %d", name, len(o.Answers), o.Answers[0].State, o.Answers[0].Reason)
		}
	}
	if read != len(all) {
		t.Errorf("%d of %d files", read, len(all))
	}
	t.Logf("pyca OCSP responses: %d", read)
	// No request is taken for a response.
	for _, file := range must(filepath.Glob(filepath.Join(dir, "*req*.der"))) {
		if o, err := path.ParseOCSP(must(os.ReadFile(file))); err == nil {
			t.Errorf("%s: %d answers", filepath.Base(file), len(o.Answers))
		}
	}
}
