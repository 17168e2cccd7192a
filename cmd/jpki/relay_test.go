package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/relay"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

// What the database's log says can be read through Redis while a relay runs, and no longer when it has been stopped; a
// second relay stands by and takes over.
func TestRelay(t *testing.T) {
	t.Parallel()
	name := storetest.Postgres(t)
	db := storetest.Create(t, name)
	issuer := jpki.IssuerID{CA: jpki.SignCA, Generation: 1}
	issue := func() {
		t.Helper()
		serial, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(t.Context(), func(tx *store.Tx) error {
			return tx.AddStatus(jpki.StatusChange{
				ID: jpki.CertID{Issuer: issuer, Serial: serial}, Partition: "99101", NotAfter: time.Now().Add(time.Hour), Status: jpki.Status{State: jpki.Good, Since: time.Now()},
			})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	issue()
	redis := redistest.Start(t)
	dir := t.TempDir()
	key := bytes.Repeat([]byte("k"), 32)
	if err := os.WriteFile(filepath.Join(dir, "key"), append(key, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "relay.yaml")
	text := fmt.Sprintf("database: %q\nredis: {addresses: ['%s']}\nkey_file: key\nadmin: 127.0.0.1:0\n", name, redis.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := tool(t, "relay", "-config", config, "-check"); code != 0 || out != "" || errOut != "" {
		t.Fatalf("-check: exit code %d\n%s%s", code, out, errOut)
	}

	follower, err := relay.NewFollower(relay.FollowerConfig{Server: relay.Server{Addrs: []string{redis.Addr()}}, Key: key, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = follower.Run(t.Context()) }()
	read := func() ([]jpki.StatusChange, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return follower.StatusChanges(ctx, 0, 100)
	}
	have := func(n int) func() bool {
		return func() bool {
			changes, err := read()
			return err == nil && len(changes) == n
		}
	}
	first := startRelay(t, config)
	redistest.Until(t, "the first entry is there", have(1))
	second := startRelay(t, config)
	redistest.Until(t, "the second stands by", func() bool { return strings.Contains(second.get(t, "/readyz"), "ready, but another relay works") })
	if got := first.get(t, "/readyz"); got != "ready\n" {
		t.Errorf("readyz: %q", got)
	}
	for _, want := range []string{"jpki_relay_working 1\n", `jpki_relay_total{outcome="entry"} 1`} {
		if got := first.get(t, "/metrics"); !strings.Contains(got, want) {
			t.Errorf("no metric %s", want)
		}
	}
	first.stop(t)
	issue()
	redistest.Until(t, "the second has taken over", have(2))
	second.stop(t)
	issue()
	if changes, err := read(); err == nil {
		t.Errorf("without a relay an end of the log is claimed: %d entries", len(changes))
	}
}

// What is wrong is told before anything is begun.
func TestRelayMistakes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"long": strings.Repeat("k", 32), "short": "k"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const redis = "\nredis: {addresses: [a]}\n"
	for text, want := range map[string]string{
		"database: sqlite:ca.db" + redis + "key_file: long":                                      "",
		"database: sqlite:ca.db" + redis + "key_file: short":                                     "32 octets",
		"database: sqlite:ca.db" + redis + "key_file: none":                                      "no such file",
		"database: sqlite:ca.db" + redis:                                                         "key_file is required",
		"database: sqlite:ca.db\nkey_file: long":                                                 "no Addrs",
		"key_file: long" + redis:                                                                 "database is required",
		"database: mysql:ca" + redis + "key_file: long":                                          "must begin with",
		"database: postgres://a,b/ca" + redis + "key_file: long":                                 "target_session_attrs=read-write",
		"database: postgres://a,b/ca?target_session_attrs=read-write" + redis + "key_file: long": "",
		"database: sqlite:ca.db" + redis + "key: long":                                           "unknown field",
	} {
		path := filepath.Join(dir, "relay.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errOut, code := tool(t, "relay", "-config", path, "-check")
		switch {
		case want == "" && (code != 0 || out+errOut != ""):
			t.Errorf("%s: exit code %d\n%s%s", text, code, out, errOut)
		case want != "" && (code != exitUsage || !strings.Contains(errOut, want)):
			t.Errorf("%s: exit code %d, want %q\n%s%s", text, code, want, out, errOut)
		}
	}
	out, _, code := tool(t, "relay", "-example")
	path := filepath.Join(dir, "example.yaml")
	if err := os.WriteFile(path, []byte(out), 0o600); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if c, err := readRelayConfig(path); err != nil || c.KeyFile == "" || c.Admin != "127.0.0.1:8082" || len(c.Redis.Addresses) != 1 {
		t.Errorf("the example: %+v, %v", c, err)
	}
}

// A relayProcess is a running `jpki relay`.
type relayProcess struct {
	cmd   *exec.Cmd
	admin string
	ended chan struct{}
}

func startRelay(t *testing.T, config string) *relayProcess {
	t.Helper()
	p := &relayProcess{cmd: exec.Command("jpki", "relay", "-config", config), ended: make(chan struct{})}
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.ended })
	relaying := make(chan string, 1)
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var said struct{ Msg, Admin string }
			if json.Unmarshal(lines.Bytes(), &said) == nil && said.Msg == "relaying" {
				relaying <- said.Admin
			} else {
				t.Log(lines.Text())
			}
		}
		_ = p.cmd.Wait()
	}()
	select {
	case p.admin = <-relaying:
	case <-p.ended:
		t.Fatalf("jpki relay ended: %s", p.cmd.ProcessState)
	case <-time.After(patience):
		t.Fatal("jpki relay does not begin")
	}
	return p
}

func (p *relayProcess) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + p.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func (p *relayProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("jpki relay does not stop")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func newSerial() (jpki.Serial, error) { return jpki.NewSerial(rand.Reader) }
