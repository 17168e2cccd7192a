package conformance_test

import (
	"bufio"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki/ocsp/conformance"
)

// openssl ocsp as a server is a responder that somebody else wrote.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	w := newWorld(t)
	kit := must(conformance.New())
	known := documented(t, "`openssl ocsp`")
	var mu sync.Mutex
	failed := map[string]string{}
	passed := 0
	var work errgroup.Group
	work.SetLimit(8)
	for _, c := range kit.Cases() {
		work.Go(func() error {
			// A server of its own for each case: an odd request, or none, blocks it for good.
			server := w.openSSL(t, openssl)
			defer server.stop()
			cfg := w.config(server.url)
			cfg.Timeout, cfg.Only = 3*time.Second, []string{c.ID}
			results, err := kit.Run(t.Context(), cfg)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			switch results[0].Verdict {
			case conformance.Fail:
				failed[c.ID] = results[0].Level + ": " + results[0].Why
			case conformance.Pass:
				passed++
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	compare(t, failed, known)
	if passed < 80 {
		t.Errorf("only %d cases passed", passed)
	}
}

// A server is a running `openssl ocsp`.
type server struct {
	url  string
	stop func()
}

// openSSL starts `openssl ocsp` on a free port. It is not tried out by connecting: a connection without a request blocks it.
func (w *world) openSSL(t *testing.T, openssl string) server {
	t.Helper()
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Error(err)
		}
		return path
	}
	end := time.Now().AddDate(1, 0, 0).UTC().Format("060102150405Z")
	since := time.Now().Add(-time.Minute).UTC().Format("060102150405Z")
	index := filepath.Join(dir, "index.txt")
	text := fmt.Sprintf("V\t%s\t\t%s\tunknown\t/CN=good\nR\t%s\t%s,affiliationChanged\t%s\tunknown\t/CN=revoked\nR\t%s\t%s,certificateHold\t%s\tunknown\t/CN=suspended\n",
		end, w.good, end, since, w.revoked, end, since, w.suspended)
	if err := os.WriteFile(index, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
	key := must(x509.MarshalPKCS8PrivateKey(w.delegateKey))
	cmd := exec.Command(openssl, "ocsp", "-index", index, "-port", "0", "-rsigner", file("delegate.crt", "CERTIFICATE", w.delegate.Raw), "-rkey", file("delegate.key", "PRIVATE KEY", key),
		"-CA", file("ca.crt", "CERTIFICATE", w.issuer.Raw), "-nmin", "5", "-resp_key_id", "-ignore_err")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return server{stop: func() {}}
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return server{stop: func() {}}
	}
	s := server{stop: func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		// ACCEPT [::]:45671 PID=8290
		if f := strings.Fields(lines.Text()); len(f) > 1 && f[0] == "ACCEPT" {
			s.url = "http://127.0.0.1" + f[1][strings.LastIndexByte(f[1], ':'):]
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return s
		}
	}
	t.Error("openssl ocsp does not listen")
	return s
}
