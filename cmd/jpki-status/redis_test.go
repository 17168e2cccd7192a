package main

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/ocsp/cache/redistest"
)

// tlsPair writes a key and a certificate of the world's authority, NAME.key and NAME.cer in PEM.
func (w *world) tlsPair(name string, usage x509.ExtKeyUsage, hosts ...string) {
	w.t.Helper()
	key := newKey(w.t, "P-256")
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert := w.certify(key.Public(), template)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	w.write(name+".cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

// documentedUser is what docs/status.md has an operator give the ACL of servers for the user jpki, of sentinels for watch.
func documentedUser(t *testing.T, name string) (args []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "ACL SETUSER "+name+" "); ok {
			return strings.Fields(rest)
		}
	}
	t.Fatal("docs/status.md gives no ACL user")
	return nil
}

// A real Redis that takes TLS with our certificate only, and an ACL user who may do what is documented and nothing else:
// answers are kept there. Each thing that is missing or wrong keeps us out, and answers go on all the same.
func TestRedisSecured(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "P-256")
	w.delegate("a", "P-256")
	w.tlsPair("redis", x509.ExtKeyUsageServerAuth, "127.0.0.1", "redis.example")
	w.tlsPair("us", x509.ExtKeyUsageClientAuth)
	other := newWorld(t, "", "P-256")
	other.tlsPair("us", x509.ExtKeyUsageClientAuth)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	redis := redistest.Start(t, "--tls-port", port, "--tls-cert-file", w.path("redis.cer"), "--tls-key-file", w.path("redis.key"), "--tls-ca-cert-file", w.path("ca.cer"), "--tls-auth-clients", "yes")
	redis.Do(append([]string{"ACL", "SETUSER", "jpki"}, documentedUser(t, "jpki")...)...)
	redis.Do("ACL", "SETUSER", "jpki", ">hush-hush")
	redis.Do("ACL", "SETUSER", "default", "-@all", "+ping", "+dbsize", "+acl", "+flushall", "+keys")
	w.write("password", []byte("hush-hush\n"))
	w.write("wrong", []byte("hush\n"))
	w.write("secret", bytes.Repeat([]byte("s"), 32))
	alive := newSerial(t)
	w.set(good, alive)
	at := "127.0.0.1:" + port
	for _, test := range []struct {
		name, redis string
		kept        bool
	}{
		{"as it should be", "username: jpki, password_file: password, tls: {ca: ca.cer, certificate: us.cer, key: us.key}", true},
		{"another name", "username: jpki, password_file: password, tls: {ca: ca.cer, certificate: us.cer, key: us.key, server_name: redis.example}", true},
		{"wrong name", "username: jpki, password_file: password, tls: {ca: ca.cer, certificate: us.cer, key: us.key, server_name: elsewhere.example}", false},
		{"another authority for the server", fmt.Sprintf("username: jpki, password_file: password, tls: {ca: %q, certificate: us.cer, key: us.key}", other.path("ca.cer")), false},
		{"no certificate of ours", "username: jpki, password_file: password, tls: {ca: ca.cer}", false},
		{"another authority's certificate", fmt.Sprintf("username: jpki, password_file: password, tls: {ca: ca.cer, certificate: %q, key: %q}", other.path("us.cer"), other.path("us.key")), false},
		{"wrong password", "username: jpki, password_file: wrong, tls: {ca: ca.cer, certificate: us.cer, key: us.key}", false},
		{"no user", "tls: {ca: ca.cer, certificate: us.cer, key: us.key}", false},
		{"without TLS", "username: jpki, password_file: password", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			redis.Do("FLUSHALL")
			s := w.serve(w.config(map[string]string{"snapshot": "", "memory": "0", "redis": fmt.Sprintf("{addresses: ['%s'], secret_file: secret, %s}", at, test.redis)}, "a"))
			s.want(alive, xocsp.Good, 0)
			outcome := `jpki_ocsp_redis_total{outcome="put"}`
			if !test.kept {
				outcome = `jpki_ocsp_redis_total{outcome="` // what exactly is Redis' and TLS' business
			}
			s.until("Redis is used or left alone", func() bool {
				s.want(alive, xocsp.Good, 0)
				_, metrics := s.get("/metrics")
				return strings.Contains(metrics, outcome)
			})
			if test.kept {
				s.until("an answer is there", func() bool { return redis.Do("DBSIZE") == "1" })
			} else if n := redis.Do("DBSIZE"); n != "0" {
				t.Errorf("%s keys", n)
			}
			if strings.Contains(s.said(), "hush") {
				t.Errorf("a password is shown: %s", s.said())
			}
			if code := s.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// The user that is documented can do what a relay and its followers do, and cannot read what is others', nor take the server.
func TestDocumentedRedisUser(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	redis.Do(append([]string{"ACL", "SETUSER", "jpki"}, documentedUser(t, "jpki")...)...)
	redis.Do("ACL", "SETUSER", "jpki", ">hush")
	redis.Do("SET", "others", "value")
	as := func(args ...string) string {
		out, _ := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", strings.TrimPrefix(redis.Addr(), "127.0.0.1:"), "--user", "jpki", "--pass", "hush", "--no-auth-warning"}, args...)...).CombinedOutput()
		return string(out)
	}
	for _, refused := range [][]string{{"GET", "others"}, {"FLUSHALL"}, {"KEYS", "*"}, {"CONFIG", "GET", "*"}, {"ACL", "LIST"}, {"SHUTDOWN"}} {
		if out := as(refused...); !strings.Contains(out, "NOPERM") {
			t.Errorf("%v: %s", refused, out)
		}
	}
}

// Sentinels that ask for passwords themselves: a server comes to the primary by their word as the user that is documented, or by
// the password alone, and to the next one when the primary is lost. Whom they do not admit goes on without Redis.
func TestRedisSentinelsSecured(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "P-256")
	w.delegate("a", "P-256")
	for name, text := range map[string]string{"everybody": "open-sesame\n", "password": "hush-hush\n", "watching": "hush-watch\n", "secret": strings.Repeat("s", 32)} {
		w.write(name, []byte(text))
	}
	sentinels, primary, replica := redistest.StartGuardedSentinels(t, "open-sesame")
	var addresses []string
	for _, s := range sentinels {
		s.Do(append([]string{"ACL", "SETUSER", "watch"}, documentedUser(t, "watch")...)...)
		s.Do("ACL", "SETUSER", "watch", ">hush-watch")
		addresses = append(addresses, "'"+s.Addr()+"'")
	}
	for _, s := range []*redistest.Server{primary, replica} {
		s.Do(append([]string{"ACL", "SETUSER", "jpki"}, documentedUser(t, "jpki")...)...)
		s.Do("ACL", "SETUSER", "jpki", ">hush-hush")
	}
	as := func(args ...string) string {
		out, _ := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", strings.TrimPrefix(sentinels[0].Addr(), "127.0.0.1:"), "--user", "watch", "--pass", "hush-watch", "--no-auth-warning"}, args...)...).CombinedOutput()
		return string(out)
	}
	for _, refused := range [][]string{{"SENTINEL", "REMOVE", "jpki"}, {"SENTINEL", "FAILOVER", "jpki"}, {"SENTINEL", "SET", "jpki", "quorum", "1"}, {"ACL", "LIST"}, {"SHUTDOWN"}} {
		if out := as(refused...); !strings.Contains(out, "NOPERM") {
			t.Errorf("%v: %s", refused, out)
		}
	}
	first, second := newSerial(t), newSerial(t)
	w.set(good, first, second)
	const user = "username: jpki, password_file: password"
	for _, test := range []struct {
		name, redis string
		kept        bool
	}{
		{"wrong password", user + ", sentinel_username: watch, sentinel_password_file: password", false},
		{"no password", user, false},
		{"the servers' user", user + ", sentinel_username: jpki, sentinel_password_file: password", false},
		{"the password alone", user + ", sentinel_password_file: everybody", true},
		{"as it should be", user + ", sentinel_username: watch, sentinel_password_file: watching", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			primary.Do("FLUSHALL")
			s := w.serve(w.config(map[string]string{"snapshot": "", "memory": "0", "redis": fmt.Sprintf("{addresses: [%s], master: jpki, secret_file: secret, %s}", strings.Join(addresses, ", "), test.redis)}, "a"))
			s.until("Redis is used or left alone", func() bool {
				s.want(first, xocsp.Good, 0)
				_, metrics := s.get("/metrics")
				return strings.Contains(metrics, `jpki_ocsp_redis_total{outcome="put"}`) || !test.kept && strings.Contains(metrics, `jpki_ocsp_redis_total{outcome="`)
			})
			if !test.kept {
				if n := primary.Do("DBSIZE"); n != "0" {
					t.Errorf("%s keys", n)
				}
				return
			}
			s.until("an answer is there", func() bool { return primary.Do("DBSIZE") == "1" })
			if strings.Contains(s.said(), "hush") || strings.Contains(s.said(), "sesame") {
				t.Errorf("a password is shown: %s", s.said())
			}
			if test.name != "as it should be" {
				return
			}
			redistest.Until(t, "the replica has it", func() bool { return replica.Do("DBSIZE") == "1" })
			primary.Kill()
			redistest.Until(t, "the replica takes over", replica.Primary)
			s.until("an answer is there", func() bool { s.want(second, xocsp.Good, 0); return replica.Do("DBSIZE") == "2" })
			if code := s.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// What belongs together is asked for together, before anything is connected to.
func TestRedisSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "", "P-256")
	w.delegate("a", "P-256")
	w.tlsPair("us", x509.ExtKeyUsageClientAuth)
	w.write("secret", bytes.Repeat([]byte("s"), 32))
	w.write("password", []byte("hush\n"))
	w.write("empty", []byte("\n"))
	for settings, want := range map[string]string{
		"username: jpki":                   "redis.password_file",
		"password_file: empty":             "empty is empty",
		"password_file: none":              "none",
		"sentinel_username: watch":         "redis.sentinel_password_file",
		"sentinel_password_file: password": "redis.master",
		"master: jpki, sentinel_username: watch, sentinel_password_file: password": "",
		"master: jpki, sentinel_password_file: password":                           "",
		"tls: {}": "",
		"tls: {ca: ca.cer, server_name: redis.example}": "",
		"tls: {ca: us.key}":                             "no certificate in PEM",
		"tls: {ca: none.pem}":                           "none.pem",
		"tls: {certificate: us.cer}":                    "a certificate and a key, or neither",
		"tls: {certificate: us.cer, key: a.key}":        "redis.tls: ",
		"tls: {certificate: us.cer, key: us.key}":       "",
		"tls: {skip_verify: true}":                      "skip_verify",
		"username: jpki, password_file: password, tls: {certificate: us.cer, key: us.key}": "",
	} {
		config := w.config(map[string]string{"database": "postgres://127.0.0.1/jpki?target_session_attrs=read-write", "redis": "{addresses: ['redis:6379'], secret_file: secret, " + settings + "}"}, "a")
		out, said, code := jpkiStatus(t, "-config", config, "-check")
		if want == "" && (code != 0 || out != "ok\n") || want != "" && (code != boot.ExitUsage || !strings.Contains(said, want)) {
			t.Errorf("%s: exit code %d, want %q: %s", settings, code, want, said)
		}
		if strings.Contains(said, "hush") {
			t.Errorf("%s: a password is shown", settings)
		}
	}
}
