package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // docs.html.tmpl
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"

	"github.com/goccy/go-yaml"
)

//go:embed docs.html.tmpl
var docsTemplate string

// docsStyle is all that the page needs beside its text. Its digest is the only one that the page's security policy admits: there is
// no script and nothing is loaded.
const docsStyle = `:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}h2{margin-top:3rem;border-bottom:1px solid;padding-bottom:.2rem}
h3 b{display:inline-block;min-width:4.5rem}section{margin-bottom:2.5rem}dl{margin:.3rem 0 .3rem 1rem;padding-left:.8rem;border-left:2px solid #8886}
dt{margin-top:.4rem}dd{margin:0 0 0 1rem}small{opacity:.75}nav li{list-style:none}`

// docsPage renders the document as a page that needs nothing else, and returns with it the digest of its style.
func docsPage(document []byte) (page []byte, style string, err error) {
	var doc yaml.MapSlice
	if err := yaml.UnmarshalWithOptions(document, &doc, yaml.UseOrderedMap()); err != nil {
		return nil, "", fmt.Errorf("read openapi.yaml: %w", err)
	}
	t, err := template.New("docs").Funcs(template.FuncMap{
		"get": get, "has": func(v any, name string) bool { return get(v, name) != nil }, "pairs": pairs, "paragraphs": paragraphs, "prose": prose, "upper": strings.ToUpper,
		"last": func(ref any) string { s := fmt.Sprint(ref); return s[strings.LastIndexByte(s, '/')+1:] },
		"schema": func(ref any) string { // the one in which a reference points
			name, _, _ := strings.Cut(strings.TrimPrefix(fmt.Sprint(ref), "#/components/schemas/"), "/")
			return name
		},
		"resolve": func(v any) any {
			for range 8 { // a reference to a reference, and no circle
				ref, ok := get(v, "$ref").(string)
				if !ok {
					break
				}
				var at any = doc
				for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
					at = get(at, name)
				}
				v = at
			}
			return v
		},
		"style": func() template.CSS { return docsStyle },
	}).Parse(docsTemplate)
	if err != nil {
		return nil, "", fmt.Errorf("read the page's template: %w", err)
	}
	var out bytes.Buffer
	if err := t.Execute(&out, doc); err != nil {
		return nil, "", fmt.Errorf("make the page: %w", err)
	}
	sum := sha256.Sum256([]byte(docsStyle))
	return out.Bytes(), base64.StdEncoding.EncodeToString(sum[:]), nil
}

// get returns a member of a mapping; nil if there is none.
func get(v any, name string) any {
	m, _ := v.(yaml.MapSlice)
	for _, item := range m {
		if fmt.Sprint(item.Key) == name {
			return item.Value
		}
	}
	return nil
}

// A pair is a member of a mapping.
type pair struct {
	Key   string
	Value any
}

// pairs returns the members in their order; methods of a path only where there is more beside them.
func pairs(v any) (out []pair) {
	m, _ := v.(yaml.MapSlice)
	for _, item := range m {
		if key := fmt.Sprint(item.Key); key != "parameters" {
			out = append(out, pair{key, item.Value})
		}
	}
	return out
}

func paragraphs(v any) []string {
	if v == nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(fmt.Sprint(v)), "\n\n")
}

// prose is a text whose words between backticks are code.
func prose(v any) template.HTML {
	var out strings.Builder
	for i, part := range strings.Split(fmt.Sprint(v), "`") {
		if part = template.HTMLEscapeString(part); i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		out.WriteString(part)
	}
	return template.HTML(out.String()) //nolint:gosec // G203: escaped above
}
