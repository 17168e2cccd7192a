package backup

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
)

// Seal seals octets.
func Seal(plain []byte, key Key) ([]byte, error) {
	var out bytes.Buffer
	s, err := newSealer(&out, key, rand.Reader)
	if err != nil {
		return nil, err
	}
	_, err = s.Write(plain)
	err = errors.Join(err, s.Close())
	return out.Bytes(), err
}

// Unseal opens what was sealed.
func Unseal(sealed []byte, key Key) ([]byte, error) {
	o, err := newOpener(bytes.NewReader(sealed), key)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(o)
}
