package jpki_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// disagreements are the variables of tests that list cases by name which the verifier refuses although their suite does not.
var disagreements = []struct{ file, variable string }{
	{"verifier/path/vectors_test.go", "dsa"},
	{"verifier/cms/vectors_test.go", "disagreements"},
	{"verifier/jws/vectors_test.go", "stricter"},
	{"verifier/xmldsig/xmldsig_test.go", "xmlsecRefused"},
	{"verifier/pdf/vectors_test.go", "disagreements"},
}

// Every case that a test lists as refused is in docs/verifier-vectors.md, and the numbers there are those of the suites.
func TestVectorsAreDescribed(t *testing.T) {
	text, err := os.ReadFile("docs/verifier-vectors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Where we disagree")
	table, _, _ = strings.Cut(table, "\n## ")
	listed := 0
	for _, d := range disagreements {
		for _, name := range literals(t, d.file, d.variable) {
			listed++
			if name = strings.TrimPrefix(strings.TrimPrefix(filepath.Base(name), "validation__"), "dss2620__"); !strings.Contains(table, "`"+name+"`") {
				t.Errorf("%s of %s is not described", name, d.file)
			}
		}
	}
	if rows := strings.Count(table, "\n| `"); rows != listed {
		t.Errorf("%d rows for %d cases", rows, listed)
	}

	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS names no folder of vectors")
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], "`") {
			continue
		}
		suite := strings.Trim(cells[1], "`")
		rows++
		if got := strconv.Itoa(casesOf(t, dir, suite)); got != cells[2] {
			t.Errorf("%s: %s cases, not %s", suite, got, cells[2])
		}
		if all, right := number(t, cells[2]), number(t, cells[3]); right > all {
			t.Errorf("%s: %d of %d", suite, right, all)
		}
	}
	if rows != 17 {
		t.Errorf("%d suites", rows)
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// literals returns the strings in the value of a variable: the elements of a list or the keys of a map.
func literals(t *testing.T, file, variable string) (out []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != variable || len(spec.Values) != 1 {
			return true
		}
		value, ok := spec.Values[0].(*ast.CompositeLit)
		if !ok {
			return true
		}
		found = true
		for _, e := range value.Elts {
			if pair, ok := e.(*ast.KeyValueExpr); ok {
				e = pair.Key
			}
			if lit, ok := e.(*ast.BasicLit); ok {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, s)
			}
		}
		return false
	})
	if !found {
		t.Fatalf("%s has no list %s", file, variable)
	}
	return out
}

// casesOf counts the cases of a suite: a file with a list, or a folder.
func casesOf(t *testing.T, dir, suite string) int {
	t.Helper()
	count := func(pattern string) int {
		files, err := filepath.Glob(filepath.Join(dir, suite, pattern))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	load := func(path string, into any) {
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	switch suite {
	case "nist-pkits/smime":
		return count("*.eml")
	case "pyca-ocsp":
		return count("*.der")
	case "cms-rfc4134":
		return count("[0-9]*.bin") // ExContent.bin is what some are about
	case "x509-limbo":
		files, _ := filepath.Glob(filepath.Join(dir, suite, "*.json"))
		n := 0
		for _, file := range files {
			var limbo struct{ Testcases []json.RawMessage }
			load(file, &limbo)
			n += len(limbo.Testcases)
		}
		return n
	case "wycheproof":
		files, _ := filepath.Glob(filepath.Join(dir, suite, "*.json"))
		n := 0
		for _, file := range files {
			var doc struct {
				TestGroups []struct{ Tests []json.RawMessage }
			}
			load(file, &doc)
			for _, g := range doc.TestGroups {
				n += len(g.Tests)
			}
		}
		return n
	case "c14n":
		n := 0
		for _, file := range []string{"merlin-c14n-three/signature.xml", "merlin-exc-c14n-one/exc-signature.xml"} {
			text, err := os.ReadFile(filepath.Join(dir, suite, file))
			if err != nil {
				t.Fatal(err)
			}
			n += strings.Count(string(text), "<Reference") + strings.Count(string(text), "<dsig:Reference")
		}
		return n
	}
	var cases []json.RawMessage
	load(filepath.Join(dir, suite), &cases)
	return len(cases)
}
