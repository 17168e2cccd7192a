package client

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// An IdentifiedUser is a person as your organisation knows them, and no other does.
type IdentifiedUser struct {
	ID     string `json:"id"`
	New    bool   `json:"new"`    // you had not asked about this person before
	Latest bool   `json:"latest"` // no newer certificate of this kind was issued to the person
}

// A Watch has you told what changes about a user, under a purpose.
type Watch struct {
	User    string    `json:"user"`
	Purpose string    `json:"purpose"`        // 1 to 64 of a-z, 0-9 and hyphen
	Since   time.Time `json:"since,omitzero"` // in lists
}

// MaxWatches is how many watches one request may carry.
const MaxWatches = 1000

// A WatchOutcome says what became of watches.
type WatchOutcome struct {
	Changed int      `json:"changed"` // made or ended; the others were so before
	Unknown []string `json:"unknown"` // users whom you do not know; nothing was done about them
}

// CreateWatches has you told of what happens from now on, about up to [MaxWatches] users.
func (c *Client) CreateWatches(ctx context.Context, watches ...Watch) (out WatchOutcome, err error) {
	return out, c.post(ctx, "/v1/watches", map[string][]Watch{"watches": watches}, &out)
}

// EndWatches ends up to [MaxWatches] watches.
func (c *Client) EndWatches(ctx context.Context, watches ...Watch) (out WatchOutcome, err error) {
	return out, c.post(ctx, "/v1/watch-endings", map[string][]Watch{"watches": watches}, &out)
}

// Watches yields all your watches, in the order of users and purposes.
func (c *Client) Watches(ctx context.Context) iter.Seq2[Watch, error] {
	return func(yield func(Watch, error) bool) {
		for after := ""; ; {
			var page struct {
				Watches []Watch `json:"watches"`
				Next    string  `json:"next"`
			}
			if err := c.post(ctx, "/v1/watch-lists", map[string]string{"after": after}, &page); err != nil {
				yield(Watch{}, err)
				return
			}
			for _, w := range page.Watches {
				if !yield(w, nil) {
					return
				}
			}
			if after = page.Next; after == "" {
				return
			}
		}
	}
}

// A Change tells that something about a user changed: of which class, never what.
type Change struct {
	Sequence   int64            `json:"sequence"` // 1, 2, 3 … of your feed, without gaps
	ID         string           `json:"id"`       // the same whenever and however the change is told
	User       string           `json:"user"`     // this, Purpose and Kind are empty if the class is [jpki.ChangesMissed]: look at all your users
	Purpose    string           `json:"purpose"`
	Class      jpki.ChangeClass `json:"class"`
	Kind       jpki.Kind        `json:"kind"` // of the certificate it concerns
	Correction bool             `json:"correction"`
	At         time.Time        `json:"at"`
}

// A ChangePage is a part of your feed.
type ChangePage struct {
	Changes []Change `json:"changes"`
	Next    int64    `json:"next"` // behind which to go on
	End     int64    `json:"end"`  // where the feed ends
}

// Changes reads your feed behind a sequence, up to limit changes (0 means 1000). If there is none it waits for one up to wait, but no
// longer than the server lets it. [jpki.CursorExpired] if some of them are kept no longer.
func (c *Client) Changes(ctx context.Context, after int64, limit int, wait time.Duration) (*ChangePage, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}, "wait": {strconv.Itoa(int(wait / time.Second))}}
	out := &ChangePage{}
	return out, c.do(ctx, http.MethodGet, "/v1/changes?"+q.Encode(), "", nil, out)
}

// FeedEnd returns where your feed ends now.
func (c *Client) FeedEnd(ctx context.Context) (int64, error) {
	var out ChangePage
	err := c.do(ctx, http.MethodGet, "/v1/changes?after=end", "", nil, &out)
	return out.End, err
}

// An Endpoint is where changes are delivered to.
type Endpoint struct {
	ID        string     `json:"id"`
	Method    string     `json:"method"` // webhook, ssf-push or ssf-poll
	URL       string     `json:"url"`
	Secret    string     `json:"secret"` // only when it is new: for [ReadWebhook]
	Enabled   bool       `json:"enabled"`
	Position  int64      `json:"position"` // up to this sequence everything is delivered or refused
	Waiting   int64      `json:"waiting"`
	Attempts  int        `json:"attempts"` // in vain for what comes next
	Failure   string     `json:"failure"`  // why
	NextAt    *time.Time `json:"next_at"`
	CreatedAt time.Time  `json:"created_at"`
}

// CreateEndpoint has what follows a sequence delivered to a webhook; below 0 what happens from now on.
func (c *Client) CreateEndpoint(ctx context.Context, address string, after int64) (*Endpoint, error) {
	in := map[string]any{"url": address}
	if after >= 0 {
		in["after"] = after
	}
	out := &Endpoint{}
	return out, c.post(ctx, "/v1/endpoints", in, out)
}

// Endpoints returns all your endpoints and streams, oldest first.
func (c *Client) Endpoints(ctx context.Context) ([]Endpoint, error) {
	var out struct {
		Endpoints []Endpoint `json:"endpoints"`
	}
	err := c.do(ctx, http.MethodGet, "/v1/endpoints", "", nil, &out)
	return out.Endpoints, err
}

// Endpoint returns one.
func (c *Client) Endpoint(ctx context.Context, id string) (*Endpoint, error) {
	out := &Endpoint{}
	return out, c.do(ctx, http.MethodGet, "/v1/endpoints/"+url.PathEscape(id), "", nil, out)
}

// EnableEndpoint pauses a webhook, or resumes it. What happens meanwhile is delivered later.
func (c *Client) EnableEndpoint(ctx context.Context, id string, enabled bool) error {
	body, err := json.Marshal(map[string]bool{"enabled": enabled})
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPatch, "/v1/endpoints/"+url.PathEscape(id), "application/json", body, nil)
}

// RotateSecret gives a webhook a new secret; for 24 hours messages are signed under the old one, too.
func (c *Client) RotateSecret(ctx context.Context, id string) (*Endpoint, error) {
	out := &Endpoint{}
	return out, c.post(ctx, "/v1/endpoints/"+url.PathEscape(id)+"/secrets", struct{}{}, out)
}

// TestEndpoint has a message sent that tells nothing, and returns its identifier.
func (c *Client) TestEndpoint(ctx context.Context, id string) (string, error) {
	var out struct {
		ID string `json:"id"`
	}
	err := c.post(ctx, "/v1/endpoints/"+url.PathEscape(id)+"/tests", struct{}{}, &out)
	return out.ID, err
}

// DeleteEndpoint deletes an endpoint or stream.
func (c *Client) DeleteEndpoint(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/endpoints/"+url.PathEscape(id), "", nil, nil)
}

// A DeadLetter is a change that the receiver refused.
type DeadLetter struct {
	Change
	Failure string    `json:"failure"`
	DiedAt  time.Time `json:"died_at"`
	Again   bool      `json:"again"` // on its way once more
}

// DeadLetters returns up to 1000 changes that an endpoint's receiver refused, behind a sequence.
func (c *Client) DeadLetters(ctx context.Context, id string, after int64) ([]DeadLetter, error) {
	var out struct {
		Dead []DeadLetter `json:"dead_letters"`
	}
	err := c.do(ctx, http.MethodGet, "/v1/endpoints/"+url.PathEscape(id)+"/dead-letters?limit=1000&after="+strconv.FormatInt(after, 10), "", nil, &out)
	return out.Dead, err
}

// Redeliver sends the dead letter of a sequence once more, or all of them with 0, and returns how many.
func (c *Client) Redeliver(ctx context.Context, id string, sequence int64) (int, error) {
	var out struct {
		N int `json:"redelivered"`
	}
	err := c.post(ctx, "/v1/endpoints/"+url.PathEscape(id)+"/redeliveries", map[string]int64{"sequence": sequence}, &out)
	return out.N, err
}

// webhookAge is how old a webhook may be, or how far ahead: five minutes, as Standard Webhooks recommends.
const webhookAge = 5 * time.Minute

// ReadWebhook checks a webhook that came in, with a secret of [Endpoint], and returns its identifier and the change, nil if it is a test. [jpki.Unauthorized] if it is not from
// the verifier, or old. A webhook may come twice, under the same identifier.
func ReadWebhook(secret string, h http.Header, body []byte, now time.Time) (id string, change *Change, err error) {
	refused := jpki.Errorf(jpki.Unauthorized, "not a webhook of ours")
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	seconds, bad := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
	if err != nil || len(key) == 0 || bad != nil || now.Sub(time.Unix(seconds, 0)).Abs() > webhookAge {
		return "", nil, refused
	}
	id = h.Get("webhook-id")
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + h.Get("webhook-timestamp") + "."))
	mac.Write(body)
	want, known := mac.Sum(nil), false
	for signature := range strings.FieldsSeq(h.Get("webhook-signature")) {
		got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		known = known || err == nil && hmac.Equal(got, want)
	}
	if !known {
		return "", nil, refused
	}
	var m struct {
		Type string `json:"type"`
		Data Change `json:"data"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return "", nil, refused
	}
	if m.Type == "jpki.test" {
		return id, nil, nil
	}
	return id, &m.Data, nil
}
