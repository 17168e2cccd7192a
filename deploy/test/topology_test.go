package deploy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A project is what compose-go makes of compose.yaml.
type project struct {
	Services map[string]struct {
		Image       string
		User        string
		Command     []string
		ReadOnly    bool     `json:"read_only"`
		Drop        []string `json:"cap_drop"`
		Security    []string `json:"security_opt"`
		Environment map[string]*string
		Networks    map[string]any
		Volumes     []struct{ Type, Source, Target string }
		Healthcheck struct{ Test []string }
		Ports       []struct {
			HostIP string `json:"host_ip"`
		}
	}
	Networks map[string]struct{ Internal bool }
}

func loadProject(t *testing.T) (p project) {
	t.Helper()
	text := output(t, "go", checkBy(t, "validate_compose.go", filepath.Join(deploy, "compose", "compose.yaml"))...)
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestCompose: zones are apart, and what is ours has no more rights than it needs.
func TestCompose(t *testing.T) {
	p := loadProject(t)
	for _, name := range []string{"postgres-1", "postgres-2", "redis-1", "redis-6", "signer", "ca", "relay", "status-1", "status-2", "status-3", "verifier", "prometheus", "grafana"} {
		if _, ok := p.Services[name]; !ok {
			t.Errorf("no service %s", name)
		}
	}
	users := map[string]string{}
	has := map[string][]string{} // by volume: the users of services that mount it
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type == "volume" && name != "setup" && !slices.Contains(has[v.Source], s.User) {
				has[v.Source] = append(has[v.Source], s.User)
			}
			if v.Type == "bind" {
				if _, err := os.Stat(v.Source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s listens at %q", name, port.HostIP)
			}
		}
		for network := range s.Networks {
			if network == "edge" && len(s.Ports) == 0 || network != "edge" && !p.Networks[network].Internal {
				t.Errorf("%s is in the network %s", name, network)
			}
		}
		if !slices.Contains(s.Security, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges", name)
		}
		if s.Image != "jpki:trial" || name == "setup" {
			continue
		}
		if !s.ReadOnly || !slices.Equal(s.Drop, []string{"ALL"}) || s.User == "" || s.User == "0:0" {
			t.Errorf("%s: read_only %v, cap_drop %v, user %q", name, s.ReadOnly, s.Drop, s.User)
		}
		program := strings.TrimSuffix(strings.TrimRight(name, "-123"), "-begin")
		if program == "begin" {
			program = "ca"
		}
		if other, ok := users[s.User]; ok && other != program {
			t.Errorf("%s and %s are one user, %s", name, other, s.User)
		}
		users[s.User] = program
	}
	// Whose folder is whose: a secret reaches one program only. The token is the signer's alone.
	for volume, who := range has {
		if len(who) > 1 && !slices.Contains([]string{"run", "public", "redis"}, volume) {
			t.Errorf("the volume %s is mounted by %v", volume, who)
		}
	}
	for _, name := range []string{"status-1", "relay", "verifier", "nginx"} {
		for _, v := range p.Services[name].Volumes {
			if v.Source == "ca" || v.Source == "signer" || v.Source == "run" {
				t.Errorf("%s mounts %s", name, v.Source)
			}
		}
	}
	if _, both := p.Services["verifier"].Networks["database"]; both {
		t.Error("the verifier reaches the authority's database")
	}
	// The checker can say no.
	folder := t.TempDir()
	broken := write(t, "services: {a: {image: x, depends_on: [b]}}\n", folder, "compose.yaml")
	if out, err := try(t, "go", checkBy(t, "validate_compose.go", broken)...); err == nil {
		t.Errorf("a service that depends on none passes:\n%s", out)
	}
}

// A topology is what compose.yaml describes, as processes of this machine.
type topology struct {
	project
	dir     string
	bin     string
	address map[string]string // host:port in compose's networks → 127.0.0.1:port
	start   func(service string) *process
	rewrite func(service, text string) string
}

// TestTopology has setup.sh make everything, then starts what compose.yaml starts, in its order, by its commands, with its
// configurations; each passes its program's own -check first. Addresses and paths are those of this machine. There is one Redis
// server, which is a cluster of one, and PostgreSQL has no replica.
func TestTopology(t *testing.T) {
	need(t, "bash", "openssl", "softhsm2-util", "psql", "redis-server", "redis-cli", "nginx", "prometheus", "curl", "jq")
	w := newTopology(t)
	t.Run("healthy", func(t *testing.T) {
		for name, s := range w.Services {
			if test := s.Healthcheck.Test; len(test) > 2 && test[1] == "curl" {
				url := w.rewrite(name, test[len(test)-1])
				eventually(t, name, func() error { _, err := get(t, url); return err })
			}
		}
	})
	t.Run("nginx", w.testNginx)
	t.Run("metrics", w.testMetrics)
	t.Run("helm", w.testHelm)
}

// newTopology starts everything. Steps:
//  1. keys, certificates, secrets and configurations by setup.sh, twice
//  2. PostgreSQL and Redis
//  3. the signer; the authority's schema and first entries by begin.sh, twice
//  4. the other programs, after -check
//  5. nginx, and who looks on
func newTopology(t *testing.T) *topology {
	t.Helper()
	w := &topology{project: loadProject(t), dir: t.TempDir(), bin: programs(t), address: map[string]string{}}
	runDir, err := os.MkdirTemp("", "jpki-run") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runDir) })
	path := "PATH=" + w.bin + ":" + os.Getenv("PATH")
	token := "SOFTHSM2_CONF=" + filepath.Join(w.dir, "signer", "softhsm2.conf")
	// 1.
	for range 2 {
		cmd := exec.CommandContext(t.Context(), filepath.Join(deploy, "compose", "setup.sh"), filepath.Join(deploy, "compose", "config"), w.dir)
		cmd.Env = append(os.Environ(), path, "OWNERS=no", "TOKENS="+filepath.Join(w.dir, "signer", "tokens"), "SERVER_FILES="+filepath.Join(w.dir, "redis"), "CANARY_FILES="+filepath.Join(w.dir, "canary"))
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("setup.sh: %v\n%s", err, out)
		}
	}
	// 2.
	database, cache := w.startPostgres(t), w.startRedis(t)
	for _, hosts := range []string{"ca:8443", "ca:8444", "ca:8445", "signer:8095", "relay:8082", "verifier:8090", "verifier:8091", "crl-watch:8083", "canary:8084", "nginx:80", "status-1:8080", "status-1:8081", "status-2:8080", "status-2:8081", "status-3:8080", "status-3:8081"} {
		w.address[hosts] = "127.0.0.1:" + freePort(t)
	}
	own := regexp.MustCompile(`(?:0\.0\.0\.0|127\.0\.0\.1):\d+`)
	w.rewrite = func(service, text string) string {
		text = own.ReplaceAllStringFunc(text, func(a string) string {
			_, port, _ := strings.Cut(a, ":")
			if there, ok := w.address[service+":"+port]; ok {
				return there
			}
			return a
		})
		pairs := []string{
			"postgres-1:5432,postgres-2:5432", "localhost:" + database, "verifier-db:5432", "localhost:" + database,
			"redis-1:6379, redis-2:6379, redis-3:6379", "localhost:" + cache,
			"https://ca:8443", "https://localhost:" + strings.TrimPrefix(w.address["ca:8443"], "127.0.0.1:"),
			"/var/lib/jpki", filepath.Join(w.dir, service), "/run/jpki", runDir, "/srv/public", filepath.Join(w.dir, "public"),
			`user: "1001"`, fmt.Sprintf("user: %q", strconv.Itoa(os.Getuid())), `group: "1100"`, fmt.Sprintf("group: %q", strconv.Itoa(os.Getgid())),
			"172.16.0.0/12", "127.0.0.0/8",
		}
		if service != "ca" { // there it goes into certificates
			pairs = append(pairs, "http://status.example.jp", "http://"+w.address["nginx:80"])
		}
		for host, there := range w.address {
			if !strings.HasPrefix(host, "ca:") {
				pairs = append(pairs, host, there)
			}
		}
		return strings.NewReplacer(pairs...).Replace(text)
	}
	for _, file := range []string{"signer/signer.yaml", "ca/ca.yaml", "relay/relay.yaml", "status-1/status.yaml", "status-2/status.yaml", "status-3/status.yaml", "verifier/verifier.yaml", "crl-watch/urls.txt", "canary/env"} {
		service := filepath.Dir(file)
		write(t, w.rewrite(service, read(t, w.dir, file)), w.dir, file)
	}
	w.start = func(service string) *process {
		t.Helper()
		args := slices.Clone(w.Services[service].Command)
		for i := range args {
			args[i] = w.rewrite(service, args[i])
			if args[i] == "-again" { // one that failed is not waited for so long here
				args[i+1] = "5s"
			}
		}
		args[0] = filepath.Join(w.bin, args[0])
		if i := slices.Index(args, "-config"); i >= 0 {
			check := exec.CommandContext(t.Context(), args[0], append(slices.Clone(args[1:]), "-check")...)
			check.Env = append(os.Environ(), token)
			if out, err := check.CombinedOutput(); err != nil {
				t.Fatalf("%s -check: %v\n%s", service, err, out)
			}
		}
		return start(t, w.dir, []string{token}, args...)
	}
	healthy := func(service string) {
		t.Helper()
		test := w.Services[service].Healthcheck.Test
		eventually(t, service, func() error { _, err := get(t, w.rewrite(service, test[len(test)-1])); return err })
	}
	// 3.
	w.start("signer")
	healthy("signer")
	for range 2 {
		cmd := exec.CommandContext(t.Context(), filepath.Join(deploy, "compose", "begin.sh"), filepath.Join(w.dir, "ca"))
		cmd.Env = append(os.Environ(), path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("begin.sh: %v\n%s", err, out)
		}
	}
	// 4.
	w.start("ca")
	healthy("ca")
	run(t, filepath.Join(w.bin, "jpki-verifier"), "-config", filepath.Join(w.dir, "verifier", "verifier.yaml"), "migrate")
	for _, service := range []string{"relay", "status-1", "status-2", "status-3"} {
		w.start(service)
	}
	for _, service := range []string{"relay", "status-1", "status-2", "status-3"} {
		healthy(service)
	}
	// 5.
	startNginx(t, read(t, deploy, "nginx", "status.conf"), w.address["nginx:80"], map[string]string{
		"status-1:8080": w.address["status-1:8080"], "status-2:8080": w.address["status-2:8080"], "status-3:8080": w.address["status-3:8080"],
	})
	for _, g := range []string{"sign-1", "auth-1"} {
		eventually(t, g+"'s CRL", func() error { _, err := get(t, "http://"+w.address["nginx:80"]+"/crl/"+g+"/full.crl"); return err })
	}
	for _, service := range []string{"verifier", "crl-watch", "canary"} {
		w.start(service)
	}
	return w
}

// startPostgres starts a server of this test's own, with the roles, databases, certificates and admission that compose.yaml gives it.
func (w *topology) startPostgres(t *testing.T) (port string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(deploy, "test", "with-postgres.sh"), "bash", "-c", "echo $JPKI_TEST_POSTGRES; read || true") // ended by closing its input
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("PostgreSQL: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	psql := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(run(t, "psql", append([]string{"--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", at.String()}, args...)...))
	}
	for file, service := range map[string]string{"authority.sql": "postgres-1", "verifier.sql": "verifier-db"} {
		text := strings.ReplaceAll(read(t, deploy, "compose", "postgres", file), "/var/lib/jpki", filepath.Join(w.dir, service))
		text = strings.ReplaceAll(text, `ALTER SYSTEM SET synchronous_standby_names = '*';`, "") // no standby here
		psql("--file", write(t, text, t.TempDir(), file))
	}
	data := psql("--command", "SHOW data_directory")
	put := func(name, text string) string {
		t.Helper()
		file := filepath.Join(data, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			run(t, "chown", "--reference="+data, file)
		}
		return file
	}
	// Settings that are known, and of the kind that a reload changes, are set as compose.yaml says.
	alter := []string{"--command", "ALTER SYSTEM SET ssl = on"}
	for _, argument := range w.Services["postgres-1"].Command[1:] {
		name, value, ok := strings.Cut(strings.TrimPrefix(argument, "-c"), "=")
		if !ok || psql("--command", "SELECT count(*) FROM pg_settings WHERE name = '"+name+"'") != "1" {
			t.Errorf("PostgreSQL has no setting %q", argument)
		}
		switch name {
		case "ssl_cert_file", "ssl_key_file":
			value = put(filepath.Base(value), read(t, w.dir, "postgres-1", filepath.Base(value)))
		case "hba_file", "max_connections": // need a restart
			continue
		}
		alter = append(alter, "--command", "ALTER SYSTEM SET "+name+" = '"+value+"'")
	}
	psql(alter...)
	if replica := w.Services["postgres-2"].Command; !slices.Equal(replica, w.Services["postgres-1"].Command[1:]) {
		t.Errorf("primary and replica differ: %v", replica)
	}
	hba := psql("--command", "SHOW hba_file")
	put(filepath.Base(hba), read(t, deploy, "compose", "postgres", "pg_hba.conf"))
	psql("--command", "SELECT pg_reload_conf()")
	// From here on the superuser comes in through a local socket only, of which there is none; and nobody without TLS.
	eventually(t, "PostgreSQL's admission", func() error {
		if out, err := try(t, "psql", at.String(), "--command", "SELECT 1"); err == nil || !strings.Contains(out, "no pg_hba.conf entry") {
			return fmt.Errorf("%w: %s", errNot, out)
		}
		return nil
	})
	return at.Port()
}

var errNot = errors.New("not so")

// startRedis starts a cluster of one server, by the configuration and command that compose.yaml gives it.
func (w *topology) startRedis(t *testing.T) (port string) {
	t.Helper()
	port = freePort(t)
	args := slices.Clone(w.Services["redis-1"].Command)
	for i := range args {
		args[i] = strings.NewReplacer("/var/lib/jpki", filepath.Join(w.dir, "redis"), "redis-1", "localhost").Replace(args[i])
	}
	start(t, t.TempDir(), nil, append(args, "--bind", "127.0.0.1", "--tls-port", port, "--cluster-port", freePort(t))...)
	cli := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-h", "127.0.0.1", "-p", port, "--tls", "--cacert", filepath.Join(w.dir, "redis-admin", "infrastructure.pem"), "--user", "admin", "--no-auth-warning"}, args...)...)
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+strings.TrimSpace(read(t, w.dir, "redis-admin", "admin.password")))
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	eventually(t, "Redis", func() error {
		if out, err := cli("ping"); err != nil || out != "PONG" {
			return fmt.Errorf("%w: %s %w", errNot, out, err)
		}
		return nil
	})
	if out, err := cli("cluster", "addslotsrange", "0", "16383"); err != nil || out != "OK" {
		t.Fatal(out, err)
	}
	eventually(t, "Redis Cluster", func() error {
		if out, err := cli("cluster", "info"); err != nil || !strings.Contains(out, "cluster_state:ok") {
			return fmt.Errorf("%w: %s %w", errNot, out, err)
		}
		return nil
	})
	return port
}

// get fetches what must be there.
func get(t *testing.T, url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}}
	r, err := client.Do(q)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%w: %s: %s", errNot, r.Status, body)
	}
	return string(body), err
}
