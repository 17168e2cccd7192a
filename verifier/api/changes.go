package api

import (
	"net/http"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/verifier/push"
)

// waiters is how many requests of a tenant may wait for something new at once; any more are answered at once.
const waiters = 16

// enter takes a place to wait in; leave gives it back.
func (m *meters) enter(c call) (leave func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.of(&c.Tenant)
	if t.waiting >= waiters {
		return func() {}, false
	}
	t.waiting++
	return func() { m.mu.Lock(); t.waiting--; m.mu.Unlock() }, true
}

// await calls look until it has found something, at most for wait, and never for so long that the request would come to its end.
func (a *API) await(c call, wait time.Duration, look func() (found bool, err error)) error {
	wait = min(wait, c.limit*4/5)
	var end *time.Timer
	for {
		var changed <-chan struct{}
		if a.Watching.Changed != nil {
			changed = a.Watching.Changed() // asked for before we look, so that nothing falls between
		}
		found, err := look()
		if found || err != nil || wait <= 0 {
			return err
		}
		if end == nil {
			leave, ok := a.meters.enter(c)
			defer leave()
			if !ok {
				return nil
			}
			end = time.NewTimer(wait)
			defer end.Stop()
		}
		select {
		case <-c.Context().Done():
			return c.Context().Err()
		case <-end.C:
			return nil
		case <-changed:
		case <-time.After(time.Second):
		}
	}
}

// A changePage is a part of a tenant's feed.
type changePage struct {
	Changes []push.News `json:"changes"`
	Next    int64       `json:"next"` // behind which to go on
	End     int64       `json:"end"`  // of the feed
}

// changes reads the tenant's feed, which is the truth about what it is told.
func (a *API) changes(c call) (reply, error) {
	limit, err := c.number("limit", client.MaxChanges, client.MaxChanges)
	if err != nil {
		return reply{}, err
	}
	if limit == 0 {
		limit = client.MaxChanges
	}
	wait, err := c.number("wait", 0, 30)
	if err != nil {
		return reply{}, err
	}
	out := changePage{Changes: []push.News{}}
	if c.URL.Query().Get("after") == "end" {
		out.End, err = a.Store.FeedEnd(c.Context(), c.Tenant.ID)
		out.Next = out.End
		return reply{http.StatusOK, out, answered}, err
	}
	after, err := c.number("after", 0, 1<<53)
	if err != nil {
		return reply{}, err
	}
	out.Next = after
	err = a.await(c, time.Duration(wait)*time.Second, func() (bool, error) {
		list, err := a.Store.Changes(c.Context(), c.Tenant.ID, after, int(limit))
		if err != nil {
			return false, err
		}
		if out.End, err = a.Store.FeedEnd(c.Context(), c.Tenant.ID); err != nil {
			return false, err
		}
		if after > out.End {
			return false, jpki.Errorf(jpki.Malformed, "the feed ends at %d", out.End)
		}
		for _, ch := range list {
			out.Changes, out.Next = append(out.Changes, push.NewsOf(ch)), ch.Sequence
		}
		return len(list) > 0, nil
	})
	return reply{http.StatusOK, out, answered}, err
}
