package signer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Record says how often keys have signed. Records form a chain: each carries the hash of the one before it, so an
// authority that puts a record's hash into its audit chain has vouched for all before it.
type Record struct {
	Seq  uint64           `json:"seq"` // from 1, without gaps
	Time time.Time        `json:"time"`
	Keys map[string]Usage `json:"keys"`
	Prev string           `json:"prev"` // hash of the record before, hexadecimal; empty for the first
	Hash string           `json:"hash"` // SHA-256 of the record's JSON with an empty hash
}

// A Usage is how often one key was used.
type Usage struct {
	Used    map[string]uint64 `json:"used"`    // by purpose; "unknown": at most so many in times that ended in a crash
	Ceiling uint64            `json:"ceiling"` // no more than so many in all before the next record is on the disk
}

func (u Usage) total() (n uint64) {
	for _, c := range u.Used {
		n += c
	}
	return n
}

func (r Record) sum() string {
	r.Hash = ""
	text, _ := json.Marshal(r) //nolint:errchkjson // maps of numbers
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// A Meter counts the uses of keys and keeps the counts. A count on the disk is never behind: before a key signs more often
// than its ceiling, a record with a higher one is flushed.
type Meter struct {
	now  func() time.Time
	mu   sync.Mutex
	file *os.File
	last Record
	text []byte            // last as it stands in the file
	keys map[string]*count // since the last record
	err  error             // a record could not be written
}

type count struct {
	used    map[string]uint64
	total   uint64
	ceiling uint64
	step    uint64
	changed bool
}

// The least and the most by which a ceiling is raised.
const (
	leastStep = 128
	mostStep  = 1 << 17
)

const maxRecord = 1 << 20

// OpenMeter opens the record in a file, or begins one. Only one process can have it open. What a crash cut off at the end
// is removed; a last record whose hash is wrong is an error.
func OpenMeter(path string, now func() time.Time) (*Meter, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	m := &Meter{now: now, file: f, keys: map[string]*count{}}
	if err := m.load(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("usage record %s: %w", path, err)
	}
	return m, nil
}

func (m *Meter) load() error {
	if err := syscall.Flock(int(m.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("another process has it open")
	}
	end, err := m.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	start := max(0, end-2*maxRecord)
	tail := make([]byte, end-start)
	if _, err := m.file.ReadAt(tail, start); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 && start > 0 {
		return errors.New("its last line is too long")
	}
	if err := m.file.Truncate(start + int64(whole)); err != nil {
		return err
	}
	if _, err := m.file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if whole == 0 {
		return nil
	}
	line := tail[bytes.LastIndexByte(tail[:whole-1], '\n')+1 : whole-1]
	if m.last, err = parseRecord(line); err != nil {
		return err
	}
	m.text = bytes.Clone(line)
	for name, u := range m.last.Keys {
		c := &count{used: maps.Clone(u.Used), total: u.Ceiling, ceiling: u.Ceiling, step: leastStep}
		if lost := u.Ceiling - u.total(); lost > 0 {
			c.used["unknown"] += lost
			c.changed = true
		}
		m.keys[name] = c
	}
	return nil
}

func parseRecord(line []byte) (r Record, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err = dec.Decode(&r); err != nil || dec.More() {
		return r, errors.New("a line is not a record")
	}
	for _, u := range r.Keys {
		if u.Used == nil || u.total() > u.Ceiling {
			return r, fmt.Errorf("record %d is not one of ours", r.Seq)
		}
	}
	if r.sum() != r.Hash {
		return r, fmt.Errorf("record %d was altered: its hash is another", r.Seq)
	}
	return r, nil
}

// Use counts one use before it is made. When the count cannot be kept, it fails, and the key must not be used.
func (m *Meter) Use(key string, p Purpose) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.keys[key]
	if c == nil {
		c = &count{used: map[string]uint64{}, step: leastStep}
		m.keys[key] = c
	}
	if c.total == c.ceiling {
		c.ceiling += c.step
		if err := m.write(); err != nil {
			c.ceiling = c.total
			return err
		}
		c.step = min(2*c.step, mostStep)
	}
	c.total++
	c.used[p.String()]++
	c.changed = true
	return nil
}

// Keep writes a record if something was used since the last.
func (m *Meter) Keep() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.keys {
		if c.changed {
			return m.write()
		}
	}
	return nil
}

// Close writes a last record whose ceilings are the true counts, and closes the file.
func (m *Meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.keys {
		c.changed = c.changed || c.ceiling != c.total
		c.ceiling, c.step = c.total, leastStep
	}
	var err error
	for _, c := range m.keys {
		if c.changed {
			err = m.write()
			break
		}
	}
	return errors.Join(err, m.file.Close())
}

// Last returns the last record on the disk, as JSON.
func (m *Meter) Last() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.text == nil {
		return []byte("{}")
	}
	return m.text
}

// Err returns why the last record could not be written; nil when it was.
func (m *Meter) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// write appends a record and flushes it. What a failed write left is cut off by the next.
func (m *Meter) write() (err error) {
	defer func() { m.err = err }()
	r := Record{Seq: m.last.Seq + 1, Time: m.now().UTC().Truncate(time.Millisecond), Keys: map[string]Usage{}, Prev: m.last.Hash}
	for name, c := range m.keys {
		r.Keys[name] = Usage{Used: maps.Clone(c.used), Ceiling: c.ceiling}
	}
	r.Hash = r.sum()
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(text) > maxRecord {
		return errors.New("the usage record is too long")
	}
	end, err := m.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err = m.file.Write(append(text, '\n')); err == nil {
		err = m.file.Sync()
	}
	if err != nil {
		_, seek := m.file.Seek(end, io.SeekStart)
		return errors.Join(err, m.file.Truncate(end), seek)
	}
	m.last, m.text = r, text
	for _, c := range m.keys {
		c.changed = false
	}
	return nil
}

// VerifyUsage reads a whole record and returns its last line. An altered, removed or reordered line, or counts that go
// back, are an error; a missing end is not to be seen here, but by a hash that an audit chain has.
func VerifyUsage(r io.Reader) (last Record, err error) {
	dec := newLines(r)
	for {
		line, err := dec.next()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		rec, err := parseRecord(line)
		if err != nil {
			return last, err
		}
		if rec.Seq != last.Seq+1 || rec.Prev != last.Hash {
			return last, fmt.Errorf("record %d does not follow record %d", rec.Seq, last.Seq)
		}
		for name, before := range last.Keys {
			if after := rec.Keys[name]; after.total() < before.total() {
				return last, fmt.Errorf("record %d counts fewer uses of key %s than the one before", rec.Seq, name)
			}
		}
		last = rec
	}
}
