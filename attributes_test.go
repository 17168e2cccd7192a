package jpki_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/openjpki/jpki"
)

func sample() jpki.Attributes {
	return jpki.Attributes{
		Name: "黒桐　幹也", NameSubstitutes: "00001",
		Sex: jpki.Male, BirthDate: jpki.NewBirthDate(1980, time.February, 17),
		Address: "東京都清瀬市中里五丁目８４２番地", AddressSubstitutes: "0000000000000000",
	}
}

// reveals names the parts of the sample that a text gives away, in any of the ways in which fmt writes a string.
func reveals(text string) (found []string) {
	a := sample()
	for _, secret := range []string{a.Name, "黒桐", "幹也", a.Address, "清瀬", string(a.BirthDate), "1980", a.NameSubstitutes} {
		for _, form := range []string{secret, fmt.Sprintf("%+q", secret)[1:], fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret)} {
			if strings.Contains(text, strings.TrimSuffix(form, `"`)) {
				found = append(found, secret)
				break
			}
		}
	}
	return found
}

func TestRevealsSees(t *testing.T) {
	type plain jpki.Attributes // without the methods that hide
	for _, format := range []string{"%v", "%+v", "%#v", "%q", "%+q", "%x", "%X", "%d", "%s"} {
		if text := fmt.Sprintf(format, plain(sample())); len(reveals(text)) == 0 {
			t.Errorf("%s shows %s, which is not noticed", format, text)
		}
	}
}

func TestNoVerbRevealsAttributes(t *testing.T) {
	a := sample()
	type holder struct {
		ID         string
		Attributes jpki.Attributes
		Previous   *jpki.Attributes
	}
	values := map[string]any{
		"value": a, "pointer": &a, "slice": []jpki.Attributes{a}, "map": map[string]jpki.Attributes{"x": a},
		"struct": holder{"h", a, &a}, "event": jpki.Event{ID: "e", Attributes: &a}, "any": []any{a},
	}
	for name, v := range values {
		for c := 'A'; c <= 'z'; c++ {
			if c == 'p' || c == 'w' {
				continue // fmt reports their misuse without asking the value; vet, which go test runs, refuses both
			}
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "30", ".3", "+#-030.200"} {
				format := "%" + flags + string(c)
				if text := fmt.Sprintf(format, v); len(reveals(text)) > 0 {
					t.Errorf("%s of %s reveals %v", format, name, reveals(text))
				}
			}
		}
		for printer, text := range map[string]string{"Sprint": fmt.Sprint(v), "Sprintln": fmt.Sprintln(v), "Errorf": fmt.Errorf("issue for %v", v).Error()} {
			if len(reveals(text)) > 0 {
				t.Errorf("%s of %s reveals %v", printer, name, reveals(text))
			}
		}
	}
	for name, text := range map[string]string{"String": a.String(), "GoString": a.GoString()} {
		if len(reveals(text)) > 0 {
			t.Errorf("%s reveals %v", name, reveals(text))
		}
	}
}

func TestNoLogRevealsAttributes(t *testing.T) {
	a := sample()
	handlers := map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	}
	for name, handler := range handlers {
		var b bytes.Buffer
		log := slog.New(handler(&b)).With("bound", a)
		log.Info("issued", "attributes", a, "pointer", &a, slog.Group("holder", "attributes", a), "error", fmt.Errorf("issue for %v", a))
		if found := reveals(b.String()); len(found) > 0 {
			t.Errorf("the %s handler reveals %v: %s", name, found, b.String())
		}
		if n := strings.Count(b.String(), "[redacted]"); n != 5 {
			t.Errorf("the %s handler shows %d placeholders, want 5: %s", name, n, b.String())
		}
	}
}

func TestAttributesJSON(t *testing.T) {
	in := sample()
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out jpki.Attributes
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Error(diff)
	}
	if want := `{"name":"黒桐　幹也","name_substitutes":"00001","sex":"1","birth_date":"319800217"`; !strings.HasPrefix(string(b), want) {
		t.Errorf("got %s, want it to begin with %s", b, want)
	}
}

func TestValidate(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*jpki.Attributes){
		"longest name": func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = strings.Repeat("𠮷", jpki.MaxNameLength), "" },
		"longest address": func(a *jpki.Attributes) {
			a.Address, a.AddressSubstitutes = strings.Repeat("町", jpki.MaxAddressLength), ""
		},
		"no marks":           func(a *jpki.Attributes) { a.NameSubstitutes, a.AddressSubstitutes = "", "" },
		"Latin name":         func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "O'BRIEN MARY-JANE", "" },
		"variation selector": func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "葛\U000e0100城", "000" },
		"unknown birth date": func(a *jpki.Attributes) { a.BirthDate = "000000000" },
		"unknown sex":        func(a *jpki.Attributes) { a.Sex = jpki.SexUnknown },
		"sex not applicable": func(a *jpki.Attributes) { a.Sex = jpki.SexNotApplicable },
	} {
		a := sample()
		change(&a)
		if err := a.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*jpki.Attributes){
		"no name":    func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "", "" },
		"no address": func(a *jpki.Attributes) { a.Address, a.AddressSubstitutes = "", "" },
		"long name":  func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = strings.Repeat("桐", jpki.MaxNameLength+1), "" },
		"long address": func(a *jpki.Attributes) {
			a.Address, a.AddressSubstitutes = strings.Repeat("町", jpki.MaxAddressLength+1), ""
		},
		"not UTF-8":           func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "黒\xff桐", "" },
		"line break":          func(a *jpki.Attributes) { a.Address, a.AddressSubstitutes = "東京都\n清瀬市", "" },
		"zero octet":          func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "黒桐\x00", "" },
		"delete":              func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "黒桐\x7f", "" },
		"C1 control":          func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "黒桐\u009b", "" },
		"one mark too few":    func(a *jpki.Attributes) { a.NameSubstitutes = "0000" },
		"one mark too many":   func(a *jpki.Attributes) { a.AddressSubstitutes += "0" },
		"marks by octet":      func(a *jpki.Attributes) { a.NameSubstitutes = strings.Repeat("0", len(a.Name)) },
		"other mark":          func(a *jpki.Attributes) { a.NameSubstitutes = "00002" },
		"wide mark":           func(a *jpki.Attributes) { a.Name, a.NameSubstitutes = "黒桐幹", "０" },
		"sex of no code":      func(a *jpki.Attributes) { a.Sex = "4" },
		"no sex":              func(a *jpki.Attributes) { a.Sex = "" },
		"birth date no date":  func(a *jpki.Attributes) { a.BirthDate = "319800230" },
		"birth date no era":   func(a *jpki.Attributes) { a.BirthDate = "19800217" },
		"birth date too late": func(a *jpki.Attributes) { a.BirthDate = "619800217" },
	} {
		a := sample()
		change(&a)
		err := a.Validate()
		if err == nil {
			t.Errorf("%s passes", name)
			continue
		}
		if found := reveals(err.Error()); len(found) > 0 {
			t.Errorf("%s: the error %q reveals %v", name, err, found)
		}
	}
}

func TestParseBirthDate(t *testing.T) {
	for text, want := range map[string][3]int{
		"319800217": {1980, 2, 17},
		"419900102": {1990, 1, 2},
		"520200229": {2020, 2, 29}, // a leap year
		"420000229": {2000, 2, 29}, // divisible by 400
		"400000000": {},            // only the era is known
		"000000000": {},            // nothing is
		"319800000": {1980, 0, 0},
		"319800200": {1980, 2, 0},
		"319451231": {1945, 12, 31},
		"118991231": {1899, 12, 31},
	} {
		b, err := jpki.ParseBirthDate(text)
		if err != nil || string(b) != text {
			t.Errorf("ParseBirthDate(%q) = %q, %v", text, b, err)
			continue
		}
		y, m, d := b.Parts()
		if got := [3]int{y, m, d}; got != want {
			t.Errorf("%s: parts %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{
		"", "19800217", "3198002170", "31980-2-17", "３19800217", "3 9800217", "+19800217",
		"619800217",              // no such era
		"319810229", "119000229", // no leap years
		"319800431", "319801301", "319800132", "319800199", // no such days
		"300000217", "300000200", "300000017", "319800017", // known parts below unknown ones
	} {
		if b, err := jpki.ParseBirthDate(text); err == nil || b != "" {
			t.Errorf("ParseBirthDate(%q) = %q, %v", text, b, err)
		}
	}
	if y, m, d := jpki.BirthDate("1980").Parts(); y != 0 || m != 0 || d != 0 {
		t.Errorf("the parts of no birth date: %d %d %d", y, m, d)
	}
}

func TestNewBirthDateEras(t *testing.T) {
	for _, c := range []struct {
		first time.Time // the era's first day
		era   byte
	}{
		{time.Date(1912, time.July, 30, 0, 0, 0, 0, time.UTC), '2'},
		{time.Date(1926, time.December, 25, 0, 0, 0, 0, time.UTC), '3'},
		{time.Date(1989, time.January, 8, 0, 0, 0, 0, time.UTC), '4'},
		{time.Date(2019, time.May, 1, 0, 0, 0, 0, time.UTC), '5'},
	} {
		for day, era := range map[time.Time]byte{c.first: c.era, c.first.AddDate(0, 0, 1): c.era, c.first.AddDate(0, 0, -1): c.era - 1} {
			b := jpki.NewBirthDate(day.Date())
			if want := string(era) + day.Format("20060102"); string(b) != want {
				t.Errorf("%s: got %s, want %s", day.Format(time.DateOnly), b, want)
			}
			if _, err := jpki.ParseBirthDate(string(b)); err != nil {
				t.Errorf("%s: %v", b, err)
			}
		}
	}
	if b := jpki.NewBirthDate(1899, time.December, 31); b != "118991231" {
		t.Errorf("in Meiji: %s", b)
	}
}

func FuzzParseBirthDate(f *testing.F) {
	for _, s := range []string{"319800217", "400000000", "419810229", "319800017", "abc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := jpki.ParseBirthDate(text)
		if err != nil {
			return
		}
		y, m, d := b.Parts()
		if got := fmt.Sprintf("%c%04d%02d%02d", text[0], y, m, d); got != text {
			t.Errorf("%q has the parts of %q", text, got)
		}
		if y == 0 || m == 0 || d == 0 {
			return
		}
		if day := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC); day.Format("20060102") != text[1:] {
			t.Errorf("%q is taken for a date", text)
		}
	})
}
