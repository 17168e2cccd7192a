package crl

import (
	"fmt"
	"testing"
	"time"
)

// usualEntry is an entry as nearly all are.
func usualEntry(at string, reason byte) []byte {
	return append([]byte("\x30\x2f\x02\x10\x41serialserialser\x17\x0d"+at+reasonOnly), reason)
}

// checkUsual reports where the short way and the long one differ, of the reader and of the gate.
func checkUsual(t *testing.T, b []byte) {
	t.Helper()
	for _, lazy := range []bool{false, true} {
		short, long := rawEntry{lazy: lazy}, rawEntry{lazy: lazy}
		if !short.usual(b) {
			continue
		}
		n, err := long.decode(b)
		if got, want := fmt.Sprintf("%+v", short), fmt.Sprintf("%+v", long); err != nil || n != usualOctets || got != want {
			t.Errorf("%x, lazy %v\ngot  %s\nwant %s\n%d octets, %v", b, lazy, got, want, n, err)
		}
	}
	for _, before := range []string{"", "\x41", "\x41serialserialseq", "\x41serialserialser", "\x41serialserialsetx", "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		start := gateList{buf: b, off: 7, bodyEnd: 7 + int64(len(b))}
		if start.serialN = copy(start.serial[:], before); before != "" {
			start.entries = 1
		}
		short, long := start, start
		if !short.takeUsual(b) {
			if got, want := fmt.Sprintf("%+v", short), fmt.Sprintf("%+v", start); got != want {
				t.Errorf("%x after %x: refused and changed\ngot  %s\nwant %s", b, before, got, want)
			}
			continue
		}
		_, err := long.takeAny(b)
		copy(short.serial[short.serialN:], long.serial[long.serialN:]) // what stands behind a serial means nothing
		if got, want := fmt.Sprintf("%+v", short), fmt.Sprintf("%+v", long); err != nil || got != want {
			t.Errorf("%x after %x\ngot  %s\nwant %s\n%v", b, before, got, want, err)
		}
	}
}

// The short way through entries goes where the long one goes, and all ways that are to be short are.
func TestUsualEntries(t *testing.T) {
	for at := time.Date(1950, 1, 1, 0, 0, 59, 0, time.UTC); at.Year() < 2050; at = at.Add(23*time.Hour + 59*time.Minute) {
		b := usualEntry(at.Format("060102150405Z"), 4)
		checkUsual(t, b)
		if e := (rawEntry{}); !e.usual(b) || e.at != at.Unix() {
			t.Fatalf("%s: not the short way, or %d", at, e.at)
		}
		if l := (gateList{buf: b}); !l.takeUsual(b) || l.revoked != gateTimeOf(at) {
			t.Fatalf("%s: not the gate's short way, or %d", at, l.revoked)
		}
	}
	for _, at := range []string{
		"000229000000Z", "010229000000Z", "490229000000Z", "480229235959Z", "500230000000Z", "500631000000Z", "501301000000Z", "500001000000Z",
		"500100000000Z", "500101240000Z", "500101006000Z", "500101000060Z", "5001010000/0Z", "50010100000:Z", "500101000000z", "999999999999Z",
	} {
		checkUsual(t, usualEntry(at, 1))
	}
	good := usualEntry("260401090000Z", 1)
	for i := range good {
		for octet := range 256 {
			b := append([]byte(nil), good...)
			b[i] = byte(octet)
			checkUsual(t, b)
			checkUsual(t, append(b, good...))
		}
		checkUsual(t, good[:i])
	}
}

func FuzzUsualEntries(f *testing.F) {
	f.Add(usualEntry("260401090000Z", 1))
	f.Add(usualEntry("000229000000Z", 10))
	f.Fuzz(func(t *testing.T, b []byte) { checkUsual(t, b) })
}
