package cms_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/cms"
	"github.com/openjpki/jpki/verifier/primitive"
)

// needOpenSSL returns a folder for openssl's files.
func needOpenSSL(t testing.TB) (file func(string) string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	return func(name string) string { return filepath.Join(dir, name) }
}

func openssl(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeIdentity writes key and certificate as PEM.
func writeIdentity(t testing.TB, id *identity, key, cert string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(id.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	write(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.der}))
}

// What openssl cms makes is read and intact, in every variant it has; and what changed is not.
func TestFromOpenSSL(t *testing.T) {
	file := needOpenSSL(t)
	long := bytes.Repeat([]byte("a long text "), 20_000)
	write(t, file("long"), long)
	write(t, file("short"), text)
	for name, id := range map[string]*identity{"rsa": rsaID, "p256": ecID, "p384": ec384ID, "ed": edID} {
		writeIdentity(t, id, file(name+".key"), file(name+".pem"))
	}
	openssl(t, "genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", file("pss.key"))
	openssl(t, "req", "-new", "-x509", "-key", file("pss.key"), "-subj", "/CN=pss", "-days", "10", "-out", file("pss.pem"))
	var variants [][]string
	for _, md := range []string{"sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "sha3-512", "sha512-256"} {
		variants = append(variants, []string{"rsa", "-md", md}, []string{"rsa", "-md", md, "-keyopt", "rsa_padding_mode:pss"}, []string{"p256", "-md", md})
	}
	variants = append(variants,
		[]string{"rsa", "-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_mgf1_md:sha1", "-keyopt", "rsa_pss_saltlen:20"},
		[]string{"rsa", "-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:0"},
		[]string{"rsa", "-md", "sha256", "-cades"},
		[]string{"rsa", "-md", "sha512", "-cades"},
		[]string{"rsa", "-md", "sha1", "-cades"},
		[]string{"rsa", "-keyid"},
		[]string{"rsa", "-nosmimecap"},
		[]string{"rsa", "-noattr"},
		[]string{"p256", "-noattr"},
		[]string{"p384", "-md", "sha384"},
		[]string{"ed", "-md", "sha512"},
		[]string{"ed", "-noattr", "-md", "sha512"},
		[]string{"pss", "-md", "sha256", "-keyopt", "rsa_padding_mode:pss"},
		[]string{"pss", "-md", "sha512", "-keyopt", "rsa_padding_mode:pss"},
	)
	contents := map[string][]string{"detached": {"short"}, "attached": {"short"}, "streamed": {"long"}}
	unmade := 0
	for _, v := range variants {
		for _, how := range []string{"detached", "attached", "streamed"} {
			for _, content := range contents[how] {
				args := append([]string{"cms", "-sign", "-binary", "-outform", "DER", "-in", file(content), "-signer", file(v[0] + ".pem"), "-inkey", file(v[0] + ".key"), "-out", file("out")}, v[1:]...)
				switch how {
				case "attached":
					args = append(args, "-nodetach")
				case "streamed":
					args = append(args, "-nodetach", "-stream")
				}
				name := strings.Join(v, " ") + " " + how + " " + content
				if exec.CommandContext(t.Context(), "openssl", args...).Run() != nil {
					unmade++
					if !unknownToOpenSSL(name) {
						t.Errorf("openssl did not make %s", name)
					}
					continue
				}
				der := read(t, file("out"))
				in := cms.Input{}
				if how == "detached" {
					in.Content = bytes.NewReader(read(t, file(content)))
				}
				s := one(t, der, in)
				if s.Integrity != cms.Intact || strings.Contains(name, "cades") != (s.Level == cms.LevelB) {
					t.Errorf("%s: %s at %s: %s", name, s.Integrity, s.Level, s.Detail)
				}
				if how == "detached" {
					s = one(t, der, cms.Input{Content: bytes.NewReader(append(read(t, file(content)), 0))})
				} else {
					at := bytes.Index(der, read(t, file(content))[:12])
					der[at] ^= 1
					s = one(t, der, cms.Input{})
				}
				if s.Integrity != cms.ContentMismatch && (s.Integrity != cms.SignatureWrong || !strings.Contains(name, "noattr")) {
					t.Errorf("%s, content changed: %s: %s", name, s.Integrity, s.Detail)
				}
			}
		}
	}
	t.Logf("%d variants, %d not made", 3*len(variants), unmade)
}

// unknownToOpenSSL reports whether there are versions of openssl 3 that cannot make a variant.
func unknownToOpenSSL(name string) bool {
	ecdsa, pss := strings.HasPrefix(name, "p256"), strings.Contains(name, "mode:pss")
	return strings.HasPrefix(name, "ed ") || pss && strings.Contains(name, "streamed") ||
		(ecdsa || pss) && (strings.Contains(name, "sha3-") || strings.Contains(name, "sha512-256"))
}

// Two signers, certificates and CRLs on top, signed again.
func TestSeveralSignersFromOpenSSL(t *testing.T) {
	file := needOpenSSL(t)
	writeIdentity(t, rsaID, file("rsa.key"), file("rsa.pem"))
	writeIdentity(t, ecID, file("ec.key"), file("ec.pem"))
	writeIdentity(t, ec384ID, file("third.key"), file("third.pem"))
	write(t, file("content"), text)
	openssl(t, "cms", "-sign", "-nodetach", "-binary", "-keyid", "-outform", "DER", "-in", file("content"), "-out", file("one"),
		"-signer", file("rsa.pem"), "-inkey", file("rsa.key"), "-signer", file("ec.pem"), "-inkey", file("ec.key"))
	openssl(t, "cms", "-resign", "-keyid", "-inform", "DER", "-outform", "DER", "-in", file("one"), "-out", file("two"),
		"-signer", file("third.pem"), "-inkey", file("third.key"))
	d, err := cms.Parse(read(t, file("two")))
	if err != nil {
		t.Fatal(err)
	}
	sigs, err := d.Verify(cms.Input{})
	if err != nil || len(sigs) != 3 || len(d.Certificates) != 3 {
		t.Fatalf("%d signatures, %d certificates, %v", len(sigs), len(d.Certificates), err)
	}
	for i, s := range sigs {
		if s.Integrity != cms.Intact || s.KeyID == nil {
			t.Errorf("signature %d: %s %s", i, s.Integrity, s.Detail)
		}
	}
}

// What Sign makes openssl verifies, as CAdES too.
func TestToOpenSSL(t *testing.T) {
	file := needOpenSSL(t)
	write(t, file("content"), text)
	for name, tc := range map[string]struct {
		id  *identity
		alg primitive.Algorithm
	}{
		"rsa":        {rsaID, primitive.Algorithm{}},
		"rsa-sha512": {rsaID, primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA512}},
		"rsa-sha3":   {rsaID, primitive.Algorithm{Scheme: primitive.PKCS1v15, Hash: crypto.SHA3_256}},
		"pss":        {rsaID, primitive.NewPSS(crypto.SHA256)},
		"pss-short":  {rsaID, primitive.Algorithm{Scheme: primitive.PSS, Hash: crypto.SHA384, MGF: crypto.SHA384, Salt: 20}},
		"p256":       {ecID, primitive.Algorithm{}},
		"p384":       {ec384ID, primitive.Algorithm{}},
	} {
		writeIdentity(t, tc.id, file("key"), file("cert"))
		for _, attached := range []bool{false, true} {
			der, err := cms.Sign(bytes.NewReader(text), cms.SignConfig{
				Certificate: tc.id.der, Signer: tc.id.key, Rand: rand.Reader, Algorithm: tc.alg, SigningTime: noon, Attached: attached,
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			write(t, file("sig"), der)
			args := []string{"cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", file("sig"), "-CAfile", file("cert"), "-attime", fmt.Sprint(noon.Unix()), "-purpose", "any", "-out", file("out")}
			in := cms.Input{}
			if !attached {
				args = append(args, "-content", file("content"))
				in.Content = bytes.NewReader(text)
			}
			openssl(t, args...)
			if !bytes.Equal(read(t, file("out")), text) {
				t.Errorf("%s: openssl reads other content", name)
			}
			s := one(t, der, in)
			if s.Integrity != cms.Intact || s.Level != cms.LevelB || !s.SigningTime.Equal(noon) || tc.alg.Scheme != "" && s.Algorithm != tc.alg {
				t.Errorf("%s: %s %s at %s, %v, %v", name, s.Integrity, s.Detail, s.Level, s.SigningTime, s.Algorithm)
			}
			if again, used, err := cms.Definite(der); err != nil || used != len(der) || !bytes.Equal(again, der) {
				t.Errorf("%s: not DER", name)
			}
		}
	}
}

// A signer that signs something else than it was asked to is found out, as is one with another key.
func TestSignRefuses(t *testing.T) {
	good := cms.SignConfig{Certificate: rsaID.der, Signer: rsaID.key, Rand: rand.Reader}
	good.Chain = [][]byte{rsaID2.der, rsaID.der}
	der, err := cms.Sign(bytes.NewReader(text), good)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := cms.Parse(der); err != nil || len(d.Certificates) != 2 {
		t.Fatalf("not signed with two certificates: %v", err)
	}
	if s := one(t, der, cms.Input{Content: bytes.NewReader(text)}); s.Integrity != cms.Intact || s.Level != cms.LevelBES {
		t.Errorf("%s at %s", s.Integrity, s.Level)
	}
	for name, change := range map[string]func(*cms.SignConfig){
		"no certificate":      func(c *cms.SignConfig) { c.Certificate = nil },
		"no signer":           func(c *cms.SignConfig) { c.Signer = nil },
		"no randomness":       func(c *cms.SignConfig) { c.Rand = nil },
		"another key":         func(c *cms.SignConfig) { c.Signer = rsaID2.key },
		"a key of other kind": func(c *cms.SignConfig) { c.Signer = ecID.key },
		"a liar":              func(c *cms.SignConfig) { c.Signer = liar{rsaID.key} },
		"no such algorithm":   func(c *cms.SignConfig) { c.Algorithm = primitive.Algorithm{Scheme: primitive.PKCS1v15} },
		"raw ECDSA":           func(c *cms.SignConfig) { c.Algorithm, _ = primitive.FromJOSE("ES256") },
	} {
		c := good
		change(&c)
		if _, err := cms.Sign(bytes.NewReader(text), c); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

type liar struct{ crypto.Signer }

func (l liar) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[0] ^= 1
	return l.Signer.(*rsa.PrivateKey).Sign(r, digest, opts)
}

const tsaConfig = `
[tsa]
default_tsa = t
[t]
serial = %[1]s
default_policy = 1.2.3.4.1
digests = sha1, sha256, sha384, sha512
accuracy = secs:1, millisecs:500, microsecs:100
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = %[2]s
[tsa_ext]
extendedKeyUsage = critical,timeStamping
`

// authority is a time-stamping authority of openssl's.
func authority(t testing.TB, file func(string) string, essAlg string) (stamp func(data []byte, hash string) []byte) {
	t.Helper()
	write(t, file("serial"), []byte("41\n"))
	write(t, file("tsa.cnf"), fmt.Appendf(nil, "[req]\ndistinguished_name=dn\n[dn]\n"+tsaConfig, file("serial"), essAlg))
	openssl(t, "req", "-new", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file("tsa.key"), "-subj", "/CN=tsa",
		"-days", "10", "-config", file("tsa.cnf"), "-extensions", "tsa_ext", "-out", file("tsa.pem"))
	return func(data []byte, hash string) []byte {
		write(t, file("data"), data)
		openssl(t, "ts", "-query", "-data", file("data"), "-"+hash, "-cert", "-out", file("query"))
		openssl(t, "ts", "-reply", "-config", file("tsa.cnf"), "-queryfile", file("query"), "-inkey", file("tsa.key"), "-signer", file("tsa.pem"),
			"-sha256", "-token_out", "-out", file("token"))
		return read(t, file("token"))
	}
}

func TestTimeStampsFromOpenSSL(t *testing.T) {
	file := needOpenSSL(t)
	for _, ess := range []string{"sha1", "sha256", "sha512"} {
		stamp := authority(t, file, ess)
		for name, hash := range map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha512": crypto.SHA512} {
			token, err := cms.ParseToken(stamp(text, name))
			if err != nil {
				t.Fatal(err)
			}
			ts := token.Verify(primitive.Digest(hash, text), nil)
			if ts.Integrity != cms.Intact || !ts.OnlyTimeStamping || token.Hash != hash || token.Policy != "1.2.3.4.1" || token.Nonce == nil ||
				!token.Ordering || token.Authority == nil || token.Accuracy.Microseconds() != 1_500_100 {
				t.Errorf("%s: %s %s %+v", name, ts.Integrity, ts.Detail, token)
			}
			if ts := token.Verify(primitive.Digest(hash, text[1:]), nil); ts.Integrity != cms.ContentMismatch {
				t.Errorf("%s, of something else: %s", name, ts.Integrity)
			}
			if ts := token.Verify(nil, nil); ts.Integrity != cms.ContentMissing {
				t.Errorf("%s, of nothing: %s", name, ts.Integrity)
			}
		}
	}

	// In a signature, over its value and over another.
	stamp := authority(t, file, "sha256")
	m := newMade(rsaID)
	m.attrs = append(m.attrs, attribute(oidCertV2, referenceV2(crypto.SHA256, rsaID.der)), attribute(oidTime, []byte("\x17\x0d260401120000Z")))
	m.unsigned = func(value []byte) [][]byte {
		return [][]byte{attribute(oidSigStamp, stamp(value, "sha256"), stamp(text, "sha256"))}
	}
	s := one(t, m.der(t), cms.Input{})
	if s.Integrity != cms.Intact || s.Level != cms.LevelT || len(s.TimeStamps) != 2 || s.TimeStamps[0].Integrity != cms.Intact || s.TimeStamps[1].Integrity != cms.ContentMismatch {
		t.Errorf("%s at %s, %+v", s.Integrity, s.Level, s.TimeStamps)
	}
	if !s.SigningTime.Equal(noon) {
		t.Errorf("signed at %v", s.SigningTime)
	}
	m.crls = tlv(0xa1, oid([]int{1, 3, 6, 1, 5, 5, 7, 16, 2}), tlv(0x30, []byte{10, 1, 6}))
	if s := one(t, m.der(t), cms.Input{}); s.Level != cms.LevelLT {
		t.Errorf("with an OCSP response: %s", s.Level)
	}
}
