package nightcheck

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
	"github.com/openjpki/jpki/crl/snapshot"
)

// A Source is what is known of the certificates of one issuer's key: a snapshot, a list or both. Of both the newer says the state, and the list why
// and since when; what either says is revoked for good is.
type Source struct {
	ID       jpki.IssuerID
	Cert     *x509.Certificate  // of the issuer's key; trusted: the caller has checked its chain
	Snapshot *snapshot.Snapshot // nil for none
	List     *crl.List          // the complete CRL of all that the key certified, a delta combined or not; nil for none
}

// A Config says what is asked, and how lines are read and written. Sources and Now are required.
type Config struct {
	Sources []Source
	Now     func() time.Time
	In, Out Format // "" means CSV

	Files    fs.FS                   // where the column certificate_file leads; nil for nowhere
	Previous io.Reader               // the results of an earlier night, in the format Out; nil for none. It is read once: such a Checker checks once
	Changes  io.Writer               // gets those results that are not as in Previous; nil for nobody
	Progress func(lines, read int64) // is called now and then with what has been dealt with, in lines and octets; nil for nobody
	Workers  int                     // that check side by side; 0 means as many as there are processors
}

// A Checker checks lines against its sources.
type Checker struct {
	cfg    Config
	byName map[string]int // source by the issuer's name and key identifier
}

// New checks the configuration. A list that is not complete, or a source that is out of date, is [jpki.Unavailable].
func New(cfg Config) (*Checker, error) {
	switch {
	case len(cfg.Sources) == 0:
		return nil, errors.New("nightcheck.Config.Sources is missing")
	case cfg.Now == nil:
		return nil, errors.New("nightcheck.Config.Now is missing")
	case cfg.Workers < 0:
		return nil, errors.New("nightcheck.Config.Workers is negative")
	}
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	for _, f := range []*Format{&cfg.In, &cfg.Out} {
		if *f == "" {
			*f = CSV
		}
		if *f != CSV && *f != NDJSON {
			return nil, errors.New("nightcheck.Config.In or Out is no format")
		}
	}
	c := &Checker{cfg, map[string]int{}}
	now := cfg.Now()
	for i := range cfg.Sources {
		s := &cfg.Sources[i]
		if s.Cert == nil || s.Snapshot == nil && s.List == nil {
			return nil, fmt.Errorf("nightcheck.Config.Sources: %s has no certificate, or neither snapshot nor list", s.ID)
		}
		if err := s.check(now); err != nil {
			return nil, fmt.Errorf("%s: %w", s.ID, err)
		}
		for _, name := range []string{s.ID.String(), hex.EncodeToString(s.Cert.SubjectKeyId)} {
			if _, twice := c.byName[name]; twice || name == "" {
				return nil, fmt.Errorf("nightcheck.Config.Sources: %s is there twice, or its certificate has no key identifier", s.ID)
			}
			c.byName[name] = i
		}
	}
	return c, nil
}

// check reports why a source cannot answer for all certificates of its issuer.
func (s *Source) check(now time.Time) error {
	if s.Snapshot != nil {
		switch i := s.Snapshot.Info(); {
		case i.Issuer != s.ID:
			return jpki.Errorf(jpki.Unavailable, "the status snapshot is of %s", i.Issuer)
		case now.Before(i.ThisUpdate) || !now.Before(i.NextUpdate):
			return jpki.Errorf(jpki.Unavailable, "the status snapshot is out of date, or of the future")
		}
	}
	if s.List == nil {
		return nil
	}
	h := s.List.Head()
	if h.Delta() || len(h.Points) > 0 || h.OnlyCA || h.OnlyAttribute || len(h.Reasons) > 0 {
		return jpki.Errorf(jpki.Unavailable, "the CRL is not the complete one of all that the key certified")
	}
	if err := h.Fresh(now, 0); err != nil {
		return jpki.WrapError(jpki.Unavailable, err, "the CRL is out of date, or of the future")
	}
	if string(h.AuthorityKeyID) != string(s.Cert.SubjectKeyId) {
		return jpki.Errorf(jpki.Unavailable, "the CRL is of another key")
	}
	return nil
}

// A Summary counts what was found. Changed and Gone are counted only with a Previous.
type Summary struct {
	Lines   int64
	Classes map[Class]int64
	Changed int64 // lines that are not as in the earlier night
	Gone    int64 // lines of the earlier night that there are no more
}

// Check reads lines from in and writes a result for each to out, in their order. Steps:
//  1. blocks of lines are read
//  2. workers read the lines of a block, look all of them up at once, and make their results
//  3. the results are compared with those of the earlier night, if there is one, and written
//
// With Config.Previous the lines must ascend by the octets of the customer's reference, as those of the earlier night did; if not it is
// [jpki.Malformed]. So it is if the first line of a CSV does not name the columns. An error leaves what was written without its end.
func (c *Checker) Check(ctx context.Context, in io.Reader, out io.Writer) (*Summary, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blocks := newBlocks(in)
	var head places
	if c.cfg.In == CSV {
		var err error
		if head, err = blocks.head(); err != nil {
			return nil, jpki.WrapError(jpki.Malformed, err, "the line that names the columns cannot be read")
		}
	}
	w, err := c.newWriter(out)
	if err != nil {
		return nil, err
	}
	work, done := make(chan *block, c.cfg.Workers), make(chan *block, 2*c.cfg.Workers) // done: in order, each to be waited for
	var workers sync.WaitGroup
	for range c.cfg.Workers {
		workers.Go(func() {
			e := c.newEmployee(head)
			for b := range work {
				e.check(b)
				close(b.ready)
			}
		})
	}
	failed := make(chan error, 1)
	workers.Go(func() { // reads
		defer close(done)
		defer close(work)
		for {
			b, err := blocks.next()
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				failed <- err
				return
			}
			select {
			case done <- b:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
			work <- b // workers always go on
		}
	})
	for b := range done {
		<-b.ready
		if err == nil {
			err = w.write(b)
		}
		if err != nil {
			cancel()
			continue
		}
		if c.cfg.Progress != nil {
			c.cfg.Progress(w.summary.Lines, b.end)
		}
		blocks.release(b)
	}
	workers.Wait()
	if err == nil {
		err = <-failed
	}
	if err == nil {
		err = w.close()
	}
	return &w.summary, err
}

// An employee checks blocks, one at a time, with room to work in that is used again and again.
type employee struct {
	c         *Checker
	head      places
	line      line
	fields    [][]byte
	questions []question
	of        []int // places in a block of the lines that are asked of one source
	asked     []snapshot.Question
	answers   []snapshot.Answer
	serials   []jpki.Serial
	entries   []crl.Entry // by place in asked; zero if not listed
}

func (c *Checker) newEmployee(head places) *employee { return &employee{c: c, head: head} }

// check fills in the results of a block.
func (e *employee) check(b *block) {
	// 1. What is asked.
	b.results, e.questions = b.results[:0], e.questions[:0]
	b.each(func(n int64, text []byte) {
		r, q := Result{}, question{source: -1}
		var err error
		if text == nil {
			err = errors.New("the line is too long")
		} else if e.fields, err = e.line.read(e.c.cfg.In, &e.head, text, e.fields); err == nil {
			q, err = e.c.question(&e.line)
		}
		if text != nil {
			r.Customer = e.line.Customer
		}
		if err != nil {
			r.Class, r.Detail, q.source = Unreadable, fmt.Sprintf("line %d: %s", n, err), -1
		} else {
			r.Class, r.Certificate = Unknown, e.c.name(&q)
		}
		b.results, e.questions = append(b.results, r), append(e.questions, q)
	})
	// 2. What the sources say.
	for n := range e.c.cfg.Sources {
		s := &e.c.cfg.Sources[n]
		e.of, e.asked, e.serials = e.of[:0], e.asked[:0], e.serials[:0]
		for i := range e.questions {
			if q := &e.questions[i]; q.source == n {
				e.of = append(e.of, i)
				e.asked = append(e.asked, snapshot.Question{Serial: q.serial, NotBefore: q.notBefore, NotAfter: q.notAfter})
				e.serials = append(e.serials, q.serial)
			}
		}
		if len(e.of) > 0 {
			e.ask(s, b.results)
		}
	}
}

// ask asks one source about all lines of a block that are its own.
func (e *employee) ask(s *Source, results []Result) {
	if s.Snapshot != nil {
		e.answers = s.Snapshot.AppendAnswers(e.answers[:0], e.asked)
	}
	var listed time.Time
	if s.List != nil {
		listed = s.List.Head().ThisUpdate
		e.entries = append(e.entries[:0], make([]crl.Entry, len(e.of))...)
		for i, entry := range s.List.FindAll(e.serials) {
			e.entries[i] = entry
		}
	}
	for i, at := range e.of {
		r, q := &results[at], &e.asked[i]
		var packed snapshot.Answer
		var entry crl.Entry
		inList := false
		if s.Snapshot != nil {
			packed = e.answers[i]
		}
		if s.List != nil {
			entry = e.entries[i]
			// A list may lack what has expired (RFC 5280 §3.3), and cannot name what was issued after it. An entry counts in any case.
			inList = !entry.Serial.IsZero() || !q.NotAfter.Before(listed) && !q.NotBefore.After(listed)
		}
		s.decide(r, packed, entry, inList)
	}
}

// decide puts together what a snapshot and a list say.
func (s *Source) decide(r *Result, packed snapshot.Answer, entry crl.Entry, inList bool) {
	r.Class = NotCovered
	var listed, snapped time.Time
	if s.List != nil {
		listed = s.List.Head().ThisUpdate
		r.Source, r.SourceTime = FromList, listed
	}
	if s.Snapshot != nil {
		snapped = s.Snapshot.Info().ThisUpdate
		if !listed.After(snapped) {
			r.Source, r.SourceTime = FromSnapshot, snapped
		}
	}
	isListed := !entry.Serial.IsZero()
	final := isListed && entry.Reason != jpki.CertificateHold
	byList := func() {
		r.Source, r.SourceTime, r.Class = FromList, listed, Unchanged
		if isListed {
			r.Class, r.Reason, r.Since = classOf(entry.Reason), entry.Reason.String(), entry.At
		}
	}
	switch {
	case inList && (final || !packed.Covered || packed.State != jpki.Revoked && listed.After(snapped)):
		byList()
	case packed.Covered:
		r.Source, r.SourceTime = FromSnapshot, snapped
		switch packed.State {
		case jpki.Good:
			r.Class = Unchanged
		case jpki.Suspended:
			r.Class, r.Reason = Suspended, jpki.CertificateHold.String()
			if isListed {
				r.Since = entry.At
			}
		default:
			r.Class = Revoked
		}
	}
}
