package jpki_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/openjpki/jpki"
)

// Two My Numbers that belong to nobody known to us: their check digits are computed by hand from the ordinance.
const (
	myNumber  = "621498320257"
	myNumber2 = "123456789018"
)

func TestContainsMyNumber(t *testing.T) {
	for _, text := range []string{
		myNumber, myNumber2,
		"6214 9832 0257", "1234-5678-9018", "1234 5678-9018", "123456 789018", "1 2 3 4 5 6 7 8 9 0 1 8",
		"６２１４９８３２０２５７", "１２３４　５６７８　９０１８", "１２３４－５６７８－９０１８", "1２3４56789018",
		"1234‐5678‐9018", "1234−5678−9018", "1234–5678–9018", "１２３４ー５６７８ー９０１８", "1234\u00a05678\u00a09018",
		"個人番号は621498320257です。", "マイナンバー：１２３４５６７８９０１８（本人）", "番号621498320257",
		`{"name":"黒桐　幹也","note":"621498320257"}`, `{"n":621498320257}`, `[621498320257]`, `{"a":1,"b":"x 1234-5678-9018"}`,
		"line one\n621498320257\nline three", "tel 03-1234-5678 / 621498320257", "2026 621498320257", "12 1234 5678 9018", "621498320257 12",
		"x621498320257", "No.621498320257", "n621498320257z", "id_621498320257", "/621498320257/", "=621498320257&",
		"52A0 621498320257", "00000000-0000-0000-0000-000000000000 621498320257", "abc１２３４５６７８９０１８",
		`"\u756a\u53f7\uff1a\u3000621498320257"`, `"\u6751621498320257"`, `"\uff16\uff12\uff11\uff14\uff19\uff18\uff13\uff12\uff10\uff12\uff15\uff17"`,
		`"\u0036214\u00398320257"`, `"\n621498320257"`, `"\b621498320257"`, `"\f1234-5678-9018"`, `\621498320257`, `\u 621498320257`, `\u12 621498320257`,
	} {
		if !jpki.ContainsMyNumber(text) {
			t.Errorf("not seen: %s", text)
		}
	}
	for _, text := range []string{
		"", "62149832025", "621498320258", "521498320257", "123456789019", // too short, wrong check digits
		"0621498320257", "6214983202570", "１621498320257", // in longer runs
		"1234  5678  9018", "1234--5678--9018", "1234/5678/9018", "1234.5678.9018", // not groups of one number
		"62A1498320257", "A621498320257", "621498320257F", "52A0621498320257", // in hexadecimal words
		"123e4567-e89b-12d3-a456-621498320257", "urn:uuid:00000000-1234-5678-9018-000000000000", "req-123e4567-e89b-12d3-a456-621498320257",
		"2026-04-01 1231A0F3", "2026 12345674-0000-0000-0000-000000000000", // a date before an identifier
		"5835678256246", "319800217", "03-1234-5678", "2026-04-01T10:30:00+09:00", "13221",
		`\`, `\u`, `\u123`, `\u12`,
	} {
		if jpki.ContainsMyNumber(text) {
			t.Errorf("taken for a My Number: %s", text)
		}
	}
}

func TestJSONOfAnyEncoderIsSeen(t *testing.T) {
	b, err := json.Marshal(map[string]string{"備考": "<" + myNumber + ">"})
	if err != nil {
		t.Fatal(err)
	}
	if !jpki.ContainsMyNumber(string(b)) {
		t.Errorf("not seen: %s", b)
	}
	// Other languages' encoders escape all that is not ASCII.
	var ascii strings.Builder
	for _, c := range "村　" + myNumber + "村" {
		if c < 0x80 {
			ascii.WriteRune(c)
		} else {
			fmt.Fprintf(&ascii, `\u%04x`, c)
		}
	}
	if !jpki.ContainsMyNumber(ascii.String()) {
		t.Errorf("not seen: %s", ascii.String())
	}
}

// The official formula counts digits from the right: 11 − (Σ Pn·Qn mod 11) with Qn = n+1 up to 6 and n−5 from 7, and 0
// when that remainder is 0 or 1.
func TestValidMyNumber(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		first := fmt.Sprintf("%011d", r.Int64N(100_000_000_000))
		sum := 0
		for n := 1; n <= 11; n++ {
			q := n + 1
			if n >= 7 {
				q = n - 5
			}
			sum += int(first[11-n]-'0') * q
		}
		want := 0
		if sum%11 > 1 {
			want = 11 - sum%11
		}
		for digit := range 10 {
			if s := fmt.Sprint(first, digit); jpki.ValidMyNumber(s) != (digit == want) {
				t.Fatalf("%s: the check digit is %d", s, want)
			}
		}
	}
	for _, s := range []string{"", " ", "1234-5678-9018", "１２３４５６７８９０１８", myNumber + " ", " " + myNumber, myNumber + myNumber} {
		if jpki.ValidMyNumber(s) {
			t.Errorf("%q passes", s)
		}
	}
	if !jpki.ValidMyNumber(myNumber) || !jpki.ValidMyNumber(myNumber2) {
		t.Error("the samples do not pass")
	}
}

// Refusing a request because of its own serial number or request identifier would be a fault that shows once in many
// thousand requests. Half of the identifiers are drawn as ours are, half with few letters, where accidents are likely.
func TestIdentifiersAreNoMyNumbers(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n /= 10
	}
	source := rand.NewChaCha8([32]byte{1})
	r := rand.New(source)
	hexDigits := func(n int, digits string) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = digits[r.IntN(10)]
			if r.IntN(20) == 0 {
				b[i] = digits[10+r.IntN(6)]
			}
		}
		return string(b)
	}
	serial := func(i int) string {
		if i%2 == 0 {
			return hexDigits(31, "0123456789ABCDEF") + "A"
		}
		s, err := jpki.NewSerial(source)
		if err != nil {
			t.Fatal(err)
		}
		return s.String()
	}
	uuid := func(i int) string {
		h := hexDigits(32, "0123456789abcdef")
		if i%2 == 0 {
			h = fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64())
		}
		if i%8 == 1 {
			h = h[:20] + myNumber
		}
		return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	}
	contexts := []string{
		"%s", "sign-1/%s", `{"serial":"%s","seq":12}`, "2026-04-01 %s", "at 10 30 %s", "%s 1", "req_%s", "req-%s",
		"https://ca.example/certificates/%s?x=1", "発行の番号%sの証明書", `\u3000%s`,
	}
	for i := range n {
		id := serial(i)
		if i%4 < 2 {
			id = uuid(i)
		}
		if text := fmt.Sprintf(contexts[i%len(contexts)], id); jpki.ContainsMyNumber(text) {
			t.Fatalf("taken for a My Number: %s", text)
		}
	}
}

func FuzzContainsMyNumber(f *testing.F) {
	for _, s := range []string{"", "1", "1234 ", "2026-04-01 ", `\u`, `\u3000`, "00000000-1234-5678-9018", "村", "\xff", "ABC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, ending := range []string{" " + myNumber, "　１２３４５６７８９０１８", " 1234-5678-9018"} {
			if !jpki.ContainsMyNumber(text + ending) {
				t.Errorf("not seen after %q", text)
			}
		}
		if jpki.ValidMyNumber(text) && !jpki.ContainsMyNumber(text) {
			t.Errorf("%q is one, but does not contain one", text)
		}
	})
}
