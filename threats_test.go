package jpki_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that the threat model names is there, every threat but one names some, and every zone has a rate limit.
func TestThreatModel(t *testing.T) {
	text, err := os.ReadFile("docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	// "make vulncheck" is a target and no test: its database is not on this machine.
	const untested = "| a library has a known hole |"
	named := regexp.MustCompile("`([a-z0-9/-]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	zones := strings.Split(string(text), "\n## ")[1:]
	for _, zone := range zones {
		title, _, _ := strings.Cut(zone, "\n")
		if title != "What is delivered" && !strings.Contains(zone, "| **rate limit**") {
			t.Errorf("%s: no rate limit", title)
		}
		for line := range strings.Lines(zone) {
			if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| threat |") || strings.HasPrefix(line, untested) {
				continue
			}
			tests := named.FindAllStringSubmatch(line, -1)
			if len(tests) == 0 {
				t.Errorf("%s: no test tries this: %s", title, line)
			}
			for _, m := range tests {
				if !hasTest(t, m[1], m[2]) {
					t.Errorf("%s: there is no %s in %s", title, m[2], m[1])
				}
			}
		}
	}
	if len(zones) != 5 {
		t.Errorf("%d zones", len(zones))
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
