package cms_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/openjpki/jpki/verifier/cms"
)

func seeds(f *testing.F) {
	for _, id := range []*identity{rsaID, ecID, edID} {
		f.Add(newMade(id).der(f))
		der, _ := cms.Sign(bytes.NewReader(text), cms.SignConfig{Certificate: id.der, Signer: id.key, Rand: rand.Reader, SigningTime: noon})
		f.Add(der)
	}
	f.Add([]byte("\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80\x24\x80\x04\x01a\x24\x05\x04\x03bcd\x00\x00\x00\x00\x00\x00\x00\x00"))
	if dir := os.Getenv("JPKI_VECTORS"); dir != "" {
		files, _ := filepath.Glob(filepath.Join(dir, "*", "cades", "*.p7?"))
		for _, name := range files {
			if der, err := os.ReadFile(name); err == nil && len(der) < 3<<10 {
				f.Add(der)
			}
		}
	}
}

// What is made definite stays as it is when made so again, and takes no more than was there.
func FuzzDefinite(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if quick, ok, full, same := cms.QuickAndFull(raw); ok && (!same || quick != full) {
			t.Fatalf("the quick look says %d octets stay as they are, the full one %d, %t", quick, full, same)
		}
		der, used, err := cms.Definite(raw)
		if err != nil {
			return
		}
		again, n, err := cms.Definite(der)
		if err != nil || n != len(der) || !bytes.Equal(der, again) || used > len(raw) {
			t.Fatalf("%x became %x, then %x (%d, %v)", raw[:used], der, again, n, err)
		}
	})
}

// What is parsed can be verified without harm, is read the same from its definite form, and is intact only if the signer's
// certificate is at hand.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := cms.Parse(raw)
		if err != nil {
			return
		}
		der, _, _ := cms.Definite(raw)
		again, err := cms.Parse(der)
		if err != nil || !bytes.Equal(again.Content, d.Content) || again.Signers() != d.Signers() || len(again.Certificates) != len(d.Certificates) {
			t.Fatalf("read another time: %v", err)
		}
		in := cms.Input{}
		if d.Detached {
			in.Content = bytes.NewReader(text)
		}
		sigs, err := d.Verify(in)
		if err != nil || len(sigs) != d.Signers() {
			t.Fatalf("%d of %d signatures, %v", len(sigs), d.Signers(), err)
		}
		for _, s := range sigs {
			if s.Integrity == cms.Intact && (s.Certificate == nil || s.Key == nil || s.Algorithm.Scheme == "" || s.Digest == 0) {
				t.Fatalf("intact without facts: %+v", s)
			}
		}
	})
}

func FuzzParseToken(f *testing.F) {
	m := newMade(ecID)
	m.contentType = oidTST
	m.content = tlv(0x30, []byte{2, 1, 1}, []byte{6, 2, 42, 3}, tlv(0x30, hashID(crypto.SHA256), tlv(4, make([]byte, 32))), []byte{2, 1, 9}, []byte("\x18\x0f20260401120000Z"))
	m.attrs = [][]byte{m.typeAttr(), m.digestAttr(), attribute(oidCertV2, referenceV2(crypto.SHA256, ecID.der))}
	der := m.der(f)
	token, err := cms.ParseToken(der)
	if err != nil {
		f.Fatal(err)
	}
	if ts := token.Verify(make([]byte, 32), nil); ts.Integrity != cms.Intact || ts.OnlyTimeStamping || !token.Time.Equal(noon) {
		f.Fatalf("%s %s", ts.Integrity, ts.Detail)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, raw []byte) {
		token, err := cms.ParseToken(raw)
		if err != nil {
			return
		}
		ts := token.Verify(make([]byte, 32), nil)
		if ts.Integrity == cms.Intact && (token.Time.IsZero() || ts.Authority == nil || !bytes.Equal(token.Imprint, make([]byte, 32))) {
			t.Fatalf("intact: %+v", token)
		}
	})
}

// What the quick reader of times reads, package cryptobyte reads the same.
func FuzzUTCTime(f *testing.F) {
	for _, s := range []string{"260401120000Z", "991231235959Z", "500101000000Z", "491231235960Z", "260229000000Z", "240229000000Z", "2604011200Z\x00\x00", "261301000000Z", "260401240000Z"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if len(content) > 100 {
			return
		}
		element := append([]byte{0x17, byte(len(content))}, content...)
		in := cryptobyte.String(element)
		var want time.Time
		if got, ok := cms.UTCTime(element); ok && (!in.ReadASN1UTCTime(&want) || !got.Equal(want)) {
			t.Fatalf("%q: %s, want %s", content, got, want)
		}
	})
}
