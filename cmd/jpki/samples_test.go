package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An answerRow is a row of the table in docs/samples.md, or an answer.
type answerRow struct {
	Status        int    `json:"http_status"`
	Indication    string `json:"indication"`
	SubIndication string `json:"sub_indication"`
	Code          string `json:"code"`
	Problem       string `json:"problem"`
	Type          string `json:"type"` // in answers, for Problem
}

// documentedSamples reads the table.
func documentedSamples(t *testing.T) (names []string, rows map[string]answerRow) {
	t.Helper()
	text, err := os.ReadFile("../../docs/samples.md")
	if err != nil {
		t.Fatal(err)
	}
	rows = map[string]answerRow{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z-]+) \| (\d{3}) \| ([A-Z-]*) ?\| ([A-Z_]*) ?\| ([a-z-]+) \| .+ \|$`).FindAllStringSubmatch(string(text), -1) {
		status, _ := strconv.Atoi(m[2])
		r := answerRow{Status: status, Indication: m[3], SubIndication: m[4]}
		if status == 200 {
			r.Code = m[5]
		} else {
			r.Problem = m[5]
		}
		names, rows[m[1]] = append(names, m[1]), r
	}
	return names, rows
}

// startWithSamples starts a sandbox with samples, ready for scripts.
func startWithSamples(t *testing.T) (p *process, samples string, environment []string) {
	t.Helper()
	for _, tool := range []string{"curl", "jq", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	p, env := startWith(t, filepath.Join(t.TempDir(), "sandbox"), 0, "-samples")
	return p, env.Samples, append(os.Environ(), "VERIFIER_URL="+env.VerifierURL, "VERIFIER_TOKEN="+env.VerifierToken)
}

// TestSamples sends every sample and compares the answer with what it is to be, in the sample and in the docs. A sandbox that is
// started again has the same.
func TestSamples(t *testing.T) {
	p, samples, environment := startWithSamples(t)
	names, rows := documentedSamples(t)
	sendAll := func() {
		entries, err := os.ReadDir(samples)
		if err != nil {
			t.Fatal(err)
		}
		var made []string
		for _, e := range entries {
			made = append(made, e.Name())
		}
		sorted := slices.Sorted(slices.Values(names))
		if !slices.Equal(made, sorted) {
			t.Fatalf("samples %q, documented %q", made, sorted)
		}
		for _, name := range names {
			var expected answerRow
			text, err := os.ReadFile(filepath.Join(samples, name, "expected.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(text, &expected); err != nil {
				t.Fatal(err)
			}
			if expected != rows[name] {
				t.Errorf("%s: expected.json says %+v, docs/samples.md %+v", name, expected, rows[name])
			}
			send := exec.Command("sh", filepath.Join(samples, name, "send.sh"))
			send.Env = environment
			var stderr strings.Builder
			send.Stderr = &stderr
			answer, err := send.Output()
			if err != nil {
				t.Errorf("%s: %v: %s", name, err, stderr.String())
				continue
			}
			got := answerRow{}
			if err := json.Unmarshal(answer, &got); err != nil {
				t.Errorf("%s: %v: %s", name, err, answer)
				continue
			}
			status := stderr.String()[strings.LastIndex(strings.TrimSpace(stderr.String()), "HTTP ")+len("HTTP "):]
			got.Status, _ = strconv.Atoi(strings.TrimSpace(status))
			_, got.Problem, _ = strings.Cut(got.Type, "#")
			if got.Type = ""; got != rows[name] {
				t.Errorf("%s: got %+v, docs/samples.md says %+v", name, got, rows[name])
			}
		}
	}
	sendAll()
	moved, err := os.ReadFile(filepath.Join(samples, "moved", "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	p.end(t)
	start, err := launch(p.dir, p.offset, "-samples")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(start.kill)
	if again, err := os.ReadFile(filepath.Join(samples, "moved", "certificate.pem")); err != nil || string(again) != string(moved) {
		t.Errorf("a sandbox started again mints anew: %v", err)
	}
	sendAll()
}
