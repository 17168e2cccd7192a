package reader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// DefaultSlot is where vpcd waits for the card of its first slot; the second is at the next port.
const DefaultSlot = "127.0.0.1:35963"

// SwapTime is how long a slot should be empty before the next card: pcscd looks at it every 400 ms, and a card that comes between two looks
// would be taken for the one before it, or for none.
const SwapTime = time.Second

// A Card answers a reader. It is used by one goroutine at a time.
type Card interface {
	ATR() []byte                               // at most 33 octets
	Reset()                                    // takes the power and gives it back
	Transmit(command []byte) (response []byte) // at most 65,535 octets each
}

// A Slot is a virtual reader's, and the card to be put into it.
type Slot struct {
	Addr string // host:port of vpcd; required
	Card Card   // required
	// Off, if not nil, is told that the reader took the power from the card, and says whether the card is to be pulled then.
	Off func() (pull bool)
}

// What vpcd asks with a message of one octet.
const (
	vpcdOff   = 0
	vpcdOn    = 1
	vpcdReset = 2
	vpcdATR   = 4
)

// Show puts the card into the slot and answers the reader until the context ends or Off says so: then the card is pulled and Show returns
// nil. It fails when vpcd cannot be reached or goes away.
func (s Slot) Show(ctx context.Context) error {
	if s.Addr == "" || s.Card == nil {
		return errors.New("reader.Slot.Addr or Card is missing")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("put card into reader: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = s.answer(prompt{conn})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s Slot) answer(conn io.ReadWriter) error {
	s.Card.Reset()
	var message [2 + 1<<16]byte
	for {
		if _, err := io.ReadFull(conn, message[:2]); err != nil {
			return fmt.Errorf("hear the reader: %w", err)
		}
		n := int(binary.BigEndian.Uint16(message[:2]))
		if n == 0 {
			return errors.New("hear the reader: an empty message")
		}
		asked := message[2 : 2+n]
		if _, err := io.ReadFull(conn, asked); err != nil {
			return fmt.Errorf("hear the reader: %w", err)
		}
		var answer []byte
		switch {
		case n > 1:
			answer = s.Card.Transmit(asked)
		case asked[0] == vpcdATR:
			answer = s.Card.ATR()
		case asked[0] == vpcdOff:
			s.Card.Reset()
			if s.Off != nil && s.Off() {
				return nil
			}
			continue
		case asked[0] == vpcdOn, asked[0] == vpcdReset:
			s.Card.Reset()
			continue
		default:
			return fmt.Errorf("hear the reader: an unknown order %d", asked[0])
		}
		if len(answer) > 1<<16-1 {
			return errors.New("answer the reader: too long")
		}
		// One write: length and answer in one segment.
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer))), answer...)); err != nil {
			return fmt.Errorf("answer the reader: %w", err)
		}
	}
}

// A prompt connection acknowledges what comes at once. vpcd writes a length and what follows it in two segments and waits for the first
// one's acknowledgement (Nagle), which the system would hold back for some 40 ms.
type prompt struct{ net.Conn }

func (p prompt) Read(b []byte) (int, error) {
	acknowledgeNow(p.Conn)
	return p.Conn.Read(b)
}
