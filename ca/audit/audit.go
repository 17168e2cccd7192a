// Package audit chains the authority's audit record so that a removed, reordered or altered entry is detected offline.
//
// It owns the [Entry], its hash, the [Head] of a chain and the signed [Checkpoint] of a head; [Verify] walks a chain.
// It stores nothing: ca/store writes entries in the transaction of the change they record. Entries hold identifiers
// and codes, never the four attributes. The hash is SHA-256 over length-prefixed fields, the signature Ed25519.
// Functions are pure and safe for concurrent use. Start at Entry.
package audit

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// A Hash is the SHA-256 that links one entry to the next.
type Hash [32]byte

// String returns lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String writes.
func ParseHash(s string) (h Hash, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return Hash{}, errors.New("hash is not 64 hexadecimal digits")
	}
	copy(h[:], b)
	return h, nil
}

// An Entry is one line of the audit record: who did what to what, and when.
type Entry struct {
	Seq     int64     // 1, 2, 3 … without gaps
	At      time.Time // to the microsecond
	Actor   string
	Action  string
	Subject string // a certificate, an event, a station …
	Detail  string // codes as JSON, or empty
	Prev    Hash   // the hash of entry Seq−1; zero for the first
	Hash    Hash   // of everything above
}

// Sum computes the hash an entry must have.
func (e Entry) Sum() Hash {
	b := []byte("jpki audit entry 1\n")
	b = binary.BigEndian.AppendUint64(b, uint64(e.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(e.At.UnixMicro()))
	for _, s := range []string{e.Actor, e.Action, e.Subject, e.Detail} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return sha256.Sum256(append(b, e.Prev[:]...))
}

// A Head is the newest entry of a chain; its zero value is the head of an empty one.
type Head struct {
	Seq  int64
	Hash Hash
}

// Append links e behind the head and returns the finished entry and the new head.
func (h Head) Append(e Entry) (Entry, Head) {
	e.Seq, e.Prev = h.Seq+1, h.Hash
	e.At = e.At.UTC().Truncate(time.Microsecond)
	e.Hash = e.Sum()
	return e, Head{e.Seq, e.Hash}
}

// Next returns the head that an entry makes of h, or a [*BrokenChainError] if it does not belong there.
func (h Head) Next(e Entry) (Head, error) {
	switch {
	case e.Seq != h.Seq+1:
		return h, &BrokenChainError{h.Seq + 1, fmt.Sprintf("missing, entry %d follows entry %d", e.Seq, h.Seq)}
	case e.Prev != h.Hash:
		return h, &BrokenChainError{e.Seq, "does not continue the entry before it"}
	case e.Sum() != e.Hash:
		return h, &BrokenChainError{e.Seq, "altered: its hash does not match its content"}
	}
	return Head{e.Seq, e.Hash}, nil
}

// A BrokenChainError says where a chain stops holding.
type BrokenChainError struct {
	Seq    int64
	Reason string
}

// Error names the entry and what is wrong with it.
func (e *BrokenChainError) Error() string {
	return fmt.Sprintf("audit record broken at entry %d: %s", e.Seq, e.Reason)
}

// Verify walks a chain from its first entry, calls visit (if not nil) for each sound entry and returns the head.
// The first unsound entry ends the walk with a [*BrokenChainError].
func Verify(entries iter.Seq2[Entry, error], visit func(Entry) error) (Head, error) {
	var head Head
	for e, err := range entries {
		if err != nil {
			return head, fmt.Errorf("read audit record after entry %d: %w", head.Seq, err)
		}
		next, err := head.Next(e)
		if err != nil {
			return head, err
		}
		if visit != nil {
			if err := visit(e); err != nil {
				return head, err
			}
		}
		head = next
	}
	return head, nil
}

// A Checkpoint is a head signed by the authority. Kept outside the database, it reveals a chain that was cut short or
// rewritten as a whole.
type Checkpoint struct {
	Head
	At        time.Time
	Signature []byte
}

func (c Checkpoint) message() []byte {
	return fmt.Appendf(nil, "jpki audit checkpoint 1\n%d %s %s\n", c.Seq, c.Hash, c.At.UTC().Format(time.RFC3339))
}

// Sign returns the signed checkpoint of a head.
func Sign(h Head, at time.Time, key ed25519.PrivateKey) Checkpoint {
	c := Checkpoint{Head: h, At: at.UTC().Truncate(time.Second)}
	c.Signature = ed25519.Sign(key, c.message())
	return c
}

// Valid reports whether the checkpoint was signed with the key.
func (c Checkpoint) Valid(key ed25519.PublicKey) bool {
	return ed25519.Verify(key, c.message(), c.Signature)
}

// String returns the checkpoint as one line: position, hash, time, signature.
func (c Checkpoint) String() string {
	return fmt.Sprintf("%d %s %s %s", c.Seq, c.Hash, c.At.UTC().Format(time.RFC3339), base64.StdEncoding.EncodeToString(c.Signature))
}

// ParseCheckpoint reads what String writes.
func ParseCheckpoint(line string) (c Checkpoint, err error) {
	f := strings.Fields(line)
	if len(f) != 4 {
		return c, errors.New("checkpoint has not four fields")
	}
	if c.Seq, err = strconv.ParseInt(f[0], 10, 64); err != nil {
		return c, fmt.Errorf("checkpoint position: %w", err)
	}
	if c.Hash, err = ParseHash(f[1]); err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	if c.At, err = time.Parse(time.RFC3339, f[2]); err != nil {
		return c, fmt.Errorf("checkpoint time: %w", err)
	}
	c.Signature, err = base64.StdEncoding.Strict().DecodeString(f[3])
	return c, err
}
