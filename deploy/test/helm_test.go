package deploy_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// kubernetes is the version that the chart is rendered for.
const kubernetes = "1.34.0"

func render(t *testing.T, set ...string) string {
	t.Helper()
	args := []string{"template", "trial", filepath.Join(deploy, "helm", "jpki"), "--kube-version", kubernetes}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	return run(t, checker(t, "helm"), args...)
}

type manifest struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name string `yaml:"name"`
	} `yaml:"metadata"`
	Data map[string]string `yaml:"data"`
}

func manifests(t *testing.T, text string) (all []manifest) {
	t.Helper()
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		if strings.TrimSpace(regexp.MustCompile(`(?m)^#.*$`).ReplaceAllString(document, "")) == "" {
			continue
		}
		var m manifest
		if err := yaml.Unmarshal([]byte(document), &m); err != nil || m.Kind == "" {
			t.Fatalf("%v\n%s", err, document)
		}
		all = append(all, m)
	}
	return all
}

// conform has kubeconform compare manifests with schemas that are made of Kubernetes' own types.
func conform(t *testing.T, text string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	kinds := map[string]bool{}
	for _, m := range manifests(t, text) {
		kinds[m.APIVersion+"/"+m.Kind] = true
	}
	run(t, "go", checkBy(t, "kubernetes_schemas.go", append([]string{dir}, slices.Sorted(maps.Keys(kinds))...)...)...)
	return try(t, checker(t, "kubeconform"), "-strict", "-summary", "-kubernetes-version", kubernetes,
		"-schema-location", filepath.Join(dir, "{{.ResourceKind}}{{.KindSuffix}}.json"), write(t, text, dir, "manifests.yaml"))
}

func TestHelm(t *testing.T) {
	chart := filepath.Join(deploy, "helm", "jpki")
	if out := run(t, checker(t, "helm"), "lint", "--strict", chart); strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
		t.Error(out)
	}
	for _, set := range [][]string{
		nil,
		{"ca.enabled=false", "verifier.enabled=false"}, // the public zone alone
		{"signer.tokens.claim=tokens", "status.storage.class=fast", "ca.storage.class=fast", "metrics.annotations=false", "networkPolicy.enabled=false"},
		{"networkPolicy.stations[0].ipBlock.cidr=192.0.2.0/24", "networkPolicy.status[0].ipBlock.cidr=192.0.2.0/24", "networkPolicy.tenants[0].ipBlock.cidr=192.0.2.0/24", "status.service.type=LoadBalancer"},
	} {
		text := render(t, set...)
		if out, err := conform(t, text); err != nil || !regexp.MustCompile(`Invalid: 0, Errors: 0, Skipped: 0`).MatchString(out) {
			t.Errorf("%v: %v\n%s", set, err, out)
		}
		// Pods are of nobody's rights, and no configuration is made without a user of it.
		pods := strings.Count(text, "\n          command: ")
		for _, wish := range []string{"allowPrivilegeEscalation: false", "readOnlyRootFilesystem: true", "capabilities: {drop: [ALL]}"} {
			if n := strings.Count(text, wish); n != pods || n == 0 {
				t.Errorf("%v: %d containers, %d times %q", set, pods, n, wish)
			}
		}
		for _, wish := range []string{"runAsNonRoot: true", "seccompProfile: {type: RuntimeDefault}"} {
			if strings.Count(text, wish) != strings.Count(text, "serviceAccountName:") {
				t.Errorf("%v: not every pod has %q", set, wish)
			}
		}
	}
	// The checkers can say no.
	text := render(t)
	for _, broken := range [][2]string{{"readOnlyRootFilesystem:", "readOnlyRootFileSystem:"}, {"replicas: 3", "replicas: three"}, {"    spec:\n      serviceAccountName", "    specs:\n      serviceAccountName"}} {
		if out, err := conform(t, strings.Replace(text, broken[0], broken[1], 1)); err == nil {
			t.Errorf("kubeconform lets %q pass:\n%s", broken[1], out)
		}
	}
	if out, err := try(t, checker(t, "helm"), "template", "trial", chart, "--kube-version", kubernetes, "--set", "status.replica=5"); err == nil {
		t.Errorf("a value that nobody knows passes:\n%s", out)
	}
}

// testHelm passes the chart's configurations through the programs' own -check, with the entries of secrets that values.yaml lists, laid
// as Kubernetes lays them and copied as the chart's first containers copy them.
func (w *topology) testHelm(t *testing.T) {
	values := read(t, deploy, "helm", "jpki", "values.yaml")
	text := render(t)
	checked := 0
	for _, m := range manifests(t, text) {
		for file, config := range m.Data {
			program := strings.TrimSuffix(file, ".yaml")
			service := program
			if program == "status" {
				service = "status-1"
			}
			secret := w.laySecret(t, values, text, program, service)
			if program == "verifier" { // the anchors are the operator's to fill in
				laid := read(t, w.dir, "verifier", "verifier.yaml")
				config = strings.Replace(config, "anchors: []", strings.ReplaceAll(laid[strings.Index(laid, "anchors:"):], "certificate: ", "certificate: "+secret+"/"), 1)
			}
			// Helm writes lists one item a line.
			config = regexp.MustCompile(`addresses:\n\s*- redis-1:6379\n\s*- redis-2:6379\n\s*- redis-3:6379`).ReplaceAllString(config, "addresses: [redis-1:6379, redis-2:6379, redis-3:6379]")
			name := write(t, strings.ReplaceAll(w.rewrite(service, config), "/etc/jpki/secret", secret), w.dir, service, "helm.yaml")
			args := []string{filepath.Join(w.bin, "jpki-"+program), "-config", name, "-check"}
			if program == "relay" {
				args = []string{filepath.Join(w.bin, "jpki"), "relay", "-config", name, "-check"}
			}
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(secret, "softhsm2.conf"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s -check: %v\n%s", file, err, out)
			}
			checked++
		}
	}
	if checked != 5 {
		t.Errorf("%d configurations", checked)
	}
}

// laySecret makes the folder that a program's container finds at /etc/jpki/secret.
func (w *topology) laySecret(t *testing.T, values, text, program, service string) string {
	t.Helper()
	list := regexp.MustCompile(`(?m)^  secret: jpki-` + program + ` +# ([^;\n]*)`).FindStringSubmatch(values)
	if list == nil {
		t.Fatalf("values.yaml does not say what is in the secret of %s", program)
	}
	// The kubelet writes into a folder of its own, and makes links; a group may read.
	laid, secret := t.TempDir(), t.TempDir()
	put := func(from, as string) {
		t.Helper()
		write(t, read(t, w.dir, service, from), laid, "..data", as)
		if err := os.Chmod(filepath.Join(laid, "..data", as), 0o440); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", as), filepath.Join(laid, as)); err != nil {
			t.Fatal(err)
		}
	}
	for entry := range strings.SplitSeq(list[1], ", ") {
		put(entry, entry)
	}
	container := "secrets"
	if program == "signer" {
		container = "signer-secrets"
	}
	part := text[strings.LastIndex(text, "name: trial-jpki-"+strings.Replace(program, "signer", "ca", 1)+"\n  labels:"):]
	command := regexp.MustCompile(`- name: ` + container + `\n(?:.*\n){2,3}? *command: \[sh, -ceu, "(.*)"\]`).FindStringSubmatch(part)
	if command == nil {
		t.Fatalf("%s copies no secrets", program)
	}
	script := strings.NewReplacer("/run/laid", laid, "/etc/jpki/secret", secret).Replace(command[1])
	if program == "status" {
		other := t.TempDir()
		for _, kind := range []string{".pem", ".key"} {
			write(t, read(t, w.dir, service, "responder"+kind), other, "trial-jpki-status-0"+kind)
		}
		script = strings.ReplaceAll(script, "/run/responders", other)
	}
	for range 2 { // a pod's first containers may run again
		cmd := exec.CommandContext(t.Context(), "sh", "-ceu", script)
		cmd.Env = append(os.Environ(), "POD_NAME=trial-jpki-status-0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	return secret
}
