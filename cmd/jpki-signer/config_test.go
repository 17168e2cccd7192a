package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestConfigRefuses(t *testing.T) {
	dir := t.TempDir()
	good := "listen: s.sock\nstate: state\nkeys:\n  - name: k\n    algorithm: p-256\n    at: [\"file:k.pem\"]\n    allow: [{user: \"0\", purposes: [crl]}]\n"
	place := "pkcs11:token=a;object=k?module-path=/m.so&pin-source=file:/pin"
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{"listen: s.sock\n", "", "listen is required"},
		{"state: state\n", "", "state is required"},
		{"state: state\n", "state: state\nmode: \"0666\"\n", "mode is neither"},
		{"state: state\n", "state: state\ngroup: \"0\"\n", "group needs mode"},
		{"state: state\n", "state: state\nmode: \"0660\"\ngroup: \"0\"\n", ""},
		{"state: state\n", "state: state\nmode: \"0660\"\ngroup: no-such-group\n", "no-such-group"},
		{"state: state\n", "state: state\nstates: x\n", "unknown field"},
		{"state: state\n", "state: state\nhang: 1ms\n", "at least 100ms"},
		{"state: state\n", "state: state\nsessions: 1000\n", "1 to 256"},
		{"state: state\n", "state: state\ngive_up: 1ms\n", "give_up must be"},
		{"name: k", "name: k/k", "name must be"},
		{"p-256", "p-521", "algorithm must be"},
		{`["file:k.pem"]`, `[]`, "a URI is required"},
		{`["file:k.pem"]`, `["file:k.pem", "file:l.pem"]`, "no second place"},
		{`["file:k.pem"]`, `["` + place + `"]`, ""},
		{`["file:k.pem"]`, `["pkcs11:token=a;object=k?module-path=/m.so"]`, "no pin-source"},
		{`["file:k.pem"]`, `["pkcs11:token=a;object=k?module-path=/m.so&pin-value=1234"]`, "does not belong into a URI"},
		{`[{user: "0", purposes: [crl]}]`, `[]`, "nobody is admitted"},
		{`{user: "0", purposes: [crl]}`, `{purposes: [crl]}`, "user or group is required"},
		{`{user: "0", purposes: [crl]}`, `{user: no-such-user, purposes: [crl]}`, "no-such-user"},
		{`{user: "0", purposes: [crl]}`, `{user: root, purposes: [crl]}`, ""},
		{`{user: "0", purposes: [crl]}`, `{user: "0"}`, "purposes is required"},
		{`{user: "0", purposes: [crl]}`, `{user: "0", purposes: [tls]}`, "none of certificate"},
		{`{user: "0", purposes: [crl]}`, `{user: "0", purposes: [crl], rate: 3}`, "both or neither"},
		{`{user: "0", purposes: [crl]}`, `{user: "0", purposes: [crl], program: jpki-ca}`, "no absolute path"},
	} {
		path := filepath.Join(dir, "signer.yaml")
		write(t, path, strings.Replace(good, c.old, c.new, 1))
		_, err := readConfig(path)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q → %q: %v, want %q", c.old, c.new, err, c.want)
		}
	}
	if _, err := readConfig(""); err == nil {
		t.Error("no configuration was accepted")
	}
	path := filepath.Join(dir, "example.yaml")
	write(t, path, string(example))
	if _, err := readConfig(path); err != nil {
		t.Errorf("the example is refused: %v", err)
	}
}

// Vendors' libraries are loaded by this program alone: no other depends on what loads them, so each builds without cgo.
func TestNoOtherProgramLoadsModules(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}", "../jpki", "../jpki-status", "../jpki-load")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "openjpki/jpki/hsm/signer\n") {
		t.Error("the list does not have what it should")
	}
	for _, path := range []string{"github.com/miekg/pkcs11", "openjpki/jpki/hsm/pkcs11"} {
		if strings.Contains(string(out), path+"\n") {
			t.Errorf("another program depends on %s", path)
		}
	}
	for _, dir := range []string{".", "../../hsm/...", "../internal/benchhsm"} { // compiles, and says so at run time
		cmd := exec.CommandContext(t.Context(), "go", "vet", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", dir)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("without cgo: %v\n%s", err, out)
		}
	}
}
