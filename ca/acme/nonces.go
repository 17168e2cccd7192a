package acme

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
)

// nonceWindow is how many nonces are good at once, the newest. At ten thousand requests a second one is good for more than a
// minute and a half; what is kept of them is one bit each.
const nonceWindow = 1 << 20

// nonces gives out nonces (RFC 8555 §6.5) and takes each back once. A nonce is a running number in one block of AES, so that
// none can be made up and nobody sees how many there were. They take up the same memory however many are asked for, and
// end with the process: a client that shows one of another process is told so, with a fresh one.
type nonces struct {
	block cipher.Block

	mu    sync.Mutex
	next  uint64
	spent []uint64 // a bit for each number modulo the window
}

// newNonces derives the key from what nobody can guess.
func newNonces(secret string) *nonces {
	key := sha256.Sum256([]byte("acme nonces\n" + secret))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("AES key of 32 octets: " + err.Error())
	}
	return &nonces{block: block, spent: make([]uint64, nonceWindow/64)}
}

// place is where a number's bit is.
func (*nonces) place(n uint64) (word int, bit uint64) {
	n %= nonceWindow
	return int(n / 64), 1 << (n % 64)
}

func (s *nonces) give() string {
	s.mu.Lock()
	n := s.next
	s.next++
	word, bit := s.place(n)
	s.spent[word] &^= bit // that of the number which leaves the window
	s.mu.Unlock()
	var raw [aes.BlockSize]byte
	binary.BigEndian.PutUint64(raw[8:], n)
	s.block.Encrypt(raw[:], raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// spend reports whether a nonce is ours, new enough, and here for the first time.
func (s *nonces) spend(text string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != aes.BlockSize || base64.RawURLEncoding.EncodeToString(raw) != text {
		return false
	}
	s.block.Decrypt(raw, raw)
	n := binary.BigEndian.Uint64(raw[8:])
	s.mu.Lock()
	defer s.mu.Unlock()
	word, bit := s.place(n)
	if binary.BigEndian.Uint64(raw) != 0 || n >= s.next || s.next-n > nonceWindow || s.spent[word]&bit != 0 {
		return false
	}
	s.spent[word] |= bit
	return true
}
