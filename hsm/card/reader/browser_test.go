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
}

// preferences of the browser: certificates without a question, TLS 1.2 at most (see TestNSSLogsIn), and nobody outside is spoken to.
const preferences = `
user_pref("marionette.port", 0);
user_pref("security.default_personal_cert", "Select Automatically");
user_pref("security.tls.version.max", 3);
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

// browse starts a browser with a new profile that knows OpenSC's module and trusts server.pem. Whatever becomes of the test, the browser and its
// processes end with it.
func (o *outside) browse(profile string) *browser {
	o.t.Helper()
	o.nss(profile)
	o.says("certutil -A -d sql:" + profile + " -n bank -t C,, -i server.pem")
	o.file(filepath.Join(profile, "user.js"), []byte(preferences))
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
	o.t.Cleanup(func() {
		cancel()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
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
			b.t.Fatalf("the browser ended\n%s", b.says)
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

// answer looks for the browser's question for a PIN: it types the one given for the log-in key, the first time, and cancels every other question.
// It returns the question's text, empty if there is none.
const answer = `
for (const w of Services.wm.getEnumerator(null)) {
  const d = w.document.getElementById("commonDialog");
  if (!d || !w.Dialog || w.closed) continue;
  const text = w.document.getElementById("infoBody").textContent;
  const field = w.document.getElementById("password1Textbox");
  if (arguments[0] && text.includes("User Authentication PIN")) {
    field.value = arguments[0];
    w.Dialog.onButton0 ? d.acceptDialog() : d.acceptDialog();
  } else {
    d.cancelDialog();
  }
  return text;
}
return "";`

// shown is what the tab shows, once it has ended to load.
const shown = `
const b = Services.wm.getMostRecentWindow("navigator:browser").gBrowser.selectedBrowser;
if (b.webProgress.isLoadingDocument || b.currentURI.spec == "about:blank") return "";
return b.currentURI.spec + " " + (b.browsingContext.currentWindowGlobal.documentURI.spec) + " " + b.contentTitle;`

// visit has the browser go to an address with a PIN at hand, and returns what the page says in the end, and what the browser asked on the way.
func (b *browser) visit(address, pin string) (page string, asked []string) {
	b.t.Helper()
	b.must("Marionette:SetContext", map[string]any{"value": "content"})
	b.must("WebDriver:Navigate", map[string]any{"url": address})
	for {
		if text := b.script(answer, pin); text != "" {
			b.t.Log(text)
			if strings.Contains(text, "User Authentication PIN") {
				pin = ""
			}
			asked = append(asked, text)
		}
		if page = b.script(shown); page != "" {
			b.must("Marionette:SetContext", map[string]any{"value": "content"})
			return page + b.must("WebDriver:GetPageSource", map[string]any{}), asked
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Firefox finds the card through OpenSC, asks for its PIN and logs in with it.
func TestBrowserLogsIn(t *testing.T) {
	tool(t, "firefox-esr")
	o := withOpenSC(t)
	server := o.bank(tls.VersionTLS12)
	page, asked := o.browse("right").visit(server.URL, authPIN)
	if !strings.Contains(page, "hello, card-auth") || len(asked) == 0 {
		t.Errorf("asked %q, and was shown %s", asked, page)
	}
	_ = jpki.CardAuth
}
