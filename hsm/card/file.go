package card

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/openjpki/jpki"
)

const (
	suffix      = ".card" // of a card's file; the rest of its name is the card number
	lockSuffix  = ".lock" // of the empty file, beside it, on which the lock is held: the card's own is replaced at each change
	maxCardFile = 128 << 10
	version     = 1
)

// A content is what a card's file says.
type content struct {
	Version int     `json:"version"`
	ID      string  `json:"id"`
	Blank   KeyType `json:"blank,omitempty"` // the keys it will have, until it is activated; its slots may lack key and PIN
	Sign    slot    `json:"sign"`
	Auth    slot    `json:"auth"`
}

// A slot is one key with all that belongs to it.
type slot struct {
	Key           []byte  `json:"key"` // PKCS #8 DER
	PIN           pinHash `json:"pin"`
	Tries         int     `json:"tries"`                    // left
	Certificate   []byte  `json:"certificate,omitempty"`    // DER
	CACertificate []byte  `json:"ca_certificate,omitempty"` // DER
}

// slot returns the part of the card that a kind of certificate is about.
func (c *content) slot(kind jpki.Kind) (s *slot, tries int, err error) {
	switch kind {
	case jpki.CardSign:
		return &c.Sign, SignTries, nil
	case jpki.CardAuth:
		return &c.Auth, AuthTries, nil
	}
	return nil, 0, fmt.Errorf("a card has no key of kind %q", string(kind))
}

// privateKey returns the slot's key.
func (s *slot) privateKey() (crypto.Signer, error) {
	if len(s.Key) == 0 {
		return nil, ErrBlank
	}
	key, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err == nil {
		switch k := key.(type) {
		case *rsa.PrivateKey:
			return k, nil
		case *ecdsa.PrivateKey:
			if k.Curve == elliptic.P384() {
				return k, nil
			}
		}
	}
	return nil, errors.New("the card's private key is damaged")
}

// with runs f on the card's content while nobody else, in this process or another, can touch the card. What f changes is
// kept only where f calls save; save returns once the change is on the disk.
func (c *Card) with(f func(data *content, save func() error) error) error {
	held, err := lock(c.path)
	if err != nil {
		return fmt.Errorf("lock card: %w", err)
	}
	defer held.Close()
	data, err := read(c.path)
	if err != nil {
		return fmt.Errorf("read card: %w", err)
	}
	if data.ID != c.id {
		return errors.New("read card: the file is another card's")
	}
	return f(data, func() error {
		if err := write(c.path, data, os.Rename); err != nil {
			return fmt.Errorf("write card: %w", err)
		}
		return nil
	})
}

// lock waits until the caller alone may touch the card at path; closing the result ends that. The lock
// belongs to the open file, not to the process, so goroutines exclude each other as processes do.
func lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path+lockSuffix, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err {
		case nil:
			return f, nil
		case syscall.EINTR:
		default:
			return nil, errors.Join(err, f.Close())
		}
	}
}

// read reads and checks a card's file.
func read(path string) (*content, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // non-blocking: a FIFO must not hang us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("mode %04o lets others than the owner in; it must be 0600", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCardFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxCardFile {
		return nil, fmt.Errorf("longer than %d octets", maxCardFile)
	}
	return parse(text)
}

func parse(text []byte) (*content, error) {
	var data content
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&data); err != nil {
		return nil, errors.New("not a card") // the cause could quote a key
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the card")
	}
	if data.Version != version {
		return nil, fmt.Errorf("version %d of the format is not known", data.Version)
	}
	if err := checkID(data.ID); err != nil {
		return nil, err
	}
	if data.Blank != "" && data.Blank != RSA2048 && data.Blank != P384 {
		return nil, errors.New("a blank card for keys of an unknown type")
	}
	for _, kind := range Kinds {
		s, tries, err := data.slot(kind)
		if err != nil {
			return nil, err
		}
		if data.Blank != "" && s.Tries == tries && (s.PIN.empty() || s.PIN.valid()) {
			continue
		}
		if !s.PIN.valid() || s.Tries < 0 || s.Tries > tries || len(s.Key) == 0 {
			return nil, fmt.Errorf("the part for %s is damaged", kind)
		}
	}
	return &data, nil
}

// write makes data the content of path: put ([os.Rename] or [os.Link]) gives the finished, synchronised file its name. A
// crash leaves the old content or the new, and perhaps an unfinished file, which the next write starts afresh. The caller
// holds the lock.
func write(path string, data *content, put func(from, to string) error) error {
	text, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	dir, name := filepath.Split(path)
	unfinished := filepath.Join(dir, "."+name+".new")
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) { // not truncated: it may be linked as path
		return err
	}
	f, err := os.OpenFile(unfinished, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = put(unfinished, path)
	}
	if rm := os.Remove(unfinished); rm != nil && !errors.Is(rm, fs.ErrNotExist) { // a rename has taken it away
		err = errors.Join(err, rm)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
