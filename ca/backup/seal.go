package backup

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A sealed file is a line, a salt of 32 octets and chunks, each AES-256-GCM over 64 KiB, the last over what remains, which
// may be nothing. Chunk N is sealed under the nonce N (11 octets, big-endian) and an octet that is 1 for the last and else 0, so
// that none can be left out, repeated, moved or cut off. The key of a file is HKDF-SHA-256 (RFC 5869) of the key and the
// salt: no nonce is used twice under one key.
const (
	magic     = "jpki backup 1\n"
	saltSize  = 32
	chunkSize = 64 << 10
	tagSize   = 16
)

// KeySize is how many octets a key has.
const KeySize = 32

// A Key opens backups. It prints as nothing.
type Key [KeySize]byte

// String keeps a key out of logs.
func (Key) String() string { return "[key]" }

// GoString keeps a key out of logs.
func (Key) GoString() string { return "[key]" }

// NewKey draws a key.
func NewKey(rand io.Reader) (k Key, err error) {
	_, err = io.ReadFull(rand, k[:])
	return k, err
}

// MarshalText writes the one line of a key file, Base64.
func (k Key) MarshalText() ([]byte, error) {
	return []byte(base64.StdEncoding.EncodeToString(k[:]) + "\n"), nil
}

// ParseKey reads a key file. Errors do not repeat what is in it.
func ParseKey(text []byte) (k Key, err error) {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != KeySize {
		return k, fmt.Errorf("a key file holds %d octets in Base64, this one does not", KeySize)
	}
	return Key(b), nil
}

func (k Key) of(salt []byte) (cipher.AEAD, error) {
	own, err := hkdf.Key(sha256.New, k[:], salt, magic, KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func nonce(n uint64, last bool) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint64(b[3:11], n)
	if last {
		b[11] = 1
	}
	return b
}

// A sealer encrypts what is written. Only Close makes it complete.
type sealer struct {
	w    io.Writer
	aead cipher.AEAD
	n    uint64
	buf  []byte
	out  []byte
}

func newSealer(w io.Writer, key Key, rand io.Reader) (*sealer, error) {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(rand, salt); err != nil {
		return nil, fmt.Errorf("draw salt: %w", err)
	}
	aead, err := key.of(salt)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(append([]byte(magic), salt...)); err != nil {
		return nil, err
	}
	return &sealer{w: w, aead: aead, buf: make([]byte, 0, chunkSize), out: make([]byte, 0, chunkSize+tagSize)}, nil
}

func (s *sealer) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if len(s.buf) == chunkSize { // not before more comes: the last chunk is sealed otherwise
			if err := s.seal(false); err != nil {
				return written, err
			}
		}
		n := min(len(p), chunkSize-len(s.buf))
		s.buf, p, written = append(s.buf, p[:n]...), p[n:], written+n
	}
	return written, nil
}

func (s *sealer) seal(last bool) error {
	_, err := s.w.Write(s.aead.Seal(s.out, nonce(s.n, last), s.buf, nil))
	s.n, s.buf = s.n+1, s.buf[:0]
	return err
}

func (s *sealer) Close() error { return s.seal(true) }

// ErrSealed is why a file was refused: the key is another, or the file is damaged or cut short.
var ErrSealed = errors.New("the backup is damaged or cut short, or the key is another's")

// An opener decrypts; it hands out nothing that was not authenticated.
type opener struct {
	r     io.Reader
	aead  cipher.AEAD
	n     uint64
	in    []byte // a chunk and one octet more, to know whether it is the last
	have  int
	plain []byte
	last  bool
}

func newOpener(r io.Reader, key Key) (*opener, error) {
	head := make([]byte, len(magic)+saltSize)
	if _, err := io.ReadFull(r, head); err != nil || !bytes.HasPrefix(head, []byte(magic)) {
		return nil, errors.New("not a backup made by jpki")
	}
	aead, err := key.of(head[len(magic):])
	return &opener{r: r, aead: aead, in: make([]byte, chunkSize+tagSize+1)}, err
}

func (o *opener) Read(p []byte) (int, error) {
	for len(o.plain) == 0 {
		if o.last {
			return 0, io.EOF
		}
		if err := o.open(); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

func (o *opener) open() error {
	n, err := io.ReadFull(o.r, o.in[o.have:])
	switch {
	case err == nil:
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		o.last = true
	default:
		return err
	}
	n += o.have
	chunk := o.in[:n]
	if !o.last {
		chunk = o.in[:n-1]
	}
	if len(chunk) < tagSize {
		return ErrSealed
	}
	next := o.in[n-1]
	plain, err := o.aead.Open(chunk[:0], nonce(o.n, o.last), chunk, nil)
	if err != nil {
		return ErrSealed
	}
	// What is handed out lies in the buffer that the next chunk is read into, so the octet beyond waits behind a copy.
	o.plain, o.n = bytes.Clone(plain), o.n+1
	if !o.last {
		o.in[0], o.have = next, 1
	}
	return nil
}
