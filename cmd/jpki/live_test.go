package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// happened are lines of -live: when, who, under which pseudonym, what.
var happened = regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d  (adult|child|foreign resident) +([a-z2-7]{32})  (.+?)(?:  |$)`)

// Residents live until somebody ends the sandbox: what happens to them is told, their certificates follow, and the bank's feed
// speaks of the same pseudonyms.
func TestResidentsLive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "live")
	p, err := launch(dir, 0, "-live", "100ms", "-seed", "7")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	told := func(what string) func() bool {
		return func() bool {
			_, lives, _ := strings.Cut(p.out.String(), "steps held")
			return strings.Contains(lives, what)
		}
	}
	for _, what := range []string{"comes to town", "is born", "moves", "loses the card", "suspended", "gets a new card", "attributes-changed", "credential-renewed"} {
		if err := p.waitFor(told(what)); err != nil {
			t.Fatalf("%q is not told: %v", what, err)
		}
	}
	if _, err := sandbox.Load(dir); err != nil {
		t.Error(err)
	}
	if code, err := p.stop(syscall.SIGINT); err != nil || code != 0 {
		t.Errorf("ended with %d, %v", code, err)
	}
	out := p.out.String()
	if strings.Contains(out, "did not hold") || !strings.Contains(out, "All 17 steps held") {
		t.Errorf("something did not hold:\n%s", out)
	}
	known := map[string]bool{}
	for _, m := range happened.FindAllStringSubmatch(out, -1) {
		known[m[2]] = true
	}
	_, lives, _ := strings.Cut(out, "steps held") // the story before has a change of its own
	for line := range strings.Lines(lives) {
		if !strings.Contains(line, "attributes-changed") {
			continue
		}
		if !slices.ContainsFunc(strings.Fields(line), func(word string) bool { return known[word] }) {
			t.Errorf("the feed tells of somebody to whom nothing happened: %s", line)
		}
	}
}

func TestLiveIsAskedForProperly(t *testing.T) {
	for _, args := range [][]string{{"-live", "1ms"}, {"-live", "2h"}, {"-live", "soon"}, {"-live", "-once"}} {
		if _, stderr, code := tool(t, append([]string{"sandbox", "-dir", t.TempDir()}, args...)...); code != exitUsage || !strings.Contains(stderr, "-live takes a time") {
			t.Errorf("%q: exit code %d, %s", args, code, stderr)
		}
	}
}
