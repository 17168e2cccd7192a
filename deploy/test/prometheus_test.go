package deploy_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

type ruleFile struct {
	Groups []struct {
		Name  string `yaml:"name"`
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var f ruleFile
	if err := yaml.UnmarshalWithOptions([]byte(read(t, deploy, "prometheus", "rules.yml")), &f, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func TestPrometheus(t *testing.T) {
	need(t, "promtool")
	at := func(name string) string { return filepath.Join(deploy, "prometheus", name) }
	run(t, "promtool", "check", "config", at("prometheus.yml"))
	run(t, "promtool", "check", "rules", at("rules.yml"))
	run(t, "promtool", "test", "rules", at("rules_test.yml"), at("rules_slow_test.yml"))
	// The checker can say no.
	broken := write(t, strings.Replace(read(t, at("rules.yml")), "expr: up{", "expr: up{{", 1), t.TempDir(), "rules.yml")
	if out, err := try(t, "promtool", "check", "rules", broken); err == nil {
		t.Errorf("a broken rule passes:\n%s", out)
	}
}

const runbooks = "https://github.com/openjpki/jpki/blob/main/docs/runbooks.md#"

// TestAlerts: whoever is woken finds what to do, and every alert was seen to fire and not to fire.
func TestAlerts(t *testing.T) {
	anchors := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(read(t, deploy, "..", "docs", "runbooks.md"), -1) {
		anchor := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		if anchors[anchor] {
			t.Errorf("docs/runbooks.md has the heading %q twice", heading[1])
		}
		anchors[anchor] = true
	}
	tests := read(t, deploy, "prometheus", "rules_test.yml") + read(t, deploy, "prometheus", "rules_slow_test.yml")
	seen := map[string]bool{}
	for _, r := range rules(t) {
		anchor, ok := strings.CutPrefix(r.Annotations["runbook_url"], runbooks)
		if !ok || !anchors[anchor] || anchor != strings.ToLower(r.Alert) {
			t.Errorf("%s: runbook_url is %q; docs/runbooks.md has to have a heading of the alert's name", r.Alert, r.Annotations["runbook_url"])
		}
		if r.Annotations["summary"] == "" || !slices.Contains([]string{"page", "ticket"}, r.Labels["severity"]) || seen[r.Alert] {
			t.Errorf("%s: has no summary, no severity, or a name twice", r.Alert)
		}
		seen[r.Alert] = true
		for _, how := range []string{"bad", "well"} {
			if !strings.Contains(tests, "- name: "+r.Alert+", "+how+"\n") {
				t.Errorf("%s: no test of how it goes %s", r.Alert, how)
			}
		}
		delete(anchors, anchor)
	}
	for anchor := range anchors {
		if strings.HasPrefix(anchor, "jpki") {
			t.Errorf("docs/runbooks.md#%s is of no alert", anchor)
		}
	}
}

type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct{ Name, Type string } `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct{ Expr string } `json:"list"`
	} `json:"annotations"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID         int                      `json:"id"`
	Type       string                   `json:"type"`
	Title      string                   `json:"title"`
	Datasource source                   `json:"datasource"`
	GridPos    struct{ H, W, X, Y int } `json:"gridPos"`
	Targets    []struct {
		RefID      string `json:"refId"`
		Datasource source `json:"datasource"`
		Expr       string `json:"expr"`
	} `json:"targets"`
}

type source struct{ Type, UID string }

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(deploy, "grafana", "dashboards", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	all := map[string]dashboard{}
	for _, f := range files {
		var d dashboard
		if err := json.Unmarshal([]byte(read(t, f)), &d); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all[filepath.Base(f)] = d
	}
	return all
}

// expressions are all of a dashboard's.
func (d dashboard) expressions() (all []string) {
	for _, a := range d.Annotations.List {
		all = append(all, a.Expr)
	}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all = append(all, q.Expr)
		}
	}
	return all
}

// TestDashboards checks what Grafana would complain about or, worse, not: there is no Grafana here.
func TestDashboards(t *testing.T) {
	need(t, "promtool")
	uids := map[string]bool{}
	recorded := "groups:\n- name: dashboards\n  rules:\n"
	for name, d := range dashboards(t) {
		if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 || uids[d.UID] || d.UID+".json" != name {
			t.Errorf("%s: uid %q, title %q, schema %d", name, d.UID, d.Title, d.SchemaVersion)
		}
		uids[d.UID] = true
		if len(d.Templating.List) != 1 || d.Templating.List[0].Name != "datasource" {
			t.Errorf("%s: no choice of a Prometheus", name)
		}
		of := source{"prometheus", "${datasource}"}
		ids := map[int]bool{}
		taken := map[[2]int]string{}
		for _, p := range d.Panels {
			if p.ID == 0 || ids[p.ID] || p.Title == "" || p.Datasource != of || len(p.Targets) == 0 || !slices.Contains([]string{"stat", "timeseries", "gauge", "table"}, p.Type) {
				t.Errorf("%s: panel %d %q of type %q is not complete", name, p.ID, p.Title, p.Type)
			}
			ids[p.ID] = true
			g := p.GridPos
			if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
				t.Errorf("%s: %q lies outside the grid", name, p.Title)
			}
			for x := g.X; x < g.X+g.W; x++ {
				for y := g.Y; y < g.Y+g.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: %q lies on %q", name, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
			letters := map[string]bool{}
			for _, q := range p.Targets {
				if q.Expr == "" || letters[q.RefID] || q.Datasource != of {
					t.Errorf("%s: %q: target %q is not complete", name, p.Title, q.RefID)
				}
				letters[q.RefID] = true
			}
		}
		for _, expr := range d.expressions() {
			quoted, err := json.Marshal(expr)
			if err != nil {
				t.Fatal(err)
			}
			recorded += "  - {record: dashboard:expression, labels: {n: \"" + string(rune('a'+len(uids))) + strings.Repeat("x", strings.Count(recorded, "record")) + "\"}, expr: " + string(quoted) + "}\n"
		}
	}
	run(t, "promtool", "check", "rules", "--lint=none", write(t, recorded, t.TempDir(), "dashboards.yml"))
}

// names finds the metrics in an expression.
func names(expr string) []string {
	return regexp.MustCompile(`\b(jpki|process|go)_[a-z0-9_]+\b`).FindAllString(expr, -1)
}

// outcomes says where the outcomes of metrics that rules and dashboards tell apart are named.
var outcomes = map[string]string{ //nolint:gosec // names of metrics and packages, no credentials
	"jpki_authority_requests_total":    ".", // problems
	"jpki_canary_total":                "cmd/jpki-load",
	"jpki_crl_mirror_total":            "crl/bucket",
	"jpki_crl_publications_total":      "crl",
	"jpki_ocsp_delegates_total":        "ocsp",
	"jpki_ocsp_listener_total":         "ocsp/front",
	"jpki_ocsp_responses_total":        "ocsp",
	"jpki_ocsp_sources_total":          "ocsp",
	"jpki_publisher_total":             "cmd/jpki-ca",
	"jpki_relay_total":                 "ca/relay",
	"jpki_signer_reloads_total":        "cmd/jpki-signer",
	"jpki_signer_requests_total":       "hsm/signer",
	"jpki_signer_tokens":               "hsm/pkcs11",
	"jpki_snapshot_publications_total": "crl/snapshot",
	"jpki_status_follower_total":       "ca/relay",
	"jpki_status_log_total":            "ca/relay cmd/jpki-status", // the name of a source, and how it went
	"jpki_verifier_deliveries_total":   "verifier/push",
	"jpki_verifier_feed_total":         "verifier/push",
	"jpki_verifier_ocsp_cache_total":   "verifier",
	"jpki_verifier_requests_total":     "verifier .",
}

// TestOutcomes: a label's value in a rule or a dashboard is one that the metric's makers know.
func TestOutcomes(t *testing.T) {
	var all []string
	for _, r := range rules(t) {
		all = append(all, r.Expr)
	}
	for _, d := range dashboards(t) {
		all = append(all, d.expressions()...)
	}
	checked := 0
	for _, expr := range all {
		for _, m := range regexp.MustCompile(`([a-z_]+)\{outcome!?=~?"([^"]+)"`).FindAllStringSubmatch(expr, -1) {
			folders, ok := outcomes[m[1]]
			if !ok {
				t.Errorf("who makes the outcomes of %s?", m[1])
				continue
			}
			makers := ""
			for folder := range strings.FieldsSeq(folders) {
				files, err := filepath.Glob(filepath.Join(deploy, "..", folder, "*.go"))
				if err != nil || len(files) == 0 {
					t.Fatal(folder, err)
				}
				for _, f := range files {
					if !strings.HasSuffix(f, "_test.go") {
						makers += read(t, f)
					}
				}
			}
			for value := range strings.SplitSeq(m[2], "|") {
				checked++
				head, end, composed := strings.Cut(value, "-")
				if !strings.Contains(makers, `"`+value+`"`) && (!composed || !strings.Contains(makers, `"`+head+`"`) || !strings.Contains(makers, `"-`+end+`"`)) {
					t.Errorf("%s has no outcome %q, which is asked for in %s", m[1], value, expr)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d outcomes are few", checked)
	}
}
