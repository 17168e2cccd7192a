package status

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openjpki/jpki"
)

// A snapshot is a file of one version of everything an [Index] knows. All numbers are little-endian, but for serials.
//
//	header     "JPKISTAT", version, flags, directory: offset (uint64), length, checksum; checksum of the header
//	segments   see segment: one after the other, without gaps
//	directory  created (Unix seconds, int64)
//	           seq (int64) of the last entry of the status log in it; unless 0, that entry: issuer, serial, state, version
//	           parts (uint16), in ascending order, each: issuer, length of its serials (uint8), certificates (uint64),
//	           segments (uint16), in ascending order, each: first octet (uint8), bits (uint8), first quarter (uint16),
//	           entries, details, checksum
//
// Where nothing is said a number is a uint32; a checksum is CRC-32C; issuer and serial are octets with their number (uint8)
// before them. Every octet of the file is under one checksum, and two files that say the same are the same.
type snapshot struct {
	created time.Time
	last    jpki.StatusChange // ID, State and Version of the log's last entry; Seq 0 without any
	trial   bool              // holds certificates that no log has
	parts   []*directoryPart
}

type directoryPart struct {
	*part
	count    uint64
	sections []section
}

// A section is where a segment lies in a file and what is needed to read it.
type section struct {
	offset         int64
	head, bits     uint8
	first          quarter
	count, details int
	sum            uint32
}

const (
	magic          = "JPKISTAT"
	formatVersion  = 1
	flagTrial      = 1
	headerSize     = len(magic) + 4 + 4 + 8 + 4 + 4 + 4
	maxDirectory   = 1 << 20
	maxParts       = 64
	temporary      = ".new" // what an unfinished snapshot's name ends in
	maxIssuerBytes = 64
)

// A writer writes a snapshot beside the file it is to replace. Segments come in the order of the directory.
type writer struct {
	path   string
	f      *os.File
	w      *bufio.Writer
	offset int64
	parts  []*directoryPart
}

func newWriter(path string) (*writer, error) {
	f, err := os.OpenFile(path+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w := &writer{path: path, f: f, w: bufio.NewWriterSize(f, 1<<16), offset: int64(headerSize)}
	_, err = w.w.Write(make([]byte, headerSize))
	return w, err
}

// abort leaves the old snapshot as it is.
func (w *writer) abort() {
	_ = w.f.Close()
	_ = os.Remove(w.path + temporary)
}

// part begins a part; one that stays empty is left out.
func (w *writer) part(issuer jpki.IssuerID, length int) {
	w.parts = append(w.parts, &directoryPart{part: &part{issuer: issuer, length: length}})
}

// segment adds one to the last part.
func (w *writer) segment(s *segment) error {
	if _, err := w.w.Write(s.bytes()); err != nil {
		return err
	}
	p := w.parts[len(w.parts)-1]
	p.count += uint64(s.count)
	p.sections = append(p.sections, section{head: s.head, bits: s.bits, first: s.first, count: s.count, details: len(s.details) / detailSize, sum: s.sum})
	w.offset += int64(len(s.bytes()))
	return nil
}

// commit completes the file, makes sure that it lasts and lets it take the old one's place. The header is written last.
func (w *writer) commit(created time.Time, last jpki.StatusChange, trial bool) error {
	dir, err := w.directory(created, last)
	if err != nil {
		return err
	}
	if _, err := w.w.Write(dir); err != nil {
		return err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	if _, err := w.f.WriteAt(header(w.offset, dir, trial), 0); err != nil {
		return err
	}
	if err := errors.Join(w.f.Sync(), w.f.Close()); err != nil {
		return err
	}
	if err := os.Rename(w.path+temporary, w.path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(w.path))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

func header(offset int64, dir []byte, trial bool) []byte {
	flags := uint32(0)
	if trial {
		flags = flagTrial
	}
	h := binary.LittleEndian.AppendUint32([]byte(magic), formatVersion)
	h = binary.LittleEndian.AppendUint32(h, flags)
	h = binary.LittleEndian.AppendUint64(h, uint64(offset))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(dir)))
	h = binary.LittleEndian.AppendUint32(h, crc32.Checksum(dir, castagnoli))
	return binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

func (w *writer) directory(created time.Time, last jpki.StatusChange) ([]byte, error) {
	var b []byte
	var bad error
	issuer := func(id jpki.IssuerID) {
		if same, err := jpki.ParseIssuerID(id.String()); err != nil || same != id {
			bad = fmt.Errorf("issuer %q cannot be written", id)
		}
		b = append(append(b, byte(len(id.String()))), id.String()...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(created.Unix()))
	b = binary.LittleEndian.AppendUint64(b, uint64(last.Seq))
	if last.Seq != 0 {
		issuer(last.ID.Issuer)
		serial := last.ID.Serial.Bytes()
		b = append(append(b, byte(len(serial))), serial...)
		b = append(b, byte(slices.Index(states[:], last.Status.State)))
		b = binary.LittleEndian.AppendUint32(b, uint32(last.Status.Version))
	}
	parts := slices.DeleteFunc(slices.Clone(w.parts), func(p *directoryPart) bool { return p.count == 0 })
	b = binary.LittleEndian.AppendUint16(b, uint16(len(parts)))
	for _, p := range parts {
		issuer(p.issuer)
		b = append(b, byte(p.length))
		b = binary.LittleEndian.AppendUint64(b, p.count)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(p.sections)))
		for _, s := range p.sections {
			b = append(b, s.head, s.bits)
			b = binary.LittleEndian.AppendUint16(b, uint16(s.first))
			b = binary.LittleEndian.AppendUint32(b, uint32(s.count))
			b = binary.LittleEndian.AppendUint32(b, uint32(s.details))
			b = binary.LittleEndian.AppendUint32(b, s.sum)
		}
	}
	if len(b) > maxDirectory || len(parts) > maxParts {
		bad = errors.New("too many issuers")
	}
	return b, bad
}

// readDirectory reads everything of a snapshot but its segments, and finds out where these are.
func readDirectory(f io.ReaderAt, size int64) (*snapshot, error) {
	h := make([]byte, headerSize)
	if _, err := f.ReadAt(h, 0); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	end := headerSize - 4
	if string(h[:len(magic)]) != magic {
		return nil, errors.New("not a status snapshot")
	}
	d := decoder{b: h[len(magic):]}
	version, flags, offset, length, sum := d.uint32(), d.uint32(), d.uint64(), d.uint32(), d.uint32()
	switch {
	case crc32.Checksum(h[:end], castagnoli) != d.uint32():
		return nil, errors.New("wrong checksum of the header")
	case version != formatVersion:
		return nil, fmt.Errorf("format version %d, not %d", version, formatVersion)
	case flags&^flagTrial != 0:
		return nil, fmt.Errorf("unknown flags %x", flags)
	case length > maxDirectory || offset < uint64(headerSize) || offset > math.MaxInt64-maxDirectory || int64(offset)+int64(length) != size:
		return nil, errors.New("the file does not end with its directory")
	}
	b := make([]byte, length)
	if _, err := f.ReadAt(b, int64(offset)); err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	if crc32.Checksum(b, castagnoli) != sum {
		return nil, errors.New("wrong checksum of the directory")
	}
	d = decoder{b: b}
	s := &snapshot{trial: flags&flagTrial != 0, created: time.Unix(int64(d.uint64()), 0).UTC()}
	if s.last.Seq = int64(d.uint64()); s.last.Seq != 0 {
		s.last.ID.Issuer = d.issuer()
		s.last.ID.Serial = d.serial()
		s.last.Status.State = d.state()
		s.last.Status.Version = int64(d.uint32())
	}
	next := int64(headerSize)
	for range d.upTo(int(d.uint16()), maxParts) {
		p := &directoryPart{part: &part{issuer: d.issuer(), length: int(d.uint8())}, count: d.uint64()}
		if p.length < 1 || p.length > len(key{}) || len(s.parts) > 0 && comparePlaces(s.parts[len(s.parts)-1].part, p.part) >= 0 {
			d.fail("the parts are not in order")
		}
		total := uint64(0)
		for range d.upTo(int(d.uint16()), 256) {
			sec := section{offset: next, head: d.uint8(), bits: d.uint8(), first: quarter(d.uint16()), count: int(d.uint32()), details: int(d.uint32()), sum: d.uint32()}
			// With these bounds no sum overflows; what is asked for is at most what the file has.
			if sec.head == 0 || int(sec.bits) > min(maxBits, 8*(p.length-1)) || sec.count < 1 || sec.count > maxSegment || sec.details > sec.count {
				d.fail("a segment is not possible")
				break
			}
			if n := len(p.sections); n > 0 && p.sections[n-1].head >= sec.head {
				d.fail("the segments are not in order")
			}
			size := sec.size(p.length)
			if next += int64(size); size > maxSegment || uint64(next) > offset {
				d.fail("a segment is too large")
				break
			}
			p.sections = append(p.sections, sec)
			total += uint64(sec.count)
		}
		if total != p.count || total == 0 {
			d.fail("the number of certificates is not what it should be")
		}
		s.parts = append(s.parts, p)
	}
	switch {
	case d.err != nil:
		return nil, fmt.Errorf("read directory: %w", d.err)
	case len(d.b) != 0 || s.last.Seq < 0 || uint64(next) != offset:
		return nil, errors.New("read directory: it is not complete")
	}
	return s, nil
}

// size is how many octets the segment has in the file.
func (sec *section) size(length int) int {
	return 4*(1<<sec.bits+1) + sec.count*(length-int(sec.bits/8)) + sec.details*detailSize
}

// load reads a segment that readDirectory found and checks it.
func (sec *section) load(f io.ReaderAt, length int) (*segment, error) {
	s, err := newSegment(length, sec.head, sec.bits, sec.first, sec.count, sec.details)
	if err != nil {
		return nil, err
	}
	s.sum = sec.sum
	if _, err := f.ReadAt(s.bytes(), sec.offset); err != nil {
		return nil, err
	}
	return s, s.check()
}

// loadAll reads all segments, on all processors, into the parts.
func (s *snapshot) loadAll(f io.ReaderAt) error {
	var work []func() error
	for _, p := range s.parts {
		for _, sec := range p.sections {
			work = append(work, func() error {
				loaded, err := sec.load(f, p.length)
				if err != nil {
					return fmt.Errorf("certificates of %s that begin with %02X: %w", p.issuer, sec.head, err)
				}
				p.segments[sec.head].Store(loaded)
				return nil
			})
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(work) {
					return
				}
				if err := work[i](); err != nil {
					next.Store(int64(len(work)))
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}

// A decoder takes numbers off a slice; past its end they are zero and the error is set.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(text string) {
	if d.err == nil {
		d.err = errors.New(text)
	}
}

func (d *decoder) octets(n int) []byte {
	if d.err != nil || len(d.b) < n {
		d.fail("it ends early")
		return make([]byte, n)
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) uint8() byte    { return d.octets(1)[0] }
func (d *decoder) uint16() uint16 { return binary.LittleEndian.Uint16(d.octets(2)) }
func (d *decoder) uint32() uint32 { return binary.LittleEndian.Uint32(d.octets(4)) }
func (d *decoder) uint64() uint64 { return binary.LittleEndian.Uint64(d.octets(8)) }

// upTo is n, or 0 if that is more than there may be.
func (d *decoder) upTo(n, most int) int {
	if n > most {
		d.fail("it is too long")
	}
	if d.err != nil {
		return 0
	}
	return n
}

func (d *decoder) issuer() jpki.IssuerID {
	id, err := jpki.ParseIssuerID(string(d.octets(d.upTo(int(d.uint8()), maxIssuerBytes))))
	if err != nil {
		d.fail(err.Error())
	}
	return id
}

func (d *decoder) serial() jpki.Serial {
	b := d.octets(d.upTo(int(d.uint8()), len(key{})))
	serial, err := jpki.SerialFromBytes(b)
	if err != nil || b[0] == 0 {
		d.fail("bad serial")
	}
	return serial
}

func (d *decoder) state() jpki.State {
	i := int(d.uint8())
	if i >= len(states) {
		d.fail("unknown state")
		return ""
	}
	return states[i]
}
