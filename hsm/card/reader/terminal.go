package reader

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/hsm/card"
)

// A Transmitter carries a command to a card and the answer back: a [Connection], or a card in hand.
type Transmitter interface {
	Transmit(ctx context.Context, command []byte) (response []byte, err error)
}

// A StatusError is an answer of the card that is none of the expected ones.
type StatusError struct {
	Word card.StatusWord
}

// Error tells the status word.
func (e *StatusError) Error() string { return fmt.Sprintf("the card answers %04X", uint16(e.Word)) }

// A Terminal gives commands to one card.
type Terminal struct {
	card Transmitter
}

// NewTerminal returns the terminal of a card.
func NewTerminal(t Transmitter) *Terminal { return &Terminal{t} }

// maxContent bounds what is read from a file or fetched by GET RESPONSE, in octets.
const maxContent = 16 << 10

// partOctets is how much of a file one command writes.
const partOctets = 240

// ask sends one command and fetches the whole answer.
func (t *Terminal) ask(ctx context.Context, c card.Command) (data []byte, w card.StatusWord, err error) {
	for {
		response, err := t.card.Transmit(ctx, c.Append(nil))
		if err != nil {
			return nil, 0, err
		}
		part, w, err := card.ParseResponse(response)
		if err != nil { // torn off
			return nil, 0, fmt.Errorf("%w: %w", ErrCardGone, err)
		}
		data = append(data, part...)
		n, more := w.Rest()
		switch {
		case !more:
			return data, w, nil
		case len(data)+n > maxContent:
			return nil, 0, errors.New("the card has more to say than fits")
		}
		c = card.Command{Instruction: card.InsGetResponse, Expected: n}
	}
}

// must is ask for a command that is expected to succeed.
func (t *Terminal) must(ctx context.Context, c card.Command) ([]byte, error) {
	data, w, err := t.ask(ctx, c)
	if err == nil && w != card.StatusOK {
		err = &StatusError{w}
	}
	return data, err
}

func (t *Terminal) selectApplet(ctx context.Context, name string) (found bool, err error) {
	_, w, err := t.ask(ctx, card.Command{Instruction: card.InsSelect, P1: 4, P2: 0x0C, Data: []byte(name)})
	switch {
	case err != nil:
		return false, err
	case w == card.StatusOK:
		return true, nil
	case w == card.StatusNotFound:
		return false, nil
	}
	return false, &StatusError{w}
}

// SelectJPKI selects the JPKI applet, today's or the next generation's; the card forgets the PINs. It reports false for a card without.
func (t *Terminal) SelectJPKI(ctx context.Context) (found bool, err error) {
	if found, err = t.selectApplet(ctx, card.AppletID); err == nil && !found {
		found, err = t.selectApplet(ctx, card.NextAppletID)
	}
	return found, err
}

// SelectPersonalisation selects the personalisation applet. It reports false for a card that is not blank.
func (t *Terminal) SelectPersonalisation(ctx context.Context) (blank bool, err error) {
	return t.selectApplet(ctx, card.PersonalisationID)
}

func (t *Terminal) selectFile(ctx context.Context, id card.FileID) error {
	_, err := t.must(ctx, card.Command{Instruction: card.InsSelect, P1: 2, P2: 0x0C, Data: binary.BigEndian.AppendUint16(nil, uint16(id))})
	return err
}

// The files that belong to a kind of certificate.
type files struct{ certificate, ca, key, pin card.FileID }

func filesOf(kind jpki.Kind) (files, error) {
	switch kind {
	case jpki.CardSign:
		return files{card.FileSignCertificate, card.FileSignCACertificate, card.FileSignKey, card.FileSignPIN}, nil
	case jpki.CardAuth:
		return files{card.FileAuthCertificate, card.FileAuthCACertificate, card.FileAuthKey, card.FileAuthPIN}, nil
	}
	return files{}, fmt.Errorf("a card has no key of kind %q", string(kind))
}

// Tries asks how many wrong PINs the card still takes. It costs none.
func (t *Terminal) Tries(ctx context.Context, kind jpki.Kind) (int, error) {
	w, err := t.pin(ctx, kind, nil)
	if err != nil {
		return 0, err
	}
	n, ok := w.Tries()
	if !ok {
		return 0, &StatusError{w}
	}
	return n, nil
}

// Verify presents a PIN. It fails with a [card.WrongPINError] or [card.ErrLocked]. An empty PIN is refused without asking the card, for which it
// is a question.
func (t *Terminal) Verify(ctx context.Context, kind jpki.Kind, pin string) error {
	if pin == "" {
		return errors.New("the PIN is empty")
	}
	w, err := t.pin(ctx, kind, []byte(pin))
	if err != nil {
		return err
	}
	n, wrong := w.Tries()
	switch {
	case w == card.StatusOK:
		return nil
	case wrong:
		return &card.WrongPINError{Remaining: n}
	case w == card.StatusLocked || w == 0x6983:
		return card.ErrLocked
	}
	return &StatusError{w}
}

func (t *Terminal) pin(ctx context.Context, kind jpki.Kind, pin []byte) (card.StatusWord, error) {
	f, err := filesOf(kind)
	if err != nil {
		return 0, err
	}
	if err := t.selectFile(ctx, f.pin); err != nil {
		return 0, err
	}
	_, w, err := t.ask(ctx, card.Command{Instruction: card.InsVerify, P2: 0x80, Data: pin})
	return w, err
}

// Certificate reads the certificate of a kind, in DER, or [card.ErrNoCertificate]. The signature certificate needs its PIN, presented before.
func (t *Terminal) Certificate(ctx context.Context, kind jpki.Kind) ([]byte, error) {
	f, err := filesOf(kind)
	if err != nil {
		return nil, err
	}
	return t.readCertificate(ctx, f.certificate)
}

// CACertificate is [Terminal.Certificate] for the authority's certificate, which needs no PIN.
func (t *Terminal) CACertificate(ctx context.Context, kind jpki.Kind) ([]byte, error) {
	f, err := filesOf(kind)
	if err != nil {
		return nil, err
	}
	return t.readCertificate(ctx, f.ca)
}

// readCertificate reads a file as far as the length at its beginning says.
func (t *Terminal) readCertificate(ctx context.Context, id card.FileID) ([]byte, error) {
	if err := t.selectFile(ctx, id); err != nil {
		return nil, err
	}
	var der []byte
	for length := 4; len(der) < length; {
		want := min(length-len(der), 256)
		part, w, err := t.ask(ctx, card.Command{Instruction: card.InsRead, P1: byte(len(der) >> 8), P2: byte(len(der)), Expected: want})
		switch {
		case err != nil:
			return nil, err
		case w == card.StatusBadOffset && len(der) == 0:
			return nil, card.ErrNoCertificate
		case w != card.StatusOK:
			return nil, &StatusError{w}
		case len(part) == 0:
			return nil, errors.New("the certificate on the card is cut short")
		case len(part) > want:
			return nil, errors.New("the card gives more than it was asked for")
		}
		if der = append(der, part...); len(der) == 4 {
			if der[0] != 0x30 || der[1] != 0x82 {
				return nil, errors.New("no certificate is in the card's file")
			}
			if length += int(der[2])<<8 | int(der[3]); length > maxContent {
				return nil, errors.New("the certificate on the card is too long")
			}
		}
	}
	return der, nil
}

// Signer returns the card's key as a [crypto.Signer], which signs PKCS #1 v1.5 or, with a P-384 key, ECDSA. The PIN has to be presented
// before, and no other applet selected between; the context is that of every signature.
func (t *Terminal) Signer(ctx context.Context, kind jpki.Kind, pub crypto.PublicKey) (crypto.Signer, error) {
	f, err := filesOf(kind)
	if err != nil {
		return nil, err
	}
	return &signer{ctx, t, f.key, pub}, nil
}

type signer struct {
	ctx  context.Context // a crypto.Signer is not given one
	t    *Terminal
	file card.FileID
	pub  crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.pub }

// digestInfos are what stands before a digest in PKCS #1 v1.5 (RFC 8017 §9.2, note 1).
var digestInfos = map[crypto.Hash]string{
	crypto.SHA256: "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
	crypto.SHA384: "\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
	crypto.SHA512: "\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
}

// Sign signs a digest on the card. It draws nothing from the reader given.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil {
		return nil, errors.New("the hash function is missing")
	}
	if _, pss := opts.(*rsa.PSSOptions); pss {
		return nil, errors.New("the card does not sign RSASSA-PSS")
	}
	hash := opts.HashFunc()
	info, known := digestInfos[hash]
	if !known || len(digest) != hash.Size() {
		return nil, fmt.Errorf("the card does not sign %d octets of %v", len(digest), hash)
	}
	data := digest
	if _, isRSA := s.pub.(*rsa.PublicKey); isRSA {
		data = append([]byte(info), digest...)
	}
	if err := s.t.selectFile(s.ctx, s.file); err != nil {
		return nil, err
	}
	return s.t.must(s.ctx, card.Command{Class: 0x80, Instruction: card.InsSign, P2: 0x80, Data: data, Expected: 256})
}

// Identity asks a blank card for its number and of what type its keys are to be. The personalisation applet must be selected, as
// for the four methods below.
func (t *Terminal) Identity(ctx context.Context) (id string, keys card.KeyType, err error) {
	number, err := t.must(ctx, card.Command{Instruction: card.InsGetData, Expected: 256})
	if err != nil {
		return "", "", err
	}
	of, err := t.must(ctx, card.Command{Instruction: card.InsGetData, P2: 1, Expected: 256})
	return string(number), card.KeyType(of), err
}

// SetPIN sets the PIN of a kind; see [card.CheckPIN].
func (t *Terminal) SetPIN(ctx context.Context, kind jpki.Kind, pin string) error {
	if err := card.CheckPIN(kind, pin); err != nil {
		return err
	}
	f, err := filesOf(kind)
	if err != nil {
		return err
	}
	_, err = t.must(ctx, card.Command{Instruction: card.InsPutData, P2: byte(f.pin), Data: []byte(pin)})
	return err
}

// MakeKey has the card make the key of a kind, or find it made, and returns its public half: RSA-2048 or P-384.
func (t *Terminal) MakeKey(ctx context.Context, kind jpki.Kind) (crypto.PublicKey, error) {
	f, err := filesOf(kind)
	if err != nil {
		return nil, err
	}
	der, err := t.must(ctx, card.Command{Instruction: card.InsGenerate, P2: byte(f.key), Expected: 256})
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse the card's public key: %w", err)
	}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() == 2048 {
			return k, nil
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			return k, nil
		}
	}
	return nil, errors.New("the card made a key that is neither RSA-2048 nor P-384")
}

// Write puts the certificate of a kind and its authority's, in DER, on the card.
func (t *Terminal) Write(ctx context.Context, kind jpki.Kind, certificate, ca []byte) error {
	f, err := filesOf(kind)
	if err != nil {
		return err
	}
	for _, w := range []struct {
		file card.FileID
		der  []byte
	}{{f.certificate, certificate}, {f.ca, ca}} {
		if err := t.selectFile(ctx, w.file); err != nil {
			return err
		}
		for offset := 0; offset < len(w.der); offset += partOctets {
			part := w.der[offset:min(len(w.der), offset+partOctets)]
			if _, err := t.must(ctx, card.Command{Instruction: card.InsUpdate, P1: byte(offset >> 8), P2: byte(offset), Data: part}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Activate ends the personalisation, for good.
func (t *Terminal) Activate(ctx context.Context) error {
	_, err := t.must(ctx, card.Command{Instruction: card.InsActivate})
	return err
}

// Request makes a certification request (PKCS #10, DER, with an empty subject) that the card signs. It selects the JPKI applet and presents
// the PIN.
func (t *Terminal) Request(ctx context.Context, kind jpki.Kind, pin string, pub crypto.PublicKey) ([]byte, error) {
	key, err := t.unlock(ctx, kind, pin, pub)
	if err != nil {
		return nil, err
	}
	algorithm := x509.SHA256WithRSA
	if card.HashFor(pub) == crypto.SHA384 {
		algorithm = x509.ECDSAWithSHA384
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: algorithm}, key)
}

func (t *Terminal) unlock(ctx context.Context, kind jpki.Kind, pin string, pub crypto.PublicKey) (crypto.Signer, error) {
	found, err := t.SelectJPKI(ctx)
	if err == nil && !found {
		err = errors.New("the card has no JPKI applet")
	}
	if err == nil {
		err = t.Verify(ctx, kind, pin)
	}
	if err != nil {
		return nil, err
	}
	return t.Signer(ctx, kind, pub)
}

// Prove has a card show that it works as its holder will use it: with the PIN the certificates can be read and are those given, and the key
// signs for the certificate.
func (t *Terminal) Prove(ctx context.Context, kind jpki.Kind, pin string, certificate, ca []byte) error {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return fmt.Errorf("parse certificate: %w", err)
	}
	key, err := t.unlock(ctx, kind, pin, cert.PublicKey)
	if err != nil {
		return err
	}
	got, err := t.Certificate(ctx, kind)
	if err != nil {
		return err
	}
	gotCA, err := t.CACertificate(ctx, kind)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, certificate) || !bytes.Equal(gotCA, ca) {
		return errors.New("the card does not give back the certificates that were written")
	}
	message := make([]byte, 32)
	if _, err := rand.Read(message); err != nil {
		return err
	}
	hash := card.HashFor(cert.PublicKey)
	h := hash.New()
	h.Write(message)
	signature, err := key.Sign(nil, h.Sum(nil), hash)
	if err != nil {
		return err
	}
	algorithm := x509.SHA256WithRSA
	if hash == crypto.SHA384 {
		algorithm = x509.ECDSAWithSHA384
	}
	if err := cert.CheckSignature(algorithm, message, signature); err != nil {
		return fmt.Errorf("the card's key does not sign for its certificate: %w", err)
	}
	return nil
}
