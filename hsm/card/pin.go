package card

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/openjpki/jpki"
)

// How often a wrong PIN may be presented in a row before the PIN is locked.
const (
	AuthTries = 3
	SignTries = 5
)

// ErrLocked is the error of an operation whose PIN is locked: only [Card.ResetPIN] helps, the right PIN does not.
var ErrLocked = errors.New("the PIN is locked")

// A WrongPINError says how many more wrong PINs the card takes. When none is left the PIN is locked, and
// errors.Is(err, ErrLocked) holds too.
type WrongPINError struct {
	Remaining int
}

// Error tells the number of tries left.
func (e *WrongPINError) Error() string {
	switch e.Remaining {
	case 0:
		return "the PIN is wrong, and now locked"
	case 1:
		return "the PIN is wrong; 1 try remains"
	}
	return fmt.Sprintf("the PIN is wrong; %d tries remain", e.Remaining)
}

// Is reports whether this was the try that locked the PIN.
func (e *WrongPINError) Is(target error) bool { return target == ErrLocked && e.Remaining == 0 }

// CheckPIN reports whether pin may be chosen as the PIN of the key of the given kind: four digits for the authentication
// key; 6 to 16 upper-case letters and digits, some of each, for the signature key.
func CheckPIN(kind jpki.Kind, pin string) error {
	digits, letters := 0, 0
	for _, c := range []byte(pin) {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'A' && c <= 'Z':
			letters++
		}
	}
	plain := digits+letters == len(pin)
	switch kind {
	case jpki.CardAuth:
		if !plain || digits != 4 || letters != 0 {
			return errors.New("the authentication PIN is not four digits")
		}
		return nil
	case jpki.CardSign:
		if !plain || len(pin) < 6 || len(pin) > 16 || digits == 0 || letters == 0 {
			return errors.New("the signature PIN is not 6 to 16 upper-case letters and digits with some of each")
		}
		return nil
	}
	return fmt.Errorf("a card has no key of kind %q", string(kind))
}

// A pinHash is how a card remembers a PIN.
type pinHash struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"` // of PBKDF2 with HMAC-SHA-256
	Hash       []byte `json:"hash"`
}

const (
	// pinIterations is modest on purpose: ten thousand PINs are tried quickly at any cost, and the file that holds the
	// hash holds the keys as well. The hash keeps a PIN, which people use elsewhere too, from being read at a glance.
	pinIterations    = 10_000
	maxPINIterations = 100_000_000
	saltBytes        = 16
)

func newPINHash(rand io.Reader, pin string) (pinHash, error) {
	h := pinHash{Salt: make([]byte, saltBytes), Iterations: pinIterations}
	if _, err := io.ReadFull(rand, h.Salt); err != nil {
		return pinHash{}, fmt.Errorf("draw salt: %w", err)
	}
	var err error
	h.Hash, err = h.derive(pin)
	return h, err
}

func (h pinHash) derive(pin string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, pin, h.Salt, h.Iterations, sha256.Size)
}

func (h pinHash) matches(pin string) (bool, error) {
	got, err := h.derive(pin)
	return err == nil && subtle.ConstantTimeCompare(got, h.Hash) == 1, err
}

func (h pinHash) valid() bool {
	return len(h.Salt) >= saltBytes && len(h.Hash) == sha256.Size && h.Iterations > 0 && h.Iterations <= maxPINIterations
}

func (h pinHash) empty() bool { return len(h.Salt) == 0 && len(h.Hash) == 0 && h.Iterations == 0 }
