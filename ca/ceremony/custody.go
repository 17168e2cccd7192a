package ceremony

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

// What we do and what a token does. A key in a token never comes here: its backup is the token's own (cloning, wrapping,
// cards of its maker), and so is the m-of-n of that. A key in a file is encrypted under a random secret, AES-256-GCM; the
// secret is shared out by Shamir's method over ristretto255, with Feldman's commitments: each custodian can check the own
// share against the transcript at any time, alone, and any threshold of them restore the key. The secret itself is kept
// nowhere.

const shareType = "jpki-custody-share-1"

// A Share is what one custodian keeps. It says nothing by itself.
type Share struct {
	Type      string `json:"type"`
	Ceremony  string `json:"ceremony"` // the hash of the commitments: which secret this is a part of
	Custodian string `json:"custodian"`
	Threshold int    `json:"threshold"`
	Number    []byte `json:"number"`
	Value     []byte `json:"value"`
	Sum       []byte `json:"sum"` // the first 8 octets of the SHA-256 of all before: against slips of the pen
}

// A backup is an encrypted key with what shares can be checked against.
type backup struct {
	Threshold   int      `json:"threshold"`
	Commitments [][]byte `json:"commitments"`
	Nonce       []byte   `json:"nonce"`
	Sealed      []byte   `json:"sealed"`
}

var theGroup = group.Ristretto255

// splitKey encrypts a key and shares out the secret that opens it.
func splitKey(key []byte, c Custody, random io.Reader) (backup, []Share, error) {
	t := uint(c.Threshold - 1)
	secret := theGroup.RandomNonZeroScalar(random)
	sharing := secretsharing.New(random, t, secret)
	b := backup{Threshold: c.Threshold, Nonce: make([]byte, 12)}
	for _, e := range sharing.CommitSecret() {
		text, err := e.MarshalBinaryCompress()
		if err != nil {
			return b, nil, err
		}
		b.Commitments = append(b.Commitments, text)
	}
	if _, err := io.ReadFull(random, b.Nonce); err != nil {
		return b, nil, err
	}
	box, err := b.box(secret)
	if err != nil {
		return b, nil, err
	}
	b.Sealed = box.Seal(nil, b.Nonce, key, []byte(b.id()))
	var shares []Share
	for i, s := range sharing.Share(uint(len(c.Custodians))) {
		number, err := s.ID.MarshalBinary()
		if err != nil {
			return b, nil, err
		}
		value, err := s.Value.MarshalBinary()
		if err != nil {
			return b, nil, err
		}
		share := Share{Type: shareType, Ceremony: b.id(), Custodian: c.Custodians[i], Threshold: c.Threshold, Number: number, Value: value}
		share.Sum = share.sum()
		if err := b.checkShare(share); err != nil {
			return b, nil, fmt.Errorf("the share of custodian %d: %w", i+1, err)
		}
		shares = append(shares, share)
	}
	return b, shares, nil
}

// id names the secret by what was committed to.
func (b backup) id() string { return hash(bytes.Join(b.Commitments, nil)) }

// box is the cipher under a secret.
func (b backup) box(secret group.Scalar) (cipher.AEAD, error) {
	text, err := secret.MarshalBinary()
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, text, nil, "jpki custody backup 1", 32)
	if err != nil {
		return nil, err
	}
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

func (s Share) sum() []byte {
	s.Sum = nil
	text, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	h := sha256.Sum256(text)
	return h[:8]
}

// checkShare says whether a share is one of this backup's secret.
func (b backup) checkShare(s Share) error {
	switch {
	case s.Type != shareType:
		return errors.New("it is not a custodian's share")
	case !bytes.Equal(s.Sum, s.sum()):
		return errors.New("it was altered: its check sum is wrong")
	case s.Ceremony != b.id() || s.Threshold != b.Threshold:
		return errors.New("it is of another ceremony's key")
	}
	share, err := s.decode()
	if err != nil {
		return err
	}
	commitments := make(secretsharing.SecretCommitment, len(b.Commitments))
	for i, text := range b.Commitments {
		commitments[i] = theGroup.NewElement()
		if err := commitments[i].UnmarshalBinary(text); err != nil {
			return errors.New("the backup's commitments cannot be read")
		}
	}
	if len(commitments) != b.Threshold || !secretsharing.Verify(uint(b.Threshold-1), share, commitments) {
		return errors.New("it is not a part of the secret that was shared out")
	}
	return nil
}

func (s Share) decode() (secretsharing.Share, error) {
	out := secretsharing.Share{ID: theGroup.NewScalar(), Value: theGroup.NewScalar()}
	if err := errors.Join(out.ID.UnmarshalBinary(s.Number), out.Value.UnmarshalBinary(s.Value)); err != nil || out.ID.IsZero() {
		return out, errors.New("it cannot be read")
	}
	return out, nil
}

// open restores the key from shares of different custodians, the threshold or more.
func (b backup) open(shares []Share) ([]byte, error) {
	var parts []secretsharing.Share
	seen := map[string]bool{}
	for _, s := range shares {
		if err := b.checkShare(s); err != nil {
			return nil, fmt.Errorf("share of %s: %w", s.Custodian, err)
		}
		if seen[string(s.Number)] {
			continue
		}
		seen[string(s.Number)] = true
		part, err := s.decode()
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	if len(parts) < b.Threshold {
		return nil, fmt.Errorf("%d of %d shares are here: as many custodians must come together", len(parts), b.Threshold)
	}
	secret, err := secretsharing.Recover(uint(b.Threshold-1), parts)
	if err != nil {
		return nil, err
	}
	box, err := b.box(secret)
	if err != nil {
		return nil, err
	}
	key, err := box.Open(nil, b.Nonce, b.Sealed, []byte(b.id()))
	if err != nil {
		return nil, errors.New("the backup was altered")
	}
	return key, nil
}

// Text is a share as a custodian keeps it: one line that can be printed and typed.
func (s Share) Text() string {
	text, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(text) + "\n"
}

// ParseShare reads a custodian's share, of at most 4096 octets.
func ParseShare(text []byte) (s Share, err error) {
	if len(text) > 4096 {
		return s, errors.New("it is too long for a share")
	}
	line := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(line, bytes.Join(bytes.Fields(text), nil))
	if err != nil {
		return s, errors.New("it is not a share")
	}
	d := json.NewDecoder(bytes.NewReader(line[:n]))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || d.More() {
		return Share{}, errors.New("it is not a share")
	}
	return s, nil
}

// parseBackup reads a backup file.
func parseBackup(text []byte) (b backup, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return b, errors.New("the backup cannot be read")
	}
	if b.Threshold < 2 || b.Threshold > maxCustodians || len(b.Commitments) != b.Threshold || len(b.Nonce) != 12 {
		return b, errors.New("the backup cannot be read")
	}
	return b, nil
}
