package relay

import "github.com/openjpki/jpki"

// For tests from outside: the encodings.

func MarshalEntry(c jpki.StatusChange) ([]byte, error) { return marshalEntry(c) }
func ParseEntry(in []byte) (jpki.StatusChange, error)  { return parseEntry(in) }

// Beat encodes and ParseBeat decodes a beat.
func Beat(key []byte, e [16]byte, position int64, nonces ...[16]byte) []byte {
	b := beat{epoch: e, position: position}
	for _, n := range nonces {
		b.nonces = append(b.nonces, n)
	}
	return b.marshal(key)
}

func ParseBeat(key, in []byte) (e [16]byte, position int64, nonces [][16]byte, err error) {
	b, err := parseBeat(key, in)
	for _, n := range b.nonces {
		nonces = append(nonces, n)
	}
	return b.epoch, b.position, nonces, err
}

// Seal and Unseal put the MAC on an entry's body and take it off.
func Seal(key []byte, e [16]byte, seq int64, body []byte) []byte { return seal(key, e, seq, body) }

func Unseal(key []byte, e [16]byte, seq int64, in []byte) ([]byte, error) {
	return unseal(key, e, seq, in)
}
