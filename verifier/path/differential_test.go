package path_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openjpki/jpki/verifier/path"
)

// A hierarchy is a random set of certificates: a few authorities under names that repeat, with keys that repeat.
type hierarchy struct {
	root   *entity
	others []*entity
	leaf   *entity
}

// random draws a hierarchy in which about half of all paths are broken in some way.
func random(t *rapid.T, tb testing.TB, keys []crypto.Signer) hierarchy {
	host := rapid.SampledFrom([]string{"example.com", "a.example.com", "b.example.com", "other.test"})
	rarely := func(what string) bool { return rapid.IntRange(0, 24).Draw(t, what) == 0 }
	dress := func(c *x509.Certificate) {
		if c.IsCA {
			switch rapid.IntRange(0, 5).Draw(t, "length") {
			case 0:
				c.MaxPathLenZero = true
			case 1:
				c.MaxPathLen = rapid.IntRange(1, 2).Draw(t, "n")
			}
			if rapid.IntRange(0, 3).Draw(t, "constrained") == 0 {
				c.PermittedDNSDomainsCritical = true
				c.PermittedDNSDomains = rapid.SliceOfN(host, 0, 2).Draw(t, "permitted")
				c.ExcludedDNSDomains = rapid.SliceOfN(host, 0, 1).Draw(t, "excluded")
			}
			if rarely("no authority") {
				c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, 0, false
				c.PermittedDNSDomains, c.ExcludedDNSDomains = nil, nil
			}
			if rarely("no signing") {
				c.KeyUsage = x509.KeyUsageCRLSign
			}
		} else {
			c.DNSNames = []string{host.Draw(t, "host")}
		}
		switch {
		case rarely("expired"):
			c.NotAfter = noon.Add(-time.Second)
		case rarely("early"):
			c.NotBefore = noon.Add(time.Second)
		case rarely("critical"):
			c.ExtraExtensions = append(c.ExtraExtensions, extension("1.3.6.1.4.1.99999.1", true, []byte{5, 0}))
		}
	}
	h := hierarchy{root: issue(tb, template("Root", true), nil, keys[0])}
	above := []*entity{h.root}
	for i := range rapid.IntRange(1, 4).Draw(t, "authorities") {
		// Nobody issues to their own name: crypto/x509 counts self-issued certificates against path lengths, RFC 5280 §6.1.4 (l) does not.
		by := rapid.SampledFrom(above).Draw(t, "by")
		name := "CA " + strconv.Itoa(rapid.IntRange(0, 2).Draw(t, "name"))
		if by.x.Subject.CommonName == name {
			name += "'"
		}
		c := template(name, true)
		dress(c)
		ca := issue(tb, c, by, keys[1+(i+rapid.IntRange(0, 1).Draw(t, "key"))%(len(keys)-1)])
		above = append(above, ca)
		h.others = append(h.others, ca)
	}
	c := template("leaf", false)
	dress(c)
	h.leaf = issue(tb, c, above[len(above)-1], keys[len(keys)-1])
	return h
}

// Of random hierarchies crypto/x509 says the same, within what both look at.
func TestAgainstX509(t *testing.T) {
	var keys []crypto.Signer
	for range 6 {
		keys = append(keys, newKey())
	}
	valid, invalid := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		h := random(rt, t, keys)
		roots, middle := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(h.root.x)
		for _, o := range h.others {
			middle.AddCert(o.x)
		}
		_, err := h.leaf.x.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		res := validate(t, h.root, path.Request{Certificate: h.leaf.Certificate, Certificates: certificates(h.others...), Revocation: path.RevocationOff})
		if (err == nil) != res.OK() {
			rt.Fatalf("%s: %s; crypto/x509: %v", res.Code, res.Detail, err)
		}
		if res.OK() {
			valid++
		} else {
			invalid++
		}
	})
	t.Logf("%d valid, %d not", valid, invalid)
}

// The same with openssl verify, for a sample.
func TestAgainstOpenSSL(t *testing.T) {
	needOpenSSL(t)
	var keys []crypto.Signer
	for range 6 {
		keys = append(keys, newKey())
	}
	dir := t.TempDir()
	write := func(name string, all ...[]byte) string { return writePEM(t, dir, name, "CERTIFICATE", all...) }
	generator := rapid.Custom(func(rt *rapid.T) hierarchy { return random(rt, t, keys) })
	valid := 0
	for seed := range 60 {
		h := generator.Example(seed)
		var others [][]byte
		for _, o := range h.others {
			others = append(others, o.Raw)
		}
		others = append(others, h.root.Raw)
		args := []string{
			"verify", "-attime", strconv.FormatInt(noon.Unix(), 10), "-check_ss_sig", "-CAfile", write("root.pem", h.root.Raw),
			"-untrusted", write("others.pem", others...), write("leaf.pem", h.leaf.Raw),
		}
		out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
		res := validate(t, h.root, path.Request{Certificate: h.leaf.Certificate, Certificates: certificates(h.others...), Revocation: path.RevocationOff})
		if (err == nil) != res.OK() {
			// OpenSSL settles on one issuer by name and key identifier and does not come back to try another.
			if res.OK() && repeats(h) {
				continue
			}
			t.Errorf("seed %d: %s: %s; openssl: %s", seed, res.Code, res.Detail, out)
		}
		if res.OK() {
			valid++
		}
	}
	if valid == 0 {
		t.Error("no path was valid")
	}
	t.Logf("%d of 60 valid", valid)
}

// repeats reports whether two authorities have one name.
func repeats(h hierarchy) bool {
	seen := map[string]bool{}
	for _, o := range h.others {
		if seen[string(o.x.RawSubject)] {
			return true
		}
		seen[string(o.x.RawSubject)] = true
	}
	return false
}

func needOpenSSL(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("no openssl")
	}
}

// writePEM writes a file of PEM blocks and returns its name.
func writePEM(t *testing.T, dir, name, kind string, all ...[]byte) string {
	t.Helper()
	var b bytes.Buffer
	for _, raw := range all {
		_ = pem.Encode(&b, &pem.Block{Type: kind, Bytes: raw})
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Of lists and deltas openssl verify says the same.
func TestListsAgainstOpenSSL(t *testing.T) {
	needOpenSSL(t)
	root := newCA(t, "Root", nil)
	middle := newCA(t, "Middle", root)
	twin := issue(t, template("Middle", true), nil, nil)
	leaf := newLeaf(t, "leaf", middle)
	since := noon.Add(-2 * time.Hour)
	on := func(e *entity, reason int) []x509.RevocationListEntry {
		return []x509.RevocationListEntry{entry(e, since, reason)}
	}
	scope := func(value ...byte) []pkix.Extension {
		return []pkix.Extension{extension("2.5.29.28", true, append([]byte{0x30, byte(len(value))}, value...))}
	}
	above := root.list(t, list{number: 1})
	// OpenSSL looks at deltas only if something points to them; we use what is at hand.
	uri := append([]byte{0x86, 9}, "http://x/"...)
	freshest := []pkix.Extension{extension("2.5.29.46", false, append([]byte{0x30, 17, 0x30, 15, 0xa0, 13, 0xa0, 11}, uri...))}
	for name, lists := range map[string][]*path.CRL{
		"none":                     nil,
		"not of the leaf's issuer": {above},
		"nobody listed":            {above, middle.list(t, list{number: 1})},
		"leaf listed":              {above, middle.list(t, list{number: 1, revoked: on(leaf, 1)})},
		"authority listed":         {root.list(t, list{number: 1, revoked: on(middle, 2)}), middle.list(t, list{number: 1})},
		"out of date":              {above, middle.list(t, list{number: 1, next: noon.Add(-time.Second)})},
		"of the future":            {above, middle.list(t, list{number: 1, at: noon.Add(time.Second)})},
		"of another key":           {above, twin.list(t, list{number: 1})},
		"for authorities":          {above, middle.list(t, list{number: 1, extension: scope(0x82, 1, 0xff)})},
		"for users":                {above, middle.list(t, list{number: 1, extension: scope(0x81, 1, 0xff)})},
		"for some reasons":         {above, middle.list(t, list{number: 1, extension: scope(0x83, 2, 5, 0x60)})},
		"for all reasons in two":   {above, middle.list(t, list{number: 1, extension: scope(0x83, 2, 5, 0x60)}), middle.list(t, list{number: 2, extension: scope(0x83, 3, 7, 0x1f, 0x80)})},
		"delta revokes":            {above, middle.list(t, list{number: 5, extension: freshest}), middle.list(t, list{number: 6, base: 5, revoked: on(leaf, 4)})},
		"delta of a later base":    {above, middle.list(t, list{number: 5, extension: freshest}), middle.list(t, list{number: 8, base: 7, revoked: on(leaf, 4)})},
	} {
		dir := t.TempDir()
		var raw [][]byte
		for _, l := range lists {
			raw = append(raw, l.Raw)
		}
		args := []string{
			"verify", "-attime", strconv.FormatInt(noon.Unix(), 10), "-crl_check_all", "-extended_crl", "-use_deltas", "-CAfile", writePEM(t, dir, "root.pem", "CERTIFICATE", root.Raw),
			"-untrusted", writePEM(t, dir, "middle.pem", "CERTIFICATE", middle.Raw),
		}
		if raw != nil {
			args = append(args, "-CRLfile", writePEM(t, dir, "lists.pem", "X509 CRL", raw...))
		}
		out, err := exec.CommandContext(t.Context(), "openssl", append(args, writePEM(t, dir, "leaf.pem", "CERTIFICATE", leaf.Raw))...).CombinedOutput()
		res := validate(t, root, path.Request{Certificate: leaf.Certificate, Certificates: certificates(middle), CRLs: lists})
		if (err == nil) != res.OK() {
			t.Errorf("%s: %s: %s; openssl: %s", name, res.Code, res.Detail, out)
		}
	}
}
