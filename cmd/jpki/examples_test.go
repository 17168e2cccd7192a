package main

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm"
)

// buildExamples builds what verifier/examples has.
func buildExamples(t *testing.T) (accountOpening, login string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "./verifier/examples/...")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "accountopening"), filepath.Join(dir, "login")
}

// TestExamples runs the programs that a bank would write, in both ways, against a sandbox and its samples.
func TestExamples(t *testing.T) {
	accountOpening, login := buildExamples(t)
	_, samples, environment := startWithSamples(t)
	for _, args := range [][]string{nil, {"-plain"}} {
		t.Run("account opening "+strings.Join(args, " "), func(t *testing.T) { openAccounts(t, accountOpening, args, samples, environment) })
		t.Run("log-in "+strings.Join(args, " "), func(t *testing.T) { logIn(t, login, args, samples, environment) })
	}
}

func openAccounts(t *testing.T, program string, args []string, samples string, environment []string) {
	_, rows := documentedSamples(t)
	run := func(environment []string, args []string, file string) (out string, code int) {
		t.Helper()
		c := exec.Command(program, append(args, file)...)
		c.Env = environment
		text, err := c.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(text), exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return string(text), 0
	}
	tokenFile, err := os.ReadFile(filepath.Join(samples, "quota", "token"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		code int
		ja   string
	}{
		"good":               {0, ""},
		"slow":               {0, ""},
		"altered-document":   {3, "署名をやり直して"},
		"other-key":          {3, "署名をやり直して"},
		"wrong-purpose":      {3, "署名用の電子証明書を"},
		"foreign-ca":         {3, "窓口へお問い合わせ"},
		"not-a-certificate":  {3, "カードをもう一度かざして"},
		"moved":              {3, "ご住所やお名前の変更"},
		"superseded":         {3, "新しいカードで"},
		"suspended":          {3, "一時停止中"},
		"expired":            {3, "有効期限が切れて"},
		"not-yet-valid":      {4, "当行のシステムの都合"},
		"status-unavailable": {4, "数分後に"},
		"unauthorized":       {4, "当行のシステムの都合"},
		"quota":              {4, "数分後に"},
	} {
		env := environment
		switch name {
		case "unauthorized":
			env = append(slices.Clip(env), "VERIFIER_TOKEN=nobodys-token")
		case "quota":
			env = append(slices.Clip(env), "VERIFIER_TOKEN="+strings.TrimSpace(string(tokenFile)))
			run(env, args, filepath.Join(samples, name, "application.txt")) // the one of the day
		}
		out, code := run(env, append([]string{"-customer", "customer-4711"}, args...), filepath.Join(samples, name, "application.txt"))
		if code != want.code {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, want.code, out)
		}
		row := rows[name]
		if code == 0 {
			if !regexp.MustCompile(`(?s)^evidence    [0-9a-f]{32}\ncustomer    customer-4711\nuser        [0-9a-z]{32}\nfollowed    yes\nname        .+\naddress     砂箱県.+\nbirth date  .+\nsex         .+\n$`).MatchString(out) {
				t.Errorf("%s: %s", name, out)
			}
			continue
		}
		lines := strings.Split(out, "\n")
		if len(lines) != 4 || lines[0] != row.Code+row.Problem || !strings.Contains(lines[1], want.ja) || lines[2] == "" || strings.Contains(out, "砂箱県") {
			t.Errorf("%s: %s", name, out)
		}
	}
	nobody := append(slices.Clip(environment), "VERIFIER_URL=http://127.0.0.1:1")
	if out, code := run(nobody, args, filepath.Join(samples, "good", "application.txt")); code != 4 || !strings.HasPrefix(out, "unavailable\n") {
		t.Errorf("nobody answers: exit code %d, %s", code, out)
	}
}

// A browser is one that keeps cookies by itself: of the standard library's jar Secure ones would not come back over HTTP.
type browser struct {
	t       *testing.T
	url     string
	cookies map[string]*http.Cookie
}

func (b *browser) send(method, path string, form url.Values, headers ...string) (status int, page string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	for _, c := range b.cookies {
		req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value}) //nolint:gosec // a request's cookie has no flags
	}
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range resp.Cookies() {
		if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Name, "__Host-") {
			b.t.Errorf("cookie %s is open to others: %s", c.Name, c)
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c
		}
	}
	return resp.StatusCode, string(body)
}

var (
	pageID      = regexp.MustCompile(`name="challenge_id" value="([^"]+)"`)
	pageMessage = regexp.MustCompile(`id="message">([^<]+)<`)
)

// fill answers the page's challenge as the holder of a sample's certificate and key would.
func fill(t *testing.T, page, folder string) url.Values {
	t.Helper()
	id, message := pageID.FindStringSubmatch(page), pageMessage.FindStringSubmatch(page)
	if id == nil || message == nil {
		t.Fatalf("no challenge on the page: %s", page)
	}
	signed, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(message[1], "&#43;", "+"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := hsm.Open(t.Context(), hsm.FileURI(filepath.Join(folder, "key.pem")))
	if err != nil {
		t.Fatal(err)
	}
	digest, hash := sandbox.Digest(key.Public(), signed)
	signature, err := key.Sign(nil, digest, hash)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	encode := base64.StdEncoding.EncodeToString
	return url.Values{"challenge_id": {id[1]}, "certificate": {encode(block.Bytes)}, "signature": {encode(signature)}}
}

// serveExample starts the log-in example and returns where it is.
func serveExample(t *testing.T, program string, args, environment []string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, args...)
	c.Env = environment
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = c.Wait() })
	buffer := make([]byte, 100)
	n, err := out.Read(buffer) // the address is one write
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(buffer[:n]))
}

func logIn(t *testing.T, program string, args []string, samples string, environment []string) {
	at := serveExample(t, program, args, environment)
	fresh := func() (*browser, string) {
		b := &browser{t, at, map[string]*http.Cookie{}}
		status, page := b.send("GET", "/", nil)
		if status != http.StatusOK || strings.Contains(page, "You are logged in") {
			t.Fatalf("status %d: %s", status, page)
		}
		return b, page
	}
	good := filepath.Join(samples, "login")

	// In, in again with the cookie, out.
	b, page := fresh()
	form := fill(t, page, good)
	begin := b.cookies["__Host-begin"]
	if status, page := b.send("POST", "/login", form); status != http.StatusSeeOther || b.cookies["__Host-session"] == nil {
		t.Fatalf("status %d: %s", status, page)
	}
	if _, page := b.send("GET", "/", nil); !strings.Contains(page, "You are logged in") {
		t.Errorf("not logged in: %s", page)
	}
	session := *b.cookies["__Host-session"]
	if lasts := time.Duration(session.MaxAge) * time.Second; lasts != 15*time.Minute {
		t.Errorf("the cookie lasts %s", lasts)
	}
	id, _, _ := strings.Cut(session.Value, ".")
	for _, forged := range []string{"", id, id + ".", id + ".AAAA", "." + session.Value, "x." + strings.TrimPrefix(session.Value, id+".")} {
		other := &browser{t, at, map[string]*http.Cookie{"": {Name: session.Name, Value: forged}}} //nolint:gosec // a request's cookie has no flags
		if _, page := other.send("GET", "/", nil); strings.Contains(page, "You are logged in") {
			t.Errorf("a forged cookie opens the session: %q", forged)
		}
	}
	if status, _ := b.send("POST", "/logout", nil, "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden {
		t.Errorf("another site logs out: %d", status)
	}
	// The same again, as somebody who saw it would send it.
	thief := &browser{t, at, map[string]*http.Cookie{"": begin}}
	if status, page := thief.send("POST", "/login", form); status != http.StatusForbidden || !strings.Contains(page, "this page was used before") {
		t.Errorf("replayed: status %d: %s", status, page)
	}
	if status, _ := b.send("POST", "/logout", nil); status != http.StatusSeeOther || b.cookies["__Host-session"] != nil {
		t.Error("not logged out")
	}
	after := &browser{t, at, map[string]*http.Cookie{"": &session}}
	if _, page := after.send("GET", "/", nil); strings.Contains(page, "You are logged in") {
		t.Error("the session outlives the log-out")
	}

	// What goes wrong is told, with a new challenge.
	for _, tt := range []struct {
		name, sample, ja string
		change           func(b *browser, form url.Values)
		status           int
	}{
		{name: "signature certificate", sample: "login-wrong-purpose", ja: "数字4桁", status: http.StatusForbidden},
		{name: "suspended", sample: "login-suspended", ja: "一時停止中", status: http.StatusForbidden},
		{name: "foreign", sample: "foreign-ca", ja: "窓口へお問い合わせ", status: http.StatusForbidden},
		{name: "another browser", sample: "login", ja: "もう一度お試し", status: http.StatusForbidden, change: func(b *browser, _ url.Values) {
			other, _ := fresh()
			b.cookies = other.cookies
		}},
		{name: "no challenge", sample: "login", ja: "もう一度お試し", status: http.StatusBadRequest, change: func(b *browser, _ url.Values) { clear(b.cookies) }},
		{name: "not base64", sample: "login", ja: "かざして", status: http.StatusBadRequest, change: func(_ *browser, form url.Values) { form.Set("signature", "%") }},
		{name: "too long", sample: "login", ja: "かざして", status: http.StatusBadRequest, change: func(_ *browser, form url.Values) { form.Set("signature", strings.Repeat("A", 100_000)) }},
	} {
		b, page := fresh()
		form := fill(t, page, filepath.Join(samples, tt.sample))
		if tt.change != nil {
			tt.change(b, form)
		}
		status, page := b.send("POST", "/login", form)
		if status != tt.status || !strings.Contains(page, tt.ja) || !pageID.MatchString(page) || b.cookies["__Host-session"] != nil {
			t.Errorf("%s: status %d: %s", tt.name, status, page)
		}
	}
	down := serveExample(t, program, args, append(slices.Clip(environment), "VERIFIER_URL=http://127.0.0.1:1"))
	b = &browser{t, down, map[string]*http.Cookie{}}
	if status, page := b.send("GET", "/", nil); status != http.StatusServiceUnavailable || !strings.Contains(page, "数分後に") || pageID.MatchString(page) {
		t.Errorf("the verifier is down: status %d: %s", status, page)
	}
}
