package ceremony_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/verifier/cms"
)

// A stage is a folder with an input file and two witnesses.
type stage struct {
	dir  string
	sign []func(t *testing.T, held string) // each witness signs a ceremony's transcript
}

const plan = `title: First generation
kind: generation
place: a room
generation: sign-1
profile: sandbox
algorithm: p-384
ends: 2041-05-05
witnesses:
  - {name: witness 1, role: auditor, certificate: witness-1.pem}
  - {name: witness 2, role: notary, certificate: witness-2.pem}
quorum: 2
custody:
  threshold: 3
  custodians: [a, b, c, d, e]
`

func newStage(t *testing.T, text string) *stage {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil && os.Getenv("JPKI_TEST_REQUIRE") != "1" {
		t.Skip("openssl is missing")
	}
	s := &stage{dir: t.TempDir()}
	for i := range 2 {
		key := p256(t)
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: fmt.Sprint("witness ", i+1)}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, fmt.Sprintf("witness-%d.pem", i+1), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		s.sign = append(s.sign, func(t *testing.T, held string) {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(held, "transcript.ndjson"))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{Certificate: der, Signer: key, Rand: rand.Reader, SigningTime: now})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(held, fmt.Sprintf("witness-%d.p7s", i+1)), sig, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	s.write(t, "input.yaml", []byte(text))
	return s
}

func (s *stage) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) read() (*ceremony.Plan, error) {
	return ceremony.ReadPlan(filepath.Join(s.dir, "input.yaml"))
}

// hold holds the ceremony; agree may be nil.
func (s *stage) hold(t *testing.T, agree func(step, text string) error) (dir string, err error) {
	t.Helper()
	p, err := s.read()
	if err != nil {
		t.Fatal(err)
	}
	if agree == nil {
		agree = func(string, string) error { return nil }
	}
	dir = filepath.Join(s.dir, "held")
	_, err = ceremony.Hold(context.Background(), ceremony.Config{Plan: p, Dir: dir, Agree: agree, Program: "test", Now: clock})
	return dir, err
}

func TestCeremonyIsWholeOnlyAsItWas(t *testing.T) {
	s := newStage(t, plan)
	dir, err := s.hold(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	verify := func() (ceremony.Report, error) { return ceremony.Verify(context.Background(), dir) }
	if r, err := verify(); err != nil || r.Complete() || len(r.Signed) != 0 {
		t.Fatalf("before anybody signed: %v, %v", r.Signed, err)
	}
	for _, sign := range s.sign {
		sign(t, dir)
	}
	if r, err := verify(); err != nil || !r.Complete() || r.Rehearsal {
		t.Fatalf("signed by all: %+v, %v", r, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		secret := strings.HasSuffix(e.Name(), ".key") || strings.HasSuffix(e.Name(), ".share")
		for _, at := range []int{len(text) / 7, len(text) / 2, len(text) - 3} {
			altered := bytes.Clone(text)
			altered[at] ^= 1
			restore(t, path, altered)
			if _, err := verify(); (err == nil) != secret {
				t.Errorf("%s altered at %d: %v", e.Name(), at, err)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if r, err := verify(); (err == nil) != (secret || strings.HasSuffix(e.Name(), ".p7s")) || err == nil && !secret && r.Complete() {
			t.Errorf("%s removed: %v", e.Name(), err)
		}
		restore(t, path, text)
	}
	lines := bytes.SplitAfter(must(t, dir, "transcript.ndjson"), []byte("\n"))
	for i := range len(lines) - 1 {
		without := bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil)
		restore(t, filepath.Join(dir, "transcript.ndjson"), without)
		if _, _, err := ceremony.ReadTranscript(dir); err == nil {
			t.Errorf("line %d is missing and nobody notices", i+1)
		}
	}
}

func must(t *testing.T, dir, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func restore(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWitnessWhoSaysNoEndsIt(t *testing.T) {
	s := newStage(t, plan)
	dir, err := s.hold(t, func(step, _ string) error {
		if step == "make the certificate" {
			return errors.New("the clock is wrong")
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "the clock is wrong") {
		t.Fatal(err)
	}
	if text := must(t, dir, "transcript.ndjson"); !bytes.Contains(text, []byte(`"step":"broken off"`)) {
		t.Errorf("the transcript does not say that it was broken off:\n%s", text)
	}
	if _, err := ceremony.Verify(context.Background(), dir); err == nil {
		t.Error("a ceremony that was broken off is verified")
	}
	if _, err := os.Stat(filepath.Join(dir, "sign-1.pem")); err == nil {
		t.Error("there is a certificate nobody agreed to")
	}
	if _, err := s.hold(t, nil); err == nil {
		t.Error("another ceremony in the same folder")
	}
}

func TestCustodians(t *testing.T) {
	s := newStage(t, plan)
	dir, err := s.hold(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	var shares []ceremony.Share
	for i := range 5 {
		share, err := ceremony.ParseShare(must(t, dir, fmt.Sprintf("custodian-%d.share", i+1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := ceremony.CheckShare(dir, share); err != nil {
			t.Error(err)
		}
		shares = append(shares, share)
	}
	key := must(t, dir, "sign-1.key")
	for mask := range 1 << 5 {
		var some []ceremony.Share
		for i, share := range shares {
			if mask>>i&1 == 1 {
				some = append(some, share)
			}
		}
		got, err := ceremony.Restore(dir, some)
		if enough := len(some) >= 3; (err == nil) != enough || enough && !bytes.Equal(got, key) {
			t.Errorf("custodians %05b: %v", mask, err)
		}
	}
	if _, err := ceremony.Restore(dir, []ceremony.Share{shares[0], shares[0], shares[1]}); err == nil {
		t.Error("one custodian counts twice")
	}
	forged := shares[0]
	forged.Value = shares[1].Value
	if ceremony.CheckShare(dir, forged) == nil {
		t.Error("a share with another's value is good")
	}
	other := newStage(t, plan)
	elsewhere, err := other.hold(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ceremony.CheckShare(elsewhere, shares[0]) == nil {
		t.Error("a share is good for another ceremony's key")
	}
}

func TestPlansRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field":                  {"place: a room", "place: a room\nroom: 1", "unknown field"},
		"no place":                       {"place: a room\n", "", "title and place"},
		"kind":                           {"kind: generation", "kind: party", "is not one of"},
		"what is not its own":            {"profile: sandbox", "profile: sandbox\nrequest: r.csr", "has no request"},
		"what it needs":                  {"ends: 2041-05-05\n", "", "needs: ends"},
		"algorithm":                      {"p-384", "p-521", "is not one of"},
		"a day that is none":             {"2041-05-05", "2041-02-31", "is a day"},
		"generation":                     {"generation: sign-1", "generation: tree-1", "not of the form"},
		"one witness":                    {"quorum: 2", "quorum: 1", "quorum"},
		"more than there are":            {"quorum: 2", "quorum: 3", "quorum"},
		"one key, two people":            {"certificate: witness-2.pem", "certificate: witness-1.pem", "another witness's key"},
		"no certificate":                 {"certificate: witness-2.pem", "certificate: input.yaml", "is not a certificate"},
		"one custodian":                  {"threshold: 3", "threshold: 1", "threshold"},
		"twice the same":                 {"[a, b, c, d, e]", "[a, b, c, d, a]", "or another's"},
		"a token and custody":            {"ends: 2041-05-05", "ends: 2041-05-05\nkey: signer:/run/x?key=sign-1", "never leaves it"},
		"a token that nobody looks into": {"custody:\n  threshold: 3\n  custodians: [a, b, c, d, e]", "key: signer:/run/x?key=sign-1", "tokens are required"},
		"a token for a file":             {"quorum: 2", "quorum: 2\ntokens: [{module: /m, label: a, object: k, pin: p}]", "tokens are of a key"},
		"a line within a line":           {"title: First generation", `title: "First\ngeneration"`, "in one line"},
	} {
		s := newStage(t, strings.Replace(plan, c.old, c.new, 1))
		if _, err := s.read(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newStage(t, strings.Replace(plan, "2041-05-05", "2041-05-06", 1))
	if _, err := s.hold(t, nil); err == nil || !strings.Contains(err.Error(), "ends on 2041-05-05") {
		t.Errorf("another end than the profile's: %v", err)
	}
}

func FuzzParseShare(f *testing.F) {
	text, err := json.Marshal(ceremony.Share{Type: "jpki-custody-share-1", Custodian: "a", Threshold: 2, Number: []byte{1}, Value: []byte{2}, Sum: []byte{3}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(base64.StdEncoding.EncodeToString(text)))
	f.Add([]byte("e30="))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ceremony.ParseShare(text)
		if err != nil {
			return
		}
		again, err := ceremony.ParseShare([]byte(s.Text()))
		if err != nil || again.Text() != s.Text() {
			t.Fatalf("%q: read as %+v, then %+v: %v", text, s, again, err)
		}
	})
}
