package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
)

// batch does for every line what the single commands do, each under its own idempotency key.
func (a *API) batch(c *gin.Context) {
	by, err := a.begin(c, nil)
	if err == nil && by.Role != jpki.Counter {
		err = jpki.Errorf(jpki.Forbidden, "a %s sends no batches", by.Role)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	end, err := a.Admission.Stream(by.ID)
	if err != nil {
		a.refuse(c, err)
		return
	}
	defer end()
	serve(a, c, stream[client.BatchLine]{
		size: client.MaxBatchLine, workers: a.Admission.Concurrent(), group: 1,
		of: func(l client.BatchLine) string { return l.Token },
		work: func(ctx context.Context, jobs []*job[client.BatchLine]) {
			for _, j := range jobs {
				j.does, j.err = a.batchLine(ctx, by, j.line, j.body)
			}
		},
		refusal: func(j *job[client.BatchLine], p *jpki.ProblemDetails) any {
			return client.BatchResult{Line: j.line, Key: echo(j.body.Key), Problem: p}
		},
	})
}

// batchLine does one line's work once it is the station's turn. Begun, it is completed.
func (a *API) batchLine(ctx context.Context, by jpki.Actor, n int, l client.BatchLine) (any, error) {
	done, err := a.Admission.Line(ctx, by.ID)
	if err != nil {
		return nil, jpki.WrapError(jpki.Unavailable, err, "the batch ended before this line")
	}
	defer done()
	ctx = context.WithoutCancel(ctx)
	r := client.BatchResult{Line: n, Key: l.Key, Status: http.StatusOK}
	switch l.Op {
	case "", client.IssueOp, client.RenewOp:
		command := a.Authority.Issue
		if l.Op == client.RenewOp {
			command = a.Authority.Renew
		}
		req, err := decodeOrder(l.Key, client.CertificateOrder{Holder: l.Holder, Token: l.Token, Requests: l.Requests, Parent: l.Parent})
		if err != nil {
			return nil, err
		}
		issued, err := command(ctx, by, req)
		if err != nil {
			return nil, err
		}
		r.Status, r.Certificates = http.StatusCreated, encodeIssued(issued)
		return r, nil
	case client.DeliverOp, client.DiscardOp:
		if l.Holder != "" || len(l.Requests) > 0 || l.Parent != nil {
			return nil, jpki.Errorf(jpki.Malformed, "%s takes a token only", l.Op)
		}
		if l.Op == client.DeliverOp {
			r.Delivered, err = a.Authority.Deliver(ctx, by, l.Key, l.Token)
			return answerOf(r, err)
		}
		changed, err := a.Authority.Revoke(ctx, by, ca.ChangeRequest{IdempotencyKey: l.Key, Token: l.Token, Cause: jpki.Discarded})
		r.Changed = encodeChanged(changed)
		return answerOf(r, err)
	}
	return nil, jpki.Errorf(jpki.Malformed, "op is none of issue, renew, deliver and discard")
}

func answerOf(r client.BatchResult, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// echo repeats a name that the caller gave only if it is one.
func echo(name string) string {
	if !requestName.MatchString(name) || jpki.ContainsMyNumber(name) {
		return ""
	}
	return name
}

// feedWorkers is how many groups of events are worked on at once: enough to keep a database busy while another commits.
const feedWorkers = 4

// feed takes in many events of the resident register, in groups of one transaction each.
func (a *API) feed(c *gin.Context) {
	by, err := a.begin(c, nil)
	if err == nil && by.Role != jpki.Register {
		err = jpki.Errorf(jpki.Forbidden, "a %s does not report register events", by.Role)
	}
	if err != nil {
		a.refuse(c, err)
		return
	}
	serve(a, c, stream[jpki.Event]{
		size: client.MaxFeedLine, workers: feedWorkers, group: ca.MaxEventGroup,
		of: func(e jpki.Event) string { return e.Holder },
		work: func(ctx context.Context, jobs []*job[jpki.Event]) {
			events := make([]jpki.Event, len(jobs))
			for i, j := range jobs {
				events[i] = j.body
			}
			for i, r := range a.Authority.ApplyResidentEvents(context.WithoutCancel(ctx), by, events) {
				j := jobs[i]
				if j.err = r.Err; r.Err == nil {
					j.does = client.FeedResult{Line: j.line, ID: j.body.ID, Applied: r.Applied, Changed: encodeChanged(r.Changed)}
				}
			}
		},
		refusal: func(j *job[jpki.Event], p *jpki.ProblemDetails) any {
			return client.FeedResult{Line: j.line, ID: echo(j.body.ID), Problem: p}
		},
	})
}
