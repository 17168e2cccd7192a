package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/hsm"
	"github.com/openjpki/jpki/hsm/card"
)

// Profiles are the rule sets that a sandbox can run under: today's cards and the next generation's.
var Profiles = []string{"today", "next"}

// A ruleSet is a profile with what the sandbox makes to fit it.
type ruleSet struct {
	*ca.Profile
	cards     card.KeyType  // keys of cards
	samples   hsm.Algorithm // keys of the samples
	authority hsm.Algorithm // key of a first generation
}

var ruleSets = map[string]func() ruleSet{
	"today": func() ruleSet { return ruleSet{ca.Sandbox(), card.RSA2048, hsm.RSA2048, hsm.RSA2048} },
	"next":  func() ruleSet { return ruleSet{ca.SandboxNext(), card.P384, hsm.P384, hsm.P384} },
}

// chooseProfile opens the named rule set and keeps the choice; without a name, the one that was chosen last, or today's.
func (d dir) chooseProfile(name string) (ruleSet, error) {
	path := d.path("authority", "profile")
	if name == "" {
		text, err := os.ReadFile(path)
		switch name = strings.TrimSpace(string(text)); {
		case errors.Is(err, fs.ErrNotExist):
			name = Profiles[0]
		case err != nil:
			return ruleSet{}, err
		}
		if !slices.Contains(Profiles, name) {
			return ruleSet{}, fmt.Errorf("%s names no profile", path)
		}
	} else if !slices.Contains(Profiles, name) {
		return ruleSet{}, fmt.Errorf("profile %q is not one of %s", name, strings.Join(Profiles, ", "))
	} else if err := writeFile(path, []byte(name+"\n"), 0o600); err != nil {
		return ruleSet{}, err
	}
	return ruleSets[name](), nil
}

// Keys returns the type of key that the sandbox's cards have.
func (e Env) Keys() card.KeyType {
	if e.CardKeys == string(card.P384) {
		return card.P384
	}
	return card.RSA2048
}

// Digest hashes a message for a key, as cards do.
func Digest(key crypto.PublicKey, message []byte) (digest []byte, hash crypto.Hash) {
	hash = card.HashFor(key)
	h := hash.New()
	h.Write(message)
	return h.Sum(nil), hash
}

// madeFor reports whether a certificate's key is of the rule set's kind.
func (r ruleSet) madeFor(key crypto.PublicKey) bool {
	k, ok := key.(*ecdsa.PublicKey)
	return (ok && k.Curve == elliptic.P384()) == (r.cards == card.P384)
}

// SignWith has a card sign a message for a kind of certificate, with the hash that goes with its key.
func SignWith(c *card.Card, kind jpki.Kind, pin string, message []byte) (digest []byte, hash crypto.Hash, signature []byte, err error) {
	key, err := c.Signer(kind, pin)
	if err != nil {
		return nil, 0, nil, err
	}
	digest, hash = Digest(key.Public(), message)
	signature, err = key.Sign(nil, digest, hash)
	return digest, hash, signature, err
}
