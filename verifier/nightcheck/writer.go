package nightcheck

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// A writer writes results, and compares them with those of an earlier night.
type writer struct {
	c        *Checker
	out      io.Writer
	changes  *bufio.Writer
	previous *previous // nil if there is none
	last     string    // customer of the last line that could be read
	line     []byte
	summary  Summary
}

func (c *Checker) newWriter(out io.Writer) (*writer, error) {
	w := &writer{c: c, out: out, summary: Summary{Classes: map[Class]int64{}}}
	if c.cfg.Changes != nil {
		w.changes = bufio.NewWriterSize(c.cfg.Changes, 64<<10)
	}
	if c.cfg.Previous != nil {
		var err error
		if w.previous, err = newPrevious(c.cfg.Previous, c.cfg.Out); err != nil {
			return nil, err
		}
	}
	if c.cfg.Out == CSV {
		head := strings.Join(columns[:], ",") + "\n"
		if w.changes != nil {
			_, _ = w.changes.WriteString(head) // an error comes back with Flush
		}
		if _, err := io.WriteString(out, head); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// write writes the results of a block.
func (w *writer) write(b *block) error {
	w.line = w.line[:0]
	for i := range b.results {
		r := &b.results[i]
		changed := false
		if w.previous != nil {
			var err error
			if changed, err = w.compare(r); err != nil {
				return err
			}
		}
		w.summary.Lines++
		w.summary.Classes[r.Class]++
		from := len(w.line)
		w.line = w.c.cfg.Out.append(w.line, r)
		if !changed {
			continue
		}
		w.summary.Changed++
		if w.changes != nil {
			_, _ = w.changes.Write(w.line[from:])
		}
	}
	_, err := w.out.Write(w.line)
	return err
}

// compare finds what a line said in the earlier night, and reports whether it says something else now.
func (w *writer) compare(r *Result) (changed bool, err error) {
	if r.Customer == "" {
		return true, nil
	}
	if r.Customer < w.last {
		return false, jpki.Errorf(jpki.Malformed, "line %d: to compare with an earlier night the lines must ascend by the octets of the customer's reference (LC_ALL=C sort, ORDER BY … COLLATE \"C\")", w.summary.Lines+1)
	}
	w.last = r.Customer
	was, err := w.previous.find(r.Customer, r.Certificate)
	switch {
	case err != nil:
		return false, err
	case was == nil:
		return r.Class != Unchanged, nil
	}
	r.Was = was.Class
	if r.Class == Revoked && was.Class.final() { // for good, so that what was known of why and when is true still
		r.Class, r.Reason, r.Since, r.After = was.Class, was.Reason, was.Since, was.After
		return false, nil
	}
	if r.Class == was.Class {
		if r.Since.IsZero() {
			r.After = was.After
		}
		return r.Class == Unreadable || !r.Since.Equal(was.Since) && !r.Since.IsZero() && !was.Since.IsZero(), nil
	}
	if r.Since.IsZero() && r.Class != Unchanged {
		r.After = was.SourceTime
	}
	return true, nil
}

func (w *writer) close() error {
	if w.previous != nil {
		if err := w.previous.finish(); err != nil {
			return err
		}
		w.summary.Gone = w.previous.gone
	}
	if w.changes != nil {
		return w.changes.Flush()
	}
	return nil
}

// mostOfOne is how many lines one customer may have in an earlier night: those of one reference are compared in memory.
const mostOfOne = 1024

// previous walks the results of an earlier night along with those of this one. It holds those of one customer.
type previous struct {
	in     *bufio.Scanner
	format Format
	fields [][]byte
	group  []Result // of one customer, less those that were found
	next   Result   // the first of the next
	more   bool
	line   int64
	gone   int64
}

func newPrevious(in io.Reader, f Format) (*previous, error) {
	p := &previous{in: bufio.NewScanner(in), format: f, more: true}
	p.in.Buffer(make([]byte, 64<<10), maxLine)
	if f == CSV {
		p.line++
		if !p.in.Scan() || p.in.Text() != strings.Join(columns[:], ",") {
			return nil, errors.Join(p.in.Err(), p.refuse("it does not begin with the names of the columns of a result"))
		}
	}
	return p, p.read()
}

func (p *previous) refuse(why string) error {
	return jpki.Errorf(jpki.Malformed, "the results of the earlier night, line %d: %s", p.line, why)
}

// find returns what was said of a certificate of a customer, nil if nothing.
func (p *previous) find(customer, certificate string) (*Result, error) {
	for len(p.group) == 0 || p.group[0].Customer != customer {
		p.gone += int64(len(p.group))
		p.group = p.group[:0]
		if !p.more || p.next.Customer > customer {
			return nil, nil //nolint:nilnil // documented
		}
		for of := p.next.Customer; p.more && p.next.Customer == of; {
			if len(p.group) == mostOfOne {
				return nil, p.refuse("too many of one customer")
			}
			p.group = append(p.group, p.next)
			if err := p.read(); err != nil {
				return nil, err
			}
		}
	}
	for i := range p.group {
		if p.group[i].Certificate == certificate {
			found := p.group[i]
			p.group[i] = p.group[len(p.group)-1]
			p.group = p.group[:len(p.group)-1]
			return &found, nil
		}
	}
	return nil, nil //nolint:nilnil // documented
}

// finish counts what is left.
func (p *previous) finish() error {
	p.gone += int64(len(p.group))
	for p.more {
		p.gone++
		if err := p.read(); err != nil {
			return err
		}
	}
	return nil
}

// read reads the next result of which the line could be read, into next.
func (p *previous) read() error {
	last := p.next.Customer
	for {
		if !p.in.Scan() {
			p.more = false
			return p.in.Err()
		}
		p.line++
		var err error
		if p.next, p.fields, err = p.format.parse(p.in.Bytes(), p.fields); err != nil {
			return p.refuse(err.Error())
		}
		if p.next.Customer == "" {
			continue
		}
		if p.next.Customer < last {
			return p.refuse("it does not ascend by the octets of the customer's reference")
		}
		return nil
	}
}

// parse reads a line as append writes it.
func (f Format) parse(text []byte, room [][]byte) (r Result, fields [][]byte, err error) {
	var values [len(columns)]string
	if f == NDJSON {
		var members map[string]string
		if err := json.Unmarshal(text, &members); err != nil {
			return r, room, errors.New("not a JSON object of strings")
		}
		for i, name := range columns {
			values[i] = members[name]
		}
		fields = room
	} else {
		if fields, err = splitFields(room[:0], text); err != nil {
			return r, room, err
		}
		if len(fields) != len(columns) {
			return r, fields, errors.New("not a result: another number of columns")
		}
		for i, field := range fields {
			values[i] = string(field)
		}
	}
	r = Result{Customer: values[0], Certificate: values[1], Class: Class(values[2]), Reason: values[3], Source: SourceKind(values[6]), Was: Class(values[8]), Detail: values[9]}
	if !slices.Contains(Classes, r.Class) {
		return r, fields, errors.New("not a result: no such class")
	}
	for _, at := range [...]struct {
		to   *time.Time
		text string
	}{{&r.Since, values[4]}, {&r.After, values[5]}, {&r.SourceTime, values[7]}} {
		if at.text == "" {
			continue
		}
		if *at.to, err = time.Parse(time.RFC3339, at.text); err != nil {
			return r, fields, errors.New("not a result: no time")
		}
	}
	return r, fields, nil
}
