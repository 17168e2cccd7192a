package pkcs11

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// What a slot and its child say to each other before they speak hsm/signer's protocol: one frame each, of JSON.

// An order is what the child is to do.
type order struct {
	Token    string            `json:"token"` // URI without a key
	Keys     map[string]string `json:"keys"`  // name → URI
	Sessions int               `json:"sessions"`
}

// A report is what the child found.
type report struct {
	State    State             `json:"state"` // Up, or why not
	Detail   string            `json:"detail,omitempty"`
	Sessions int               `json:"sessions,omitempty"`
	Keys     map[string][]byte `json:"keys,omitempty"` // name → SubjectPublicKeyInfo, of those that signed a test message
	Missing  map[string]string `json:"missing,omitempty"`
}

// A State says how a slot is.
type State string

// The states.
const (
	Up         State = "up"
	Starting   State = "starting"
	Absent     State = "absent"      // no token answers to the URI, or the module does not load
	PINRefused State = "pin-refused" // not tried again before the PIN's file changes
	PINLocked  State = "pin-locked"  // the token says so; asked again, without a login, until it is unlocked
	Lost       State = "lost"        // the child ended, or the token's sessions did
	Stopped    State = "stopped"
)

const maxHello = 1 << 20

func writeFrame(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

func readFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxHello {
		return errors.New("the child says too much")
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

const maxPIN = 255 // octets

// readPIN reads a file that holds a PIN and nothing else; a line feed at its end is not part of it.
func readPIN(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // non-blocking: a FIFO must not hang us
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New("the PIN's file is not a regular file")
	case info.Mode().Perm()&0o027 != 0:
		return "", fmt.Errorf("the PIN's file has mode %04o; it must be 0640 or less", info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPIN+2))
	if err != nil {
		return "", err
	}
	defer clear(text)
	pin := strings.TrimSuffix(string(text), "\n")
	if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\r\n\x00") {
		return "", errors.New("the PIN's file holds no PIN, or more than one line")
	}
	return pin, nil
}

// identity tells whether a file is still the one that it was.
func identity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	s := fmt.Sprintf("%d octets of %d", info.Size(), info.ModTime().UnixNano())
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s += fmt.Sprintf(", file %d", st.Ino)
	}
	return s
}
