package main

import (
	"bytes"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/openjpki/jpki/cmd/internal/boot"
	"github.com/openjpki/jpki/crl"
)

// What the authority's zone publishes is served beside OCSP, and nothing else of that folder.
func TestFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "sqlite:"+filepath.Join(t.TempDir(), "ca.db"), "P-256")

	w.delegate("a", "P-256")
	for _, d := range []string{"crl/sign-1", "snapshot/sign-1", "ca"} {
		if err := os.MkdirAll(w.path("public/"+d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var list bytes.Buffer
	err := crl.Build(&list, crl.Template{
		IssuerCert: w.ca, Signer: w.key, Scope: crl.Scope{Issuer: issuerID}, Number: big.NewInt(1), ThisUpdate: time.Now().Truncate(time.Second), NextUpdate: time.Now().Add(time.Hour).Truncate(time.Second),
	}, slices.Values([]crl.Entry(nil)))
	if err != nil {
		t.Fatal(err)
	}
	index := []byte("{}\n")
	w.write("public/crl/sign-1/full.crl", list.Bytes())
	w.write("public/snapshot/sign-1/index.json", index)
	w.write("public/ca/sign-1.cer", w.ca.Raw)
	w.write("public/secret", []byte("secret"))
	serial := newSerial(t)
	w.set(good, serial)
	s := w.serve(w.config(map[string]string{"public": "public"}, "a"))
	base := strings.TrimSuffix(s.url, "/ocsp")
	for path, want := range map[string][]byte{
		"/crl/sign-1/full.crl": list.Bytes(), "/snapshot/sign-1/index.json": index, "/ca/sign-1.cer": w.ca.Raw,
		"/secret": nil, "/ca/secret": nil, "/ca/sign-2.cer": nil, "/crl/secret": nil, "/snapshot/../secret": nil, "/": nil,
	} {
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || (resp.StatusCode == 200) != (want != nil) || want != nil && !bytes.Equal(body, want) || bytes.Contains(body, []byte("secret")) && !bytes.Contains(body, []byte("instance")) {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
	s.want(serial, xocsp.Good, 0)
	if out, errOut, code := jpkiStatus(t, "-config", w.config(map[string]string{"public": "none"}, "a"), "-check"); code != boot.ExitUsage || !strings.Contains(errOut, "none") {
		t.Errorf("no such folder: exit code %d\n%s%s", code, out, errOut)
	}
	if out, errOut, code := jpkiStatus(t, "-config", w.config(map[string]string{"public": "public", "prefix": `""`}, "a"), "-check"); code != boot.ExitUsage || !strings.Contains(errOut, "public needs a prefix") {
		t.Errorf("without a prefix: exit code %d\n%s%s", code, out, errOut)
	}
}
