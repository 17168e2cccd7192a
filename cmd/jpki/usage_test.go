package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command says what it does and shows how, and what it shows can be typed.
func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	n := 0
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		n++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: no short description, or one with a full stop: %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && !c.HasSubCommands() && c.Use != c.Name() && c.Args == nil {
			t.Errorf("%s does not check its arguments", c.CommandPath())
		}
		examples := 0
		for line := range strings.Lines(c.Example) {
			for _, words := range commandLines(line) {
				examples++
				checkCommandLine(t, c.CommandPath()+"'s example", words)
			}
		}
		if examples == 0 {
			t.Errorf("%s has no example", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: flag -%s is not explained", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	if n < 18 {
		t.Errorf("only %d commands", n)
	}
}

// --help of every command prints that, on standard output.
func TestHelp(t *testing.T) {
	t.Parallel()
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		args := append(strings.Fields(c.CommandPath())[1:], "--help")
		out, errOut, code := tool(t, args...)
		if code != 0 || errOut != "" || !strings.Contains(out, "Usage:\n  "+c.CommandPath()) || !strings.Contains(out, "\nExamples:\n  ") {
			t.Errorf("jpki %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errOut)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}

// The documents' command lines exist. That they work is the business of guides_test.go.
func TestDocumentedCommandLines(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	files := []string{filepath.Join(root, "README.md")}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	guides, err := filepath.Glob(filepath.Join(root, "docs", "guides", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more = append(more, guides...)
	n := 0
	for _, path := range append(files, more...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code := false
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "```") {
				code = !code
			}
			if !code {
				continue
			}
			for _, words := range commandLines(line) {
				n++
				checkCommandLine(t, filepath.Base(path), words)
			}
		}
	}
	if n == 0 {
		t.Error("no document shows a command")
	}
}

var calls = regexp.MustCompile(`(?:^|[\s|;&(])(?:bin/)?jpki((?: [^|;&)#>\n]*)?)`)

// variables are the shell's; any value will do in their place, and 1 is a number, too.
var variables = regexp.MustCompile(`\$[A-Za-z_]+`)

// commandLines finds calls of jpki in a line of shell, without the program's name.
func commandLines(line string) (out [][]string) {
	line, _, _ = strings.Cut(line, " #")
	line = variables.ReplaceAllString(line, "1")
	for _, m := range calls.FindAllStringSubmatch(line, -1) {
		out = append(out, strings.Fields(strings.ReplaceAll(m[1], "'", "")))
	}
	return out
}

func checkCommandLine(t *testing.T, where string, words []string) {
	t.Helper()
	c, rest, err := newRoot().Find(singleDashes(words))
	if err == nil {
		err = c.ParseFlags(rest)
	}
	if err == nil {
		err = c.ValidateArgs(c.Flags().Args())
	}
	if err != nil || (c.HasSubCommands() && c.Use == c.Name() && len(c.Flags().Args()) > 0) {
		t.Errorf("%s: jpki %s: %v", where, strings.Join(words, " "), err)
	}
}

// A wrong command line is told in one line and ends with 2, before anything is done; what cannot be done ends with 1.
func TestMistakes(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"nosuch":                      {exitUsage, `unknown command "nosuch" for "jpki"`},
		"-nosuch":                     {exitUsage, `unknown flag: --nosuch`},
		"card nosuch":                 {exitUsage, `unknown command "nosuch" for "jpki card"`},
		"card show A B":               {exitUsage, `argument`},
		"card show -nosuch":           {exitUsage, `unknown flag: --nosuch`},
		"card new A":                  {exitUsage, `argument`},
		"card sign A":                 {exitUsage, `want 2 argument\(s\): \[CARD FILE\]`},
		"card login":                  {exitUsage, `want 1 argument\(s\): \[CARD\]`},
		"card suspend A B":            {exitUsage, `argument`},
		"station nosuch":              {exitUsage, `unknown command`},
		"station request A B":         {exitUsage, `argument`},
		"certificate show":            {exitUsage, `want 1 argument\(s\): \[FILE\]`},
		"crl show":                    {exitUsage, `want 1 argument\(s\): \[FILE\]`},
		"crl list":                    {exitUsage, `unknown command "list" for "jpki crl"`},
		"ocsp":                        {exitUsage, `want 1 argument\(s\): \[CERTIFICATE\]`},
		"verify A -cert B":            {exitUsage, `-cert and -signature belong together`},
		"verify -cert":                {exitUsage, `flag needs an argument: --cert`},
		"audit verify A":              {exitUsage, `argument`},
		"seed A":                      {exitUsage, `argument`},
		"seed -n many":                {exitUsage, `invalid argument "many"`},
		"seed -n 0":                   {exitUsage, `-n must be positive`},
		"seed -revoked 1.5":           {exitUsage, `between 0 and 1`},
		"sandbox A":                   {exitUsage, `argument`},
		"sandbox -offset ten":         {exitUsage, `invalid argument "ten"`},
		"sandbox -lang fr":            {exitUsage, `-lang is en or ja`},
		"sandbox -offset 60000":       {exitFailure, `invalid port`},
		"card show":                   {exitFailure, `no such file`},
		"card new":                    {exitFailure, `no sandbox runs in .*/none: start one with .jpki sandbox -dir`},
		"card suspend":                {exitFailure, `no sandbox runs in`},
		"card login A":                {exitFailure, `no sandbox runs in`},
		"station request":             {exitFailure, `no sandbox runs in`},
		"ocsp A":                      {exitFailure, `no sandbox runs in`},
		"verify -cert A -signature B": {exitUsage, `want 1 argument\(s\): \[FILE\]`},
		"certificate show A":          {exitFailure, `no such file`},
		"crl show A":                  {exitFailure, `no such file`},
		"audit verify":                {exitFailure, `if it is the sandbox.s, has that been started once`},
		"seed":                        {exitFailure, `has the sandbox been started once`},
	} {
		dir := none
		if strings.HasPrefix(line, "sandbox") {
			dir = t.TempDir() // it makes its directory
		}
		out, errOut, code := tool(t, append([]string{"-dir", dir}, strings.Fields(line)...)...)
		if code != want.code || out != "" {
			t.Errorf("jpki %s: exit code %d, want %d\n%s", line, code, want.code, out)
		}
		if want.code == exitUsage {
			want.text += fmt.Sprintf(".* %s$", regexp.QuoteMeta("(see --help)"))
		}
		oneLine(t, errOut, "(?m)"+want.text)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a command that failed made a directory")
	}
}
