package ceremony

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
	"time"
)

// The files of a ceremony's folder with names of their own.
const (
	planFile       = "input.yaml"
	profileFile    = "profile.yaml"
	transcriptFile = "transcript.ndjson"
	backupFile     = "backup.json"
)

// maxTranscript bounds what is read as a transcript, in octets.
const maxTranscript = 1 << 20

// An Entry is one line of a transcript. Each names the hash of the line before, octet by octet, so the last line's hash says
// everything; witnesses sign the whole file.
type Entry struct {
	Number   int               `json:"number"`
	Time     time.Time         `json:"time"` // UTC, by the clock of the machine
	Step     string            `json:"step"`
	Facts    map[string]string `json:"facts,omitempty"`
	Files    map[string]string `json:"files,omitempty"` // made or used here: SHA-256 in hexadecimal; secrets never
	Previous string            `json:"previous"`        // SHA-256 of the line before, without its line feed; empty in the first
}

// The first and the last step of every transcript.
const (
	stepBegin = "begin"
	stepEnd   = "end"
)

// A transcript is being written.
type transcript struct {
	file     *os.File
	now      func() time.Time
	number   int
	previous string
}

// openTranscript begins one in a folder that has none: a folder serves one ceremony.
func openTranscript(dir string, now func() time.Time) (*transcript, error) {
	f, err := os.OpenFile(filepath.Join(dir, transcriptFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin the transcript (each ceremony has a folder of its own): %w", err)
	}
	return &transcript{file: f, now: now}, nil
}

// add writes a line durably: what is not in the transcript has not happened.
func (t *transcript) add(step string, facts, files map[string]string) error {
	t.number++
	e := Entry{Number: t.number, Time: t.now().UTC().Truncate(time.Second), Step: step, Facts: facts, Files: files, Previous: t.previous}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	t.previous = hash(line)
	if _, err := t.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the transcript: %w", err)
	}
	return t.file.Sync()
}

// ReadTranscript returns the lines of a ceremony's transcript and the hash of the last, in hexadecimal. An error says which
// line was altered, removed or added, or that the ceremony was not brought to its end.
func ReadTranscript(dir string) (lines []Entry, last string, err error) {
	text, err := readFile(filepath.Join(dir, transcriptFile), maxTranscript)
	if err != nil {
		return nil, "", err
	}
	if !bytes.HasSuffix(text, []byte{'\n'}) {
		return nil, "", errors.New("the transcript's last line is not whole")
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		var e Entry
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return nil, "", fmt.Errorf("line %d of the transcript cannot be read", len(lines)+1)
		}
		if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, line) {
			return nil, "", fmt.Errorf("line %d of the transcript is not written as it should be", len(lines)+1)
		}
		if e.Number != len(lines)+1 || e.Previous != last {
			return nil, "", fmt.Errorf("line %d of the transcript does not follow the line before", len(lines)+1)
		}
		last = hash(line)
		lines = append(lines, e)
	}
	if len(lines) < 2 || lines[0].Step != stepBegin || lines[len(lines)-1].Step != stepEnd {
		return nil, "", errors.New("the ceremony was not brought to its end")
	}
	return lines, last, nil
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// readFile reads a file that must not be longer than limit octets.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s is longer than %d octets", path, limit)
	}
	return text, err
}

// writeNew writes a file that must not be there, durably.
func writeNew(path string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
