package card

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openjpki/jpki"
)

// Names of the applets by which SELECT finds them (ISO/IEC 7816-4 §8.2.1.2).
const (
	// AppletID is today's JPKI applet's.
	AppletID = "\xd3\x92\xf0\x00\x26\x01\x00\x00\x00\x01"
	// NextAppletID is ours, of the class that anybody may use: what the next generation's applet will be called, and how it
	// will differ, is not published. A card with P-384 keys answers to this name only, so that no program written for
	// RSA-2048 keys takes it for today's.
	NextAppletID = "\xf0JPKI-NEXT"
	// PersonalisationID is ours too: the commands by which real cards are personalised are not published.
	PersonalisationID = "\xf0JPKI-PERSO"
)

// A FileID names an elementary file of the applets.
type FileID uint16

// The files of today's applet.
const (
	FileSignCertificate   FileID = 0x0001
	FileSignCACertificate FileID = 0x0002
	FileTokenInfo         FileID = 0x0006
	FilePresence          FileID = 0x0008
	FileAuthCertificate   FileID = 0x000A
	FileAuthCACertificate FileID = 0x000B
	FileAuthKey           FileID = 0x0017
	FileAuthPIN           FileID = 0x0018
	FileSignKey           FileID = 0x001A
	FileSignPIN           FileID = 0x001B
)

// Instructions of the applets, as far as they are not only in ISO/IEC 7816-4 and -8.
const (
	InsVerify      = 0x20
	InsChange      = 0x24
	InsSign        = 0x2A // COMPUTE DIGITAL SIGNATURE, of class 80
	InsActivate    = 0x44 // ACTIVATE FILE: ends the personalisation
	InsGenerate    = 0x47 // GENERATE ASYMMETRIC KEY PAIR
	InsSelect      = 0xA4
	InsRead        = 0xB0
	InsGetResponse = 0xC0
	InsGetData     = 0xCA
	InsPutData     = 0xDA
	InsUpdate      = 0xD6
)

// What a file is, of which kind of certificate.
type file struct {
	role role
	kind jpki.Kind
}

type role byte

const (
	certificate role = iota + 1
	caCertificate
	privateKey
	pin
	tokenInfo
	presence
)

var files = map[FileID]file{
	FileSignCertificate:   {certificate, jpki.CardSign},
	FileSignCACertificate: {caCertificate, jpki.CardSign},
	FileTokenInfo:         {role: tokenInfo},
	FilePresence:          {role: presence},
	FileAuthCertificate:   {certificate, jpki.CardAuth},
	FileAuthCACertificate: {caCertificate, jpki.CardAuth},
	FileAuthKey:           {privateKey, jpki.CardAuth},
	FileAuthPIN:           {pin, jpki.CardAuth},
	FileSignKey:           {privateKey, jpki.CardSign},
	FileSignPIN:           {pin, jpki.CardSign},
}

// An instruction answers one command; the class of the command is the one it asks for.
type instruction struct {
	class  byte
	answer func(*Session, Command) ([]byte, StatusWord)
}

// What each applet answers, SELECT and GET RESPONSE aside. Everything else is 6D00.
var (
	jpkiInstructions = map[byte]instruction{
		InsVerify: {0x00, (*Session).verify},
		InsChange: {0x00, (*Session).change},
		InsSign:   {0x80, (*Session).sign},
		InsRead:   {0x00, (*Session).read},
	}
	personalisationInstructions = map[byte]instruction{
		InsGetData:  {0x00, (*Session).state},
		InsPutData:  {0x00, (*Session).setPIN},
		InsGenerate: {0x00, (*Session).generate},
		InsUpdate:   {0x00, (*Session).update},
		InsActivate: {0x00, (*Session).activate},
	}
)

// A Session is a card in a reader under power: it answers command APDUs as the JPKI applet does. What a card forgets when it
// loses its power, such as PINs presented, is in the Session; the rest is in the card's file, where it is before the answer is given. One
// goroutine uses a Session at a time; a card may have several, as it may have several users.
type Session struct {
	card         *Card
	keys         KeyType
	instructions map[byte]instruction // of the selected applet; nil: none is
	file         FileID               // selected; 0: none is
	verified     map[jpki.Kind]bool
	rest         []byte // for GET RESPONSE
	written      []byte // of the selected file, by UPDATE BINARY, until it is whole
}

// NewSession puts a card under power.
func NewSession(c *Card) (*Session, error) {
	keys, err := c.KeyType()
	if err != nil {
		return nil, fmt.Errorf("power card: %w", err)
	}
	s := &Session{card: c, keys: keys}
	s.Reset()
	return s, nil
}

// Reset takes the power from the card and gives it back.
func (s *Session) Reset() { *s = Session{card: s.card, keys: s.keys, verified: map[jpki.Kind]bool{}} }

// ATR returns with what the card answers to a reset (ISO/IEC 7816-3 §8): T=1, and for today's keys the octets by which OpenSC knows a
// JPKI card. A card of the next generation answers as the newest cards in circulation, which OpenSC does not know.
func (s *Session) ATR() []byte {
	if s.keys == P384 {
		return []byte{0x3B, 0xDA, 0x13, 0xFF, 0x81, 0x31, 0xFB, 0x46, 0x80, 0x12, 0x39, 0x2F, 0x31, 0xC1, 0x73, 0xC6, 0x01, 0xC0, 0x3B}
	}
	return []byte{0x3B, 0xE0, 0x00, 0xFF, 0x81, 0x31, 0xFE, 0x45, 0x14}
}

// Transmit answers a command. Whatever the octets, the answer is a card's.
func (s *Session) Transmit(command []byte) (response []byte) {
	c, err := ParseCommand(command)
	if err != nil {
		return StatusWrongLength.Response(nil)
	}
	data, w := s.answer(c)
	if len(data) <= c.Expected {
		s.rest = nil
		return w.Response(data)
	}
	s.rest = bytes.Clone(data[c.Expected:])
	more := min(len(s.rest), 256)
	return (statusRest | StatusWord(more&0xff)).Response(data[:c.Expected])
}

func (s *Session) answer(c Command) ([]byte, StatusWord) {
	switch {
	case c.Class&0xE0 == 0 && c.Class&0x10 != 0: // ISO/IEC 7816-4 §5.4.1
		return nil, StatusNoChaining
	case c.Class&0xE0 == 0 && c.Class&0x0C != 0:
		return nil, StatusNoMessaging
	case c.Class&0xE0 == 0 && c.Class != 0, c.Class&0xC0 == 0x40:
		return nil, StatusNoChannels
	case c.Class != 0 && c.Class != 0x80:
		return nil, StatusNoClass
	case c.Instruction == InsSelect && c.Class == 0:
		return s.selectFile(c)
	case c.Instruction == InsGetResponse && c.Class == 0 && len(c.Data) == 0:
		if s.rest == nil {
			return nil, StatusNotNow
		}
		return s.rest, StatusOK
	}
	ins, known := s.instructions[c.Instruction]
	switch {
	case !known:
		return nil, StatusNoInstruction
	case ins.class != c.Class:
		return nil, StatusNoClass
	}
	return ins.answer(s, c)
}

// selectFile selects an applet, which forgets the PINs, or a file of the selected one. A refused one changes nothing.
func (s *Session) selectFile(c Command) ([]byte, StatusWord) {
	switch c.P1 {
	case 4:
		var chosen map[byte]instruction
		switch name := string(c.Data); {
		case name == AppletID && s.keys == RSA2048, name == NextAppletID && s.keys == P384:
			chosen = jpkiInstructions
		case name == PersonalisationID:
			if blank, err := s.card.Blank(); err != nil {
				return nil, StatusMemoryFailure
			} else if !blank {
				return nil, StatusNotFound
			}
			chosen = personalisationInstructions
		default:
			return nil, StatusNotFound
		}
		if c.P2 != 0x0C && c.P2 != 0 {
			return nil, StatusBadParameters
		}
		s.Reset()
		s.instructions = chosen
		return nil, StatusOK
	case 2:
		switch {
		case s.instructions == nil:
			return nil, StatusNotFound
		case c.P2 != 0x0C:
			return nil, StatusBadParameters
		case len(c.Data) != 2:
			return nil, StatusWrongLength
		}
		id := FileID(binary.BigEndian.Uint16(c.Data))
		if _, ok := files[id]; !ok {
			return nil, StatusNotFound
		}
		s.file, s.written = id, nil
		return nil, StatusOK
	}
	return nil, StatusBadParameters // among them the master file: today's card has none to show
}

// verify presents a PIN, or asks for the retry counter if there is none in the command. The counter is what a verified PIN gives
// too: OpenSC relies upon that.
func (s *Session) verify(c Command) ([]byte, StatusWord) {
	f := files[s.file]
	switch {
	case c.P1 != 0 || c.P2 != 0x80:
		return nil, StatusBadParameters
	case f.role != pin:
		return nil, StatusNotNow
	case len(c.Data) > maxPIN:
		return nil, StatusWrongLength
	case len(c.Data) == 0:
		n, err := s.card.Tries(f.kind)
		return nil, triesLeft(n, err)
	}
	s.verified[f.kind] = false
	err := s.card.verified(f.kind, string(c.Data), func(*slot, func() error) error { return nil })
	var wrong *WrongPINError
	switch {
	case errors.As(err, &wrong):
		return nil, triesLeft(wrong.Remaining, nil)
	case err == nil:
		s.verified[f.kind] = true
	}
	return nil, statusOf(err)
}

// maxPIN is the longest PIN the applet takes, in octets. A longer one costs no try.
const maxPIN = 16

func triesLeft(n int, err error) StatusWord {
	if err != nil {
		return statusOf(err)
	}
	return statusTries | StatusWord(n)
}

// statusOf is the table of what the card's operations refuse.
func statusOf(err error) StatusWord {
	switch {
	case err == nil:
		return StatusOK
	case errors.Is(err, ErrLocked):
		return StatusLocked
	case errors.Is(err, ErrBlank), errors.Is(err, ErrActive), errors.Is(err, ErrNoCertificate):
		return StatusNotNow
	}
	return StatusMemoryFailure
}

// change sets a new PIN after the old one was presented.
func (s *Session) change(c Command) ([]byte, StatusWord) {
	f := files[s.file]
	switch {
	case c.P1 != 1 || c.P2 != 0x80:
		return nil, StatusBadParameters
	case f.role != pin:
		return nil, StatusNotNow
	case !s.verified[f.kind]:
		return nil, StatusPINMissing
	case CheckPIN(f.kind, string(c.Data)) != nil:
		return nil, StatusBadData
	}
	return nil, statusOf(s.card.ResetPIN(f.kind, string(c.Data)))
}

// sign signs the data with the selected key: with RSA in PKCS #1 v1.5 padding as it is, so that the host brings the DigestInfo;
// with P-384 a digest of 32, 48 or 64 octets.
func (s *Session) sign(c Command) ([]byte, StatusWord) {
	id := s.file
	if c.P2 > 0x80 && c.P2 <= 0x9F { // by short identifier
		id = FileID(c.P2 & 0x1F)
	} else if c.P2 != 0x80 {
		return nil, StatusBadParameters
	}
	f := files[id]
	n := len(c.Data)
	fits := n >= 1 && n <= 245
	if s.keys == P384 {
		fits = n == 32 || n == 48 || n == 64
	}
	switch {
	case c.P1 != 0:
		return nil, StatusBadParameters
	case f.role != privateKey:
		return nil, StatusNotNow
	case !s.verified[f.kind]:
		return nil, StatusPINMissing
	case !fits:
		return nil, StatusWrongLength
	}
	var signature []byte
	err := s.card.slot(f.kind, func(sl *slot, _ func() error) (err error) {
		signature, err = sl.sign(c.Data, crypto.Hash(0))
		return err
	})
	return signature, statusOf(err)
}

// read reads a part of the selected file, or of one given by its short identifier.
func (s *Session) read(c Command) ([]byte, StatusWord) {
	id, offset := s.file, int(c.P1)<<8|int(c.P2)
	if c.P1&0x80 != 0 {
		if c.P1&0x60 != 0 {
			return nil, StatusBadParameters
		}
		id, offset = FileID(c.P1&0x1F), int(c.P2)
	}
	switch {
	case len(c.Data) > 0 || c.Expected == 0:
		return nil, StatusWrongLength
	case files[id] == file{}:
		return nil, StatusNotNow
	}
	octets, w := s.content(files[id])
	switch {
	case w != StatusOK:
		return nil, w
	case offset >= len(octets):
		return nil, StatusBadOffset
	}
	return octets[offset:min(len(octets), offset+c.Expected)], StatusOK
}

// content returns what a file has to read. A certificate that was not written yet is an empty file.
func (s *Session) content(f file) (octets []byte, w StatusWord) {
	var err error
	switch f.role {
	case certificate:
		if f.kind == jpki.CardSign && !s.verified[f.kind] {
			return nil, StatusPINMissing
		}
		err = s.card.slot(f.kind, func(sl *slot, _ func() error) error { octets = sl.Certificate; return nil })
	case caCertificate:
		err = s.card.slot(f.kind, func(sl *slot, _ func() error) error { octets = sl.CACertificate; return nil })
	case tokenInfo:
		octets = s.tokenInfo()
	case presence:
		err = s.card.with(func(data *content, _ func() error) error {
			octets = []byte{mark(data.Sign.Certificate), mark(data.Auth.Certificate), 0}
			return nil
		})
	default:
		return nil, StatusNotNow
	}
	return octets, statusOf(err)
}

// mark is what a real card with both certificates has in EF 0008 for each of them. That zero says there is none is a guess.
func mark(certificate []byte) byte {
	if certificate == nil {
		return 0
	}
	return 0x8F
}

// tokenInfo is a CK_TOKEN_INFO of 160 octets as the card has it. The label is the real one, which programs look at; maker, model and
// serial number say that nobody made this card.
func (s *Session) tokenInfo() []byte {
	label := "JPKIAPICCTOKEN2"
	if s.keys == P384 {
		label = "JPKIAPNEXTTOKEN" // ours
	}
	b := fmt.Appendf(make([]byte, 0, 160), "%-32s%032d%-16s%016d", label, 0, "SANDBOX", 0)
	const unknown = 0xFFFFFFFF
	for _, n := range []uint32{0x040D, 1, 0, 1, 0, maxPIN, 6, unknown, unknown, unknown, unknown} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return append(b, "\x03\x00\x01\x009999999999999999"...)
}

// The personalisation applet. Whoever has a blank card in hand may use it; a lawful personalisation line would want to prove
// itself to the card first.

// state tells the card's number, and of what type its keys are to be.
func (s *Session) state(c Command) ([]byte, StatusWord) {
	switch {
	case len(c.Data) > 0:
		return nil, StatusWrongLength
	case c.P1 == 0 && c.P2 == 0:
		return []byte(s.card.ID()), StatusOK
	case c.P1 == 0 && c.P2 == 1:
		return []byte(s.keys), StatusOK
	}
	return nil, StatusBadParameters
}

// setPIN sets the first PIN; P2 is the short identifier of its file.
func (s *Session) setPIN(c Command) ([]byte, StatusWord) {
	f := files[FileID(c.P2)]
	switch {
	case c.P1 != 0 || f.role != pin:
		return nil, StatusBadParameters
	case CheckPIN(f.kind, string(c.Data)) != nil:
		return nil, StatusBadData
	}
	if blank, err := s.card.Blank(); err != nil || !blank {
		return nil, statusOf(errors.Join(err, ErrActive))
	}
	return nil, statusOf(s.card.ResetPIN(f.kind, string(c.Data)))
}

// generate makes a key, or finds it made, and answers with its SubjectPublicKeyInfo; P2 is the short identifier of its file.
func (s *Session) generate(c Command) ([]byte, StatusWord) {
	f := files[FileID(c.P2)]
	switch {
	case c.P1 != 0 || f.role != privateKey:
		return nil, StatusBadParameters
	case len(c.Data) > 0:
		return nil, StatusWrongLength
	}
	pub, err := s.card.MakeKey(f.kind)
	if err != nil {
		return nil, statusOf(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	return der, statusOf(err)
}

// update takes the next part of a certificate into the selected file. The first part begins with the header that tells the length;
// once the certificate is whole it is checked and written. Torn away before, the card has what it had.
func (s *Session) update(c Command) ([]byte, StatusWord) {
	f := files[s.file]
	offset := int(c.P1)<<8 | int(c.P2)
	if offset == 0 {
		s.written = nil
	}
	switch {
	case f.role != certificate && f.role != caCertificate:
		return nil, StatusNotNow
	case offset != len(s.written):
		return nil, StatusBadOffset
	case len(c.Data) == 0 || offset == 0 && len(c.Data) < 4:
		return nil, StatusWrongLength
	}
	s.written = append(s.written, c.Data...)
	length := 4 + (int(s.written[2])<<8 | int(s.written[3]))
	switch {
	case s.written[0] != 0x30 || s.written[1] != 0x82 || length > maxCertificate || len(s.written) > length:
		s.written = nil
		return nil, StatusBadData
	case len(s.written) < length:
		return nil, StatusOK
	}
	der := s.written
	s.written = nil
	if blank, err := s.card.Blank(); err != nil || !blank {
		return nil, statusOf(errors.Join(err, ErrActive))
	}
	write := s.card.WriteCertificate
	if f.role == caCertificate {
		write = s.card.WriteCACertificate
	}
	if err := write(f.kind, der); err != nil {
		return nil, StatusBadData
	}
	return nil, StatusOK
}

// activate ends the personalisation.
func (s *Session) activate(c Command) ([]byte, StatusWord) {
	switch {
	case c.P1 != 0 || c.P2 != 0:
		return nil, StatusBadParameters
	case len(c.Data) > 0:
		return nil, StatusWrongLength
	}
	return nil, statusOf(s.card.Activate())
}
