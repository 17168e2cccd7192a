package pdf_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openjpki/jpki/verifier/pdf"
)

// What we sign, we and poppler accept, in files of every shape, and qpdf finds nothing wrong with them.
func TestSign(t *testing.T) {
	shapes := map[string]func(t *testing.T) []byte{
		"table":  func(*testing.T) []byte { return document(sample()) },
		"stream": func(*testing.T) []byte { return streamed(split(sample())) },
		"linearized": func(t *testing.T) []byte {
			return qpdf(t, document(sample()), "--linearize")
		},
		"compressed by qpdf": func(t *testing.T) []byte {
			return qpdf(t, document(sample()), "--object-streams=generate", "--compress-streams=y", "--recompress-flate")
		},
		"compressed and linearized": func(t *testing.T) []byte {
			return qpdf(t, document(sample()), "--object-streams=generate", "--linearize")
		},
		"without a form": func(*testing.T) []byte {
			o := sample()
			o[1], o[3] = "<</Type/Catalog/Pages 2 0 R>>", strings.Replace(o[3], "/Annots[6 0 R]", "", 1)
			return document(o)
		},
		"annotations elsewhere": func(*testing.T) []byte {
			o := sample()
			o[3], o[20] = strings.Replace(o[3], "/Annots[6 0 R]", "/Annots 20 0 R", 1), "[6 0 R]"
			return document(o)
		},
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signers := map[string]signer{"RSA": newSigner(t, rsaKey()), "P-384": newSigner(t, p384)}
	for shape, make := range shapes {
		for key, s := range signers {
			t.Run(shape+" "+key, func(t *testing.T) {
				original := make(t)
				first := sign(t, original, s.config())
				if !bytes.HasPrefix(first, original) {
					t.Fatal("the document was changed")
				}
				second := sign(t, first, p256(t).config())
				for i, file := range [][]byte{first, second} {
					d := read(t, file)
					verdicts := d.Verify(nil)
					if len(verdicts) != i+1 {
						t.Fatalf("%d signatures, want %d", len(verdicts), i+1)
					}
					for j, v := range verdicts {
						if v.Err != nil || v.Baseline != pdf.LevelB || len(v.Deviations) > 0 {
							t.Errorf("signature %d of %d: %v, %s %v %v", j, i+1, v.Err, v.Baseline, v.Deviations, v.Changes)
						}
						if whole := d.Signatures[j].WholeFile; whole != (j == i) {
							t.Errorf("signature %d of %d: whole file %t", j, i+1, whole)
						}
					}
					claims := d.Signatures[0].Claims
					if want := (pdf.Claims{Name: "試験 花子", Reason: "Opening an account", Location: "Tokyo", Contact: "-", Time: day}); claims != want {
						t.Errorf("claims %+v", claims)
					}
					path := save(t, file)
					if out := run(t, "pdfsig", "-nocert", path); strings.Count(out, "Signature is Valid.") != i+1 || !strings.Contains(out, "Total document signed") {
						t.Error(out)
					}
					run(t, "qpdf", "--check", path)
				}
			})
		}
	}
}

func qpdf(t testing.TB, file []byte, args ...string) []byte {
	t.Helper()
	in, out := save(t, file), filepath.Join(t.TempDir(), "out.pdf")
	run(t, "qpdf", append(args, in, out)...)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What Sign must refuse.
func TestSignRefuses(t *testing.T) {
	s := p256(t)
	certified := s.config()
	certified.Certify = pdf.AllowNone
	taken := s.config()
	taken.Field = "amount"
	small := s.config()
	small.Reserve = 100
	foreign := s.config()
	foreign.Certificate = newSigner(t, rsaKey()).der
	timeless := s.config()
	timeless.Time = timeless.Time.AddDate(-5000, 0, 0)
	plain := document(sample())
	for name, tc := range map[string]struct {
		file   []byte
		config pdf.SignConfig
		want   error // nil: any
	}{
		"excluded by the author":    {sign(t, plain, certified), s.config(), pdf.ErrModified},
		"certified too late":        {sign(t, plain, s.config()), certified, pdf.ErrModified},
		"name of another field":     {plain, taken, nil},
		"too little room":           {plain, small, nil},
		"another key's certificate": {plain, foreign, nil},
		"nothing required":          {plain, pdf.SignConfig{}, nil},
		"something behind the end":  {append(bytes.Clone(plain), "junk"...), s.config(), pdf.ErrMalformed},
		"no PDF":                    {[]byte("hello"), s.config(), pdf.ErrMalformed},
		"encrypted":                 {qpdf(t, plain, "--encrypt", "a", "b", "256", "--"), s.config(), pdf.ErrEncrypted},
	} {
		var out bytes.Buffer
		err := pdf.Sign(&out, bytes.NewReader(tc.file), int64(len(tc.file)), tc.config)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
		if out.Len() > 0 {
			t.Errorf("%s: %d octets were written", name, out.Len())
		}
	}
}

// placeholder appends a signature of a given dictionary whose value comes from elsewhere.
func placeholder(t testing.TB, file []byte, entries string, value func(signed []byte) []byte) []byte {
	t.Helper()
	return placed(t, file, entries, value, func(file []byte, from, to int) ([]byte, [4]int) {
		return file, [4]int{0, from, to, len(file) - to}
	})
}

// placed is placeholder for a signer who signs something else than he should: finish may append, and says what is signed.
func placed(t testing.TB, file []byte, entries string, value func([]byte) []byte, finish func(file []byte, from, to int) ([]byte, [4]int)) []byte {
	t.Helper()
	const reserve = 4096
	gap := "<" + strings.Repeat("0", 2*reserve) + ">"
	room := strings.Repeat(" ", 60)
	out := update(file, objects{
		3: strings.Replace(sample()[3], "[6 0 R]", "[6 0 R 31 0 R]", 1), 5: strings.Replace(sample()[5], "[6 0 R]", "[6 0 R 31 0 R]", 1),
		30: "<</Type/Sig/Filter/Adobe.PPKLite" + entries + "/M(D:20261123180000+09'00')/ByteRange " + room + "/Contents " + gap + "/Prop_Build null     >>",
		31: "<</Type/Annot/Subtype/Widget/FT/Sig/T(other)/F 132/Rect[0 0 0 0]/P 3 0 R/V 30 0 R>>",
	}, "")
	from := bytes.LastIndex(out, []byte(gap))
	at := bytes.LastIndex(out, []byte(room))
	out, ranges := finish(out, from, from+len(gap))
	copy(out[at:], byteRange(ranges[:]...))
	signed := slices.Concat(out[ranges[0]:ranges[0]+ranges[1]], out[ranges[2]:ranges[2]+ranges[3]])
	hexed := strings.ToUpper(hexOf(value(signed)))
	if len(hexed) > 2*reserve {
		t.Fatalf("the value has %d octets", len(hexed)/2)
	}
	copy(out[from+1:], hexed)
	return out
}

// A signer who signs with a range that leaves room for others is no better than one who signs nothing.
func TestRoomLeftBySigner(t *testing.T) {
	s := newSigner(t, rsaKey())
	for name, tc := range map[string]struct {
		finish func(file []byte, from, to int) ([]byte, [4]int)
		want   error
	}{
		"none": {func(file []byte, from, to int) ([]byte, [4]int) { return file, [4]int{0, from, to, len(file) - to} }, nil},
		"white space behind the end": {func(file []byte, from, to int) ([]byte, [4]int) {
			file = append(file, "\n\n"...)
			return file, [4]int{0, from, to, len(file) - to}
		}, nil},
		"before the value": {func(file []byte, from, to int) ([]byte, [4]int) {
			return file, [4]int{0, from - 10, to, len(file) - to}
		}, pdf.ErrCoverage},
		"behind the value": {func(file []byte, from, to int) ([]byte, [4]int) {
			return file, [4]int{0, from, to + 10, len(file) - to - 10}
		}, pdf.ErrCoverage},
		"delimiters signed": {func(file []byte, from, to int) ([]byte, [4]int) {
			return file, [4]int{0, from + 1, to - 1, len(file) - to + 1}
		}, pdf.ErrCoverage},
		"at the beginning":   {func(file []byte, from, to int) ([]byte, [4]int) { return file, [4]int{9, from - 9, to, len(file) - to} }, pdf.ErrCoverage},
		"at the end":         {func(file []byte, from, to int) ([]byte, [4]int) { return file, [4]int{0, from, to, len(file) - to - 8} }, pdf.ErrCoverage},
		"in front, the rest": {func(file []byte, from, to int) ([]byte, [4]int) { return file, [4]int{0, from, to, 0} }, pdf.ErrCoverage},
		"a revision behind": {func(file []byte, from, to int) ([]byte, [4]int) {
			file = update(file, objects{9: "<<>>"}, "")
			return file, [4]int{0, from, to, len(file) - to}
		}, pdf.ErrCoverage},
	} {
		v := read(t, placed(t, document(sample()), "/SubFilter/adbe.pkcs7.detached", s.openssl(t), tc.finish)).Verify(nil)
		if len(v) != 1 || !errors.Is(v[0].Err, tc.want) {
			t.Errorf("%s: %v, want %v", name, v, tc.want)
		}
	}
}

// pemFiles puts a signer's certificate and key where openssl finds them.
func (s signer) pemFiles(t testing.TB) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err == nil {
		err = os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.der}), 0o600)
	}
	if err == nil {
		err = os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// openssl makes a CMS value.
func (s signer) openssl(t testing.TB, args ...string) func([]byte) []byte {
	return func(signed []byte) []byte {
		cert, key := s.pemFiles(t)
		in, out := save(t, signed), filepath.Join(t.TempDir(), "out.der")
		run(t, "openssl", append([]string{"cms", "-sign", "-binary", "-in", in, "-signer", cert, "-inkey", key, "-outform", "DER", "-out", out}, args...)...)
		der, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

// What openssl and poppler sign, we accept; what is not as it should be, we do not.
func TestSignedElsewhere(t *testing.T) {
	s := newSigner(t, rsaKey())
	for name, tc := range map[string]struct {
		entries string
		args    []string
		want    error
	}{
		"PKCS #7":                           {"/SubFilter/adbe.pkcs7.detached", nil, nil},
		"PKCS #7, PSS":                      {"/SubFilter/adbe.pkcs7.detached", []string{"-keyopt", "rsa_padding_mode:pss"}, nil},
		"CAdES":                             {"/SubFilter/ETSI.CAdES.detached", []string{"-cades"}, nil},
		"CAdES, by key identifier":          {"/SubFilter/ETSI.CAdES.detached", []string{"-cades", "-keyid"}, nil},
		"CAdES without reference":           {"/SubFilter/ETSI.CAdES.detached", nil, pdf.ErrSignature},
		"PKCS #7 with content of its own":   {"/SubFilter/adbe.pkcs7.detached", []string{"-nodetach"}, pdf.ErrSignature},
		"PKCS #7 without certificate":       {"/SubFilter/adbe.pkcs7.detached", []string{"-nocerts"}, pdf.ErrSignature},
		"a deprecated encoding":             {"/SubFilter/adbe.pkcs7.sha1", nil, pdf.ErrUnsupported},
		"no encoding":                       {"", nil, pdf.ErrUnsupported},
		"CMS in place of a time-stamp":      {"/SubFilter/ETSI.RFC3161", nil, pdf.ErrMalformed},
		"PKCS #7 without signed attributes": {"/SubFilter/adbe.pkcs7.detached", []string{"-noattr"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			file := placeholder(t, document(sample()), tc.entries, s.openssl(t, tc.args...))
			v := read(t, file).Verify(nil)
			if len(v) != 1 || !errors.Is(v[0].Err, tc.want) {
				t.Errorf("%v, want %v", v, tc.want)
			}
		})
	}
	t.Run("indefinite length", func(t *testing.T) {
		file := placeholder(t, document(sample()), "/SubFilter/adbe.pkcs7.detached", func(signed []byte) []byte {
			der := s.openssl(t)(signed)
			return append(append([]byte{0x30, 0x80}, der[4:]...), 0, 0)
		})
		if v := read(t, file).Verify(nil); v[0].Err != nil {
			t.Error(v[0].Err)
		}
	})
	t.Run("poppler", func(t *testing.T) {
		cert, key := s.pemFiles(t)
		dir := t.TempDir()
		run(t, "openssl", "pkcs12", "-export", "-in", cert, "-inkey", key, "-name", "me", "-passout", "pass:", "-out", dir+"/me.p12")
		run(t, "certutil", "-N", "-d", "sql:"+dir, "--empty-password")
		run(t, "pk12util", "-i", dir+"/me.p12", "-d", "sql:"+dir, "-W", "")
		file := document(sample())
		for i := range 2 {
			args := []string{"-nssdir", "sql:" + dir, "-nick", "me", "-add-signature"}
			out := filepath.Join(t.TempDir(), "out.pdf")
			run(t, "pdfsig", append(args, save(t, file), out)...)
			var err error
			if file, err = os.ReadFile(out); err != nil {
				t.Fatal(err)
			}
			d := read(t, file)
			if len(d.Signatures) != i+1 {
				t.Fatalf("%d signatures", len(d.Signatures))
			}
			for j, v := range d.Verify(nil) {
				if v.Err != nil {
					t.Errorf("signature %d of %d: %v, %v", j, i+1, v.Err, v.Changes)
				}
			}
		}
	})
}
