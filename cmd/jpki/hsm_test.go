package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openjpki/jpki/cmd/internal/softhsm"
)

// The sandbox with the CAs' keys in a token. It needs SoftHSM, and a C compiler for jpki-signer.
func TestScriptsWithTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("starts sandboxes")
	}
	if _, err := softhsm.Module(); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", "-o", bin, "../jpki-signer")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	before := os.Getenv("PATH") // of this process, which starts sandboxes; t.Setenv would not let scripts run side by side
	if err := os.Setenv("PATH", bin+string(filepath.ListSeparator)+before); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Setenv("PATH", before) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/hsm",
		Setup: func(env *testscript.Env) error {
			offset, err := freeOffset()
			env.Setenv("OFFSET", strconv.Itoa(offset))
			env.Setenv("PATH", env.Getenv("PATH")+string(filepath.ListSeparator)+bin)
			env.Setenv("HOME", env.WorkDir)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sandbox": cmdSandbox, "stop": cmdStop, "exits": cmdExits, "let": cmdLet, "within": cmdWithin,
		},
	})
}
