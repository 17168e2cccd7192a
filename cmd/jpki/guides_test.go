package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The documents' commands are run as they stand. A fence says what becomes of its block:
//
//	sh            is run, in the order of the document, by one shell: `sh -eux`
//	sh terminal   is run in a terminal of its own, and stays; what follows waits until a sandbox that it starts has told its story
//	text          is shown, and not run
//
// A line with the comment "# refused" must fail. TestGuides runs the documents of its table; a script that does more around a document
// runs it with its command guide; a few have a test of their own in another package. TestEveryCommandIsRun sees to it that nothing is left over.

// guides are the documents that TestGuides runs, each in a folder with bin, var/sandbox and a sandbox that has told its story. A new guide
// is a row.
var guides = []struct {
	file    string
	story   []string // flags of the sandbox
	replace []string // pairs: what a test does less of
	want    []string // what lines must be printed
}{
	{file: "docs/guides/station.md", want: []string{`^same$`, `#wrong-municipality$`, `^revoked \(keyCompromise\)$`, `card-sign +sign-1/[0-9A-F]+ +good`}},
	{file: "docs/guides/register.md", want: []string{`"state":"revoked","reason":"affiliationChanged"`, `^true$`, `^"revoked"$`, `^affiliationChanged$`}},
	{file: "docs/guides/holder.md", want: []string{`suspended certificateHold$`, `^TOTAL-PASSED  ok$`, `^phone-auth +auth-1/[0-9A-F]+  good`}},
	{file: "docs/guides/bank.md", want: []string{`^TOTAL-PASSED$`, `^"suspended"$`, `^suspended$`, `^ok$`}},
	{file: "docs/guides/operator.md", replace: []string{"-n 10000", "-n 100"}, want: []string{`^whole: [0-9]+ entries`, `^unfit|^audit +whole`, `"findings":\[\]`, `^jpki_`}},
	{file: "docs/verify.md", want: []string{`^contract.txt.p7s: TOTAL-PASSED \[ok\]$`, `^contract.txt.p7s: INDETERMINATE .*\[status-not-established\]$`}},
	{file: "docs/ocsp-conformance.md", want: []string{`^pass +SHOULD +get-slashes `, `^1[0-9][0-9] cases: `}},
	{file: "docs/samples.md", story: []string{"-samples"}, want: []string{`^"revoked-attributes-changed"$`, `"code":"revoked-attributes-changed"`}},
	{file: "docs/hsm.md", replace: []string{"-dir var/hsm\n", "-dir var/hsm -offset $FREE_OFFSET\n"}, want: []string{`^All [0-9]+ steps held`, `sign-1`}},
	{file: "docs/load.md", replace: []string{"-n 10000", "-n 100", "-rounds 50", "-rounds 3"}},
}

// guideTools are the programs that guides call beside ours.
var guideTools = []string{"sh", "openssl", "curl", "jq", "git", "make", "softhsm2-util", "cc"}

func TestGuides(t *testing.T) {
	if testing.Short() {
		t.Skip("the guides start many processes")
	}
	needTools(t)
	for _, g := range guides {
		t.Run(filepath.Base(g.file), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script, err := shellOf(g.file)
			if err != nil {
				t.Fatal(err)
			}
			script = strings.NewReplacer(g.replace...).Replace(script)
			if err := installPrograms(t.Context(), dir, script); err != nil {
				t.Fatal(err)
			}
			p, _ := startWith(t, filepath.Join(dir, "var", "sandbox"), 0, g.story...)
			if err := p.waitFor(func() bool { return strings.Contains(p.out.String(), "steps held") }); err != nil {
				t.Fatal(err)
			}
			offset, err := freeOffset()
			if err != nil {
				t.Fatal(err)
			}
			out := runGuide(t, dir, script, []string{"FREE_OFFSET=" + strconv.Itoa(offset)})
			for _, want := range g.want {
				if !regexp.MustCompile("(?m)" + want).MatchString(out) {
					t.Errorf("nothing printed matches %s\n%s", want, out)
				}
			}
		})
	}
}

// TestTutorial follows docs/tutorial.md from git clone on. Git fetches from this repository instead, so what is committed is tried, and
// make passes an offset to the sandbox, for others run beside it.
func TestTutorial(t *testing.T) {
	if testing.Short() {
		t.Skip("builds all programs")
	}
	needTools(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("this is not a clone")
	}
	script, err := shellOf("docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	offset, err := freeOffset()
	if err != nil {
		t.Fatal(err)
	}
	out := runGuide(t, t.TempDir(), script, []string{
		"ARGS=-offset " + strconv.Itoa(offset), "GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=url." + root + ".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/openjpki/jpki",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
	})
	for _, want := range []string{
		`^contract\.txt\.p7s: TOTAL-PASSED \[ok\]$`, `^"TOTAL-PASSED"$`, `^"suspended"$`, `^contract\.txt\.p7s: INDETERMINATE TRY_LATER \[suspended\]$`,
		`\[revoked-attributes-changed\]$`, `^"attributes-changed"$`, `^whole: [0-9]+ entries`,
	} {
		if !regexp.MustCompile("(?m)" + want).MatchString(out) {
			t.Errorf("nothing printed matches %s\n%s", want, out)
		}
	}
}

func needTools(t *testing.T) {
	t.Helper()
	for _, name := range guideTools {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

var ownProgram = regexp.MustCompile(`\bbin/(jpki[a-z-]*)`)

// installPrograms puts the programs that a script calls into DIR/bin: jpki is this test, the others are built.
func installPrograms(ctx context.Context, dir, script string) error {
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return err
	}
	self, err := exec.LookPath("jpki")
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(bin, "jpki")); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	others := []string{"build", "-trimpath", "-tags", "nomsgpack,nobadger,nomysql,nobbolt,nopgx", "-o", bin + "/"}
	n := len(others)
	for _, m := range ownProgram.FindAllStringSubmatch(script, -1) {
		if name := "github.com/openjpki/jpki/cmd/" + m[1]; m[1] != "jpki" && !slices.Contains(others, name) {
			others = append(others, name)
		}
	}
	if len(others) == n {
		return nil
	}
	build := exec.CommandContext(ctx, "go", others...)
	cgo := "CGO_ENABLED=0"
	if slices.Contains(others, "github.com/openjpki/jpki/cmd/jpki-signer") {
		cgo = "CGO_ENABLED=1"
	}
	build.Env = append(os.Environ(), cgo)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// runGuide runs a script that must end well, and returns what it printed on standard output.
func runGuide(t *testing.T, dir, script string, environment []string) string {
	t.Helper()
	out, err := tryGuide(t, dir, script, environment)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryGuide runs a script. Whatever it started ends with it.
func tryGuide(t *testing.T, dir, script string, environment []string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eux", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "LANG=C", "GUIDE_LOGS="+t.TempDir(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH")), environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, all buffer
	cmd.Stdout, cmd.Stderr = both{&out, &all}, &all
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		text := all.String()
		return "", fmt.Errorf("%w\n%s", err, text[max(0, len(text)-6000):])
	}
	return out.String(), nil
}

type both [2]*buffer

func (b both) Write(p []byte) (int, error) {
	_, _ = b[1].Write(p)
	return b[0].Write(p)
}

// A fence is a fenced block of a document.
type fence struct {
	line int
	info []string // what stands behind the opening marks
	mark string   // the comment right above it
	text string
}

func fencesOf(path string) ([]fence, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join("..", "..", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []fence
	var open *fence
	indent, mark, n := 0, "", 0
	for line := range strings.Lines(string(text)) {
		n++
		trimmed := strings.TrimLeft(line, " ")
		switch info, marks := strings.CutPrefix(trimmed, "```"); {
		case marks && open == nil:
			indent = len(line) - len(trimmed)
			open = &fence{line: n, info: strings.Fields(info), mark: mark}
		case marks:
			list, open = append(list, *open), nil
		case open != nil:
			open.text += strings.TrimPrefix(line, strings.Repeat(" ", min(indent, len(line)-len(trimmed))))
		}
		mark = ""
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "<!-- "); ok {
			mark = strings.TrimSuffix(rest, " -->")
		}
	}
	if open != nil {
		return nil, fmt.Errorf("%s: the block of line %d has no end", path, open.line)
	}
	return list, nil
}

// shellBlocks returns the blocks of a document that are run.
func shellBlocks(path string) (list []fence, err error) {
	all, err := fencesOf(path)
	for _, f := range all {
		if len(f.info) > 0 && f.info[0] == "sh" {
			list = append(list, f)
		}
	}
	return list, err
}

// shellOf makes one script of a document's blocks: of all, or of those that pick names, by their number among the blocks that are run (from 1)
// or by the comment above them.
func shellOf(path string, pick ...string) (string, error) {
	blocks, err := shellBlocks(path)
	if err != nil {
		return "", err
	}
	var script strings.Builder
	for i, b := range blocks {
		if len(pick) > 0 && !slices.Contains(pick, strconv.Itoa(i+1)) && !slices.Contains(pick, b.mark) {
			continue
		}
		text, refused := b.text, regexp.MustCompile(`(?m)^([^#\n]*[^ #\n]) *# refused.*$`)
		text = refused.ReplaceAllString(text, "if $1; then echo 'not refused'; exit 1; fi")
		switch {
		case len(b.info) == 1:
			// sh -e looks at no command that begins with "!": such a one stands last in its block.
			fmt.Fprintf(&script, "%stest $? = 0\n", text)
		case b.info[1] == "terminal":
			log := fmt.Sprintf("$GUIDE_LOGS/terminal-%d", i)
			fmt.Fprintf(&script, "(\n%s) > %s 2>&1 &\n", text, log)
			if regexp.MustCompile(`jpki sandbox|make run`).MatchString(text) {
				fmt.Fprintf(&script, "until grep -q 'steps held' %s; do kill -0 $! || { cat %[1]s >&2; exit 1; }; sleep 0.2; done\n", log)
			} else {
				fmt.Fprintf(&script, "sleep 1; kill -0 $! || { cat %s >&2; exit 1; }\n", log) // it stays
			}
		default:
			return "", fmt.Errorf("%s, line %d: a block of shell is sh or sh terminal", path, b.line)
		}
	}
	if script.Len() == 0 {
		return "", fmt.Errorf("%s has no such commands: %v", path, pick)
	}
	return script.String(), nil
}

// guide FILE [BLOCK…] [OLD=>NEW…] runs the commands of a document, or those of some blocks, in the script's folder. FILE is relative to the
// repository. What they print is in stdout and stderr.
func cmdGuide(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: guide FILE [BLOCK…] [OLD=>NEW…]")
	}
	var pick, replace []string
	for _, arg := range args[1:] {
		if before, after, ok := strings.Cut(arg, "=>"); ok {
			replace = append(replace, before, after)
		} else {
			pick = append(pick, arg)
		}
	}
	script, err := shellOf(args[0], pick...)
	ts.Check(err)
	script = strings.NewReplacer(replace...).Replace(script)
	ts.Check(installPrograms(context.Background(), ts.MkAbs("."), script))
	ts.Setenv("GUIDE_LOGS", ts.MkAbs("."))
	ts.Check(os.WriteFile(ts.MkAbs("guide.sh"), []byte(script), 0o600))
	ts.Check(ts.Exec("sh", "-eux", ts.MkAbs("guide.sh")))
}

// TestGuideRunner shows that the runner can fail: each document ends as it says.
func TestGuideRunner(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		well bool
	}{
		"well":                        {"```sh\ntrue\n```\n", true},
		"a command fails":             {"```sh\nfalse\ntrue\n```\n", false},
		"one in a list":               {"1. First\n\n   ```sh\n   cat <<END\n   x\n   END\n   false\n   ```\n", false},
		"a here-document in a list":   {"1. First\n\n   ```sh\n   cat <<END\n     x\n   END\n   ```\n", true},
		"refused":                     {"```sh\nfalse   # refused: for a reason\n```\n", true},
		"not refused":                 {"```sh\ntrue   # refused: for a reason\n```\n", false},
		"the last one with a !":       {"```sh\n! true\n```\n```sh\ntrue\n```\n", false},
		"an unset variable":           {"```sh\necho $NO_SUCH_VARIABLE\n```\n", false},
		"shown":                       {"```text\nfalse\n```\n```sh\ntrue\n```\n", true},
		"a terminal that ends":        {"```sh terminal\nfalse\n```\n", false},
		"a terminal that stays":       {"```sh terminal\nsleep 60\n```\n", true},
		"a sandbox that does not run": {"```sh terminal\nno-such jpki sandbox\n```\n", false},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "guide.md")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		script, err := shellOf(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tryGuide(t, dir, script, nil); (err == nil) != c.well {
			t.Errorf("%s: %v\n%s", name, err, script)
		}
	}
	for _, text := range []string{"```sh\ntrue\n", "```text\ntrue\n```\n", "```sh background\ntrue\n```\n"} {
		path := filepath.Join(t.TempDir(), "guide.md")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if script, err := shellOf(path); err == nil {
			t.Errorf("%q became %q", text, script)
		}
	}
}

// bare finds commands of ours in a block that does not say what it is.
var bare = regexp.MustCompile(`(?m)^(\$ )?((bin/)?jpki|make|curl|openssl|git) `)

// TestEveryCommandIsRun fails for a block of shell that nothing runs.
func TestEveryCommandIsRun(t *testing.T) {
	t.Parallel()
	run := map[string][]string{} // by document: which blocks; none for all
	for _, g := range guides {
		run[g.file] = nil
	}
	run["docs/tutorial.md"] = nil
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal(err)
	}
	for _, path := range scripts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^guide (\S+)(.*)$`).FindAllStringSubmatch(string(text), -1) {
			picked := run[m[1]]
			for _, word := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(m[2], -1) {
				if !strings.Contains(word, "=>") {
					picked = append(picked, strings.Trim(word, "'"))
				}
			}
			run[m[1]] = picked
		}
	}
	elsewhere := testsOfDocuments(t)
	documents := []string{"README.md"}
	err = filepath.WalkDir("../../docs", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			documents = append(documents, strings.TrimPrefix(filepath.ToSlash(path), "../../"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range documents {
		all, err := fencesOf(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if len(f.info) == 0 && bare.MatchString(f.text) {
				t.Errorf("%s, line %d: a block with commands says sh, which is run, or text, which is not", path, f.line)
			}
		}
		blocks, err := shellBlocks(path)
		if err != nil {
			t.Fatal(err)
		}
		picked, known := run[path]
		for i, b := range blocks {
			here := known && (len(picked) == 0 || slices.Contains(picked, strconv.Itoa(i+1)) || slices.Contains(picked, b.mark))
			if !here && !elsewhere[filepath.Base(path)] {
				t.Errorf("%s, line %d: nothing runs this block: give the document a row in guides, or mark the block text", path, b.line)
			}
		}
	}
	if len(documents) < 20 {
		t.Errorf("only %d documents", len(documents))
	}
}

// testsOfDocuments returns the documents that a test outside this folder reads.
func testsOfDocuments(t *testing.T) map[string]bool {
	t.Helper()
	var tests []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "var"}, d.Name()):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, "_test.go") && filepath.Dir(path) != filepath.Join("..", "..", "cmd", "jpki"):
			tests = append(tests, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, path := range tests {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`["/]([a-z-]+\.md)"`).FindAllSubmatch(text, -1) {
			out[string(m[1])] = true
		}
	}
	return out
}
