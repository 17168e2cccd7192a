package acme_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/openjpki/jpki/ca/store/storetest"
)

// stepModule is the client that docs/enrolment.md is about.
const stepModule = "github.com/smallstep/cli/cmd/step@v0.30.2"

// stepFolder returns a folder with the step client: the one JPKI_TEST_STEP names, or installed for the test, which takes
// a minute or two the first time and seconds from then on.
func stepFolder(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("JPKI_TEST_STEP"); path != "" {
		return filepath.Dir(path)
	}
	if testing.Short() {
		t.Skip("-short: installs the step client")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "install", stepModule)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatalf("install step: %v\n%s", err, out)
		}
		t.Skipf("the step client cannot be installed: %v", err)
	}
	return dir
}

var tested = regexp.MustCompile("(?s)<!-- tested -->\n```sh\n(.*?)```\n")

// Every command that docs/enrolment.md shows does what the text says.
func TestEnrolmentGuide(t *testing.T) {
	folder := stepFolder(t)
	text, err := os.ReadFile("../../docs/enrolment.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "go install "+stepModule) {
		t.Errorf("the guide installs another client than %s", stepModule)
	}
	blocks := tested.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 7 {
		t.Fatalf("only %d blocks of the guide are tested", len(blocks))
	}
	w := newWorld(t, storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db")))
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for _, b := range blocks {
		// set -e does not look at a command that begins with "!"; it stands last in its block.
		script.WriteString(b[1] + "test $? = 0\n")
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-x", file("guide.sh", []byte(script.String())))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "HOME="+dir, "STEPPATH="+filepath.Join(dir, "step"),
		"ENROLMENT_URL="+w.url, "CA_URL="+w.apiURL, "STATION_CA="+w.rootFile,
		"PROVISIONER_KEY="+file("helpdesk.key", w.helpdeskEncrypted), "PROVISIONER_PASSWORD="+file("helpdesk.password", []byte(password+"\n")))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := w.audited(t, "station.certified"); len(got) != 4 {
		t.Errorf("%q", got)
	}
}
