package card

import (
	"errors"
	"slices"
)

// A Command is a command APDU (ISO/IEC 7816-4:2020 §5.1).
type Command struct {
	Class, Instruction, P1, P2 byte
	Data                       []byte // at most MaxCommandData octets
	Expected                   int    // how many octets of data the answer may have: 0 to 65,536
	Extended                   bool   // lengths are written in the long form although the short one would do
}

// MaxCommandData is how many octets of data a command may carry here; the long form could tell of 65,535.
const MaxCommandData = 4096

var errCommandLength = errors.New("the lengths in the command do not fit it")

// ParseCommand reads a command in any of the seven forms of ISO/IEC 7816-4 §5.2. [Command.Append] gives the same octets
// back. Data stays in b.
func ParseCommand(b []byte) (Command, error) {
	if len(b) < 4 || len(b) > 4+3+MaxCommandData+2 {
		return Command{}, errCommandLength
	}
	c := Command{Class: b[0], Instruction: b[1], P1: b[2], P2: b[3]}
	body := b[4:]
	switch {
	case len(body) == 0:
		return c, nil
	case len(body) == 1:
		c.Expected = expected(body, 1<<8)
		return c, nil
	}
	lengths, most := 1, 1<<8
	n := int(body[0])
	if n == 0 {
		if len(body) < 3 {
			return Command{}, errCommandLength
		}
		c.Extended, lengths, most = true, 2, 1<<16
		if body = body[1:]; len(body) == 2 {
			c.Expected = expected(body, most)
			return c, nil
		}
		n = int(body[0])<<8 | int(body[1])
	}
	body = body[lengths:]
	switch {
	case n == 0 || n > MaxCommandData:
		return Command{}, errCommandLength
	case len(body) == n:
	case len(body) == n+lengths:
		c.Expected = expected(body[n:], most)
	default:
		return Command{}, errCommandLength
	}
	c.Data = body[:n:n]
	return c, nil
}

// expected reads an expected length, in which zero stands for the most there is.
func expected(b []byte, most int) (n int) {
	for _, o := range b {
		n = n<<8 | int(o)
	}
	if n == 0 {
		n = most
	}
	return n
}

// Append appends the command as it is sent. The long form is used if Extended is set or a length needs it.
func (c Command) Append(b []byte) []byte {
	b = append(b, c.Class, c.Instruction, c.P1, c.P2)
	if !c.Extended && len(c.Data) <= 255 && c.Expected <= 256 {
		if len(c.Data) > 0 {
			b = append(append(b, byte(len(c.Data))), c.Data...)
		}
		if c.Expected > 0 {
			b = append(b, byte(c.Expected))
		}
		return b
	}
	if len(c.Data) > 0 || c.Expected > 0 {
		b = append(b, 0)
	}
	if len(c.Data) > 0 {
		b = append(append(b, byte(len(c.Data)>>8), byte(len(c.Data))), c.Data...)
	}
	if c.Expected > 0 {
		b = append(b, byte(c.Expected>>8), byte(c.Expected))
	}
	return b
}

// A StatusWord is how a card's answer ends: two octets (ISO/IEC 7816-4 §5.6).
type StatusWord uint16

// The status words that the card gives. Two more carry a number: see [StatusWord.Tries] and [StatusWord.Rest].
const (
	StatusOK            StatusWord = 0x9000
	StatusMemoryFailure StatusWord = 0x6581 // the card's file could not be read or written
	StatusWrongLength   StatusWord = 0x6700
	StatusNoChannels    StatusWord = 0x6881 // logical channels
	StatusNoMessaging   StatusWord = 0x6882 // secure messaging
	StatusNoChaining    StatusWord = 0x6884
	StatusPINMissing    StatusWord = 0x6982
	StatusLocked        StatusWord = 0x6984 // as the real card says it; ISO's would be 6983
	StatusNotNow        StatusWord = 0x6985 // no file selected for this, or not in the card's life
	StatusBadData       StatusWord = 0x6A80
	StatusNotFound      StatusWord = 0x6A82
	StatusBadParameters StatusWord = 0x6A86
	StatusBadOffset     StatusWord = 0x6B00
	StatusNoInstruction StatusWord = 0x6D00
	StatusNoClass       StatusWord = 0x6E00

	statusTries StatusWord = 0x63C0
	statusRest  StatusWord = 0x6100
)

// Tries returns how many wrong PINs the card still takes, if the word says that.
func (w StatusWord) Tries() (n int, ok bool) { return int(w & 0xf), w&0xfff0 == statusTries }

// Rest returns how many octets GET RESPONSE would bring, 256 for 256 or more, if the word says that.
func (w StatusWord) Rest() (n int, ok bool) {
	if w>>8 != statusRest>>8 {
		return 0, false
	}
	return expected([]byte{byte(w)}, 1<<8), true
}

// Response returns a card's answer as it is sent.
func (w StatusWord) Response(data []byte) []byte {
	return append(slices.Clip(data), byte(w>>8), byte(w))
}

// ParseResponse parts a card's answer, at most 65,538 octets, into its data and its status word.
func ParseResponse(b []byte) (data []byte, w StatusWord, err error) {
	n := len(b) - 2
	if n < 0 || n > 1<<16 {
		return nil, 0, errors.New("not a card's answer")
	}
	return b[:n:n], StatusWord(b[n])<<8 | StatusWord(b[n+1]), nil
}
