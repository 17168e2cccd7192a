package crl

import (
	"encoding/binary"
	"testing"
)

// Eight octets are read at once as digits only if each is one, whatever its neighbours.
func TestPairsAreOfDigits(t *testing.T) {
	for at := range 8 {
		for octet := range 256 {
			b := []byte("12345678")
			b[at] = byte(octet)
			got, ok := pairs(binary.LittleEndian.Uint64(b))
			want := 0
			for i := range 4 {
				want |= int(b[2*i]-'0')*10<<(8*i) + int(b[2*i+1]-'0')<<(8*i)
			}
			if digit := octet >= '0' && octet <= '9'; ok != digit || ok && got != want {
				t.Errorf("%q: %#x, %v, want %#x", b, got, ok, want)
			}
		}
	}
}
