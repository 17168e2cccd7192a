package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// IndexName is the file that says which of the others beside it belong together.
const IndexName = "index.json"

// An Index lists what a reader needs: a snapshot and the deltas since, in their order. It is not signed, for the files are: a false
// one can lead to nothing but an older state, which a reader that remembers a sequence number refuses.
type Index struct {
	Issuer string `json:"issuer"` // sign-1
	Files  []File `json:"files"`
}

// A File is one of an index.
type File struct {
	Name       string    `json:"name"` // the sequence number and what it is: 1775012400000.snapshot, 1775016000000.delta
	Octets     int64     `json:"octets"`
	SHA256     string    `json:"sha256"`
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
}

const (
	snapshotSuffix = ".snapshot"
	deltaSuffix    = ".delta"

	maxIndex = 1 << 20 // octets
	maxFiles = 2048    // of an index
	maxFile  = headerOctets + 2 + maxSignature + maxBody
)

// parseName reads exactly the names that files have, so that none leads out of a folder.
func parseName(name string) (sequence uint64, delta, ok bool) {
	digits, whole := strings.CutSuffix(name, snapshotSuffix)
	if !whole {
		digits, delta = strings.CutSuffix(name, deltaSuffix)
	}
	sequence, err := strconv.ParseUint(digits, 10, 63)
	return sequence, delta, (whole || delta) && err == nil && sequence > 0 && strconv.FormatUint(sequence, 10) == digits
}

func fileName(sequence uint64, delta bool) string {
	return strconv.FormatUint(sequence, 10) + map[bool]string{false: snapshotSuffix, true: deltaSuffix}[delta]
}

// ParseIndex reads an index strictly. It is [jpki.Malformed] otherwise.
func ParseIndex(text []byte) (*Index, error) {
	if len(text) > maxIndex {
		return nil, jpki.Errorf(jpki.Malformed, "the index has more than %d octets", maxIndex)
	}
	var i Index
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "the index cannot be read")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, jpki.Errorf(jpki.Malformed, "something follows the index")
	}
	if err := i.check(); err != nil {
		return nil, jpki.WrapError(jpki.Malformed, err, "the index is refused")
	}
	return &i, nil
}

func (i *Index) check() error {
	if _, err := jpki.ParseIssuerID(i.Issuer); err != nil {
		return err
	}
	if len(i.Files) == 0 || len(i.Files) > maxFiles {
		return fmt.Errorf("it has %d files, not 1 to %d", len(i.Files), maxFiles)
	}
	var last uint64
	for n, f := range i.Files {
		sequence, delta, ok := parseName(f.Name)
		sum, err := hex.DecodeString(f.SHA256)
		switch {
		case !ok || delta != (n > 0):
			return fmt.Errorf("file %d is not a %s", n, map[bool]string{false: "snapshot", true: "delta"}[n > 0])
		case sequence <= last:
			return fmt.Errorf("file %d does not follow the one before", n)
		case err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != f.SHA256:
			return fmt.Errorf("file %d has no SHA-256", n)
		case f.Octets < headerOctets || f.Octets > maxFile:
			return fmt.Errorf("file %d has an impossible length", n)
		}
		last = sequence
	}
	return nil
}

// Matches reports why octets are not the file's.
func (f File) Matches(octets []byte) error {
	if sum := sha256.Sum256(octets); int64(len(octets)) != f.Octets || hex.EncodeToString(sum[:]) != f.SHA256 {
		return jpki.Errorf(jpki.Malformed, "%s is not the file that the index names", f.Name)
	}
	return nil
}

// OpenDir opens what the index in a folder names: the snapshot with all deltas.
func OpenDir(dir string, c Config) (*Snapshot, *Index, error) {
	text, err := readLimited(filepath.Join(dir, IndexName), maxIndex)
	if err != nil {
		return nil, nil, err
	}
	index, err := ParseIndex(text)
	if err != nil {
		return nil, nil, err
	}
	var s *Snapshot
	for _, f := range index.Files {
		octets, err := readLimited(filepath.Join(dir, f.Name), maxFile)
		if err == nil {
			err = f.Matches(octets)
		}
		if err == nil && s == nil {
			first := c
			first.Sequence = 0 // what counts is how far the deltas go
			s, err = Open(octets, first)
		} else if err == nil {
			s, err = s.Apply(octets)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if s.info.Issuer.String() != index.Issuer {
		return nil, nil, jpki.Errorf(jpki.Malformed, "the index is of another issuer than its files")
	}
	s.config.Sequence = c.Sequence
	return s, index, c.current(s.info, c.Sequence)
}

func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	octets, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(octets)) > limit {
		err = errors.New("the file is too long")
	}
	return octets, err
}
