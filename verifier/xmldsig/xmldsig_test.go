package xmldsig_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/primitive"
	"github.com/openjpki/jpki/verifier/xmldsig"
)

func vectors(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("JPKI_VECTORS")
	if dir == "" {
		t.Skip("JPKI_VECTORS names no folder of vectors")
	}
	return filepath.Join(dir, name)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func load(t *testing.T, path string, into any) {
	t.Helper()
	if err := json.Unmarshal(read(t, path), into); err != nil {
		t.Fatal(err)
	}
}

// verdict returns nil if all signatures of a document hold.
func verdict(data []byte, o xmldsig.Options) error {
	all, err := xmldsig.Read(data, o)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("no signature")
	}
	for _, s := range all {
		if v := s.Verify(); v.Err != nil {
			return v.Err
		}
	}
	return nil
}

// The XAdES documents of esig/dss.
func TestXAdESVectors(t *testing.T) {
	dir := vectors(t, "dss-ades/xades")
	var cases []struct {
		File, Verdict string
		Detached      []string
	}
	load(t, filepath.Join(dir, "expected.json"), &cases)
	for _, c := range cases {
		o := xmldsig.Options{Resolve: func(string) ([]byte, bool) {
			if len(c.Detached) == 0 {
				return nil, false
			}
			return read(t, filepath.Join(dir, c.Detached[0])), true
		}}
		err := verdict(read(t, filepath.Join(dir, c.File)), o)
		if (err == nil) != (c.Verdict == "all-valid") {
			t.Errorf("%s: %v, want %s", c.File, err, c.Verdict)
		}
	}
}

func certificates(t *testing.T, dir string) (out [][]byte) {
	t.Helper()
	for _, file := range []string{"rsa/rsa-4096-cert.pem", "cacert.pem", "ca2cert.pem"} {
		block, _ := pem.Decode(read(t, filepath.Join(dir, "keys", file)))
		out = append(out, block.Bytes)
	}
	return out
}

// What of xmlsec's documents is not accepted here.
var xmlsecRefused = map[string]error{
	"aleksey-xmldsig-01/enveloping-md5-rsa-md5.xml":                    xmldsig.ErrUnsupported, // anybody can make two documents of one MD5
	"aleksey-xmldsig-01/enveloping-sha256-rsa-sha256-relationship.xml": xmldsig.ErrUnsupported, // a transform of OPC packages
}

func TestXMLSecVectors(t *testing.T) {
	dir := vectors(t, "xmldsig-xmlsec")
	var cases []struct{ File, Expected string }
	load(t, filepath.Join(dir, "expected.json"), &cases)
	// Four documents name a certificate that is not among the vectors; another document by the same key has it as it is.
	sibling, err := xmldsig.Read(read(t, filepath.Join(dir, "phaos-xmldsig-three/signature-rsa-manifest.xml")), xmldsig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		o := xmldsig.Options{Certificates: certificates(t, dir), Key: func(k xmldsig.KeyInfo) *primitive.Key {
			if strings.Contains(c.File, "x509-data") || strings.Contains(c.File, "retrieval") {
				return sibling[0].KeyInfo.Keys[0]
			}
			for _, name := range k.Names {
				data, err := os.ReadFile(filepath.Join(dir, "keys/ec", strings.TrimPrefix(name, "TestKeyName-")+"-pubkey.pem"))
				if err != nil {
					continue
				}
				block, _ := pem.Decode(data)
				if key, err := primitive.ParseKey(block.Bytes); err == nil {
					return key
				}
			}
			return nil
		}}
		err := verdict(read(t, filepath.Join(dir, c.File)), o)
		if want := xmlsecRefused[c.File]; want != nil {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", c.File, err, want)
			}
		} else if (err == nil) != (c.Expected == "valid") {
			t.Errorf("%s: %v, want %s", c.File, err, c.Expected)
		}
	}
	if len(cases) != 44 {
		t.Errorf("%d documents", len(cases))
	}
}
