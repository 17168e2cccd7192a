// Changing a table in this file is an architecture decision; add a docs/decisions entry in the same commit.

package jpki_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// packages says which of our packages each may import, directly: what stands left of the colon may import what stands
// right of it. "." is package jpki, which every package may import. Below cmd everything may be imported, and nothing
// below cmd may be imported from elsewhere. A package whose name ends in "test" serves tests: it may import what a test may,
// and only tests may import it.
const packages = `
	.:                 -
	hsm:               hsm/signer
	hsm/signer:        -
	hsm/pkcs11:        hsm/signer
	hsm/card:          -
	hsm/card/reader:   hsm/card
	ocsp:              -
	ocsp/status:       ocsp
	ocsp/front:        ocsp
	ocsp/cache:        -
	ocsp/conformance:  -
	crl:               -
	crl/watch:         crl
	crl/snapshot:      -
	crl/bucket:        crl crl/snapshot
	verifier:          ocsp crl verifier/cms verifier/jws verifier/path verifier/pdf verifier/primitive verifier/xmldsig verifier/xmldsig/c14n
	verifier/xmldsig:  verifier/xmldsig/c14n verifier/primitive
	verifier/xmldsig/c14n: -
	verifier/primitive: -
	verifier/path:      verifier/primitive
	verifier/jws:      verifier/primitive
	verifier/cms:      verifier/primitive
	verifier/pdf:      verifier/cms verifier/primitive
	verifier/api:      ca/client verifier verifier/store verifier/push
	verifier/push:     ca/client verifier/store
	verifier/nightcheck: crl crl/snapshot
	verifier/store:    -
	verifier/client:   -
	verifier/examples/accountopening: verifier/client
	verifier/examples/login: verifier/client
	ca:                ca/store ca/audit crl
	ca/audit:          -
	ca/client:         -
	ca/store:          ca/audit
	ca/relay:          -
	ca/backup:         ca/audit ca/store
	ca/ceremony:       ca hsm verifier/cms
	ca/api:            ca ca/client ca/store verifier
	ca/acme:           ca ca/store
	ca/web:            ca
	cmd/internal/boot: -
	cmd:               anything
`

// rooms says which packages may import what is not ours, directly: each dependency has its room, and its types appear
// in no exported signature outside. "cmd" is every package below cmd. golang.org/x and what only tests import need no
// row; golang.org/x/crypto/ocsp has one because it cannot do all that our responder must.
const rooms = `
	github.com/gin-gonic/gin:            ca/api ca/web verifier/api
	github.com/cloudflare/cfssl:         ca/ceremony cmd/jpki
	github.com/jackc/pgx/v5:             ca/store verifier/store
	modernc.org/sqlite:                  ca/store verifier/store
	github.com/pressly/goose/v3:         ca/store verifier/store
	golang.org/x/crypto/ocsp:            ocsp cmd/internal/benchverifier
	github.com/prometheus/client_golang: cmd/internal/boot
	go.opentelemetry.io/otel:            cmd/internal/trace
	github.com/redis/go-redis/v9:        ocsp/cache ca/relay cmd/internal/benchocsp
	github.com/redis/rueidis:            cmd/internal/benchocsp
	github.com/maypok86/otter/v2:        ocsp/cache
	github.com/smallstep/certificates:   ca/acme
	go.step.sm/crypto:                   ca/acme hsm
	github.com/miekg/pkcs11:             hsm/pkcs11 cmd/internal/benchhsm
	github.com/valyala/fasthttp:         cmd/internal/benchocsp
	github.com/smallstep/pkcs7:          cmd/internal/benchverifier
	github.com/go-chi/chi/v5:            ca/acme
	github.com/fxamacker/cbor/v2:        ca/acme cmd/internal/phone
	github.com/goccy/go-yaml:            ca ca/ceremony verifier/api cmd
	github.com/cloudflare/circl:         ca/ceremony
	github.com/zmap/zlint/v3:            ca
	github.com/zmap/zcrypto:             ca
	github.com/spf13/cobra:              cmd
	github.com/vbauerster/mpb/v8:        cmd
	github.com/mattn/go-isatty:          cmd
	github.com/mattn/go-runewidth:       cmd
`

// frugal lists what others link into their own programs: these packages depend, through however many steps, on nothing
// but the standard library, golang.org/x and our module.
const frugal = `. verifier verifier/nightcheck verifier/primitive verifier/path verifier/cms verifier/pdf verifier/xmldsig verifier/xmldsig/c14n verifier/jws ocsp crl crl/snapshot hsm/card`

const module = "github.com/openjpki/jpki"

func TestImports(t *testing.T) {
	watchSources(t)
	may, room := parseTable(t, packages), parseTable(t, rooms)
	all := listPackages(t)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		pkg := all[path]
		name, ours := inModule(path)
		if !ours || forTests(name) {
			continue
		}
		row, listed := may[name]
		if !listed {
			row, listed = may["cmd"], below(name, "cmd")
		}
		if !listed {
			t.Errorf("%s is not in the table: decide what it may import", name)
		}
		for _, imported := range pkg.Imports {
			target, ours := inModule(imported)
			switch {
			case ours && forTests(target):
				t.Errorf("%s imports %s, which is for tests only", name, target)
			case ours && target != "." && !slices.Contains(row, "anything") && !slices.Contains(row, target):
				t.Errorf("%s imports %s, which the table does not allow", name, target)
			case !ours && !all[imported].Standard && !admitted(room, name, imported):
				t.Errorf("%s imports %s, which has its room elsewhere or none", name, imported)
			}
		}
		if !below(name, "cmd") {
			for _, imported := range slices.Concat(pkg.Imports, pkg.TestImports, pkg.XTestImports) {
				if target, ours := inModule(imported); ours && below(target, "cmd") {
					t.Errorf("%s imports %s, but nobody imports programs", name, target)
				}
			}
		}
	}

	for name := range strings.FieldsSeq(frugal) {
		if chain := foreign(all, strings.TrimSuffix(module+"/"+name, "/."), map[string]bool{}); chain != nil {
			t.Errorf("users of %s would have to link what is not ours: %s", name, strings.Join(chain, " → "))
		}
	}
}

// The table is a direction only if it has no cycle. Go would notice one in the code, this notices it in the plan.
func TestImportTableHasADirection(t *testing.T) {
	may := parseTable(t, packages)
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if slices.Contains(path, name) {
			t.Fatalf("the table goes round: %s", strings.Join(append(path, name), " → "))
		}
		for _, target := range may[name] {
			if _, listed := may[target]; !listed && target != "anything" {
				t.Errorf("%s may import %s, which the table does not know", name, target)
			}
			visit(target, append(path, name))
		}
	}
	for name := range may {
		visit(name, nil)
	}
}

// admitted reports whether the package called name may import what is not ours and not of the standard library.
func admitted(room map[string][]string, name, imported string) bool {
	for dependency, tenants := range room {
		if below(imported, dependency) {
			return slices.Contains(tenants, name) || slices.Contains(tenants, "cmd") && below(name, "cmd")
		}
	}
	return below(imported, "golang.org/x")
}

// below reports whether a path is root or lies under it.
func below(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// forTests reports whether a package of ours serves tests only.
func forTests(name string) bool { return strings.HasSuffix(name, "test") && !below(name, "cmd") }

// inModule returns a package's name as the tables have it, and whether it is one of ours.
func inModule(path string) (name string, ours bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

func parseTable(t *testing.T, table string) map[string][]string {
	t.Helper()
	rows := map[string][]string{}
	for line := range strings.Lines(table) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		left, right, ok := strings.Cut(line, ": ")
		left = strings.TrimSpace(left)
		if _, twice := rows[left]; !ok || twice {
			t.Fatalf("bad row in the table: %s", line)
		}
		rows[left] = slices.DeleteFunc(strings.Fields(right), func(s string) bool { return s == "-" })
	}
	return rows
}

type listed struct {
	ImportPath                         string
	Standard                           bool
	Imports, TestImports, XTestImports []string
}

// listPackages asks go list for our packages and all that they depend on, tests aside.
func listPackages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports,TestImports,XTestImports", "./...")
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("go list: %s", exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	all := map[string]listed{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
	if len(all[module].Imports) == 0 {
		t.Fatal("go list does not know our own package: is this test run in the module's root?")
	}
	return all
}

// foreign returns how a package comes to depend on one that is neither ours nor the standard library's nor of
// golang.org/x; nil if it does not, or does not exist yet.
func foreign(all map[string]listed, path string, seen map[string]bool) []string {
	pkg := all[path]
	if seen[path] || pkg.Standard {
		return nil
	}
	seen[path] = true
	if _, ours := inModule(path); !ours && !below(path, "golang.org/x") {
		return []string{path}
	}
	for _, imported := range pkg.Imports {
		if chain := foreign(all, imported, seen); chain != nil {
			return append([]string{path}, chain...)
		}
	}
	return nil
}

// watchSources looks at every folder, so that go test, which knows what a test reads but not what its child processes
// read, does not serve a cached result after a change elsewhere.
func watchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "var", "testdata", "docs"}, d.Name())) {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
