package main

import (
	"io"
	"net"
	"testing"
	"time"
)

// newEcho starts a server that says what it hears.
func newEcho(t *testing.T) (address string, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String(), nil
}

type speaker struct{ net.Conn }

func dial(t *testing.T, address string) speaker {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return speaker{c}
}

// says sends an octet, which comes back or does not.
func (s speaker) says(t *testing.T, back bool) {
	t.Helper()
	if _, err := s.Write([]byte{'x'}); err != nil {
		t.Fatal(err)
	}
	s.hears(t, back)
}

func (s speaker) hears(t *testing.T, want bool) {
	t.Helper()
	patience := 30 * time.Second
	if !want {
		patience = 50 * time.Millisecond
	}
	_ = s.SetReadDeadline(time.Now().Add(patience))
	if _, err := s.Read(make([]byte, 1)); (err == nil) != want {
		t.Errorf("read: %v", err)
	}
}
