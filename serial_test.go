package jpki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
)

func TestNewSerial(t *testing.T) {
	const draws = 100_000
	seen := make(map[jpki.Serial]bool, draws)
	for range draws {
		s, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b := s.Bytes()
		if len(b) != jpki.SerialBytes {
			t.Fatalf("%v has %d octets", s, len(b))
		}
		if b[0]&0x80 != 0 || s.Big().Sign() <= 0 {
			t.Fatalf("%v is not positive as a DER INTEGER of %d octets", s, len(b))
		}
		if b[0]&0x40 == 0 {
			t.Fatalf("%v could have been shorter", s)
		}
		seen[s] = true
	}
	if len(seen) != draws {
		t.Errorf("%d of %d serials were drawn before", draws-len(seen), draws)
	}
}

func TestNewSerialUsesEveryBitItMay(t *testing.T) {
	var or, and [jpki.SerialBytes]byte
	for i := range and {
		and[i] = 0xff
	}
	for range 1000 {
		s, err := jpki.NewSerial(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for i, b := range s.Bytes() {
			or[i] |= b
			and[i] &= b
		}
	}
	wantOr, wantAnd := [jpki.SerialBytes]byte{0x7f}, [jpki.SerialBytes]byte{0x40}
	for i := 1; i < len(wantOr); i++ {
		wantOr[i] = 0xff
	}
	if or != wantOr || and != wantAnd {
		t.Errorf("bits ever set %x, always set %x; want %x and %x", or, and, wantOr, wantAnd)
	}
}

func TestNewSerialFailsWithItsSource(t *testing.T) {
	broken := errors.New("no entropy")
	for name, r := range map[string]io.Reader{
		"broken": iotest.ErrReader(broken),
		"short":  bytes.NewReader(make([]byte, jpki.SerialBytes-1)),
	} {
		if s, err := jpki.NewSerial(r); err == nil || !s.IsZero() {
			t.Errorf("%s source: got %v, %v", name, s, err)
		}
	}
	if _, err := jpki.NewSerial(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("the source's error is lost: %v", err)
	}
}

func TestSerialForms(t *testing.T) {
	for _, text := range []string{"01", "7F", "80", "0102", "FF00", strings.Repeat("FF", 20), "52A0" + strings.Repeat("00", 14)} {
		s, err := jpki.ParseSerial(text)
		if err != nil {
			t.Errorf("ParseSerial(%q): %v", text, err)
			continue
		}
		if s.String() != text || s.IsZero() {
			t.Errorf("ParseSerial(%q) prints as %q", text, s)
		}
		fromBytes, err := jpki.SerialFromBytes(append([]byte{0, 0}, s.Bytes()...))
		if err != nil || fromBytes != s {
			t.Errorf("%s: through octets %v, %v", text, fromBytes, err)
		}
		fromBig, err := jpki.SerialFromBig(s.Big())
		if err != nil || fromBig != s {
			t.Errorf("%s: through a big integer %v, %v", text, fromBig, err)
		}
	}
	for _, text := range []string{
		"", "0", "00", "0000", "1", "001", "0001", "ab", "Ab", "0x01", "-01", "+1", " 01", "01 ", "0G", "０１",
		strings.Repeat("11", 21), "00" + strings.Repeat("11", 20),
	} {
		if s, err := jpki.ParseSerial(text); err == nil || !s.IsZero() {
			t.Errorf("ParseSerial(%q) = %v, %v", text, s, err)
		}
	}
	for _, i := range []*big.Int{nil, big.NewInt(0), big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 160)} {
		if s, err := jpki.SerialFromBig(i); err == nil {
			t.Errorf("SerialFromBig(%v) = %v", i, s)
		}
	}
}

func TestSerialBytesAreACopy(t *testing.T) {
	in := []byte{1, 2, 3}
	s, err := jpki.SerialFromBytes(in)
	if err != nil {
		t.Fatal(err)
	}
	in[0] = 9
	s.Bytes()[1] = 9
	if s.String() != "010203" {
		t.Errorf("the serial became %v", s)
	}
}

func TestSerialJSON(t *testing.T) {
	s, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]jpki.Serial{"serial": s}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]jpki.Serial
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmp.Comparer(func(a, b jpki.Serial) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`""`, `"0"`, `"ab"`, `12`, `"00AB"`} {
		var s jpki.Serial
		if err := json.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s became %v", bad, s)
		}
	}
}

// String promises the form of openssl, so openssl is asked.
func TestSerialStringIsWhatOpenSSLPrints(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := jpki.NewSerial(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"01", "0A", "7F", "80", "FFFF", drawn.String()} {
		s, err := jpki.ParseSerial(text)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: s.Big()}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), openssl, "x509", "-inform", "DER", "-noout", "-serial")
		cmd.Stdin = bytes.NewReader(der)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.TrimSpace(string(out)), "serial="+s.String(); got != want {
			t.Errorf("openssl prints %s, we %s", got, want)
		}
	}
}

func FuzzParseSerial(f *testing.F) {
	for _, s := range []string{"01", "7F", "00", "", "ab", strings.Repeat("FF", 20), strings.Repeat("FF", 21)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := jpki.ParseSerial(text)
		if err != nil {
			if !s.IsZero() {
				t.Errorf("%q: an error and a serial, %v", text, s)
			}
			return
		}
		if s.String() != text {
			t.Errorf("%q parses, but prints as %q", text, s)
		}
		if back, err := jpki.SerialFromBig(s.Big()); err != nil || back != s {
			t.Errorf("%q: through a big integer %v, %v", text, back, err)
		}
	})
}
