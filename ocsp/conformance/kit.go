package conformance

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed kit
var embedded embed.FS

// The levels of RFC 2119. Only a failed MUST says that a responder does not conform.
const (
	Must   = "MUST"
	Should = "SHOULD"
	May    = "MAY" // tolerance that nothing demands and that real clients are glad of
)

// A Case is one question to a responder. kit/README.md explains every field to those who run the cases without this package.
type Case struct {
	ID       string   `json:"id"`
	Ref      string   `json:"ref"`   // RFC and section
	Level    string   `json:"level"` // MUST, SHOULD or MAY
	Title    string   `json:"title"` // what a conforming responder does
	Needs    []string `json:"needs,omitempty"`
	After    string   `json:"after,omitempty"`    // a case that has to pass, or this one does not apply
	Each     bool     `json:"each,omitempty"`     // every reply is judged, not only the last
	Together string   `json:"together,omitempty"` // "" a connection each; "in-turn" and "pipelined" on one
	Send     []Send   `json:"send"`
	Require  []string `json:"require"`
}

// A Send is one HTTP request.
type Send struct {
	Method  string            `json:"method,omitempty"` // POST, or GET if Get is set
	Body    string            `json:"body,omitempty"`   // name of a template in requests/, without .tlv
	With    map[string]string `json:"with,omitempty"`   // what the template's variables stand for
	Cut     int               `json:"cut,omitempty"`    // so many octets are missing at the end of the body
	Get     string            `json:"get,omitempty"`    // the body goes into the path instead, written in this form
	Holds   string            `json:"holds,omitempty"`  // what the base64 must contain; random variables are drawn until it does
	Path    string            `json:"path,omitempty"`   // appended to the responder's path as it is
	Header  map[string]string `json:"header,omitempty"` // added, or set in place of what would be sent; "" leaves one out
	Version string            `json:"version,omitempty"`
	Target  string            `json:"target,omitempty"`  // "absolute" for absolute-form
	Framing string            `json:"framing,omitempty"` // "chunked", "pieces" (octet by octet) or "continue" (after 100)
	Raw     string            `json:"raw,omitempty"`     // name of a file in requests/, without .http, sent instead of all this
}

// A Kit is a set of cases with the templates they use.
type Kit struct {
	cases     []Case
	templates map[string]*template
	raw       map[string]string
}

// New returns the kit that is built in.
func New() (*Kit, error) {
	dir, err := fs.Sub(embedded, "kit")
	if err != nil {
		return nil, err
	}
	return Load(dir)
}

// Files returns the kit that is built in as it lies on disk.
func Files() (fs.FS, error) { return fs.Sub(embedded, "kit") }

// maxFile bounds each file of a kit, in octets.
const maxFile = 1 << 20

// Load reads a kit from files of the same form.
func Load(files fs.FS) (*Kit, error) {
	k := &Kit{templates: map[string]*template{}, raw: map[string]string{}}
	text, err := read(files, "cases.json")
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&k.cases); err != nil {
		return nil, fmt.Errorf("read cases.json: %w", err)
	}
	names, err := fs.Glob(files, "requests/*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := read(files, name)
		if err != nil {
			return nil, err
		}
		base := strings.TrimSuffix(path.Base(name), path.Ext(name))
		switch path.Ext(name) {
		case ".tlv":
			if k.templates[base], err = parseTemplate(text); err != nil {
				return nil, fmt.Errorf("read %s: %w", name, err)
			}
		case ".http":
			k.raw[base] = text
		}
	}
	var mistakes []error
	seen := map[string]bool{}
	for i := range k.cases {
		c := &k.cases[i]
		if err := k.check(c, seen); err != nil {
			mistakes = append(mistakes, fmt.Errorf("case %q: %w", c.ID, err))
		}
		seen[c.ID] = true
	}
	if len(k.cases) == 0 {
		mistakes = append(mistakes, errors.New("there is no case"))
	}
	return k, errors.Join(mistakes...)
}

func read(files fs.FS, name string) (string, error) {
	f, err := fs.Stat(files, name)
	if err != nil {
		return "", err
	}
	if f.Size() > maxFile {
		return "", fmt.Errorf("%s is longer than %d octets", name, maxFile)
	}
	text, err := fs.ReadFile(files, name)
	return string(text), err
}

// Cases returns the cases in order.
func (k *Kit) Cases() []Case { return slices.Clone(k.cases) }

// check says what is wrong with a case, so that a slip of the pen does not pass for a responder's fault.
func (k *Kit) check(c *Case, seen map[string]bool) error {
	switch {
	case c.ID == "" || c.Ref == "" || c.Title == "":
		return errors.New("id, ref and title are required")
	case seen[c.ID]:
		return errors.New("occurs twice")
	case c.Level != Must && c.Level != Should && c.Level != May:
		return errors.New("level is not MUST, SHOULD or MAY")
	case c.After != "" && !seen[c.After]:
		return fmt.Errorf("comes after %q, which does not stand before it", c.After)
	case !slices.Contains([]string{"", "in-turn", "pipelined"}, c.Together):
		return fmt.Errorf("together %q", c.Together)
	case len(c.Send) == 0 || len(c.Require) == 0:
		return errors.New("sends or requires nothing")
	}
	for _, need := range c.Needs {
		if !slices.Contains(needs, need) {
			return fmt.Errorf("needs %q", need)
		}
	}
	for _, r := range c.Require {
		if _, err := findRule(r); err != nil {
			return err
		}
	}
	for _, s := range c.Send {
		switch {
		case s.Raw != "" && k.raw[s.Raw] == "":
			return fmt.Errorf("no file requests/%s.http", s.Raw)
		case s.Body != "" && k.templates[s.Body] == nil:
			return fmt.Errorf("no file requests/%s.tlv", s.Body)
		case s.Get != "" && (forms[s.Get] == nil || s.Body == ""):
			return fmt.Errorf("get %q, or without a body", s.Get)
		case !slices.Contains([]string{"", "chunked", "pieces", "continue"}, s.Framing):
			return fmt.Errorf("framing %q", s.Framing)
		case !slices.Contains([]string{"", "absolute"}, s.Target):
			return fmt.Errorf("target %q", s.Target)
		}
	}
	return nil
}
