package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"log/slog"
)

const keyBytes = 32

// A key is 32 octets that never show themselves. Nothing is sealed under it directly: each record has a key of its own, derived
// from its label, so that no number of records wears a tenant's key out (NIST SP 800-38D §8.3 bounds random nonces).
type key []byte

// LogValue keeps a key out of logs.
func (key) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// String keeps a key out of texts.
func (key) String() string { return "[redacted]" }

// GoString does too.
func (key) GoString() string { return "[redacted]" }

// mac returns the keyed digest of what shall be found again but not read.
func (k key) mac(label string, value []byte) []byte {
	h := hmac.New(sha256.New, k)
	h.Write([]byte(label))
	h.Write([]byte{0})
	h.Write(value)
	return h.Sum(nil)
}

func (k key) aead(label string) (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.mac("seal", []byte(label)))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal encrypts with AES-256-GCM. What was sealed under one label does not open under another.
func (k key) seal(label string, plain []byte) ([]byte, error) {
	a, err := k.aead(label)
	if err != nil {
		return nil, err
	}
	return a.Seal(nil, nil, plain, []byte(label)), nil //nolint:gosec // G407: this AEAD draws the nonce itself
}

var errSealed = errors.New("does not open: another key, another record, or changed")

func (k key) open(label string, sealed []byte) ([]byte, error) {
	a, err := k.aead(label)
	if err != nil {
		return nil, err
	}
	plain, err := a.Open(nil, nil, sealed, []byte(label))
	if err != nil {
		return nil, errSealed
	}
	return plain, nil
}
