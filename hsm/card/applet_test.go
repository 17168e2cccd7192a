package card_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
)

const (
	selectJPKI   = "00A4040C0AD392F000260100000001"
	selectPerso  = "00A4040C0B" + "F04A504B492D504552534F"
	selectNext   = "00A4040C0A" + "F04A504B492D4E455854"
	authPINFile  = "00A4020C020018"
	signPINFile  = "00A4020C02001B"
	authKeyFile  = "00A4020C020017"
	signKeyFile  = "00A4020C02001A"
	signCertFile = "00A4020C020001"
	countPIN     = "00200080"
	rightAuthPIN = "0020008004" + "31323334"
	wrongAuthPIN = "0020008004" + "30303030"
	rightSignPIN = "0020008006" + "414243313233"
	wrongSignPIN = "0020008006" + "414243313234"
	digestInfo   = "3031300D060960864801650304020105000420"
)

func session(t testing.TB, c *card.Card) *card.Session {
	t.Helper()
	s, err := card.NewSession(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// say gives commands to a card and returns the last answer.
func say(t testing.TB, s *card.Session, commands ...string) (data []byte, w card.StatusWord) {
	t.Helper()
	for _, text := range commands {
		c, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if data, w, err = card.ParseResponse(s.Transmit(c)); err != nil {
			t.Fatal(err)
		}
	}
	return data, w
}

// certified is newCard with all four certificates.
func certified(t *testing.T) *card.Card {
	t.Helper()
	c := newCard(t)
	for i, kind := range card.Kinds {
		if err := c.WriteCertificate(kind, certify(t, publicKey(t, c, kind, pins[kind]), int64(i+1), false)); err != nil {
			t.Fatal(err)
		}
		if err := c.WriteCACertificate(kind, certify(t, publicKey(t, c, kind, pins[kind]), int64(i+11), true)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Each row begins with a card that was just put under power.
func TestStatusWords(t *testing.T) {
	c := certified(t)
	for _, row := range []struct {
		name     string
		commands []string
		want     card.StatusWord
	}{
		{"JPKI applet", []string{selectJPKI}, 0x9000},
		{"PIV's applet", []string{"00A4040009A00000030800001000"}, 0x6A82},
		{"OpenPGP's applet", []string{"00A4040006D27600012401"}, 0x6A82},
		{"the next generation's applet", []string{selectNext}, 0x6A82},
		{"personalisation of an active card", []string{selectPerso}, 0x6A82},
		{"a part of the name", []string{"00A4040C05D392F00026"}, 0x6A82},
		{"master file", []string{"00A40000"}, 0x6A86},
		{"path", []string{selectJPKI, "00A4080C0450150001"}, 0x6A86},
		{"file without applet", []string{authPINFile}, 0x6A82},
		{"file", []string{selectJPKI, authPINFile}, 0x9000},
		{"no such file", []string{selectJPKI, "00A4020C020099"}, 0x6A82},
		{"half a file", []string{selectJPKI, "00A4020C0118"}, 0x6700},
		{"counter", []string{selectJPKI, authPINFile, countPIN}, 0x63C3},
		{"counter, as T=0 asks", []string{selectJPKI, signPINFile, countPIN + "00"}, 0x63C5},
		{"counter after the right PIN", []string{selectJPKI, authPINFile, rightAuthPIN, countPIN}, 0x63C3},
		{"counter without a PIN file", []string{selectJPKI, authKeyFile, countPIN}, 0x6985},
		{"counter without an applet", []string{countPIN}, 0x6D00},
		{"another reference", []string{selectJPKI, authPINFile, "00200081"}, 0x6A86},
		{"a PIN longer than any", []string{selectJPKI, authPINFile, "0020008011" + strings.Repeat("31", 17)}, 0x6700},
		{"right PIN", []string{selectJPKI, authPINFile, rightAuthPIN}, 0x9000},
		{"read without a file", []string{selectJPKI, "00B0000000"}, 0x6985},
		{"read a key", []string{selectJPKI, authKeyFile, "00B0000000"}, 0x6985},
		{"read a PIN", []string{selectJPKI, authPINFile, rightAuthPIN, "00B0000000"}, 0x6985},
		{"authentication certificate", []string{selectJPKI, "00A4020C02000A", "00B0000000"}, 0x9000},
		{"by short identifier", []string{selectJPKI, "00B08A0004"}, 0x9000},
		{"behind its end", []string{selectJPKI, "00A4020C02000A", "00B07FFF00"}, 0x6B00},
		{"signature certificate", []string{selectJPKI, signCertFile, "00B0000000"}, 0x6982},
		{"by short identifier", []string{selectJPKI, "00B0810004"}, 0x6982},
		{"after the other PIN", []string{selectJPKI, authPINFile, rightAuthPIN, signCertFile, "00B0000000"}, 0x6982},
		{"after its PIN", []string{selectJPKI, signPINFile, rightSignPIN, signCertFile, "00B0000000"}, 0x9000},
		{"its authority's", []string{selectJPKI, "00A4020C020002", "00B0000000"}, 0x9000},
		{"sign without PIN", []string{selectJPKI, authKeyFile, "802A00800101" + "00"}, 0x6982},
		{"sign after the other PIN", []string{selectJPKI, authPINFile, rightAuthPIN, signKeyFile, "802A00800101" + "00"}, 0x6982},
		{"sign", []string{selectJPKI, authPINFile, rightAuthPIN, authKeyFile, "802A00800101" + "00"}, 0x9000},
		{"sign by short identifier", []string{selectJPKI, authPINFile, rightAuthPIN, "802A00970101" + "00"}, 0x9000},
		{"sign nothing", []string{selectJPKI, authPINFile, rightAuthPIN, authKeyFile, "802A008000"}, 0x6700},
		{"sign too much", []string{selectJPKI, authPINFile, rightAuthPIN, authKeyFile, "802A0080F6" + strings.Repeat("00", 246) + "00"}, 0x6700},
		{"sign with padding of the card's", []string{selectJPKI, authPINFile, rightAuthPIN, authKeyFile, "802A01800101" + "00"}, 0x6A86},
		{"sign with a PIN file", []string{selectJPKI, authPINFile, rightAuthPIN, "802A00800101" + "00"}, 0x6985},
		{"sign in the other class", []string{selectJPKI, "002A00800101" + "00"}, 0x6E00},
		{"the applet selected again forgets the PIN", []string{selectJPKI, authPINFile, rightAuthPIN, selectJPKI, authKeyFile, "802A00800101" + "00"}, 0x6982},
		{"a refused applet forgets nothing", []string{selectJPKI, authPINFile, rightAuthPIN, selectNext, authKeyFile, "802A00800101" + "00"}, 0x9000},
		{"a wrong PIN forgets the right one", []string{selectJPKI, authPINFile, rightAuthPIN, wrongAuthPIN, authKeyFile, "802A00800101" + "00"}, 0x6982},
		{"the right one again", []string{selectJPKI, authPINFile, rightAuthPIN, countPIN}, 0x63C3},
		{"change without PIN", []string{selectJPKI, authPINFile, "002401800434333231"}, 0x6982},
		{"change to no PIN", []string{selectJPKI, authPINFile, rightAuthPIN, "002401800434333241"}, 0x6A80},
		{"change to the same", []string{selectJPKI, authPINFile, rightAuthPIN, "002401800431323334"}, 0x9000},
		{"write", []string{selectJPKI, "00A4020C02000A", "00D600000430820001"}, 0x6D00},
		{"unknown instruction", []string{selectJPKI, "00FF0000"}, 0x6D00},
		{"chained", []string{selectJPKI, "10200080"}, 0x6884},
		{"secure messaging", []string{selectJPKI, "0C200080"}, 0x6882},
		{"logical channel", []string{selectJPKI, "01200080"}, 0x6881},
		{"foreign class", []string{selectJPKI, "90200080"}, 0x6E00},
		{"rest of nothing", []string{selectJPKI, "00C0000000"}, 0x6985},
		{"no command", []string{"00"}, 0x6700},
	} {
		if _, got := say(t, session(t, c), row.commands...); got != row.want {
			t.Errorf("%s: %04X, want %04X", row.name, uint16(got), uint16(row.want))
		}
	}
}

// What the applet gives is what the card has: files, whole and in parts, and signatures that crypto/rsa takes, whole or fetched.
func TestFilesAndSignatures(t *testing.T) {
	c := certified(t)
	s := session(t, c)
	der, err := c.Certificate(jpki.CardAuth, "")
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, selectJPKI, "00A4020C02000A")
	var got []byte
	for part := []byte{0}; len(part) > 0; got = append(got, part...) {
		part, _ = say(t, s, fmt.Sprintf("00B0%04X00", len(got)))
	}
	if !bytes.Equal(got, der) {
		t.Error("another certificate was read")
	}
	if got, w := say(t, s, "00B00000000000"); w != 0x9000 || !bytes.Equal(got, der) {
		t.Errorf("with extended length: %d octets, %04X", len(got), uint16(w))
	}
	if got, _ := say(t, s, "00B0880003"); !bytes.Equal(got, []byte{0x8F, 0x8F, 0}) {
		t.Errorf("presence: %X", got)
	}
	if got, _ := say(t, s, "00B0860000"); len(got) != 160 || !bytes.HasPrefix(got, []byte("JPKIAPICCTOKEN2                 ")) || !bytes.HasSuffix(got, []byte("9999999999999999")) {
		t.Errorf("token information: %q", got)
	}
	digest := sha256.Sum256([]byte("message"))
	sign := "802A008033" + digestInfo + hex.EncodeToString(digest[:])
	pub := publicKey(t, c, jpki.CardAuth, authPIN)
	say(t, s, authPINFile, rightAuthPIN, authKeyFile)
	whole, w := say(t, s, sign+"00")
	if w != 0x9000 || rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], whole) != nil {
		t.Errorf("signature: %04X", uint16(w))
	}
	head, w := say(t, s, sign+"40")
	if n, more := w.Rest(); !more || n != 192 || len(head) != 64 {
		t.Fatalf("a part: %d octets, %04X", len(head), uint16(w))
	}
	tail, w := say(t, s, "00C00000C0")
	if w != 0x9000 || !bytes.Equal(append(head, tail...), whole) {
		t.Errorf("the rest: %d octets, %04X", len(tail), uint16(w))
	}
	if _, w := say(t, s, sign); w != 0x6100 { // no answer was asked for, and 256 octets wait
		t.Errorf("without an expected length: %04X", uint16(w))
	}
	s.Reset()
	if _, w := say(t, s, selectJPKI, authKeyFile, sign+"00"); w != 0x6982 {
		t.Errorf("after a reset: %04X", uint16(w))
	}
}

// The lock outlives the session, and the right PIN before it fills the counter.
func TestLockByCommands(t *testing.T) {
	c := newCard(t)
	for i, row := range []struct {
		pin, wrong, right string
		tries             int
	}{{authPINFile, wrongAuthPIN, rightAuthPIN, 3}, {signPINFile, wrongSignPIN, rightSignPIN, 5}} {
		if _, w := say(t, session(t, c), selectJPKI, row.pin, row.wrong, row.right, countPIN); w != card.StatusWord(0x63C0+row.tries) {
			t.Errorf("%d: after wrong and right: %04X", i, uint16(w))
		}
		for left := row.tries - 1; left >= 0; left-- {
			if _, w := say(t, session(t, c), selectJPKI, row.pin, row.wrong); w != card.StatusWord(0x63C0+left) {
				t.Errorf("%d: wrong PIN: %04X, want %d left", i, uint16(w), left)
			}
		}
		again, err := card.Open(c.Path())
		if err != nil {
			t.Fatal(err)
		}
		for _, pin := range []string{row.right, row.wrong} {
			if _, w := say(t, session(t, again), selectJPKI, row.pin, pin); w != 0x6984 {
				t.Errorf("%d: when locked: %04X", i, uint16(w))
			}
		}
		if _, w := say(t, session(t, again), selectJPKI, row.pin, countPIN); w != 0x63C0 {
			t.Errorf("%d: counter when locked: %04X", i, uint16(w))
		}
	}
}

func blankCard(t testing.TB, of card.KeyType) *card.Card {
	t.Helper()
	c, err := card.New(card.Config{Dir: t.TempDir(), ID: "BLANK-1", Keys: of, Blank: true, Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A blank card of the next generation gets keys, PINs and certificates by our commands, and is closed to them afterwards.
func TestPersonalisationByCommands(t *testing.T) {
	c := blankCard(t, card.P384)
	s := session(t, c)
	if _, w := say(t, s, selectJPKI); w != 0x6A82 {
		t.Errorf("today's applet on a card of the next generation: %04X", uint16(w))
	}
	if id, _ := say(t, s, selectPerso, "00CA000000"); string(id) != "BLANK-1" {
		t.Errorf("number %q", id)
	}
	if of, _ := say(t, s, "00CA000100"); string(of) != "p-384" {
		t.Errorf("keys %q", of)
	}
	for _, row := range []struct {
		name    string
		command string
		want    card.StatusWord
	}{
		{"activation", "00440000", 0x6985},
		{"a PIN that is none", "00DA0018043132333A", 0x6A80},
		{"a PIN for a key", "00DA00170431323334", 0x6A86},
		{"a key for a PIN", "0047001800", 0x6A86},
		{"write into nothing", "00D6000004308200FF", 0x6985},
	} {
		if _, w := say(t, s, row.command); w != row.want {
			t.Errorf("%s on a blank card: %04X, want %04X", row.name, uint16(w), uint16(row.want))
		}
	}
	if _, w := say(t, s, selectNext, authPINFile, rightAuthPIN); w != 0x6985 {
		t.Errorf("a PIN that was never set: %04X", uint16(w))
	}
	if _, err := c.Sign(jpki.CardAuth, authPIN, make([]byte, 48), 0); err == nil {
		t.Error("a blank card signs")
	}

	say(t, s, selectPerso)
	for _, set := range []string{"00DA00180431323334", "00DA001B06414243313233"} {
		if _, w := say(t, s, set); w != 0x9000 {
			t.Fatalf("set PIN: %04X", uint16(w))
		}
	}
	for _, ids := range map[jpki.Kind][3]string{jpki.CardAuth: {"17", "000A", "000B"}, jpki.CardSign: {"1A", "0001", "0002"}} {
		der, w := say(t, s, "004700"+ids[0]+"00")
		again, _ := say(t, s, "004700"+ids[0]+"00")
		if w != 0x9000 || !bytes.Equal(der, again) {
			t.Fatalf("a key asked for again is another: %04X", uint16(w))
		}
		pub, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			t.Fatal(err)
		}
		cert, ca := certify(t, pub, 1, false), certify(t, pub, 2, true)
		write := func(id string, der []byte) (w card.StatusWord) {
			_, w = say(t, s, "00A4020C02"+id)
			for at := 0; at < len(der) && w == 0x9000; at += 200 {
				part := der[at:min(len(der), at+200)]
				_, w = say(t, s, fmt.Sprintf("00D6%04X%02X%X", at, len(part), part))
			}
			return w
		}
		foreign := certify(t, publicKey(t, newCard(t), jpki.CardAuth, authPIN), 3, false)
		if w := write(ids[1], foreign); w != 0x6A80 {
			t.Errorf("a certificate for another key: %04X", uint16(w))
		}
		if _, w := say(t, s, "00A4020C02"+ids[1], "00D6000004308200FF", "00D600050400000000"); w != 0x6B00 {
			t.Errorf("a part that does not follow: %04X", uint16(w))
		}
		if _, w := say(t, s, "00D600000430800000"); w != 0x6A80 {
			t.Errorf("no certificate: %04X", uint16(w))
		}
		if w := write(ids[1], cert); w != 0x9000 {
			t.Errorf("certificate: %04X", uint16(w))
		}
		if w := write(ids[2], ca); w != 0x9000 {
			t.Errorf("authority's certificate: %04X", uint16(w))
		}
	}
	if _, w := say(t, s, "00440000"); w != 0x9000 {
		t.Fatalf("activation: %04X", uint16(w))
	}
	// Closed for the session that is open as for new ones.
	for _, command := range []string{"00DA00180431323334", "0047001700", "00440000"} {
		if _, w := say(t, s, command); w != 0x6985 {
			t.Errorf("%s after activation: %04X", command, uint16(w))
		}
	}
	if _, w := say(t, s, selectPerso); w != 0x6A82 {
		t.Errorf("the applet after activation: %04X", uint16(w))
	}
	digest := sha512.Sum384([]byte("message"))
	signature, w := say(t, s, selectNext, authPINFile, rightAuthPIN, authKeyFile, "802A008030"+hex.EncodeToString(digest[:])+"00")
	pub, err := c.PublicKey(jpki.CardAuth)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := pub.(*ecdsa.PublicKey); !ok || w != 0x9000 || !ecdsa.VerifyASN1(k, digest[:], signature) {
		t.Errorf("signature by a %T: %04X", pub, uint16(w))
	}
	if _, w := say(t, s, "802A008033"+digestInfo+hex.EncodeToString(digest[:32])+"00"); w != 0x6700 {
		t.Errorf("a DigestInfo for an EC key: %04X", uint16(w))
	}
}

func TestBlankCardsAreStrict(t *testing.T) {
	for _, cfg := range []card.Config{
		{Dir: t.TempDir(), ID: "B1", Blank: true, SignPIN: signPIN, Rand: rand.Reader},
		{Dir: t.TempDir(), ID: "B1", Blank: true, Keys: "p-521", Rand: rand.Reader},
	} {
		if _, err := card.New(cfg); err == nil {
			t.Errorf("made %+v", cfg.Keys)
		}
	}
	// An active card that lacks its key is damage, whatever it calls itself.
	c := blankCard(t, card.RSA2048)
	text, err := os.ReadFile(c.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{`"p-521"`, `""`} {
		if err := os.WriteFile(c.Path(), bytes.Replace(text, []byte(`"rsa-2048"`), []byte(to), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := card.Open(c.Path()); err == nil {
			t.Errorf("opened a card that is blank for %s", to)
		}
	}
}

// Whatever one says to a card without knowing a PIN: every answer is a card's, none has a part of the signature certificate's key in it, nothing is signed,
// and tries are only lost.
func FuzzSession(f *testing.F) {
	for _, s := range []string{selectJPKI + authPINFile + wrongAuthPIN, selectJPKI + signCertFile + "00B0000000", selectJPKI + authKeyFile + "802A0080010100", selectPerso + "004700170000DA00180431323334"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	c := blankCard(f, card.P384)
	for kind, pin := range pins {
		pub, err := c.MakeKey(kind)
		if err != nil {
			f.Fatal(err)
		}
		if err := c.ResetPIN(kind, pin); err != nil {
			f.Fatal(err)
		}
		if err := c.WriteCertificate(kind, certify(f, pub, 1, false)); err != nil {
			f.Fatal(err)
		}
		if err := c.WriteCACertificate(kind, certify(f, pub, 2, true)); err != nil {
			f.Fatal(err)
		}
	}
	if err := c.Activate(); err != nil {
		f.Fatal(err)
	}
	secret, err := c.PublicKey(jpki.CardSign) // in the signature certificate only
	if err != nil {
		f.Fatal(err)
	}
	point, err := secret.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := session(t, c)
		for len(b) > 0 {
			n := min(len(b), 1+int(b[0])%64)
			command := b[:n]
			b = b[n:]
			if bytes.Contains(command, []byte(signPIN)) || bytes.Contains(command, []byte(authPIN)) {
				continue
			}
			before, err := c.Tries(jpki.CardAuth)
			if err != nil {
				t.Fatal(err)
			}
			data, w, err := card.ParseResponse(s.Transmit(command))
			if err != nil {
				t.Fatal(err)
			}
			for at := range len(point) - 8 {
				if bytes.Contains(data, point[at:at+8]) {
					t.Fatalf("%X read from the signature certificate", command)
				}
			}
			if len(command) > 1 && command[1] == card.InsSign && w == card.StatusOK {
				t.Errorf("%X: signed", command)
			}
			if after, err := c.Tries(jpki.CardAuth); err != nil || after > before {
				t.Errorf("%X: %d tries became %d, %v", command, before, after, err)
			}
		}
	})
}
