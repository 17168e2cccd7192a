package jpki

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
)

// SerialBytes is how many random octets a serial of ours has. RFC 5280 §4.1.2.2 allows at most 20.
const SerialBytes = 16

// A Serial is a certificate serial number: a positive integer of 1 to 20 octets without leading zeros.
// Serials are unique only within one issuer; use [CertID] across issuers.
// Serial is comparable and usable as a map key; its zero value is no serial.
type Serial struct {
	b [20]byte // big-endian, right-aligned
	n uint8    // octets in use, 0 for the zero value
}

// NewSerial draws a serial of [SerialBytes] octets from rand. The first bit is 0, so the number is positive
// without a padding octet, and the second is 1, so every serial has the same length; 126 bits are random.
func NewSerial(rand io.Reader) (Serial, error) {
	var raw [SerialBytes]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return Serial{}, fmt.Errorf("draw serial: %w", err)
	}
	raw[0] = raw[0]&0x3f | 0x40
	return SerialFromBytes(raw[:])
}

// SerialFromBytes reads a big-endian positive integer, ignoring leading zero octets.
func SerialFromBytes(b []byte) (Serial, error) {
	var s Serial
	err := s.SetBytes(b)
	return s, err
}

// SetBytes is [SerialFromBytes] in place, for whoever reads millions. After an error s is the zero value.
func (s *Serial) SetBytes(b []byte) error {
	*s = Serial{}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	switch {
	case len(b) == SerialBytes: // as nearly all: a copy of known length
		copy(s.b[20-SerialBytes:], b)
	case len(b) == 0:
		return errors.New("serial is zero")
	case len(b) > 20:
		return errors.New("serial is longer than 20 octets")
	default:
		copy(s.b[20-len(b):], b)
	}
	s.n = uint8(len(b))
	return nil
}

// SerialFromBig is [SerialFromBytes] for a big integer; nil and negative numbers are errors.
func SerialFromBig(i *big.Int) (Serial, error) {
	if i == nil || i.Sign() <= 0 {
		return Serial{}, errors.New("serial is not positive")
	}
	return SerialFromBytes(i.Bytes())
}

// ParseSerial reads the form that String writes: upper-case hexadecimal, two digits an octet, no leading zero octet.
func ParseSerial(s string) (Serial, error) {
	b, err := hex.DecodeString(s)
	if err != nil || strings.ToUpper(s) != s {
		return Serial{}, errors.New("serial is not upper-case hexadecimal")
	}
	if len(b) > 0 && b[0] == 0 {
		return Serial{}, errors.New("serial has a leading zero octet")
	}
	return SerialFromBytes(b)
}

// IsZero reports whether s is the zero value, which is no serial.
func (s Serial) IsZero() bool { return s.n == 0 }

// Bytes returns the big-endian octets without leading zeros.
func (s Serial) Bytes() []byte { return append([]byte(nil), s.b[20-s.n:]...) }

// Append appends the octets that Bytes returns to b.
func (s Serial) Append(b []byte) []byte { return append(b, s.b[20-s.n:]...) }

// Big returns the serial as a big integer.
func (s Serial) Big() *big.Int { return new(big.Int).SetBytes(s.b[20-s.n:]) }

// String returns upper-case hexadecimal as `openssl x509 -serial` prints it.
func (s Serial) String() string { return strings.ToUpper(hex.EncodeToString(s.b[20-s.n:])) }

// MarshalText is String, for JSON.
func (s Serial) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is [ParseSerial], for JSON.
func (s *Serial) UnmarshalText(b []byte) (err error) { *s, err = ParseSerial(string(b)); return err }
