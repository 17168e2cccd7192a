package reader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// DefaultSocket is where pcscd listens.
const DefaultSocket = "/run/pcscd/pcscd.comm"

// The errors after which one may go on with the same card, or the same daemon, later.
var (
	// ErrCardGone says that the card was pulled, was reset by somebody else, or is not there.
	ErrCardGone = errors.New("the card was pulled or reset")
	// ErrDaemonGone says that pcscd is not there or does not answer: this client is of no more use.
	ErrDaemonGone = errors.New("pcscd is gone")
)

// A Code is an error of PC/SC as pcscd gives it.
type Code uint32

// Error tells the code; errors.Is(err, ErrCardGone) holds for those that say so.
func (c Code) Error() string { return fmt.Sprintf("PC/SC error %08X", uint32(c)) }

// Is reports whether the code says that the card is gone.
func (c Code) Is(target error) bool {
	if target != ErrCardGone {
		return false
	}
	switch c {
	case 0x8010000C, // no smart card
		0x80100069, 0x80100068, 0x80100067, 0x80100066, // removed, reset, unpowered, unresponsive
		0x80100010,                         // the card is not ready
		0x80100016, 0x80100013, 0x8010002F, // not transacted, communication: torn away in the middle of a command
		0x80100017, 0x80100009: // the reader itself was unplugged
		return true
	}
	return false
}

// The commands of pcscd's protocol 4 (pcsc-lite, winscard_msg.h). All numbers are in the machine's order: the two ends are on one machine.
const (
	cmdEstablish  = 0x01
	cmdConnect    = 0x04
	cmdDisconnect = 0x06
	cmdTransmit   = 0x09
	cmdVersion    = 0x11
	cmdReaders    = 0x12
)

const (
	protocolMajor, protocolMinor = 4, 4

	maxReaders   = 16
	readerOctets = 184
	maxName      = 128 // of a reader, with the zero that ends it
	maxATR       = 33
	maxResponse  = 1<<16 + 2

	scopeSystem    = 2
	shareExclusive = 1
	protocolT1     = 2
	unpower        = 2
	statePresent   = 4
)

// exchangeTime bounds how long pcscd may take for one answer: a real card makes an RSA key in up to half a minute.
const exchangeTime = time.Minute

// A Client is a conversation with pcscd. It connects to one card at a time.
type Client struct {
	conn    net.Conn
	context uint32
	broken  error // after which nothing can be said any more
}

// Dial begins a conversation with the pcscd that listens on a socket. It speaks protocol 4, of pcsc-lite since 1.6.
func Dial(ctx context.Context, socket string) (*Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDaemonGone, err)
	}
	c := &Client{conn: conn}
	version := numbers(protocolMajor, protocolMinor, 0)
	answer, err := c.exchange(ctx, cmdVersion, version, nil)
	if err == nil && number(answer, 0) != protocolMajor {
		err = fmt.Errorf("pcscd speaks protocol %d, not %d", number(answer, 0), protocolMajor)
	}
	if err == nil {
		answer, err = c.exchange(ctx, cmdEstablish, numbers(scopeSystem, 0, 0), nil)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.context = number(answer, 1)
	return c, nil
}

// Close ends the conversation; pcscd lets a connected card go.
func (c *Client) Close() error { return c.conn.Close() }

// A State says what is in a reader.
type State struct {
	Reader  string
	Present bool   // a card is
	Event   uint32 // counts cards put in and pulled
}

// Readers returns the readers and what is in them.
func (c *Client) Readers(ctx context.Context) ([]State, error) {
	answer, err := c.exchange(ctx, cmdReaders, nil, nil)
	if err != nil {
		return nil, err
	}
	var states []State
	for b := answer; len(b) >= readerOctets; b = b[readerOctets:] {
		name, _, _ := bytes.Cut(b[:maxName], []byte{0})
		if len(name) > 0 {
			states = append(states, State{Reader: string(name), Event: number(b[maxName:], 0), Present: number(b[maxName:], 1)&statePresent != 0})
		}
	}
	return states, nil
}

// Connect powers the card in a reader and takes it for this client alone.
func (c *Client) Connect(ctx context.Context, reader string) (*Connection, error) {
	if len(reader) >= maxName {
		return nil, fmt.Errorf("the reader's name is longer than %d octets", maxName-1)
	}
	var name [maxName]byte
	copy(name[:], reader)
	message := append(append(numbers(c.context), name[:]...), numbers(shareExclusive, protocolT1, 0, 0, 0)...)
	answer, err := c.exchange(ctx, cmdConnect, message, nil)
	if err != nil {
		return nil, fmt.Errorf("connect to card: %w", err)
	}
	return &Connection{c, number(answer[4+maxName:], 2)}, nil
}

// A Connection is to one card.
type Connection struct {
	client *Client
	handle uint32
}

// Transmit carries a command to the card and its answer back.
func (c *Connection) Transmit(ctx context.Context, command []byte) (response []byte, err error) {
	const pciOctets = 16 // of a SCARD_IO_REQUEST, which nobody looks at
	answer, err := c.client.exchange(ctx, cmdTransmit, numbers(c.handle, protocolT1, pciOctets, uint32(len(command)), protocolT1, pciOctets, maxResponse, 0), command)
	if err != nil {
		return nil, fmt.Errorf("transmit: %w", err)
	}
	response = make([]byte, number(answer, 6))
	if len(response) > maxResponse {
		return nil, c.client.give(errors.New("an answer that is too long"))
	}
	err = c.client.bounded(ctx, func() error { _, err := io.ReadFull(c.client.conn, response); return err })
	return response, err
}

// Disconnect takes the power from the card and lets it go.
func (c *Connection) Disconnect(ctx context.Context) error {
	_, err := c.client.exchange(ctx, cmdDisconnect, numbers(c.handle, unpower, 0), nil)
	return err
}

// exchange sends a message, with what follows it, and reads the answer: a structure of the message's length whose last number says how it
// went, but for the list of readers, which has its own length and cannot fail.
func (c *Client) exchange(ctx context.Context, command uint32, message, follows []byte) ([]byte, error) {
	answer := make([]byte, len(message))
	if command == cmdReaders {
		answer = make([]byte, maxReaders*readerOctets)
	}
	err := c.bounded(ctx, func() error {
		b := append(append(numbers(uint32(len(message)), command), message...), follows...)
		if _, err := c.conn.Write(b); err != nil {
			return err
		}
		_, err := io.ReadFull(c.conn, answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	if command != cmdReaders {
		if code := Code(number(answer, len(answer)/4-1)); code != 0 {
			return nil, code
		}
	}
	return answer, nil
}

// bounded does a part of a conversation in limited time. What is broken off cannot be taken up again.
func (c *Client) bounded(ctx context.Context, do func() error) error {
	if c.broken != nil {
		return c.broken
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	err := do()
	if !stop() || err != nil {
		return c.give(errors.Join(ctx.Err(), err))
	}
	return nil
}

func (c *Client) give(err error) error {
	c.broken = fmt.Errorf("%w: %w", ErrDaemonGone, err)
	return c.broken
}

func numbers(ns ...uint32) (b []byte) {
	for _, n := range ns {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}

// number returns the i-th number of b.
func number(b []byte, i int) uint32 { return binary.NativeEndian.Uint32(b[4*i:]) }
