// Program sbom writes what programs are made of, as a CycloneDX document: `make sbom`.
//
// It reads the list of modules that Go puts into each executable, so that the bill is of what was linked and not of what
// go.mod would allow. The same executables make the same octets: there is no time and no random number in it. C libraries that
// jpki-signer loads when it runs are no part of an executable, and not listed. Start at [Bill].
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

func main() {
	doc, err := Bill(os.Args[1:])
	if err == nil {
		_, err = os.Stdout.Write(doc)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// A bill is the part of CycloneDX 1.6 (ECMA-424) that is used here.
type bill struct {
	Schema       string       `json:"$schema"`
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

// Bill describes these executables of one module; others are an error. Each program is a component that depends on its modules and
// on the Go standard library. A module's sum in go.sum is a property, for it is no hash of a file.
func Bill(files []string) ([]byte, error) {
	if len(files) == 0 {
		return nil, errors.New("usage: sbom EXECUTABLE…")
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	libraries := map[string]component{}
	var programs []component
	var deps []dependency
	var whole component
	for _, file := range files {
		octets, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		info, err := buildinfo.Read(bytes.NewReader(octets))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		main := library(&info.Main)
		main.Type = "application"
		if whole.Ref != "" && whole.Ref != main.Ref {
			return nil, fmt.Errorf("%s is of %s, not of %s", file, main.Ref, whole.Ref)
		}
		whole = main
		sum := sha256.Sum256(octets)
		name := filepath.Base(file)
		p := component{
			Type: "application", Ref: main.Ref + "#" + strings.TrimPrefix(info.Path, info.Main.Path+"/"), Name: name, Version: info.Main.Version,
			Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}},
		}
		for _, s := range info.Settings {
			if s.Value != "" {
				p.Properties = append(p.Properties, property{"go:build:" + s.Key, s.Value})
			}
		}
		goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ") // experiments follow
		std := library(&debug.Module{Path: "std", Version: goVersion})
		libraries[std.Ref] = std
		d := dependency{Ref: p.Ref, DependsOn: []string{std.Ref}}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			c := library(m)
			libraries[c.Ref] = c
			d.DependsOn = append(d.DependsOn, c.Ref)
		}
		slices.Sort(d.DependsOn)
		if slices.ContainsFunc(programs, func(o component) bool { return o.Ref == p.Ref }) {
			return nil, fmt.Errorf("%s is there twice", info.Path)
		}
		programs, deps = append(programs, p), append(deps, d)
	}
	all := dependency{Ref: whole.Ref}
	for _, p := range programs {
		all.DependsOn = append(all.DependsOn, p.Ref)
	}
	slices.Sort(all.DependsOn)
	b := bill{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		Metadata: metadata{whole}, Components: programs, Dependencies: append([]dependency{all}, deps...),
	}
	for _, ref := range slices.Sorted(maps.Keys(libraries)) {
		b.Components = append(b.Components, libraries[ref])
		b.Dependencies = append(b.Dependencies, dependency{ref, []string{}})
	}
	// The number is made of the contents (RFC 9562 §5.8: version 8 is for such).
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(text)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	b.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	err = e.Encode(b)
	return out.Bytes(), err
}

// library is a module, by its package URL.
func library(m *debug.Module) component {
	purl := "pkg:golang/" + m.Path
	if m.Version != "" {
		purl += "@" + strings.ReplaceAll(url.PathEscape(m.Version), "+", "%2B")
	}
	c := component{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl}
	if m.Sum != "" {
		c.Properties = []property{{"go:sum", m.Sum}}
	}
	return c
}
