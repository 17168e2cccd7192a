package jpki_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
)

// Every word that appears in messages has its Japanese and its meaning in docs/glossary.md.
func TestGlossary(t *testing.T) {
	text, err := os.ReadFile("docs/glossary.md")
	if err != nil {
		t.Fatal(err)
	}
	glossary := string(text)
	var words []string
	for _, group := range [][]string{
		constantsOf[string](t, "issuer.go", "CA"),
		constantsOf[string](t, "kind.go", "Kind"),
		constantsOf[string](t, "kind.go", "TokenType"),
		constantsOf[string](t, "actor.go", "Role"),
		constantsOf[string](t, "status.go", "State"),
		constantsOf[string](t, "status.go", "Cause"),
		constantsOf[string](t, "event.go", "EventType"),
	} {
		words = append(words, group...)
	}
	for _, word := range words {
		if word != "" && !strings.Contains(glossary, "`"+word+"`") {
			t.Errorf("%s is not explained", word)
		}
	}
	// Each cause stands in the row of the reason it is published as.
	for _, cause := range constantsOf[jpki.Cause](t, "status.go", "Cause") {
		reason, published := cause.Reason()
		if !published {
			continue
		}
		start := fmt.Sprintf("\n| %s (%d) |", reason, int(reason))
		_, row, _ := strings.Cut(glossary, start)
		row, _, _ = strings.Cut(row, "\n")
		if !strings.Contains(row, "`"+string(cause)+"`") {
			t.Errorf("%s is not in the row %q", cause, start)
		}
	}
}
