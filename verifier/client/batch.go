package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"

	"github.com/openjpki/jpki"
)

// A Line is one of a batch: what is asked, with a name of your own for it.
type Line[T any] struct {
	Ref string // up to 64 printable ASCII characters without space, quotation mark and backslash; may be empty
	Ask T
}

// A LineVerdict answers a line, with a verdict or a problem.
type LineVerdict struct {
	Line    int                  `json:"line"` // from 1
	Ref     string               `json:"ref"`
	Result  *Verdict             `json:"result"`
	Problem *jpki.ProblemDetails `json:"problem"`
}

// Err returns the line's problem as an error, or nil.
func (l LineVerdict) Err() error {
	if l.Problem == nil {
		return nil
	}
	return &jpki.Error{Problem: l.Problem.Problem(), Detail: l.Problem.Detail}
}

// VerifyBatch sends signatures and yields the verdicts in their order, while it sends: neither is ever held as a whole. lines is
// run in another goroutine. An error ends the verdicts, and ending the loop early ends the batch.
func (c *Client) VerifyBatch(ctx context.Context, lines iter.Seq[Line[SignatureRequest]]) iter.Seq2[LineVerdict, error] {
	return exchange(ctx, c, "/v1/verifications/batch", lines)
}

// StatusBatch asks about certificates as [Client.VerifyBatch] about signatures.
func (c *Client) StatusBatch(ctx context.Context, lines iter.Seq[Line[StatusRequest]]) iter.Seq2[LineVerdict, error] {
	return exchange(ctx, c, "/v1/certificate-status/batch", lines)
}

func exchange[T any](ctx context.Context, c *Client, path string, lines iter.Seq[Line[T]]) iter.Seq2[LineVerdict, error] {
	return func(yield func(LineVerdict, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		body, in := io.Pipe()
		defer func() { _ = body.Close() }() // ends the sender
		go func() { _ = in.CloseWithError(sendLines(in, lines)) }()
		req, err := c.request(ctx, http.MethodPost, path, "application/x-ndjson", body)
		if err != nil {
			yield(LineVerdict{}, err)
			return
		}
		// A batch takes as long as it takes; the server ends one that does not move.
		patient := *c.http
		patient.Timeout = 0
		resp, err := patient.Do(req)
		if err != nil {
			yield(LineVerdict{}, jpki.WrapError(jpki.Unavailable, err, "the verifier does not answer"))
			return
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			answer, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			yield(LineVerdict{}, problemOf(resp.StatusCode, answer))
			return
		}
		for r := bufio.NewReaderSize(resp.Body, 64<<10); ; {
			text, err := r.ReadBytes('\n')
			if errors.Is(err, io.EOF) && len(text) == 0 {
				return
			}
			var out LineVerdict
			if err == nil {
				err = json.Unmarshal(text, &out)
			}
			if err != nil {
				yield(LineVerdict{}, jpki.WrapError(jpki.Unavailable, err, "the verifier's answer broke off"))
				return
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func sendLines[T any](w io.Writer, lines iter.Seq[Line[T]]) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	for l := range lines {
		text, err := json.Marshal(l.Ask)
		if err != nil {
			return err
		}
		if l.Ref != "" {
			ref, err := json.Marshal(l.Ref)
			if err != nil {
				return err
			}
			text = append(append(append([]byte(`{"ref":`), ref...), ','), bytes.TrimPrefix(text, []byte("{"))...)
		}
		if _, err := buffered.Write(append(text, '\n')); err != nil {
			return err
		}
	}
	return buffered.Flush()
}
