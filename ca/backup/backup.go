// Package backup carries the authority's database into an encrypted file and back.
//
// [Write] exports every table as one snapshot of the database sees it, or only what the audit record and the status log have
// got since; [Read] decrypts, checks and walks such a file, and [Restore] fills an empty database with one, which it leaves
// fenced until package ca has reconciled it. No keys of CAs or responders are in a backup, nor files. AES-256-GCM in chunks,
// HKDF (RFC 5869). Everything streams: memory does not grow with the database. Functions are safe for concurrent use; what
// fails leaves nothing. Start at Write.
package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/audit"
	"github.com/openjpki/jpki/ca/store"
)

// What stands inside the seal: frames, each a letter, a length (uvarint) and as many octets.
//
//	b  begin: JSON of a beginning; first
//	t  table: JSON of its name and columns
//	r  a row of the table before: for each column n (null), i (varint), s or b (length as uvarint, octets)
//	m  manifest: JSON; last
const (
	format     = 1
	maxFrame   = 32 << 20
	maxColumns = 100
)

// A beginning says what is to be expected.
type beginning struct {
	Format    int             `json:"format"`
	CreatedAt time.Time       `json:"created_at"`
	After     *store.Position `json:"after,omitempty"` // records only, behind this position
	Rows      int64           `json:"rows"`
}

// A Manifest says what a backup holds. There is nothing personal in it.
type Manifest struct {
	CreatedAt time.Time        `json:"created_at"`
	After     *store.Position  `json:"after,omitempty"` // of a backup of records: where it begins
	End       store.Position   `json:"end"`             // of the audit record and of the status log
	AuditHash string           `json:"audit_hash"`      // of the last entry; of no entry, the empty string
	Tables    map[string]Table `json:"tables"`
}

// A Table is what a manifest says of one.
type Table struct {
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // of its rows as they stand in the backup
}

// Config is what [Write] needs. Every field is required unless it says otherwise.
type Config struct {
	Store *store.Store
	Key   Key
	Now   func() time.Time
	Rand  io.Reader

	After    *store.Position         // optional: only the records behind this position
	Progress func(done, total int64) // optional: rows
}

// Write writes a backup. It is complete when Write has returned nil.
func Write(ctx context.Context, w io.Writer, c Config) (*Manifest, error) {
	for name, missing := range map[string]bool{"Store": c.Store == nil, "Now": c.Now == nil, "Rand": c.Rand == nil, "Key": c.Key == Key{}} {
		if missing {
			return nil, fmt.Errorf("backup: Config.%s is required", name)
		}
	}
	sealed, err := newSealer(w, c.Key, c.Rand)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriterSize(sealed, chunkSize)
	begin := beginning{Format: format, CreatedAt: c.Now().UTC().Truncate(time.Second), After: c.After}
	sum := newSummary(begin)
	var done int64
	var frame []byte
	err = c.Store.Export(ctx, c.After, func(rows int64) error {
		begin.Rows = rows
		return writeJSON(out, 'b', begin)
	}, func(t store.Table) error {
		if err := sum.table(t); err != nil {
			return err
		}
		return writeJSON(out, 't', t)
	}, func(row []any) error {
		frame = appendRow(frame[:0], row)
		if err := sum.row(frame, row); err != nil {
			return err
		}
		if done++; c.Progress != nil && (done%1000 == 0 || done == begin.Rows) {
			c.Progress(done, begin.Rows)
		}
		return writeFrame(out, 'r', frame)
	})
	if err != nil {
		return nil, err
	}
	m, err := sum.manifest()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(writeJSON(out, 'm', m), out.Flush(), sealed.Close()); err != nil {
		return nil, err
	}
	return m, nil
}

func writeJSON(w io.Writer, kind byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, text)
}

func writeFrame(w io.Writer, kind byte, content []byte) error {
	if len(content) > maxFrame {
		return errors.New("a row is larger than a backup can hold")
	}
	if _, err := w.Write(binary.AppendUvarint([]byte{kind}, uint64(len(content)))); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// A Visitor is told what a backup holds, in its order. Any function may be nil. What it is told counts only when [Read] has
// returned without an error.
type Visitor struct {
	Table  func(store.Table) error
	Row    func([]any) error // the values are the visitor's
	Entry  func(audit.Entry) error
	Change func(jpki.StatusChange) error
}

// Read walks a backup and checks it: that it was sealed with the key and is complete, that each row and number is what the
// manifest says, and that the audit record's chain is whole.
func Read(ctx context.Context, r io.Reader, key Key, v Visitor) (*Manifest, error) {
	opened, err := newOpener(r, key)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(opened, chunkSize)
	kind, content, err := readFrame(in)
	if err != nil {
		return nil, err
	}
	var begin beginning
	if kind != 'b' || json.Unmarshal(content, &begin) != nil {
		return nil, errFormat
	}
	if begin.Format != format {
		return nil, fmt.Errorf("the backup has format %d, this program knows %d", begin.Format, format)
	}
	sum := newSummary(begin)
	sum.visit = v
	for n := 0; ; n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if kind, content, err = readFrame(in); err != nil {
			return nil, err
		}
		switch kind {
		case 't':
			var t store.Table
			if json.Unmarshal(content, &t) != nil || len(t.Columns) < 1 || len(t.Columns) > maxColumns {
				return nil, errFormat
			}
			if err := sum.table(t); err != nil {
				return nil, err
			}
			if v.Table != nil {
				err = v.Table(t)
			}
		case 'r':
			row, ok := parseRow(content, len(sum.now.Columns))
			if !ok {
				return nil, errFormat
			}
			if err := sum.row(content, row); err != nil {
				return nil, err
			}
			if v.Row != nil {
				err = v.Row(row)
			}
		case 'm':
			m, err := sum.manifest()
			if err != nil {
				return nil, err
			}
			own, err := json.Marshal(m)
			if err != nil {
				return nil, err
			}
			if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				return nil, errors.Join(errFormat, err)
			}
			if string(own) != string(content) {
				return nil, errors.New("the backup does not hold what its manifest says")
			}
			return m, nil
		default:
			return nil, errFormat
		}
		if err != nil {
			return nil, err
		}
	}
}

var errFormat = errors.New("the backup makes no sense")

func readFrame(in *bufio.Reader) (kind byte, content []byte, err error) {
	early := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errFormat // sealed like that
		}
		return err
	}
	if kind, err = in.ReadByte(); err != nil {
		return 0, nil, early(err)
	}
	n, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, nil, early(err)
	}
	if n > maxFrame {
		return 0, nil, errFormat
	}
	content = make([]byte, n)
	_, err = io.ReadFull(in, content)
	return kind, content, early(err)
}

func appendRow(b []byte, row []any) []byte {
	for _, v := range row {
		switch v := v.(type) {
		case nil:
			b = append(b, 'n')
		case int64:
			b = binary.AppendVarint(append(b, 'i'), v)
		case string:
			b = append(binary.AppendUvarint(append(b, 's'), uint64(len(v))), v...)
		case []byte:
			b = append(binary.AppendUvarint(append(b, 'b'), uint64(len(v))), v...)
		}
	}
	return b
}

func parseRow(b []byte, columns int) (row []any, ok bool) {
	for range columns {
		if len(b) == 0 {
			return nil, false
		}
		kind := b[0]
		b = b[1:]
		switch kind {
		case 'n':
			row = append(row, nil)
		case 'i':
			v, n := binary.Varint(b)
			if n <= 0 {
				return nil, false
			}
			row, b = append(row, v), b[n:]
		case 's', 'b':
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return nil, false
			}
			octets := b[n:][:size:size]
			if b = b[n+int(size):]; kind == 's' {
				row = append(row, string(octets))
			} else {
				row = append(row, octets)
			}
		default:
			return nil, false
		}
	}
	return row, columns > 0 && len(b) == 0
}

// A summary is the manifest in the making, for who writes and who reads.
type summary struct {
	m      Manifest
	now    store.Table
	column map[string]int
	rows   int64
	hash   hash.Hash
	chain  audit.Head
	first  bool // the next audit entry is the first that is there
	end    store.Position
	visit  Visitor
}

func newSummary(b beginning) *summary {
	s := &summary{m: Manifest{CreatedAt: b.CreatedAt, After: b.After, Tables: map[string]Table{}}, hash: sha256.New(), first: true}
	if b.After != nil {
		s.end = *b.After
	}
	return s
}

func (s *summary) table(t store.Table) error {
	s.close()
	if _, twice := s.m.Tables[t.Name]; twice || t.Name == "" {
		return errFormat
	}
	s.now, s.rows, s.column = t, 0, map[string]int{}
	s.hash.Reset()
	for i, c := range t.Columns {
		s.column[c] = i
	}
	return nil
}

func (s *summary) close() {
	if s.now.Name != "" {
		s.m.Tables[s.now.Name] = Table{Rows: s.rows, SHA256: hex.EncodeToString(s.hash.Sum(nil))}
	}
}

func (s *summary) row(encoded []byte, row []any) error {
	s.rows++
	_, _ = s.hash.Write(encoded)
	switch s.now.Name {
	case "audit":
		e, err := s.entry(row)
		if err != nil {
			return err
		}
		if s.first && s.m.After != nil { // what it continues is elsewhere
			s.chain = audit.Head{Seq: s.m.After.Audit, Hash: e.Prev}
		}
		s.first = false
		if s.chain, err = s.chain.Next(e); err != nil {
			return err
		}
		if s.end.Audit = e.Seq; s.visit.Entry != nil {
			return s.visit.Entry(e)
		}
	case "status_log":
		c, err := s.change(row)
		if err != nil {
			return err
		}
		if c.Seq != s.end.Status+1 {
			return fmt.Errorf("status log broken at entry %d: entry %d follows entry %d", s.end.Status+1, c.Seq, s.end.Status)
		}
		if s.end.Status = c.Seq; s.visit.Change != nil {
			return s.visit.Change(c)
		}
	case "head":
		f := fields{s: s, row: row}
		if seq, hash, status := f.number("audit_seq"), f.text("audit_hash"), f.number("status_seq"); f.bad || seq != s.end.Audit || hash != s.chain.Hash.String() || status != s.end.Status {
			return errors.New("the ends of audit record and status log are not what the database says they are")
		}
	}
	return nil
}

func (s *summary) manifest() (*Manifest, error) {
	s.close()
	s.m.End = s.end
	if s.chain.Seq > 0 {
		s.m.AuditHash = s.chain.Hash.String()
	}
	_, audited := s.m.Tables["audit"]
	_, logged := s.m.Tables["status_log"]
	if _, head := s.m.Tables["head"]; !audited || !logged || head != (s.m.After == nil) {
		return nil, errFormat
	}
	return &s.m, nil
}

// fields takes values out of a row by their columns' names.
type fields struct {
	s   *summary
	row []any
	bad bool
}

func field[T any](f *fields, column string) (v T) {
	i, there := f.s.column[column]
	if there {
		v, there = f.row[i].(T)
	}
	f.bad = f.bad || !there
	return v
}

func (f *fields) number(column string) int64   { return field[int64](f, column) }
func (f *fields) text(column string) string    { return field[string](f, column) }
func (f *fields) when(column string) time.Time { return time.UnixMicro(f.number(column)).UTC() }

func (s *summary) entry(row []any) (e audit.Entry, err error) {
	f := fields{s: s, row: row}
	e = audit.Entry{Seq: f.number("seq"), At: f.when("at"), Actor: f.text("actor"), Action: f.text("action"), Subject: f.text("subject"), Detail: f.text("detail")}
	var bad [2]error
	e.Prev, bad[0] = audit.ParseHash(f.text("prev"))
	e.Hash, bad[1] = audit.ParseHash(f.text("hash"))
	if err := errors.Join(bad[:]...); err != nil || f.bad {
		return e, &audit.BrokenChainError{Seq: e.Seq, Reason: "not an entry"}
	}
	return e, nil
}

func (s *summary) change(row []any) (c jpki.StatusChange, err error) {
	f := fields{s: s, row: row}
	c = jpki.StatusChange{Seq: f.number("seq"), Partition: f.text("partition"), NotAfter: f.when("not_after"), Status: jpki.Status{
		State: jpki.State(f.text("state")), Reason: jpki.Reason(f.number("reason")), Cause: jpki.Cause(f.text("cause")), Since: f.when("since"), Version: f.number("version"),
	}}
	var bad [2]error
	c.ID.Issuer, bad[0] = jpki.ParseIssuerID(f.text("issuer"))
	c.ID.Serial, bad[1] = jpki.SerialFromBytes(field[[]byte](&f, "serial"))
	if err := errors.Join(bad[:]...); err != nil || f.bad {
		return c, fmt.Errorf("status log entry %d is none", c.Seq)
	}
	return c, nil
}

// Restore fills an empty database with a backup, all of it or nothing, having checked it as [Read] does. The database is
// fenced then: it serves nobody until it has been reconciled (ca.Restored).
func Restore(ctx context.Context, db *store.Store, r io.Reader, key Key, by jpki.Actor, now time.Time) (m *Manifest, err error) {
	err = db.Import(ctx, now, by, func(i *store.Import) (string, error) {
		if m, err = Read(ctx, r, key, Visitor{Table: i.Table, Row: i.Row}); err != nil {
			return "", err
		}
		if m.After != nil {
			return "", jpki.Errorf(jpki.Malformed, "this is a backup of records alone: restore a whole one and reconcile it with this")
		}
		return "backup of " + m.CreatedAt.Format(time.RFC3339), nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}
