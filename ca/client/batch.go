package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"github.com/openjpki/jpki"
)

// NDJSON is the media type of batches: one JSON object a line.
const NDJSON = "application/x-ndjson"

// Limits of batches. A longer line is refused; what is behind the last line is not read.
const (
	MaxBatchLine = 64 << 10 // octets
	MaxFeedLine  = 8 << 10  // octets
	MaxLines     = 100_000  // a request
)

// An Op is what a line of a batch asks for.
type Op string

// The operations; the empty one is IssueOp.
const (
	IssueOp   Op = "issue"
	RenewOp   Op = "renew"
	DeliverOp Op = "deliver" // takes a token only
	DiscardOp Op = "discard" // takes a token only: ends its certificates before delivery
)

// A BatchLine is one card's work. Its key makes it safe to repeat, alone or with the whole batch.
type BatchLine struct {
	Key      string       `json:"key"`
	Op       Op           `json:"op,omitempty"`
	Holder   string       `json:"holder,omitempty"`
	Token    string       `json:"token"`
	Requests []KeyRequest `json:"requests,omitempty"`
	Parent   *jpki.CertID `json:"parent,omitempty"`
}

// A BatchResult answers a line: with what the single command would have answered, or with its problem.
type BatchResult struct {
	Line         int                  `json:"line"`          // of the request, from 1; blank lines count
	Key          string               `json:"key,omitempty"` // unless the line could not be read
	Status       int                  `json:"status,omitempty"`
	Certificates []Certificate        `json:"certificates,omitempty"`
	Delivered    []jpki.CertID        `json:"delivered,omitempty"`
	Changed      []Changed            `json:"changed,omitempty"`
	Problem      *jpki.ProblemDetails `json:"problem,omitempty"`
}

// A FeedResult answers a line of the register's feed.
type FeedResult struct {
	Line    int                  `json:"line"`
	ID      string               `json:"id,omitempty"`
	Applied bool                 `json:"applied"`
	Changed []Changed            `json:"changed,omitempty"`
	Problem *jpki.ProblemDetails `json:"problem,omitempty"`
}

// Err returns the line's problem as an error, or nil.
func (r BatchResult) Err() error { return lineError(r.Problem) }

// Err returns the line's problem as an error, or nil.
func (r FeedResult) Err() error { return lineError(r.Problem) }

func lineError(p *jpki.ProblemDetails) error {
	if p == nil {
		return nil
	}
	return &jpki.Error{Problem: p.Problem(), Detail: p.Detail}
}

// Batch sends lines and yields the answers in their order, while it sends: neither is ever held as a whole. lines is run
// in another goroutine. An error ends the answers; the lines that have none may or may not have been carried out, and are
// repeated with their keys. Ending the loop early ends the batch in the same way.
func (c *Client) Batch(ctx context.Context, lines iter.Seq[BatchLine]) iter.Seq2[BatchResult, error] {
	return exchange[BatchLine, BatchResult](ctx, c, "/station/v1/batches", lines)
}

// Feed reports events of the resident register as [Client.Batch] sends lines. Their own identifiers make them safe to repeat.
func (c *Client) Feed(ctx context.Context, events iter.Seq[jpki.Event]) iter.Seq2[FeedResult, error] {
	return exchange[jpki.Event, FeedResult](ctx, c, "/registry/v1/batches", events)
}

// maxAnswerLine bounds a line of an answer, in octets.
const maxAnswerLine = 1 << 20

func exchange[In, Out any](ctx context.Context, c *Client, path string, lines iter.Seq[In]) iter.Seq2[Out, error] {
	return func(yield func(Out, error) bool) {
		var none Out
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		body, in := io.Pipe()
		defer func() { _ = body.Close() }() // ends the sender
		go func() { _ = in.CloseWithError(send(in, lines)) }()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, body)
		if err != nil {
			yield(none, err)
			return
		}
		req.Header.Set("Content-Type", NDJSON)
		// A batch takes as long as it takes; the server ends one that does not move.
		resp, err := (&http.Client{Transport: c.http.Transport, CheckRedirect: c.http.CheckRedirect}).Do(req)
		if err != nil {
			yield(none, jpki.WrapError(jpki.Unavailable, err, "the authority does not answer"))
			return
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
			yield(none, problemOf(resp.StatusCode, answer))
			return
		}
		r := bufio.NewReaderSize(resp.Body, maxAnswerLine)
		for {
			text, err := r.ReadSlice('\n')
			if errors.Is(err, io.EOF) && len(text) == 0 {
				return
			}
			var out Out
			if err == nil {
				err = json.Unmarshal(text, &out)
			}
			if err != nil {
				yield(none, jpki.WrapError(jpki.Unavailable, err, "the authority's answer broke off"))
				return
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func send[In any](w io.Writer, lines iter.Seq[In]) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	encoder := json.NewEncoder(buffered)
	for l := range lines {
		if err := encoder.Encode(l); err != nil {
			return fmt.Errorf("send line: %w", err)
		}
	}
	return buffered.Flush()
}

// problemOf reads a refusal.
func problemOf(status int, answer []byte) error {
	var p jpki.ProblemDetails
	if json.Unmarshal(answer, &p) != nil || p.Type == "" {
		return jpki.WrapError(jpki.Internal, fmt.Errorf("HTTP status %d", status), "")
	}
	return &jpki.Error{Problem: p.Problem(), Detail: p.Detail}
}

// A Search says which certificates to look for: one of Holder, Token and Serial, and optionally only those in a state.
type Search struct {
	Holder string
	Token  string
	Serial jpki.Serial
	State  jpki.State
}

// A Page is a part of a list.
type Page struct {
	Certificates []Certificate `json:"certificates"`
	Next         *jpki.CertID  `json:"next,omitempty"` // where the next page goes on; nil at the end
}

// Search yields the certificates found, oldest first, page by page.
func (c *Client) Search(ctx context.Context, s Search) iter.Seq2[Certificate, error] {
	q := url.Values{}
	for name, v := range map[string]string{"holder": s.Holder, "token": s.Token, "serial": s.Serial.String(), "state": string(s.State)} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return c.pages(ctx, "/station/v1/certificates", q)
}

// Undelivered yields the certificates of the station's municipality that were issued at least so many days ago and have not
// reached their holder, oldest first.
func (c *Client) Undelivered(ctx context.Context, olderThanDays int) iter.Seq2[Certificate, error] {
	return c.pages(ctx, "/station/v1/undelivered", url.Values{"older_than_days": {strconv.Itoa(olderThanDays)}})
}

func (c *Client) pages(ctx context.Context, path string, q url.Values) iter.Seq2[Certificate, error] {
	return func(yield func(Certificate, error) bool) {
		q := maps.Clone(q) // the sequence may be run again
		for {
			var p Page
			if err := c.do(ctx, http.MethodGet, path+"?"+q.Encode(), "", nil, &p); err != nil {
				yield(Certificate{}, err)
				return
			}
			for _, cert := range p.Certificates {
				if !yield(cert, nil) {
					return
				}
			}
			if p.Next == nil {
				return
			}
			q.Set("after", p.Next.String())
		}
	}
}
