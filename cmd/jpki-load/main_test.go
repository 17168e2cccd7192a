package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/ocsp"
)

// command runs a command line as main does and returns what it printed and its error.
func command(t *testing.T, line ...string) (string, error) {
	t.Helper()
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(singleDashes(line))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// told listens to a sandbox's story.
type told struct{ over atomic.Bool }

func (s *told) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("steps held")) {
		s.over.Store(true)
	}
	return len(p), nil
}

// start runs a sandbox in this process, and waits until its story is over: statuses change no more.
func start(t *testing.T) (string, sandbox.Env) {
	t.Helper()
	dir := t.TempDir()
	for try := 0; ; try++ {
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		story := &told{}
		offset := 1 + rand.IntN(20_000)
		go func() {
			ended <- sandbox.Run(ctx, sandbox.Options{Dir: dir, Offset: offset, Lang: "en", Out: story})
		}()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			env, err := sandbox.Load(dir)
			if err == nil && env.OCSPURL != "" && story.over.Load() {
				t.Cleanup(func() {
					stop()
					if err := <-ended; err != nil {
						t.Errorf("sandbox: %v", err)
					}
				})
				return dir, env
			}
			select {
			case err := <-ended:
				stop()
				if try < 5 && err != nil && strings.Contains(err.Error(), "address already in use") {
					break
				}
				t.Fatal(err)
			default:
				if time.Now().After(deadline) {
					stop()
					t.Fatal("the sandbox keeps us waiting")
				}
				continue
			}
			break
		}
	}
}

// The program against a sandbox: load, request files, load from those files, canaries.
func TestSandbox(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a sandbox")
	}
	t.Parallel()
	dir, env := start(t)
	if out, err := command(t, "ocsp", "-dir", dir, "-duration", "100ms", "-warmup", "0s", "-conns", "1"); err != nil || !regexp.MustCompile(`(?m)^wrong +0;`).MatchString(out) {
		t.Fatalf("before anybody seeded: %v\n%s", err, out)
	}
	if err := sandbox.Seed(t.Context(), sandbox.SeedOptions{Dir: dir, Count: 60, Revoked: 0.3}); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.html")
	out, err := command(t, "ocsp", "-dir", dir, "-duration", "500ms", "-warmup", "100ms", "-conns", "5", "-get", "0.3", "-nonce", "0.5", "-require-nonce", "-unknown", "0.2", "-hash", "sha1=0.3,sha256=0.7", "-report", report)
	if err != nil || !regexp.MustCompile(`(?m)^answers +[1-9]`).MatchString(out) || !regexp.MustCompile(`(?m)^wrong +0; every answer glanced at, [1-9]`).MatchString(out) || !regexp.MustCompile(`(?m)^errors +none$`).MatchString(out) {
		t.Fatalf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile(report); err != nil || !bytes.Contains(text, []byte("<svg")) {
		t.Errorf("report: %v", err)
	}

	set := filepath.Join(dir, "set")
	if out, err = command(t, "requests", "-dir", dir, "-o", set, "-n", "200"); err != nil || out != "" {
		t.Fatalf("%v\n%s", err, out)
	}
	csv, err := os.ReadFile(filepath.Join(set, "targets.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{`(?m)^[0-9A-F]{32},good,sign-1$`, `(?m)^[0-9A-F]{32},good,auth-1$`, `(?m)^[0-9A-F]{32},revoked,sign-1$`, `(?m)^[0-9A-F]{32},unknown,`} {
		if !regexp.MustCompile(row).Match(csv) {
			t.Errorf("targets.csv has no row %s", row)
		}
	}
	issuers := filepath.Join(filepath.Dir(env.TrustSign), "sign-1.crt") + "," + filepath.Join(filepath.Dir(env.TrustSign), "auth-1.crt")
	args := []string{"ocsp", "-url", env.OCSPURL, "-issuer", issuers, "-targets", filepath.Join(set, "targets.csv"), "-duration", "300ms", "-warmup", "0s", "-conns", "2"}
	if out, err = command(t, args...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// The same with one row that is not true.
	if err := os.WriteFile(filepath.Join(set, "wrong.csv"), regexp.MustCompile(`,good,`).ReplaceAll(csv, []byte(",revoked,")), 0o600); err != nil {
		t.Fatal(err)
	}
	args[6] = filepath.Join(set, "wrong.csv")
	if out, err = command(t, args...); err != errNo || !strings.Contains(out, "expected revoked: says good") { //nolint:errorlint // the very error
		t.Errorf("%v\n%s", err, out)
	}

	// Two responders: the sandbox's, and a cache that holds on to what it heard for a while.
	stale := httptest.NewServer(holder(env.OCSPURL, 800*time.Millisecond))
	t.Cleanup(stale.Close)
	if out, err = command(t, "canary", "-dir", dir, "-rounds", "2", "-bound", "1s", "-watch", "1100ms", "-json"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	var findings []struct {
		URL                               string
		Changes, Asked, Violations, Wrong int
		Stale                             int
		P50                               float64 `json:"p50_ms"`
		Max                               float64 `json:"max_ms"`
	}
	if err := json.Unmarshal([]byte(out), &findings); err != nil || len(findings) != 1 || findings[0].Changes != 4 || findings[0].Asked < 8 || findings[0].Max > 1100 {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = command(t, "canary", "-dir", dir, "-rounds", "1", "-url", env.OCSPURL+","+stale.URL, "-bound", "200ms", "-watch", "400ms", "-json")
	if err != errNo { //nolint:errorlint // the very error
		t.Errorf("%v\n%s", err, out)
	}
	if err := json.Unmarshal([]byte(out), &findings); err != nil || len(findings) != 2 || findings[1].Violations == 0 || findings[1].P50 < 200 {
		t.Errorf("%v\n%s", err, out)
	}
}

// holder is a cache of answers without nonces, in front of a responder, which keeps each for a while.
func holder(responder string, keep time.Duration) http.Handler {
	type held struct {
		body []byte
		at   time.Time
	}
	var mu sync.Mutex
	cache := map[string]held{}
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		q, err := ocsp.ParseRequest(body)
		if err != nil {
			http.Error(out, "malformed", http.StatusBadRequest)
			return
		}
		q.Nonce = nil
		mu.Lock()
		defer mu.Unlock()
		key := string(q.CertIDs[0].Raw)
		h, ok := cache[key]
		if !ok || time.Since(h.at) > keep {
			der, _ := q.Marshal()
			resp, err := http.Post(responder, "application/ocsp-request", bytes.NewReader(der)) //nolint:gosec // the test's own responder
			if err != nil {
				http.Error(out, err.Error(), http.StatusBadGateway)
				return
			}
			h.body, _ = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			h.at = time.Now()
			cache[key] = h
		}
		_, _ = out.Write(h.body)
	})
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := l.Addr().(*net.TCPAddr)
	_ = l.Close()
	none := filepath.Join(t.TempDir(), "none")
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"nosuch":                      {exitUsage, `unknown command "nosuch"`},
		"ocsp -nosuch":                {exitUsage, `unknown flag: --nosuch`},
		"ocsp A":                      {exitUsage, `unexpected argument "A"`},
		"ocsp -conns 0":               {exitUsage, `-conns and -duration have to be positive`},
		"ocsp -hash md5":              {exitUsage, `sha1, sha256 or sha384`},
		"ocsp -hash sha1=x":           {exitUsage, `a share is a number`},
		"ocsp -limit 0":               {exitUsage, `-limit has to be positive`},
		"ocsp -duration 1":            {exitUsage, `missing unit`},
		"ocsp":                        {exitFailure, `without all of -url, -issuer and -targets: no sandbox runs in`},
		"requests":                    {exitUsage, `-o is required`},
		"requests -o x":               {exitFailure, `no sandbox runs in`},
		"canary -rounds 0":            {exitUsage, `-rounds`},
		"canary -metrics 127.0.0.1:0": {exitUsage, `-metrics needs it`},
		"canary -again 1s -json":      {exitUsage, `-json is for one time`},
		"canary -watch 1s":            {exitUsage, `longer than -bound`},
		"canary":                      {exitFailure, `no sandbox runs in`},
		"ocsp -url http://127.0.0.1:" + strconv.Itoa(addr.Port) + " -issuer A -targets B": {exitFailure, `no such file`},
	} {
		_, err := command(t, append([]string{"-dir", none}, strings.Fields(line)...)...)
		code := exitFailure
		if _, ok := err.(usageError); ok { //nolint:errorlint // not wrapped
			code = exitUsage
		}
		if err == nil || code != want.code || !regexp.MustCompile(want.text).MatchString(explain(err)) {
			t.Errorf("jpki-load %s: %v, want code %d and %s", line, err, want.code, want.text)
		}
	}
}

// Every command says what it does and shows how; what examples and documents show can be typed.
func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	n := 0
	check := func(where, text string) {
		for _, m := range regexp.MustCompile(`(?m)(?:^|[\s|;&(])(?:bin/)?jpki-load((?: [^|;&)#>\n]*)?)`).FindAllStringSubmatch(text, -1) {
			n++
			c, rest, err := newRoot().Find(singleDashes(strings.Fields(m[1])))
			if err == nil {
				err = c.ParseFlags(rest)
			}
			if err == nil {
				err = c.ValidateArgs(c.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: jpki-load%s: %v", where, m[1], err)
			}
		}
	}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Example == "" || c.Runnable() && c.Args == nil {
			t.Errorf("%s lacks a description, an example or a check of its arguments", c.CommandPath())
		}
		check(c.CommandPath(), c.Example)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: flag -%s is not explained", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	for _, path := range []string{"README.md", "docs/load.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", path))
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```") {
			if i%2 == 1 {
				check(path, block)
			}
		}
	}
	if n < 8 {
		t.Error(fmt.Sprint("only ", n, " command lines"))
	}
}
