package path_test

import (
	"bytes"
	"crypto/x509"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/verifier/path"
)

// seeds adds files of public vectors to a fuzz target, if they are at hand.
func seeds(f *testing.F, globs ...string) {
	for _, g := range globs {
		files, _ := filepath.Glob(filepath.Join(os.Getenv("JPKI_VECTORS"), g))
		for i, name := range files {
			if i%7 == 0 && os.Getenv("JPKI_VECTORS") != "" {
				f.Add(must(os.ReadFile(name)))
			}
		}
	}
}

// What is read is what crypto/x509 reads, where both read it; what is read is all of the input, and again the same; a
// path that ends in it is judged without a panic.
func FuzzParseCertificate(f *testing.F) {
	root := newCA(f, "Root", nil)
	f.Add(root.Raw)
	f.Add(newLeaf(f, "leaf", root).Raw)
	seeds(f, "nist-pkits/certs/*.crt")
	v := must(path.New(path.Config{Anchors: certificates(root)}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := readAlike(t, raw)
		if c == nil {
			return
		}
		// Nothing tells its status, so it cannot be valid.
		if res, err := v.Validate(t.Context(), path.Request{Certificate: c, Certificates: []*path.Certificate{c}, At: noon}); err != nil || res.OK() {
			t.Fatalf("valid, or an error: %v", err)
		}
	})
}

// readAlike reads a certificate, and holds what was read against what crypto/x509 reads, if it reads it; nil if we do not.
func readAlike(t *testing.T, raw []byte) *path.Certificate {
	t.Helper()
	c, err := path.ParseCertificate(raw)
	if err != nil {
		return nil
	}
	if !bytes.Equal(c.Raw, raw) {
		t.Fatal("not all of it was read")
	}
	if _, err := path.ParseCertificate(append(bytes.Clone(raw), 0)); err == nil {
		t.Fatal("something may follow")
	}
	x, err := x509.ParseCertificate(raw)
	if err == nil {
		switch {
		case x.SerialNumber.Cmp(c.SerialNumber()) != 0, !bytes.Equal(x.RawSubject, c.Subject.Raw), !bytes.Equal(x.RawIssuer, c.Issuer.Raw),
			!bytes.Equal(x.RawSubjectPublicKeyInfo, c.SPKI), !x.NotBefore.Equal(c.NotBefore), !x.NotAfter.Equal(c.NotAfter), x.Version != c.Version:
			t.Fatalf("crypto/x509 reads another certificate: %x", raw)
		}
		if c.Fault() == "" && (x.IsCA != c.CA || !bytes.Equal(x.SubjectKeyId, c.SubjectKeyID) || !bytes.Equal(x.AuthorityKeyId, c.AuthorityKeyID) ||
			x.BasicConstraintsValid && x.MaxPathLen != c.PathLength && c.PathLength < 1<<20) {
			t.Fatalf("crypto/x509 reads other extensions: %x", raw)
		}
	}
	return c
}

// Certificates of PKITS with one octet changed. Where both read them, crypto/x509 reads the same.
func TestMutants(t *testing.T) {
	files := must(filepath.Glob(filepath.Join(vectors(t, "nist-pkits"), "certs", "*.crt")))
	chance := mathrand.New(mathrand.NewPCG(1, 2))
	read := 0
	for _, file := range files {
		raw := must(os.ReadFile(file))
		readAlike(t, raw)
		for range 50 {
			mutant := bytes.Clone(raw)
			mutant[chance.IntN(len(mutant))] = byte(chance.IntN(256))
			if readAlike(t, mutant) != nil {
				read++
			}
		}
	}
	t.Logf("%d of %d mutants can be read", read, 50*len(files))
	if read == 0 {
		t.Error("none was read")
	}
}

// What is found on a list is what crypto/x509 finds there, entry for entry.
func FuzzParseCRL(f *testing.F) {
	root := newCA(f, "Root", nil)
	f.Add(root.list(f, list{number: 1, revoked: []x509.RevocationListEntry{entry(root, noon, 1), entry(newLeaf(f, "leaf", root), noon, 6)}}).Raw)
	f.Add(root.list(f, list{number: 2, base: 1}).Raw)
	seeds(f, "nist-pkits/crls/*.crl")
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := path.ParseCRL(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(l.Raw, raw) {
			t.Fatal("not all of it was read")
		}
		x, err := x509.ParseRevocationList(raw)
		if err != nil || l.Fault() != "" {
			return
		}
		if len(x.RevokedCertificateEntries) != l.Entries || !bytes.Equal(x.RawIssuer, l.Issuer.Raw) || !x.ThisUpdate.Equal(l.ThisUpdate) || !x.NextUpdate.Equal(l.NextUpdate) {
			t.Fatalf("crypto/x509 reads another list: %x", raw)
		}
		for _, e := range x.RevokedCertificateEntries {
			serial := serialOctets(e)
			if _, found := l.Entry(serial); !found && !hasIssuer(e) && !indirect(x) {
				t.Fatalf("%x is not found: %x", serial, raw)
			}
		}
	})
}

func hasIssuer(e x509.RevocationListEntry) bool { return len(e.Extensions) > 0 }

func indirect(x *x509.RevocationList) bool {
	for _, e := range x.Extensions {
		if e.Id.String() == "2.5.29.28" {
			return true
		}
	}
	return false
}

// serialOctets returns the contents octets of an entry's serial.
func serialOctets(e x509.RevocationListEntry) []byte {
	in := e.Raw
	for range 2 { // into the SEQUENCE, then into the INTEGER
		n := 2
		if in[1] >= 0x80 {
			n += int(in[1] & 0x7f)
		}
		if in[0] == 2 {
			return in[n : n+int(in[1])]
		}
		in = in[n:]
	}
	n := 2
	return in[n : n+int(in[1])]
}

// What a response says of its first certificate is what golang.org/x/crypto/ocsp says.
func FuzzParseOCSP(f *testing.F) {
	root := newCA(f, "Root", nil)
	leaf := newLeaf(f, "leaf", root)
	f.Add(answer(f, leaf, root, root, xocsp.Response{Status: xocsp.Good}).Raw)
	f.Add(answer(f, leaf, root, issue(f, responderTemplate("Responder", true), root, nil), xocsp.Response{Status: xocsp.Revoked, RevokedAt: noon, RevocationReason: 4}).Raw)
	seeds(f, "pyca-ocsp/*resp*.der")
	states := map[int]path.State{xocsp.Good: path.Good, xocsp.Revoked: path.IsRevoked, xocsp.Unknown: path.Undetermined}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := path.ParseOCSP(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Raw, raw) || len(o.Answers) == 0 {
			t.Fatal("not all of it was read")
		}
		x, err := xocsp.ParseResponse(raw, nil)
		if err != nil || len(o.Answers) > 1 {
			return
		}
		a := o.Answers[0]
		if a.State != states[x.Status] || !a.ThisUpdate.Equal(x.ThisUpdate) || !a.NextUpdate.Equal(x.NextUpdate) || a.State == path.IsRevoked && !a.Since.Equal(x.RevokedAt) {
			t.Fatalf("x/crypto/ocsp reads another answer: %x", raw)
		}
	})
}

// A name and a constraint of any form are held against each other without a panic, and what is excluded by the whole
// space of names is excluded.
func FuzzConstraints(f *testing.F) {
	f.Add(uint8(2), "example.com", "a.example.com")
	f.Add(uint8(1), "a@example.com", `"a b"@example.com`)
	f.Add(uint8(6), ".example.com", "https://a.example.com:1/")
	f.Add(uint8(7), "\x0a\x00\x00\x00\xff\x00\x00\x00", "\x0a\x01\x02\x03")
	f.Fuzz(func(t *testing.T, kind uint8, constraint, name string) {
		kind %= 9
		if kind == 4 {
			return
		}
		base := [][2]string{{string(rune(kind)), constraint}}
		inside, err := path.Admits(base, nil, kind, name)
		if err != nil {
			return
		}
		outside, err := path.Admits(nil, base, kind, name)
		if err != nil {
			t.Fatal(err)
		}
		if inside == "" && outside == "" {
			t.Fatalf("%q is both inside and outside of %q", name, constraint)
		}
	})
}

func FuzzSameName(f *testing.F) {
	root := newCA(f, "Root", nil)
	f.Add(root.x.RawSubject, root.x.RawSubject)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		same, ok := path.SameName(a, b)
		if !ok {
			return
		}
		if again, _ := path.SameName(b, a); again != same {
			t.Fatal("equality goes one way only")
		}
		if itself, _ := path.SameName(a, a); !itself {
			t.Fatal("a name is not itself")
		}
	})
}
