package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/hsm/card/reader"
	"github.com/openjpki/jpki/hsm/card/reader/readertest"
)

// serve runs `jpki card serve` until the returned function pulls the cards, as Ctrl-C does.
func serve(t *testing.T, args ...string) (stop func() error) {
	t.Helper()
	cmd, out := exec.Command("jpki", append([]string{"card", "serve"}, args...)...), new(buffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			t.Logf("card serve:\n%s", out.String())
		}
	})
	return func() error {
		_ = cmd.Process.Signal(os.Interrupt)
		return <-ended
	}
}

// awaitCards waits until n cards are in readers.
func awaitCards(t *testing.T, d *readertest.Daemon, n int) {
	t.Helper()
	c, err := reader.Dial(t.Context(), d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		states, err := c.Readers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in := 0
		for _, s := range states {
			if s.Present {
				in++
			}
		}
		if in == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d cards are in readers, want %d", in, n)
		}
	}
}

// What OpenSC signs with a card of the sandbox in a reader, the verifier accepts; and a blank card that comes after it is personalised in the reader and
// signs as well.
func TestServedCards(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a sandbox")
	}
	d := readertest.Start(t)
	if _, err := exec.LookPath("pkcs11-tool"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip("OpenSC is not installed")
	}
	dir := t.TempDir()
	start(t, dir, 0)
	jpki := func(args ...string) string {
		t.Helper()
		out, errOut, code := tool(t, append(args, "-dir", dir)...)
		if code != 0 {
			t.Fatalf("jpki %v: %d %s", args, code, errOut)
		}
		return strings.TrimSpace(out)
	}
	work := t.TempDir()
	in := func(name string) string { return filepath.Join(work, name) }
	opensc := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = d.Env()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	if err := os.WriteFile(in("contract"), []byte("The undersigned opens an account.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	accepted := func() {
		t.Helper()
		if out := opensc("opensc-tool", "--reader", "0", "-n"); !strings.HasPrefix(out, "jpki") {
			t.Errorf("OpenSC calls the card %q", out)
		}
		opensc("pkcs15-tool", "--reader", "0", "--read-certificate", "2", "--auth-id", "2", "--verify-pin", "--pin", "SUNABA2026", "-o", in("crt"))
		opensc("pkcs11-tool", "--slot-index", "1", "--login", "--pin", "SUNABA2026", "--id", "02", "--sign", "-m", "SHA256-RSA-PKCS", "--input-file", in("contract"), "--output-file", in("sig"))
		if out := jpki("verify", "-cert", in("crt"), "-signature", in("sig"), in("contract")); !strings.Contains(out, "TOTAL-PASSED") {
			t.Errorf("the verifier says\n%s", out)
		}
	}

	first, second := jpki("card", "new"), jpki("card", "new")
	stop := serve(t, first, second, "-reader", d.Slots[0], "-dir", dir)
	awaitCards(t, d, 2)
	accepted()
	if err := stop(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	awaitCards(t, d, 0)
	time.Sleep(reader.SwapTime)

	blank := jpki("card", "blank")
	stop = serve(t, blank, "-reader", d.Slots[0], "-dir", dir)
	if out := jpki("station", "personalise", "-pcscd", d.Socket); !strings.HasPrefix(out, blank+" H") {
		t.Errorf("personalise prints %q", out)
	}
	awaitCards(t, d, 1)
	accepted()
	if err := stop(); err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if _, errOut, code := tool(t, "card", "serve", "-dir", dir); code != exitUsage {
		t.Errorf("serve nothing: %d %s", code, errOut)
	}
	if _, errOut, code := tool(t, "card", "serve", "CNOTHING", "-dir", dir); code != exitFailure {
		t.Errorf("serve an unknown card: %d %s", code, errOut)
	}
}
