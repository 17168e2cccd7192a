package signer_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/hsm/signer"
)

func meter(t *testing.T, path string) *signer.Meter {
	t.Helper()
	m, err := signer.OpenMeter(path, func() time.Time { return time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC) })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func use(t *testing.T, m *signer.Meter, key string, n int) {
	t.Helper()
	for range n {
		if err := m.Use(key, signer.ForCertificate); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMeterCountsExactlyAcrossOrderlyRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.ndjson")
	for range 3 {
		m := meter(t, path)
		use(t, m, "k", 1000)
		if err := m.Use("k", signer.ForCRL); err != nil {
			t.Fatal(err)
		}
		if _, err := signer.OpenMeter(path, time.Now); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("opened twice: %v", err)
		}
		if err := m.Keep(); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last, err := signer.VerifyUsage(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if u := last.Keys["k"]; u.Used["certificate"] != 3000 || u.Used["crl"] != 3 || len(u.Used) != 2 || u.Ceiling != 3003 {
		t.Errorf("%+v", u)
	}

	lines := strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
	for name, altered := range map[string]string{
		"one removed":    strings.Join(append(append([]string{}, lines[:2]...), lines[3:]...), ""),
		"first removed":  strings.Join(lines[1:], ""),
		"two exchanged":  lines[1] + lines[0] + strings.Join(lines[2:], ""),
		"a count":        strings.Replace(string(text), `"certificate":1000`, `"certificate":900`, 1),
		"a foreign line": string(text) + "{}\n",
	} {
		if _, err := signer.VerifyUsage(strings.NewReader(altered)); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// After a crash at any time the record says at least as much as was used.
func TestMeterIsNeverBehindAfterACrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "usage.ndjson")
	m := meter(t, path)
	used := 0
	for i, n := range []int{1, 126, 2, 300, 5000, 0} {
		use(t, m, "k", n)
		used += n
		text, err := os.ReadFile(path) // what a crash now would leave, with a line cut off
		if err != nil {
			t.Fatal(err)
		}
		crashed := filepath.Join(dir, "crashed")
		if err := os.WriteFile(crashed, append(text, `{"seq":99,"ti`...), 0o600); err != nil {
			t.Fatal(err)
		}
		after := meter(t, crashed)
		use(t, after, "k", 1)
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(crashed)
		if err != nil {
			t.Fatal(err)
		}
		last, err := signer.VerifyUsage(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if got := last.Keys["k"].Ceiling; got < uint64(used+1) {
			t.Errorf("step %d: %d uses, and the record says %d", i, used+1, got)
		}
	}
	var last signer.Record
	if err := json.Unmarshal(m.Last(), &last); err != nil || last.Keys["k"].Ceiling < uint64(used) {
		t.Errorf("%+v, %v", last, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(text, []byte(`"ceiling":5429`), []byte(`"ceiling":6429`), 1)
	if bytes.Equal(altered, text) {
		t.Fatalf("the last record is another: %s", m.Last())
	}
	if err := os.WriteFile(path, altered, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := signer.OpenMeter(path, time.Now); err == nil || !strings.Contains(err.Error(), "altered") {
		t.Errorf("an altered last record was accepted: %v", err)
	}
}
