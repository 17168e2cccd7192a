package main

import (
	"bufio"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vbauerster/mpb/v8"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm/card"
)

// An office answers batches, a few lines a request, and counts what it is asked.
type office struct {
	each  int // lines answered before it breaks off
	asked map[string]int
}

func (o *office) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	lines, n := bufio.NewScanner(r.Body), 0
	for lines.Scan() && n < o.each {
		var l client.BatchLine
		_ = json.Unmarshal(lines.Bytes(), &l)
		n++
		res := client.BatchResult{Line: n, Key: l.Key, Status: 200}
		if o.asked[l.Key]++; l.Key == "bad" {
			res.Status, res.Problem = 0, &jpki.ProblemDetails{Type: jpki.ProblemBase + string(jpki.UnknownToken)}
		}
		if l.Key == "busy" && o.asked[l.Key] < 3 {
			res.Status, res.Problem = 0, &jpki.ProblemDetails{Type: jpki.ProblemBase + string(jpki.RateLimited)}
		}
		_ = json.NewEncoder(w).Encode(res)
	}
	_, _ = io.Copy(io.Discard, r.Body)
}

func TestBatchGoesOnWhereItWasInterrupted(t *testing.T) {
	o := &office{each: 4, asked: map[string]int{}}
	srv := httptest.NewTLSServer(o)
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	station := client.New(srv.URL, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.ndjson"), filepath.Join(dir, "out.ndjson")
	var text strings.Builder
	for i := range 6 {
		fmt.Fprintf(&text, `{"key":"k%d","op":"deliver","token":"t"}`+"\n", i+1)
	}
	text.WriteString("\n" + `{"key":"busy","op":"deliver","token":"t"}` + "\n" + `{"key":"bad","op":"deliver","token":"t"}` + "\nno line\n" + `{"key":"last","op":"deliver","token":"t"}`)
	before := `{"line":1,"key":"k1","status":200}` + "\n" + `{"line":3,"key":"k3","status":200}` + "\n" + `{"line":4,"ke` // torn by a kill
	for path, s := range map[string]string{in: text.String(), out: before} {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bars := mpb.New(mpb.WithOutput(nil))
	run := func() *batchRun {
		b := &batchRun{station: station, in: in, bar: bars.AddBar(0)}
		if err := b.open(out); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.run(t.Context()), b.close()); err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := run()
	if b.total != 10 || len(b.answered) != 10 || b.refused[jpki.UnknownToken] != 1 || b.refused[jpki.Malformed] != 1 {
		t.Error(b.summary())
	}
	for key, want := range map[string]int{"k1": 0, "k2": 1, "k3": 0, "k4": 1, "busy": 3, "bad": 1, "last": 1} {
		if o.asked[key] != want {
			t.Errorf("%s was asked %d times, want %d", key, o.asked[key], want)
		}
	}
	result, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[int]string{}
	for l := range strings.Lines(string(result)) {
		var r client.BatchResult
		if err := json.Unmarshal([]byte(l), &r); err != nil || lines[r.Line] != "" {
			t.Errorf("%s %v", l, err)
		}
		lines[r.Line] = r.Key + " "
	}
	if len(lines) != 10 || lines[8] != "busy " || lines[11] != "last " {
		t.Error(lines)
	}
	clear(o.asked)
	if run(); len(o.asked) != 0 {
		t.Error("a finished batch asks again", o.asked)
	}
	// Another file's results are not continued.
	if err := os.WriteFile(in, []byte(`{"key":"x","op":"deliver","token":"t"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&batchRun{in: in}).open(out); err == nil {
		t.Error("the results of another file were taken for this one's")
	}
}

func TestKeyFilesGrow(t *testing.T) {
	for of, other := range map[card.KeyType]card.KeyType{card.RSA2048: card.P384, card.P384: card.RSA2048} {
		g := generation{cards: 1, keys: filepath.Join(t.TempDir(), "keys.pem")}
		first, err := g.makeKeys(t.Context(), of)
		if err != nil || len(first) != 2 {
			t.Fatal(len(first), err)
		}
		f, _ := os.OpenFile(g.keys, os.O_APPEND|os.O_WRONLY, 0)
		_, _ = f.WriteString("-----BEGIN PRIVATE KEY-----\nAAAA") // torn
		_ = f.Close()
		again, err := g.makeKeys(t.Context(), of)
		if err != nil || len(again) != 2 {
			t.Fatal(of, len(again), err)
		}
		for i, k := range again {
			if !first[i].Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public()) {
				t.Errorf("%s: the keys of the file were not used", of)
			}
		}
		if _, err := g.makeKeys(t.Context(), other); err == nil || !strings.Contains(err.Error(), "not "+string(other)) {
			t.Errorf("keys of %s were taken for %s: %v", of, other, err)
		}
	}
}

func TestTrialKeysAreKeys(t *testing.T) {
	keys, err := sandbox.TrialKeys(t.Context(), 5, func(float64) {})
	if err != nil || len(keys) != 5 {
		t.Fatal(len(keys), err)
	}
	seen := map[string]bool{}
	for _, k := range keys {
		if err := k.Validate(); err != nil || k.N.BitLen() != 2048 || seen[k.N.String()] {
			t.Error("no key, or one twice", err)
		}
		seen[k.N.String()] = true
		if _, err := cardLine("h", k, k); err != nil {
			t.Error(err)
		}
	}
}
