package card

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/openjpki/jpki"
)

// ErrBlank is the error of using a key or a PIN that a card has not been given yet.
var ErrBlank = errors.New("the card is blank: it has no such key or PIN yet")

// ErrActive is the error of personalising a card that was activated: nothing opens it again.
var ErrActive = errors.New("the card is active already")

func (c *content) leaveBlank(cfg Config) error {
	switch {
	case cfg.SignPIN != "" || cfg.AuthPIN != "":
		return errors.New("card.Config has PINs, but a blank card gets them when it is personalised")
	case cfg.Keys != RSA2048 && cfg.Keys != P384:
		return fmt.Errorf("card.Config.Keys is %q; want %s or %s", string(cfg.Keys), RSA2048, P384)
	}
	c.Blank, c.Sign.Tries, c.Auth.Tries = cfg.Keys, SignTries, AuthTries
	return nil
}

// Blank reports whether the card still waits to be personalised.
func (c *Card) Blank() (blank bool, err error) {
	err = c.with(func(data *content, _ func() error) error { blank = data.Blank != ""; return nil })
	return blank, err
}

// KeyType returns of what type the card's keys are, or will be.
func (c *Card) KeyType() (of KeyType, err error) {
	err = c.with(func(data *content, _ func() error) error {
		if of = data.Blank; of != "" {
			return nil
		}
		key, err := data.Auth.privateKey()
		if err == nil {
			of = typeOf(key)
		}
		return err
	})
	return of, err
}

// blank runs f on a card that is blank.
func (c *Card) blank(f func(data *content, save func() error) error) error {
	return c.with(func(data *content, save func() error) error {
		if data.Blank == "" {
			return ErrActive
		}
		return f(data, save)
	})
}

// PublicKey returns the public half of the key of the given kind, or [ErrBlank].
func (c *Card) PublicKey(kind jpki.Kind) (pub crypto.PublicKey, err error) {
	err = c.slot(kind, func(s *slot, _ func() error) error {
		key, err := s.privateKey()
		if err == nil {
			pub = key.Public()
		}
		return err
	})
	return pub, err
}

// MakeKey makes the key of the given kind on a blank card, or finds it made: somebody may have asked for a certificate for it.
func (c *Card) MakeKey(kind jpki.Kind) (pub crypto.PublicKey, err error) {
	err = c.blank(func(data *content, save func() error) error {
		s, _, err := data.slot(kind)
		if err != nil {
			return err
		}
		if len(s.Key) == 0 {
			if s.Key, err = newKey(data.Blank); err != nil {
				return err
			}
			if err := save(); err != nil {
				return err
			}
		}
		key, err := s.privateKey()
		if err == nil {
			pub = key.Public()
		}
		return err
	})
	return pub, err
}

// Activate ends the personalisation of a blank card, for good. It refuses, with [ErrBlank] or [ErrNoCertificate], a card that
// lacks a PIN, a key or one of its four certificates.
func (c *Card) Activate() error {
	return c.blank(func(data *content, save func() error) error {
		for _, kind := range Kinds {
			s, _, err := data.slot(kind)
			switch {
			case err != nil:
				return err
			case !s.PIN.valid() || len(s.Key) == 0:
				return ErrBlank
			case s.Certificate == nil || s.CACertificate == nil:
				return ErrNoCertificate
			}
		}
		data.Blank = ""
		return save()
	})
}
