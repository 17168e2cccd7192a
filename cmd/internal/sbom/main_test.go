package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The bill is compared with what the go tool says of the same executable, and with the rules of CycloneDX that a scanner relies on.
func TestBill(t *testing.T) {
	dir := t.TempDir()
	signer := filepath.Join(dir, "jpki-signer")
	run(t, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-buildvcs=false", "-o", signer, "../../jpki-signer")
	first, err := Bill([]string{signer})
	if err != nil {
		t.Fatal(err)
	}
	var b bill
	d := json.NewDecoder(bytes.NewReader(first))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.SpecVersion != "1.6" || b.Version != 1 {
		t.Errorf("%s %s %d", b.Format, b.SpecVersion, b.Version)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.SerialNumber) {
		t.Error(b.SerialNumber)
	}
	// Whatever is referred to is there, once.
	refs := map[string]bool{b.Metadata.Component.Ref: true}
	purl := regexp.MustCompile(`^pkg:golang/[a-zA-Z0-9._~/-]+(@[a-zA-Z0-9._%()~-]+)?$`)
	var modules []string
	for _, c := range b.Components {
		if refs[c.Ref] {
			t.Errorf("%s is there twice", c.Ref)
		}
		refs[c.Ref] = true
		if c.Type == "library" {
			if !purl.MatchString(c.PURL) || c.Version == "" {
				t.Errorf("%s: package URL %q, version %q", c.Name, c.PURL, c.Version)
			}
			sum := ""
			if len(c.Properties) > 0 {
				sum = c.Properties[0].Value
			}
			modules = append(modules, strings.TrimSpace(c.Name+" "+c.Version+" "+sum))
		}
	}
	for _, d := range b.Dependencies {
		for _, ref := range append(d.DependsOn, d.Ref) {
			if !refs[ref] {
				t.Errorf("%s is referred to and not there", ref)
			}
		}
	}
	var want []string
	for line := range strings.Lines(run(t, nil, "go", "version", "-m", signer)) {
		switch f := strings.Fields(line); {
		case f[0] == "dep":
			want = append(want, strings.Join(f[1:], " "))
		case strings.HasPrefix(line, signer+":"):
			want = append(want, "std "+strings.TrimPrefix(f[1], "go"))
		}
	}
	slices.Sort(want)
	slices.Sort(modules)
	if diff := cmp.Diff(want, modules); diff != "" || len(want) < 2 {
		t.Errorf("(-: go version -m, +: the bill)\n%s", diff)
	}

	// The same octets elsewhere make the same bill, others do not.
	copied := filepath.Join(t.TempDir(), "jpki-signer")
	octets, err := os.ReadFile(signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		more string
		same bool
	}{{"", true}, {"x", false}} {
		if err := os.WriteFile(copied, append(octets, c.more...), 0o600); err != nil {
			t.Fatal(err)
		}
		if again, err := Bill([]string{copied}); err != nil || bytes.Equal(first, again) != c.same {
			t.Errorf("with %q added: the same %v, %v", c.more, !c.same, err)
		}
	}
	for _, files := range [][]string{nil, {"main.go"}, {"nowhere"}, {signer, signer}} {
		if _, err := Bill(files); err == nil {
			t.Errorf("%q: a bill", files)
		}
	}
}

// A program is the same, octet for octet, whoever builds it wherever: make reproduce does this for every program.
func TestReproduce(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the standard library")
	}
	if _, err := exec.LookPath("git"); err != nil && os.Getenv("JPKI_TEST_REQUIRE") != "1" {
		t.Skip("no git")
	}
	out := run(t, []string{"GOFLAGS=-tags=nomsgpack,nobadger,nomysql,nobbolt,nopgx"}, "../../../deploy/test/reproduce.sh", t.TempDir(), "0:./cmd/internal/sbom")
	if !strings.Contains(out, "sbom: identical") {
		t.Error(out)
	}
}

func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
