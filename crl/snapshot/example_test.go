package snapshot_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl/snapshot"
)

var update = flag.Bool("update", false, "write the golden files anew")

// example is what docs/snapshot-format.md shows: two days of three hundred certificates.
var example = [2]universe{{300, 2000, 6000, 1}, {300, 2000, 6000, 1}}

// exampleState lets every twentieth certificate be revoked on the second day.
func exampleState(day int, n uint64) jpki.State {
	if day == 1 && n%20 == 7 {
		return jpki.Revoked
	}
	return example[day].state(n)
}

func exampleDay(day int) func(yield func(snapshot.Certificate, error) bool) {
	return func(yield func(snapshot.Certificate, error) bool) {
		for n := range example[day].n {
			if !yield(snapshot.Certificate{Serial: serialOf(n), State: exampleState(day, n)}, nil) {
				return
			}
		}
	}
}

func read(tb testing.TB, name string) []byte {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// The files that others test their readers with say what they said when they were made.
func TestGoldenExample(t *testing.T) {
	if *update {
		writeExample(t)
	}
	block, _ := pem.Decode(read(t, "issuer.crt"))
	issuer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	c := snapshot.Config{IssuerCert: issuer, Now: func() time.Time { return t0.Add(2 * time.Hour) }}
	days := [2]*snapshot.Snapshot{open(t, read(t, "example.snapshot"), c)}
	if days[1], err = days[0].Apply(read(t, "example.delta")); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for n := range example[0].n {
		q := example[0].question(n)
		first, _ := days[0].Lookup(q)
		second, _ := days[1].Lookup(q)
		fmt.Fprintf(&got, "%s\t%s\t%s\n", q.Serial, first, second)
	}
	if diff := cmp.Diff(string(read(t, "example.tsv")), got.String()); diff != "" {
		t.Errorf("(-example.tsv +read)\n%s", diff)
	}
}

// The description shows how the first certificates that are good and suspended are looked up.
func TestExampleInDescription(t *testing.T) {
	block, _ := pem.Decode(read(t, "issuer.crt"))
	issuer, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/snapshot-format.md")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, read(t, "example.snapshot"), snapshot.Config{IssuerCert: issuer, Now: func() time.Time { return t0 }})
	for _, state := range []jpki.State{jpki.Good, jpki.Suspended} {
		n := uint64(0)
		for exampleState(0, n) != state {
			n++
		}
		if trace := s.Trace(serialOf(n)); !strings.Contains(string(text), trace) {
			t.Errorf("the description does not show\n%s", trace)
		}
	}
}

func writeExample(t *testing.T) {
	a := newAuthority(t, "p-256")
	first := build(t, template(a, 1), exampleDay(0))
	var delta bytes.Buffer
	if _, err := snapshot.BuildDelta(&delta, template(a, 2), open(t, first, config(a)), exampleDay(1)); err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	for n := range example[0].n {
		fmt.Fprintf(&table, "%s\t%s\t%s\n", serialOf(n), exampleState(0, n), exampleState(1, n))
	}
	for name, text := range map[string][]byte{
		"issuer.crt":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}),
		"example.snapshot": first, "example.delta": delta.Bytes(), "example.tsv": table.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join("testdata", name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A reader that shares nothing with ours but the description reads what we write.
func TestJavaReads(t *testing.T) {
	java, err := exec.LookPath("java")
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, name := range []string{"p-256", "p-384"} {
		a := newAuthority(t, name)
		days := [2]universe{{30_000, 1311, 5243, 1}, {30_300, 1400, 5300, 1}}
		dir := t.TempDir()
		first := build(t, template(a, 1), days[0].all)
		var delta bytes.Buffer
		if _, err := snapshot.BuildDelta(&delta, template(a, 2), open(t, first, config(a)), days[1].all); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string][]byte{"issuer": a.cert.Raw, "snapshot": first, "delta": delta.Bytes()} {
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for day, u := range days {
			var serials, want strings.Builder
			for n := range u.n {
				fmt.Fprintln(&serials, serialOf(n))
				fmt.Fprintln(&want, u.state(n))
			}
			args := []string{"testdata/Reader.java", filepath.Join(dir, "issuer"), filepath.Join(dir, "snapshot")}
			if day == 1 {
				args = append(args, filepath.Join(dir, "delta"))
			}
			cmd := exec.CommandContext(t.Context(), java, args...)
			cmd.Stdin = strings.NewReader(serials.String())
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			got, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			if string(got) != want.String() {
				t.Errorf("%s, day %d: the Java reader has other answers", name, day)
			}
		}
	}
}
