package deploy_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// quiet are metrics that have no series before something happens that does not happen here; the program's source has to name them.
var quiet = map[string]string{
	"jpki_authority_batch_lines_total": "no batch is sent",
	"jpki_crl_mirror_total":            "there is no bucket",
	"jpki_signer_reloads_total":        "no key is added",
	"jpki_verifier_deliveries_total":   "no tenant has an endpoint",
	"jpki_verifier_feed_total":         "no change is missed",
	"jpki_verifier_ocsp_cache_total":   "the CRLs say enough",
	"jpki_status_follower_total":       "nothing is forged or lost",
	"jpki_enrolment_requests_total":    "no station enrols",
}

type prometheusConfig struct {
	Jobs []struct {
		Name   string `yaml:"job_name"`
		Static []struct {
			Targets []string `yaml:"targets"`
		} `yaml:"static_configs"`
	} `yaml:"scrape_configs"`
}

// testMetrics has a real Prometheus ask every program as prometheus.yml says. Every metric of rules and dashboards is one that its program
// has, every expression can be evaluated, and where nothing is wrong nobody is woken.
func (w *topology) testMetrics(t *testing.T) {
	text := read(t, deploy, "prometheus", "prometheus.yml")
	var config prometheusConfig
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	w.ask(t)
	eventually(t, "canary", func() error {
		text, err := get(t, "http://"+w.address["canary:8084"]+"/metrics")
		if err == nil && !regexp.MustCompile(`(?m)^jpki_canary_total\{outcome="(seen|late)"\} [1-9]`).MatchString(text) {
			err = fmt.Errorf("%w: %s", errNot, regexp.MustCompile(`(?m)^jpki_canary.*`).FindAllString(text, -1))
		}
		return err
	})
	eventually(t, "crl watch", func() error { _, err := get(t, "http://"+w.address["crl-watch:8083"]+"/readyz"); return err })
	has := map[string]bool{"up": true}
	targets := 0
	for _, job := range config.Jobs {
		for _, target := range slices.Concat(job.Static[0].Targets) {
			targets++
			there, ok := w.address[target]
			if !ok {
				t.Fatalf("prometheus.yml: %s is no address of compose.yaml", target)
			}
			metrics, err := get(t, "http://"+there+"/metrics")
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z0-9_]*)[ {]`).FindAllStringSubmatch(metrics, -1) {
				has[m[1]] = true
			}
			// Labels are outcomes from closed lists: nothing about persons.
			for _, m := range regexp.MustCompile(`(?m)^jpki_[a-z0-9_]*\{(.*)\} `).FindAllStringSubmatch(metrics, -1) {
				if !regexp.MustCompile(`^outcome="[A-Za-z0-9 /:.-]+"$`).MatchString(m[1]) {
					t.Errorf("%s: label {%s}", target, m[1])
				}
			}
		}
	}
	source := sources(t, "cmd")
	var expressions []string
	for _, d := range dashboards(t) {
		expressions = append(expressions, d.expressions()...)
	}
	all := slices.Clone(expressions)
	for _, r := range rules(t) {
		all = append(all, r.Expr)
	}
	for _, expr := range all {
		for _, name := range names(expr) {
			if _, rare := quiet[name]; !has[name] && (!rare || !strings.Contains(source, `"`+name+`"`)) {
				t.Errorf("no program has the metric %s, which is asked for in %s", name, expr)
				has[name] = true // said once
			}
		}
	}

	// A real Prometheus, which asks more often.
	dir := t.TempDir()
	text = strings.ReplaceAll(text, "15s", "1s")
	for name, there := range w.address {
		text = strings.ReplaceAll(text, `"`+name+`"`, `"`+there+`"`)
	}
	file := write(t, text, dir, "prometheus.yml")
	write(t, read(t, deploy, "prometheus", "rules.yml"), dir, "rules.yml")
	at := "127.0.0.1:" + freePort(t)
	start(t, dir, nil, "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at, "--log.level=warn")
	type answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  []any
			}
		}
	}
	query := func(expr string) (a answer, err error) {
		text, err := get(t, "http://"+at+"/api/v1/query?query="+url.QueryEscape(expr))
		if err != nil {
			return a, err
		}
		return a, json.Unmarshal([]byte(text), &a)
	}
	eventually(t, "Prometheus", func() error {
		a, err := query(`count(up{job=~"jpki-.+"} == 1)`)
		if err == nil && (len(a.Data.Result) != 1 || a.Data.Result[0].Value[1] != fmt.Sprint(targets)) {
			err = fmt.Errorf("%w: %v of %d answer", errNot, a.Data.Result, targets)
		}
		return err
	})
	for _, expr := range expressions {
		if _, err := query(strings.ReplaceAll(expr, "$__rate_interval", "1m")); err != nil {
			t.Errorf("%s: %v", expr, err)
		}
	}
	eventually(t, "rules", func() error {
		text, err := get(t, "http://"+at+"/api/v1/rules")
		var r struct {
			Data struct {
				Groups []struct {
					Rules []struct{ Name, Health, LastError string }
				}
			}
		}
		if err == nil {
			err = json.Unmarshal([]byte(text), &r)
		}
		n := 0
		for _, g := range r.Data.Groups {
			for _, one := range g.Rules {
				if one.Health != "ok" {
					return fmt.Errorf("%w: %s is %s: %s", errNot, one.Name, one.Health, one.LastError)
				}
				n++
			}
		}
		if err == nil && n != len(rules(t)) {
			err = fmt.Errorf("%w: %d rules", errNot, n)
		}
		return err
	})
	// How fast this machine is, with all that runs on it, is not asked here.
	a, err := query(`ALERTS{alertstate="firing", alertname!~"JpkiCanarySlow|JpkiCanaryWrong"}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range a.Data.Result {
		t.Errorf("nothing is wrong, and yet: %v", one.Metric)
	}
}

// ask has a tenant ask the verifier about a certificate that has just been issued.
func (w *topology) ask(t *testing.T) {
	t.Helper()
	text := read(t, w.dir, "verifier", "verifier.yaml")
	database := regexp.MustCompile(`(?m)^database: (.*)$`).FindStringSubmatch(text)[1]
	tenant := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(run(t, filepath.Join(w.bin, "jpki"), append([]string{"tenant", "-database", database, "-master-key", filepath.Join(w.dir, "verifier", "master.key")}, args...)...))
	}
	tenant("add", "5835678256246", "-name", "aoba-bank")
	token := tenant("token", "5835678256246")
	asking, err := json.Marshal(map[string]any{"certificate": w.issue(t).Raw})
	if err != nil {
		t.Fatal(err)
	}
	answer := run(t, "curl", "-sS", "--fail-with-body", "--cacert", filepath.Join(w.dir, "verifier", "infrastructure.pem"), "-H", "Authorization: Bearer "+token, "--json", string(asking),
		w.rewrite("verifier", "https://localhost:"+strings.TrimPrefix(w.address["verifier:8090"], "127.0.0.1:"))+"/v1/certificate-status")
	var verdict struct{ Indication string }
	if err := json.Unmarshal([]byte(answer), &verdict); err != nil || verdict.Indication != "TOTAL-PASSED" {
		t.Errorf("%v: %s", err, answer)
	}
}
