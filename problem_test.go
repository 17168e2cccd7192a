package jpki_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
)

func problems(t *testing.T) []jpki.Problem {
	t.Helper()
	return constantsOf[jpki.Problem](t, "errors.go", "Problem")
}

func TestEveryProblemIsInTheTable(t *testing.T) {
	seen := map[jpki.Problem]bool{}
	titles := map[string]jpki.Problem{}
	unknown := jpki.Problem("no-such-problem")
	for _, p := range problems(t) {
		if seen[p] {
			t.Errorf("two problems are called %s", p)
		}
		seen[p] = true
		en, ja := p.Title("en"), p.Title("ja")
		if p != jpki.Internal && (en == unknown.Title("en") || ja == unknown.Title("ja")) {
			t.Errorf("%s has no row in the table, or internal's titles", p)
		}
		if len(en) == 0 || len(ja) == 0 || isASCII(ja) || !isASCII(en) {
			t.Errorf("%s: titles %q, %q", p, en, ja)
		}
		if other, ok := titles[en]; ok {
			t.Errorf("%s and %s have the same title", p, other)
		}
		titles[en] = p
		if s := p.HTTPStatus(); s < 400 || s > 599 || http.StatusText(s) == "" {
			t.Errorf("%s: status %d", p, s)
		}
		if strings.Trim(string(p), "abcdefghijklmnopqrstuvwxyz-") != "" {
			t.Errorf("%s does not serve as an anchor", p)
		}
	}
	if unknown.HTTPStatus() != http.StatusInternalServerError || unknown.Title("ja") != jpki.Internal.Title("ja") {
		t.Error("an unknown problem does not appear as an internal one")
	}
}

func isASCII(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return r > 0x7e }) < 0 }

// docs/problems.md is where type URIs lead: its sections are the problems, in the same order, with the same facts.
func TestEveryProblemIsDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/problems.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []jpki.Problem
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		p := jpki.Problem(name)
		documented = append(documented, p)
		if want := fmt.Sprintf("\nHTTP %d · %s · %s\n", p.HTTPStatus(), p.Title("en"), p.Title("ja")); !strings.HasPrefix(body, want) {
			t.Errorf("the section %s does not begin with %q", name, want)
		}
		for _, part := range []string{"\n**Do:** ", "\n日本語: "} {
			if strings.Count(body, part) != 1 {
				t.Errorf("the section %s has not one %q", name, part)
			}
		}
	}
	if diff := cmp.Diff(problems(t), documented); diff != "" {
		t.Error("docs/problems.md does not document the problems:", diff)
	}
}

func write(t *testing.T, language, requestID string, err error) (*http.Response, jpki.ProblemDetails, string, jpki.Problem) {
	t.Helper()
	r := httptest.NewRequestWithContext(jpki.WithRequestID(t.Context(), requestID), http.MethodPost, "/", http.NoBody)
	r.Header.Set("Accept-Language", language)
	w := httptest.NewRecorder()
	p := jpki.WriteProblem(w, r, err)
	var d jpki.ProblemDetails
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return w.Result(), d, w.Body.String(), p
}

func TestWriteProblem(t *testing.T) {
	cause := errors.New("pq: duplicate key value violates holder 黒桐")
	for name, c := range map[string]struct {
		err    error
		want   jpki.Problem
		detail string
	}{
		"with detail":        {jpki.Errorf(jpki.WeakKey, "%d bits", 1024), jpki.WeakKey, "1024 bits"},
		"with a cause":       {jpki.WrapError(jpki.Unavailable, cause, "try again"), jpki.Unavailable, "try again"},
		"wrapped":            {fmt.Errorf("issue for %w: %w", cause, jpki.Errorf(jpki.NotEligible, "age")), jpki.NotEligible, "age"},
		"only a problem":     {jpki.NotFound, jpki.NotFound, ""},
		"wrapped problem":    {fmt.Errorf("%w: %w", cause, jpki.NotFound), jpki.NotFound, ""},
		"foreign":            {cause, jpki.Internal, ""},
		"internal":           {jpki.WrapError(jpki.Internal, cause, "the disk of db3 is full"), jpki.Internal, ""},
		"internal over kind": {jpki.WrapError(jpki.Internal, jpki.Errorf(jpki.NotFound, "holder 7"), "lookup"), jpki.Internal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res, got, body, p := write(t, "", "r-17", c.err)
			if p != c.want || got.Problem() != c.want {
				t.Errorf("returns %s, says %s; want %s", p, got.Problem(), c.want)
			}
			want := jpki.ProblemDetails{
				Type: jpki.ProblemBase + string(c.want), Title: c.want.Title("en"), Status: c.want.HTTPStatus(), Detail: c.detail, RequestID: "r-17",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for _, secret := range []string{"pq:", "duplicate", "黒桐", "db3", "disk", "holder 7", "lookup"} {
				if strings.Contains(body, secret) {
					t.Errorf("the answer tells the cause: %s", body)
				}
			}
			if res.StatusCode != c.want.HTTPStatus() || res.Header.Get("Content-Type") != "application/problem+json" || res.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v", res.StatusCode, res.Header)
			}
		})
	}
}

func TestWriteProblemLanguage(t *testing.T) {
	for language, want := range map[string]string{
		"":                        jpki.KeyReused.Title("en"),
		"en":                      jpki.KeyReused.Title("en"),
		"en-US,en;q=0.9,ja;q=0.8": jpki.KeyReused.Title("en"),
		"fr":                      jpki.KeyReused.Title("en"),
		"ja":                      "この鍵には既に証明書があります",
		"ja-JP":                   "この鍵には既に証明書があります",
		"ja,en-US;q=0.9,en;q=0.8": "この鍵には既に証明書があります",
	} {
		if _, got, _, _ := write(t, language, "", jpki.KeyReused); got.Title != want {
			t.Errorf("%q gets %q", language, got.Title)
		}
	}
}

func TestWriteProblemRetryAfter(t *testing.T) {
	want := map[jpki.Problem]string{jpki.InProgress: "1", jpki.RateLimited: "1", jpki.Unavailable: "1", jpki.Conflict: "0"}
	for _, p := range problems(t) {
		res, _, _, _ := write(t, "", "", p)
		if got := res.Header.Get("Retry-After"); got != want[p] {
			t.Errorf("%s: Retry-After %q, want %q", p, got, want[p])
		}
	}
}

func TestProblemOfDetails(t *testing.T) {
	for _, kind := range []string{"", "about:blank", "https://example.com/" + string(jpki.NotFound)} {
		if got := (jpki.ProblemDetails{Type: kind}).Problem(); got != jpki.Internal {
			t.Errorf("type %q is taken for %s", kind, got)
		}
	}
}
