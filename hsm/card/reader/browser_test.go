package reader_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki"
)

// A browser is a Firefox without a screen, driven over Marionette, the protocol that is built into it
// (https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html).
type browser struct {
	t    *testing.T
	conn net.Conn
	last int
	says *bytes.Buffer
	end  func() // ends it and its processes
}

// preferences of the browser: certificates without a question, TLS up to a version (3 is 1.2, 4 is 1.3), and nobody outside is spoken to.
const preferences = `
user_pref("marionette.port", 0);
user_pref("security.default_personal_cert", "Select Automatically");
user_pref("security.tls.version.max", %d);
user_pref("prompts.windowPromptSubDialog", false);
user_pref("network.proxy.type", 0);
user_pref("network.dns.disabled", true);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.http.speculative-parallel-limit", 0);
user_pref("app.update.enabled", false);
user_pref("app.normandy.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.safebrowsing.downloads.remote.enabled", false);
user_pref("browser.region.network.url", "");
user_pref("browser.search.update", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("browser.newtabpage.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("datareporting.healthreport.uploadEnabled", false);
user_pref("toolkit.telemetry.enabled", false);
user_pref("toolkit.telemetry.server", "");
user_pref("extensions.update.enabled", false);
user_pref("extensions.systemAddon.update.enabled", false);
user_pref("services.settings.server", "data:,#remote-settings-dummy/v1");
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("dom.push.connection.enabled", false);
`

// browse starts a browser with a new profile that knows OpenSC's module and trusts server.pem, with TLS up to the version given. Whatever becomes of the test, the browser and its
// processes end with it.
func (o *outside) browse(profile string, highest int) *browser {
	o.t.Helper()
	o.nss(profile)
	o.says("certutil -A -d sql:" + profile + " -n bank -t C,, -i server.pem")
	o.file(filepath.Join(profile, "user.js"), fmt.Appendf(nil, preferences, highest))
	ctx, cancel := context.WithTimeout(o.t.Context(), patience)
	b := &browser{t: o.t, says: new(bytes.Buffer)}
	cmd := exec.CommandContext(ctx, "firefox-esr", "--headless", "--no-remote", "--profile", filepath.Join(o.dir, profile), "--marionette", "--remote-allow-system-access")
	cmd.Dir, cmd.Env = o.dir, append(o.d.Env(), "MOZ_CRASHREPORTER_DISABLE=1")
	cmd.Stdout, cmd.Stderr = b.says, b.says
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its children too
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		cancel()
		o.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	b.end = func() { cancel(); <-ended }
	o.t.Cleanup(func() {
		b.end()
		if o.t.Failed() {
			o.t.Logf("the browser says\n%s", b.says)
		}
	})
	b.meet(ctx, filepath.Join(o.dir, profile, "MarionetteActivePort"), ended)
	return b
}

// meet connects to the port that the browser writes into a file, and begins a session.
func (b *browser) meet(ctx context.Context, path string, ended <-chan struct{}) {
	b.t.Helper()
	for b.conn == nil {
		select {
		case <-ctx.Done():
			b.t.Fatal("the browser opens no port")
		case <-ended:
			b.t.Fatal("the browser ended")
		case <-time.After(50 * time.Millisecond):
		}
		port, err := os.ReadFile(path)
		if err != nil || len(port) == 0 {
			continue
		}
		if conn, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+strings.TrimSpace(string(port))); err == nil {
			b.conn = conn
		}
	}
	b.t.Cleanup(func() { _ = b.conn.Close() })
	deadline, _ := ctx.Deadline()
	_ = b.conn.SetDeadline(deadline)
	if hello, err := b.read(); err != nil || !strings.Contains(string(hello), `"marionetteProtocol":3`) {
		b.t.Fatalf("not Marionette 3: %q, %v", hello, err)
	}
	b.must("WebDriver:NewSession", map[string]any{"pageLoadStrategy": "none", "unhandledPromptBehavior": "ignore"})
}

// read reads one message: its length in digits, a colon, JSON.
func (b *browser) read() ([]byte, error) {
	n := 0
	for digit := make([]byte, 1); ; {
		if _, err := io.ReadFull(b.conn, digit); err != nil {
			return nil, err
		}
		if digit[0] == ':' {
			break
		}
		d, err := strconv.Atoi(string(digit))
		if err != nil || n > 1<<20 {
			return nil, errors.New("no length")
		}
		n = 10*n + d
	}
	message := make([]byte, n)
	_, err := io.ReadFull(b.conn, message)
	return message, err
}

// do gives a command and returns its result as JSON, or what the browser has against it.
func (b *browser) do(command string, parameters map[string]any) (string, error) {
	b.t.Helper()
	b.last++
	text, err := json.Marshal([]any{0, b.last, command, parameters})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(b.conn, "%d:%s", len(text), text); err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	for {
		message, err := b.read()
		if err != nil {
			b.t.Fatalf("%s: %v", command, err)
		}
		var answer [4]json.RawMessage // 1, number, error, result
		if err := json.Unmarshal(message, &answer); err != nil {
			b.t.Fatalf("%s: %q", command, message)
		}
		if string(answer[1]) != strconv.Itoa(b.last) {
			continue
		}
		if string(answer[2]) != "null" {
			return "", errors.New(string(answer[2]))
		}
		return string(answer[3]), nil
	}
}

func (b *browser) must(command string, parameters map[string]any) string {
	b.t.Helper()
	out, err := b.do(command, parameters)
	if err != nil {
		b.t.Fatalf("%s: %v", command, err)
	}
	return out
}

// script runs JavaScript as a part of the browser, not of a page, and returns what it returns.
func (b *browser) script(text string, args ...any) string {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.must("Marionette:SetContext", map[string]any{"value": "chrome"})
	out := b.must("WebDriver:ExecuteScript", map[string]any{"script": text, "args": args})
	var value struct{ Value string }
	if err := json.Unmarshal([]byte(out), &value); err != nil {
		b.t.Fatalf("the script returned %s", out)
	}
	return value.Value
}

// answers has the browser answer its own questions from now on: a command that came while one is shown would wait for its answer. The first question for
// the log-in PIN gets the one that is given; every other is cancelled. Their texts are kept.
const answers = `
let pin = arguments[0];
const asked = Services.wm.getMostRecentWindow("navigator:browser").asked = [];
Services.obs.addObserver(dialog => {
  const { args, ui } = dialog.Dialog;
  asked.push(args.text);
  let button = ui.button1;
  if (pin && args.promptType == "promptPassword" && args.text.includes("User Authentication PIN")) {
    ui.password1Textbox.value = pin;
    pin = "";
    button = ui.button0;
  }
  dialog.setTimeout(() => button.click(), 0);
}, "common-dialog-loaded");`

// questions are those that the browser asked, a line each.
const questions = `return Services.wm.getMostRecentWindow("navigator:browser").asked.join("\n");`

// shown is the address of what the tab shows, once it is loaded: an about:neterror for a page that there is not.
const shown = `
const b = Services.wm.getMostRecentWindow("navigator:browser").gBrowser.selectedBrowser;
if (b.webProgress.isLoadingDocument || b.currentURI.spec == "about:blank") return "";
return b.browsingContext.currentWindowGlobal.documentURI.spec;`

// visit has the browser go to an address with a PIN at hand, and returns what the page says in the end, and what the browser asked on the way.
func (b *browser) visit(address, pin string) (page, asked string) {
	b.t.Helper()
	b.script(answers, pin)
	b.must("Marionette:SetContext", map[string]any{"value": "content"})
	b.must("WebDriver:Navigate", map[string]any{"url": address})
	for {
		if page = b.script(shown); page != "" {
			asked = b.script(questions)
			b.must("Marionette:SetContext", map[string]any{"value": "content"})
			return page + "\n" + b.must("WebDriver:GetPageSource", map[string]any{}), asked
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processes are those that have the environment of this test's programs.
func (o *outside) processes() (found []string) {
	o.t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		o.t.Fatal(err)
	}
	for _, path := range paths {
		if environ, err := os.ReadFile(path); err == nil && bytes.Contains(environ, []byte("PCSCLITE_CSOCK_NAME="+o.d.Socket+"\x00")) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			found = append(found, string(bytes.ReplaceAll(name, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// Firefox finds the card through OpenSC, asks for its PIN, and shows what the bank says to the card's certificate. With a wrong PIN, which costs one
// try, with none, and without the card the bank refuses, and over TLS 1.3, for the reason of TestOpenSSLEngine.
func TestBrowserLogsIn(t *testing.T) {
	tool(t, "firefox-esr")
	o := withOpenSC(t)
	server := o.bank(tls.VersionTLS13) // which speaks 1.2 too
	const question, greeting = "User Authentication PIN", "hello, card-auth"
	for i, row := range []struct {
		name, pin string
		pulled    bool
		highest   int // version of TLS; 3 if it is 0
		questions int // for the log-in PIN
		tries     int // afterwards
		greeted   bool
	}{
		{name: "right PIN", pin: authPIN, questions: 1, tries: 3, greeted: true},
		{name: "PIN cancelled", questions: 1, tries: 3},
		{name: "wrong PIN, then cancelled", pin: "9999", questions: 2, tries: 2},
		{name: "right PIN again", pin: authPIN, questions: 1, tries: 3, greeted: true},
		{name: "TLS 1.3, for which OpenSC lacks PSS", pin: authPIN, highest: 4, questions: 1, tries: 3}, // if it works: say so in docs/card.md
		{name: "no card", pin: authPIN, pulled: true, tries: 3},
	} {
		if row.pulled {
			o.pull()
			await(t, dial(t, o.d), 0)
		}
		b := o.browse("profile"+strconv.Itoa(i), max(row.highest, 3))
		page, asked := b.visit(server.URL, row.pin)
		if n := strings.Count(asked, question); n != row.questions {
			t.Errorf("%s: asked for the log-in PIN %d times, want %d: %q", row.name, n, row.questions, asked)
		}
		if strings.Contains(page, greeting) != row.greeted || !row.greeted && !strings.HasPrefix(page, "about:neterror?") {
			t.Errorf("%s: greeted: %v, want %v\n%s", row.name, !row.greeted, row.greeted, page)
		}
		if n, err := o.card.Tries(jpki.CardAuth); err != nil || n != row.tries {
			t.Errorf("%s: %d tries left, want %d, %v", row.name, n, row.tries, err)
		}
		if n, err := o.card.Tries(jpki.CardSign); err != nil || n != 5 {
			t.Errorf("%s: the signature PIN has %d tries left, %v", row.name, n, err)
		}
		b.end()
		left := o.processes()
		for deadline := time.Now().Add(patience); len(left) > 0 && time.Now().Before(deadline); left = o.processes() {
			time.Sleep(20 * time.Millisecond) // who was killed ends by and by
		}
		if len(left) > 0 {
			t.Errorf("%s: the browser left behind %q", row.name, left)
		}
	}
}
