package card_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki/hsm/card"
)

// The seven forms of ISO/IEC 7816-4 §5.2, and lengths that fit none of them.
func TestParseCommand(t *testing.T) {
	data := bytes.Repeat([]byte{7}, 3)
	for _, row := range []struct {
		text string
		want *card.Command
	}{
		{"00200080", &card.Command{Instruction: 0x20, P2: 0x80}},
		{"00B0010000", &card.Command{Instruction: 0xB0, P1: 1, Expected: 256}},
		{"00B0010004", &card.Command{Instruction: 0xB0, P1: 1, Expected: 4}},
		{"00A4020C03070707", &card.Command{Instruction: 0xA4, P1: 2, P2: 0x0C, Data: data}},
		{"802A00800307070700", &card.Command{Class: 0x80, Instruction: 0x2A, P2: 0x80, Data: data, Expected: 256}},
		{"00B00000000000", &card.Command{Instruction: 0xB0, Expected: 65536, Extended: true}},
		{"00B00000000104", &card.Command{Instruction: 0xB0, Expected: 260, Extended: true}},
		{"00A4020C000003070707", &card.Command{Instruction: 0xA4, P1: 2, P2: 0x0C, Data: data, Extended: true}},
		{"802A00800000030707070100", &card.Command{Class: 0x80, Instruction: 0x2A, P2: 0x80, Data: data, Expected: 256, Extended: true}},
		{"", nil},
		{"00A402", nil},
		{"00A4020C030707", nil},
		{"00A4020C030707070000", nil}, // two octets of expected length after the short form
		{"00A4020C0000", nil},
		{"00A4020C000000FF", nil},
		{"00A4020C00000307070700", nil},
		{"00A4020C001001", nil},
		{"00D6000000FFFF" + "00", nil},
	} {
		in, err := hex.DecodeString(row.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := card.ParseCommand(in)
		switch {
		case row.text == "00A4020C001001": // case 2E is allowed whatever the instruction
			if err != nil || got.Expected != 0x1001 {
				t.Errorf("%s: %+v, %v", row.text, got, err)
			}
		case row.want == nil:
			if err == nil {
				t.Errorf("%s: taken as %+v", row.text, got)
			}
		case err != nil:
			t.Errorf("%s: %v", row.text, err)
		default:
			if d := cmp.Diff(*row.want, got); d != "" {
				t.Errorf("%s: %s", row.text, d)
			}
		}
	}
	long := card.Command{Instruction: 0xD6, Data: make([]byte, card.MaxCommandData), Expected: 1 << 16}
	if got, err := card.ParseCommand(long.Append(nil)); err != nil || len(got.Data) != card.MaxCommandData {
		t.Errorf("the longest command: %v", err)
	}
	long.Data = append(long.Data, 0)
	if _, err := card.ParseCommand(long.Append(nil)); err == nil {
		t.Error("a command longer than the longest was taken")
	}
}

// What is taken as a command says the same octets again, and stays within its limits.
func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{"00200080", "00B0010000", "00A4020C03070707", "802A00800307070700", "00B00000000000", "00A4020C000003070707", "802A00800000030707070100"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := card.ParseCommand(b)
		if err != nil {
			return
		}
		if got := c.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%X says %X", b, got)
		}
		if len(c.Data) > card.MaxCommandData || c.Expected < 0 || c.Expected > 1<<16 {
			t.Errorf("%X: %d octets of data, %d expected", b, len(c.Data), c.Expected)
		}
	})
}
