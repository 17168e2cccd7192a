package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/ceremony"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
	"github.com/openjpki/jpki/crl"
)

var update = flag.Bool("update", false, "write the golden files anew")

var testdata = filepath.Join("..", "testdata")

// goldenTime is when everything golden was made.
var goldenTime = time.Date(2026, 4, 1, 9, 0, 0, 0, jpki.JST)

// goldenKey reads a fixed RSA key.
func goldenKey(t *testing.T, name string) crypto.Signer {
	t.Helper()
	block, _ := pem.Decode(must(os.ReadFile(filepath.Join(testdata, "keys", name+".pem"))))
	key, ok := must(x509.ParsePKCS8PrivateKey(block.Bytes)).(crypto.Signer)
	if !ok {
		t.Fatalf("%s is no signing key", name)
	}
	return key
}

// goldenECDSA derives a fixed key from its name.
func goldenECDSA(curve elliptic.Curve, name string) crypto.Signer {
	sum := sha512.Sum512([]byte(name))
	sum[0] = 0 // below the order
	return must(ecdsa.ParseRawPrivateKey(curve, sum[:(curve.Params().BitSize+7)/8]))
}

// goldens makes everything golden, by file name. A name ending in .tbs.der is of a certificate whose signature is random.
func goldens(t *testing.T) map[string][]byte {
	t.Helper()
	rsaKeys := func(name string) crypto.Signer { return goldenKey(t, name) }
	out, sign := goldenHierarchy(t, ca.Sandbox(), 1, rsaKeys)
	next, _ := goldenHierarchy(t, ca.SandboxNext(), 2, func(name string) crypto.Signer { return goldenECDSA(elliptic.P384(), name) })
	for name, der := range next {
		out["next-"+strings.TrimSuffix(name, ".der")+".tbs.der"] = must(x509.ParseCertificate(der)).RawTBSCertificate
	}

	delegates := must(ceremony.NewSigner(sign.Certificate, sign.Signer, func() time.Time { return goldenTime }))
	delegates.Rand = rand.NewChaCha8([32]byte{9})
	out["responder.der"] = must(delegates.Responder(goldenECDSA(elliptic.P256(), "responder"), sign.ID)).Raw

	random := rand.NewChaCha8([32]byte{7})
	entries := []crl.Entry{
		{Serial: must(jpki.NewSerial(random)), At: goldenTime.AddDate(0, -1, 0), Reason: jpki.AffiliationChanged},
		{Serial: must(jpki.NewSerial(random)), At: goldenTime.AddDate(0, 0, -3), Reason: jpki.CertificateHold},
		{Serial: must(jpki.NewSerial(random)), At: goldenTime.AddDate(0, 0, -2), Reason: jpki.Unspecified},
	}
	slices.SortFunc(entries, func(a, b crl.Entry) int { return bytes.Compare(a.Serial.Bytes(), b.Serial.Bytes()) })
	partition, _ := ca.Sandbox().CRLScope("http://status.example", sign.ID, "99101")
	full := crl.Scope{Issuer: sign.ID}
	for name, c := range map[string]struct {
		scope   crl.Scope
		entries []crl.Entry
	}{"crl-partition.der": {partition, entries[:2]}, "crl-full.der": {full, entries}, "crl-empty.der": {partition, nil}} {
		var b bytes.Buffer
		err := crl.Build(&b, crl.Template{IssuerCert: sign.Certificate, Signer: sign.Signer, Number: big.NewInt(20260401), ThisUpdate: goldenTime, NextUpdate: goldenTime.Add(48 * time.Hour), Scope: c.scope}, slices.Values(c.entries))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b.Bytes()
	}
	return out
}

// goldenHierarchy makes both CA certificates of a generation and one certificate of each kind, through the authority.
func goldenHierarchy(t *testing.T, p *ca.Profile, generation int, key func(string) crypto.Signer) (map[string][]byte, ca.Issuer) {
	t.Helper()
	now := goldenTime
	random := rand.NewChaCha8([32]byte{byte(generation)})
	db := storetest.Create(t, "sqlite:"+filepath.Join(t.TempDir(), "golden.db"))
	out := map[string][]byte{}
	var issuers []ca.Issuer
	for _, name := range jpki.CAs {
		k := key("ca-" + string(name))
		i := ca.Issuer{ID: jpki.IssuerID{CA: name, Generation: generation}, Signer: k, Certificate: must(ca.SelfSigned(p, name, k, must(jpki.NewSerial(random)), now.AddDate(0, -1, 0)))}
		out["ca-"+string(name)+".der"] = i.Certificate.Raw
		issuers = append(issuers, i)
	}
	a := must(ca.New(ca.Config{Store: db, Profile: p, Issuers: issuers, StatusURL: "http://status.example", Now: func() time.Time { return now }, Rand: random, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}))
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.AddGeneration(store.Generation{Issuer: issuers[0].ID, Certificate: issuers[0].Certificate.Raw, Active: true}, now),
			tx.AddGeneration(store.Generation{Issuer: issuers[1].ID, Certificate: issuers[1].Certificate.Raw, Active: true}, now))
	})
	if err != nil {
		t.Fatal(err)
	}
	// The second character of the address's last word is outside the repertoire.
	holder := attributes(jpki.NewBirthDate(1980, 2, 17))
	holder.Address += "山\uFA11荘"
	if _, err := a.ApplyResidentEvent(t.Context(), register, jpki.Event{ID: "e1", Holder: "h1", Type: jpki.Registered, EffectiveAt: now, Municipality: "99101", Attributes: holder}); err != nil {
		t.Fatal(err)
	}
	var parent *jpki.CertID
	for i, kind := range jpki.Kinds {
		req := ca.IssueRequest{IdempotencyKey: string(kind), Holder: "h1", Token: string(kind.Token()), Requests: []ca.KeyRequest{{Kind: kind, Request: csr(t, key(fmt.Sprint("holder-", i+1)))}}}
		if kind.Token() == jpki.Phone {
			req.Parent = parent
		}
		got, err := a.Issue(t.Context(), counter, req)
		if err != nil {
			t.Fatal(err)
		}
		if kind == jpki.CardSign {
			parent = &got[0].ID
		}
		out[string(kind)+".der"] = got[0].Certificate
	}
	return out, issuers[0]
}

// What relying parties receive changes only on purpose.
func TestGolden(t *testing.T) {
	made := goldens(t)
	dir := filepath.Join(testdata, "golden")
	if *update {
		for _, old := range must(filepath.Glob(filepath.Join(dir, "*"))) {
			if err := os.Remove(old); err != nil {
				t.Fatal(err)
			}
		}
		for name, der := range made {
			err := errors.Join(os.WriteFile(filepath.Join(dir, name), der, 0o644), os.WriteFile(filepath.Join(dir, twin(name)), []byte(dump(der)), 0o644))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, der := range made {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Errorf("%v (make golden)", err)
			continue
		}
		if !bytes.Equal(want, der) {
			t.Errorf("%s is not what it was (make golden, if it should not be); -was +is:\n%s", name, cmp.Diff(dump(want), dump(der)))
		}
		if text := must(os.ReadFile(filepath.Join(dir, twin(name)))); string(text) != dump(want) {
			t.Errorf("%s is not the twin of %s", twin(name), name)
		}
	}
	if files := must(filepath.Glob(filepath.Join(dir, "*.der"))); len(files) != len(made) {
		t.Errorf("%d golden files for %d certificates and CRLs", len(files), len(made))
	}
}

func twin(name string) string { return strings.TrimSuffix(name, ".der") + ".txt" }

// Strangers read the golden files: OpenSSL, and zlint with the rules of the RFCs.
func TestGoldenFilesSatisfyStrangers(t *testing.T) {
	files := must(filepath.Glob(filepath.Join(testdata, "golden", "*.der")))
	if len(files) == 0 {
		t.Fatal("no golden files")
	}
	rules := must(lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC3279, lint.RFC5480, lint.RFC5891, lint.RFC8813},
		ExcludeNames:   []string{"w_distribution_point_missing_ldap_or_uri"}, // a directory name, as in the real CAs' certificates
	}))
	lines := map[string][]string{
		"card-sign":     {"Version: 3 (0x2)", "sha256WithRSAEncryption", "Policy: 2.999.8.5.1.1.20", "Digital Signature, Non Repudiation", "1.2.392.200149.8.5.5.1::砂場　花子", "山〓荘", "::000000000000000010", "Not After : Feb 17 14:59:59 2031 GMT"},
		"card-auth":     {"Policy: 2.999.8.5.1.3.30", "TLS Web Client Authentication", "Digital Signature\n", "OU=JPKI-SANDBOX for user authentication"},
		"phone-sign":    {"Policy: 2.999.8.5.1.1.40", "1.2.392.200149.8.5.5.4::319800217"},
		"phone-auth":    {"Policy: 2.999.8.5.1.3.50"},
		"ca-sign":       {"CA:TRUE", "Certificate Sign, CRL Sign", "Not After : Feb 29 14:59:59 2036 GMT", "DirName:C=JP, O=JPKI-SANDBOX"},
		"ca-auth":       {"CA:TRUE", "OU=JPKI-SANDBOX for user authentication"},
		"responder":     {"CA:FALSE", "OCSP Signing", "OCSP No Check", "Digital Signature\n"},
		"crl-partition": {"Version 2 (0x1)", "Only User Certificates", "Serial Number:", "Affiliation Changed", "Certificate Hold", "CN=Aoba-shi CRLDP"},
		"crl-full":      {"Serial Number:", "Certificate Hold"},
		"crl-empty":     {"No Revoked Certificates"},
	}
	for _, file := range files {
		der := must(os.ReadFile(file))
		name := strings.TrimSuffix(filepath.Base(file), ".der")
		openssl(t, der, "asn1parse", "-inform", "DER", "-i")
		command := "x509"
		switch {
		case strings.HasSuffix(name, ".tbs"):
			continue
		case strings.HasPrefix(name, "crl-"):
			command = "crl"
		}
		text := strings.ReplaceAll(openssl(t, der, command, "-inform", "DER", "-noout", "-text", "-nameopt", "utf8,sep_comma_plus_space"), " = ", "=")
		if len(lines[name]) == 0 {
			t.Errorf("%s: nothing is asked of it", name)
		}
		for _, want := range lines[name] {
			if !strings.Contains(text, want) {
				t.Errorf("%s: OpenSSL does not show %q in\n%s", name, want, text)
			}
		}
		var results *zlint.ResultSet
		if command == "crl" {
			results = zlint.LintRevocationListEx(must(zx509.ParseRevocationList(der)), rules)
		} else {
			results = zlint.LintCertificateEx(must(zx509.ParseCertificate(der)), rules)
		}
		applied := 0
		for rule, r := range results.Results {
			if r.Status > lint.Notice {
				t.Errorf("%s: %s: %s %s", name, rule, r.Status, r.Details)
			}
			if r.Status == lint.Pass {
				applied++
			}
		}
		if applied == 0 {
			t.Errorf("%s: no rule of zlint's applied", name)
		}
	}
	// And OpenSSL finds that they belong together.
	dir := t.TempDir()
	pemFile := func(name string) string {
		block := &pem.Block{Type: "CERTIFICATE", Bytes: must(os.ReadFile(filepath.Join(testdata, "golden", name+".der")))}
		if strings.HasPrefix(name, "crl-") {
			block.Type = "X509 CRL"
		}
		file := filepath.Join(dir, name+".pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, issuer := range map[string]string{"card-sign": "ca-sign", "phone-sign": "ca-sign", "card-auth": "ca-auth", "phone-auth": "ca-auth", "responder": "ca-sign", "ca-sign": "ca-sign", "ca-auth": "ca-auth"} {
		if out, err := opensslRun("verify", "-attime", timestamp(goldenTime.Add(time.Hour)), "-CAfile", pemFile(issuer), pemFile(name)); err != nil {
			t.Errorf("%s under %s: %s", name, issuer, out)
		}
	}
	for _, name := range []string{"crl-partition", "crl-full", "crl-empty"} {
		if out, err := opensslRun("crl", "-in", pemFile(name), "-CAfile", pemFile("ca-sign"), "-noout"); err != nil || !bytes.Contains(out, []byte("verify OK")) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// oidNames explains object identifiers in dumps.
var oidNames = map[string]string{
	"1.2.840.113549.1.1.1": "rsaEncryption", "1.2.840.113549.1.1.11": "sha256WithRSAEncryption", "1.2.840.10045.2.1": "ecPublicKey",
	"1.2.840.10045.3.1.7": "P-256", "1.3.132.0.34": "P-384", "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
	"2.5.4.3": "commonName", "2.5.4.6": "countryName", "2.5.4.7": "localityName", "2.5.4.10": "organizationName", "2.5.4.11": "organizationalUnitName",
	"2.5.29.14": "subjectKeyIdentifier", "2.5.29.15": "keyUsage", "2.5.29.17": "subjectAltName", "2.5.29.18": "issuerAltName", "2.5.29.19": "basicConstraints",
	"2.5.29.20": "cRLNumber", "2.5.29.21": "reasonCode", "2.5.29.28": "issuingDistributionPoint", "2.5.29.31": "cRLDistributionPoints",
	"2.5.29.32": "certificatePolicies", "2.5.29.35": "authorityKeyIdentifier", "2.5.29.37": "extKeyUsage",
	"1.3.6.1.5.5.7.1.1": "authorityInfoAccess", "1.3.6.1.5.5.7.2.1": "id-qt-cps", "1.3.6.1.5.5.7.3.2": "clientAuth", "1.3.6.1.5.5.7.3.9": "OCSPSigning",
	"1.3.6.1.5.5.7.48.1": "ocsp", "1.3.6.1.5.5.7.48.1.5": "ocsp-nocheck",
	"1.2.392.200149.8.5.5.1": "name", "1.2.392.200149.8.5.5.2": "name substitutes", "1.2.392.200149.8.5.5.3": "sex",
	"1.2.392.200149.8.5.5.4": "birth date", "1.2.392.200149.8.5.5.5": "address", "1.2.392.200149.8.5.5.6": "address substitutes",
	"2.999.8.5.1.1.20": "sandbox card signature", "2.999.8.5.1.3.30": "sandbox card authentication", "2.999.8.5.1.1.40": "sandbox phone signature", "2.999.8.5.1.3.50": "sandbox phone authentication",
}

var tagNames = map[int]string{
	1: "BOOLEAN", 2: "INTEGER", 3: "BIT STRING", 4: "OCTET STRING", 5: "NULL", 6: "OBJECT IDENTIFIER", 10: "ENUMERATED", 12: "UTF8String",
	16: "SEQUENCE", 17: "SET", 19: "PrintableString", 22: "IA5String", 23: "UTCTime", 24: "GeneralizedTime",
}

// dump writes DER for people who read diffs: one value a line, without offsets and lengths, so that a change shows where it
// is and nowhere else.
func dump(der []byte) string {
	var b strings.Builder
	dumpInto(&b, der, 0)
	return b.String()
}

func dumpInto(b *strings.Builder, der []byte, depth int) {
	for len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			fmt.Fprintf(b, "%*snot DER: %X\n", 2*depth, "", der)
			return
		}
		der = rest
		name := tagNames[v.Tag]
		if v.Class == asn1.ClassContextSpecific {
			name = fmt.Sprintf("[%d]", v.Tag)
		}
		fmt.Fprintf(b, "%*s%s", 2*depth, "", name)
		switch {
		case v.IsCompound:
			b.WriteString("\n")
			dumpInto(b, v.Bytes, depth+1)
		case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagBitString && nested(v.Bytes[1:]):
			b.WriteString("\n")
			dumpInto(b, v.Bytes[1:], depth+1)
		case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString && nested(v.Bytes):
			b.WriteString("\n")
			dumpInto(b, v.Bytes, depth+1)
		default:
			b.WriteString(strings.TrimRight(" "+primitive(v), " ") + "\n")
		}
	}
}

// nested reports whether octets are one DER value themselves.
func nested(der []byte) bool {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(der, &v)
	return err == nil && len(rest) == 0 && v.Class == asn1.ClassUniversal && tagNames[v.Tag] != ""
}

func primitive(v asn1.RawValue) string {
	text := utf8.Valid(v.Bytes) && !strings.ContainsFunc(string(v.Bytes), func(r rune) bool { return !unicode.IsGraphic(r) })
	switch {
	case v.Class == asn1.ClassContextSpecific && v.Tag == 6 && text, v.Class == asn1.ClassUniversal && v.Tag >= asn1.TagUTF8String && text:
		return string(v.Bytes)
	case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagBoolean:
		return map[bool]string{true: "TRUE", false: "FALSE"}[v.Bytes[0] != 0]
	case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOID:
		var oid asn1.ObjectIdentifier
		if _, err := asn1.Unmarshal(v.FullBytes, &oid); err == nil {
			return oid.String() + " " + oidNames[oid.String()]
		}
	case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagBitString:
		return fmt.Sprintf("%s, %d unused", strings.ToUpper(hex.EncodeToString(v.Bytes[1:])), v.Bytes[0])
	}
	return strings.ToUpper(hex.EncodeToString(v.Bytes))
}
