package api

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/push"
	"github.com/openjpki/jpki/verifier/store"
)

// This file is the transmitter of OpenID Shared Signals Framework 1.0. A stream is an endpoint of the store.

// wellKnown answers without a token: what the transmitter is, and the keys that verify its tokens.
func (a *API) wellKnown() {
	if a.Watching == nil {
		for _, path := range []string{push.MetadataPath, push.KeySetPath} {
			a.engine.GET(path, func(c *gin.Context) { a.refuse(c, errNoAuthority()) })
		}
		return
	}
	for path, body := range map[string]any{push.MetadataPath: a.Watching.Events.Metadata(), push.KeySetPath: a.Watching.Events.KeySet()} {
		a.engine.GET(path, func(c *gin.Context) {
			c.Set(outcomeKey, answered)
			c.Header("Cache-Control", "public, max-age=300")
			c.PureJSON(http.StatusOK, body)
		})
	}
}

type delivery struct {
	Method        string  `json:"method"`
	URL           string  `json:"endpoint_url,omitempty"`
	Authorization *string `json:"authorization_header,omitempty"` // never told again
}

// A streamConfig is a stream's configuration (§8.1.1). What the transmitter supplies is passed over in requests.
type streamConfig struct {
	ID          string    `json:"stream_id"`
	Issuer      string    `json:"iss"`
	Audience    string    `json:"aud"`
	Supported   []string  `json:"events_supported"`
	Requested   []string  `json:"events_requested,omitempty"`
	Delivered   []string  `json:"events_delivered"`
	Delivery    *delivery `json:"delivery"`
	Description string    `json:"description,omitempty"`
}

// streamRequest are the members that a receiver supplies.
type streamRequest struct {
	ID          string    `json:"stream_id"`
	Requested   *[]string `json:"events_requested"`
	Delivery    *delivery `json:"delivery"`
	Description *string   `json:"description"`
}

func (a *API) streamConfig(e store.Endpoint) streamConfig {
	out := streamConfig{
		ID: e.ID, Issuer: a.Watching.Events.Issuer(), Audience: e.Audience, Supported: push.EventTypes(), Requested: e.Events, Description: e.Description, Delivery: &delivery{Method: push.PushMethod, URL: e.URL},
	}
	out.Delivered = slices.DeleteFunc(push.EventTypes(), func(t string) bool {
		if len(e.Events) == 0 { // the change as such, not its counterpart in CAEP
			return !strings.HasPrefix(t, push.EventBase)
		}
		return !slices.Contains(e.Events, t)
	})
	if e.Method == store.SSFPoll {
		out.Delivery = &delivery{Method: push.PollMethod, URL: out.Issuer + push.StreamsPath + "/" + e.ID + "/poll"}
	}
	return out
}

// apply sets what a receiver asked for.
func (a *API) apply(in streamRequest, e *store.Endpoint) error {
	if in.Requested != nil {
		if len(*in.Requested) > 64 || slices.ContainsFunc(*in.Requested, func(s string) bool { return s == "" || len(s) > 256 }) {
			return jpki.Errorf(jpki.Malformed, "events_requested are at most 64, of at most 256 characters")
		}
		e.Events = *in.Requested
	}
	if in.Description != nil {
		if len(*in.Description) > 256 {
			return jpki.Errorf(jpki.Malformed, "description has more than 256 octets")
		}
		e.Description = *in.Description
	}
	if d := in.Delivery; d != nil {
		switch d.Method {
		case push.PollMethod:
			e.Method, e.URL, e.Authorization = store.SSFPoll, "", ""
		case push.PushMethod:
			if err := push.CheckURL(d.URL, a.Watching.Private); err != nil {
				return err
			}
			if e.URL != d.URL { // what was sent to one receiver is not for another
				e.Authorization = ""
			}
			e.Method, e.URL = store.SSFPush, d.URL
			if d.Authorization != nil {
				if len(*d.Authorization) > 1024 || strings.ContainsFunc(*d.Authorization, func(r rune) bool { return r < ' ' || r > '~' }) {
					return jpki.Errorf(jpki.Malformed, "authorization_header is not at most 1024 printable ASCII characters")
				}
				e.Authorization = *d.Authorization
			}
		default:
			return jpki.Errorf(jpki.Malformed, "delivery.method is neither %s nor %s", push.PushMethod, push.PollMethod)
		}
	}
	return nil
}

func errNoStream() error { return jpki.Errorf(jpki.NotFound, "there is no such stream") }

func checkStream(id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return errNoStream()
	}
	return nil
}

// stream returns a stream of the tenant's.
func (a *API) stream(c call, id string) (store.Endpoint, error) {
	if err := checkStream(id); err != nil {
		return store.Endpoint{}, err
	}
	e, err := a.Store.Endpoint(c.Context(), c.Access, id)
	if err == nil && e.Method == store.Webhook {
		err = errNoStream()
	}
	return e, err
}

func (a *API) createStream(c call) (reply, error) {
	var in streamRequest
	if err := c.decode(&in, true); err != nil {
		return reply{}, err
	}
	e := store.Endpoint{Method: store.SSFPoll, Target: store.Target{Audience: c.Tenant.Name}} // §8.1.1.1: polled unless the receiver says otherwise
	if err := a.apply(in, &e); err != nil {
		return reply{}, err
	}
	e, err := a.Store.AddEndpoint(c.Context(), c.Access, e.Method, e.Target, -1, a.Now())
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, a.streamConfig(e), answered}, nil
}

// streams returns one stream, or all as a list if none is named (§8.1.1.2).
func (a *API) streams(c call) (reply, error) {
	if c.URL.Query().Has("stream_id") {
		e, err := a.stream(c, c.URL.Query().Get("stream_id"))
		if err != nil {
			return reply{}, err
		}
		return reply{http.StatusOK, a.streamConfig(e), answered}, nil
	}
	list, err := a.Store.Endpoints(c.Context(), c.Access)
	out := []streamConfig{}
	for _, e := range list {
		if e.Method != store.Webhook {
			out = append(out, a.streamConfig(e))
		}
	}
	return reply{http.StatusOK, out, answered}, err
}

func (a *API) updateStream(c call) (reply, error) { return a.setStream(c, false) }

func (a *API) replaceStream(c call) (reply, error) { return a.setStream(c, true) }

// setStream changes the members that are there, or all of them: what is missing then is deleted (§8.1.1.3, §8.1.1.4).
func (a *API) setStream(c call, all bool) (reply, error) {
	var in streamRequest
	if err := c.decode(&in, true); err != nil {
		return reply{}, err
	}
	if err := checkStream(in.ID); err != nil {
		return reply{}, err
	}
	if all {
		if in.Requested == nil {
			in.Requested = new([]string)
		}
		if in.Description == nil {
			in.Description = new(string)
		}
		if in.Delivery == nil {
			in.Delivery = &delivery{Method: push.PollMethod}
		}
		if in.Delivery.Authorization == nil {
			in.Delivery.Authorization = new(string)
		}
	}
	e, err := a.Store.ChangeEndpoint(c.Context(), c.Access, in.ID, func(e *store.Endpoint, _ int64) error {
		if e.Method == store.Webhook {
			return errNoStream()
		}
		return a.apply(in, e)
	}, a.Now())
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, a.streamConfig(e), answered}, nil
}

func (a *API) deleteStream(c call) (reply, error) {
	e, err := a.stream(c, c.URL.Query().Get("stream_id"))
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusNoContent, nil, answered}, a.Store.DeleteEndpoint(c.Context(), c.Access, e.ID)
}

// The states of a stream (§8.1.2). What happens while it is paused is delivered later; what happens while it is disabled is not.
const (
	streamEnabled  = "enabled"
	streamPaused   = "paused"
	streamDisabled = "disabled"
)

type streamStatus struct {
	ID     string `json:"stream_id"`
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

func statusOf(e store.Endpoint) streamStatus {
	switch {
	case e.Enabled:
		return streamStatus{e.ID, streamEnabled, e.Failure}
	case e.Disabled:
		return streamStatus{e.ID, streamDisabled, e.Failure}
	}
	return streamStatus{e.ID, streamPaused, e.Failure}
}

func (a *API) streamStatus(c call) (reply, error) {
	e, err := a.stream(c, c.URL.Query().Get("stream_id"))
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, statusOf(e), answered}, nil
}

func (a *API) setStreamStatus(c call) (reply, error) {
	var in streamStatus
	if err := c.decode(&in, true); err != nil {
		return reply{}, err
	}
	if err := checkStream(in.ID); err != nil {
		return reply{}, err
	}
	if !slices.Contains([]string{streamEnabled, streamPaused, streamDisabled}, in.Status) {
		return reply{}, jpki.Errorf(jpki.Malformed, "status is none of enabled, paused, disabled")
	}
	e, err := a.Store.ChangeEndpoint(c.Context(), c.Access, in.ID, func(e *store.Endpoint, end int64) error {
		if e.Method == store.Webhook {
			return errNoStream()
		}
		if e.Disabled && in.Status != streamDisabled {
			e.Position = end
		}
		e.Enabled, e.Disabled = in.Status == streamEnabled, in.Status == streamDisabled
		return nil
	}, a.Now())
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusOK, statusOf(e), answered}, nil
}

// verifyStream has a verification event sent (§8.1.4.2).
func (a *API) verifyStream(c call) (reply, error) {
	var in struct {
		ID    string `json:"stream_id"`
		State string `json:"state"`
	}
	if err := c.decode(&in, true); err != nil {
		return reply{}, err
	}
	if len(in.State) > 1024 {
		return reply{}, jpki.Errorf(jpki.Malformed, "state has more than 1024 octets")
	}
	e, err := a.stream(c, in.ID)
	if err != nil {
		return reply{}, err
	}
	_, err = a.Store.AddNotice(c.Context(), c.Access, e.ID, in.State, a.Now())
	return reply{http.StatusNoContent, nil, answered}, err
}

// setErrors are the reasons for which a receiver may refuse a token (RFC 8935 §7.1). Any other is told as "other".
var setErrors = []string{"invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed", "access_denied"}

const (
	pollStandard = 100
	pollMost     = 1000
	pollWait     = 25 * time.Second
)

// pollStream hands out tokens and takes acknowledgements (RFC 8936).
func (a *API) pollStream(c call) (reply, error) {
	var in struct {
		Max     *int64   `json:"maxEvents"`
		AtOnce  bool     `json:"returnImmediately"`
		Acks    []string `json:"ack"`
		Refused map[string]struct {
			Err string `json:"err"`
		} `json:"setErrs"`
	}
	if err := c.decode(&in, true); err != nil {
		return reply{}, err
	}
	most := int64(pollStandard)
	if in.Max != nil {
		most = min(*in.Max, pollMost)
	}
	if most < 0 || len(in.Acks)+len(in.Refused) > pollMost {
		return reply{}, jpki.Errorf(jpki.Malformed, "maxEvents is negative, or ack and setErrs together are more than %d", pollMost)
	}
	e, err := a.stream(c, c.param)
	if err != nil {
		return reply{}, err
	}
	refused := map[string]string{}
	for id, why := range in.Refused {
		if refused[id] = "set-other"; slices.Contains(setErrors, why.Err) {
			refused[id] = "set-" + strings.ReplaceAll(why.Err, "_", "-")
		}
	}
	sets, more := map[string]string{}, false
	wait := pollWait
	if in.AtOnce || most == 0 {
		wait = 0
	}
	acks := in.Acks
	err = a.await(c, wait, func() (bool, error) {
		for {
			list, notices, behind, err := a.Store.Poll(c.Context(), c.Access, e.ID, acks, refused, int(max(1, most)), a.Now())
			if err != nil {
				return false, err
			}
			acks, refused, more = nil, nil, behind || most == 0 && len(list)+len(notices) > 0
			if most == 0 { // only to acknowledge
				return true, nil
			}
			for _, n := range notices {
				if sets[n.ID], err = a.Watching.Events.Verification(&e, n); err != nil {
					return false, err
				}
			}
			for _, ch := range list {
				token, wanted, err := a.Watching.Events.Token(&e, ch)
				switch {
				case err != nil:
					return false, err
				case wanted:
					sets[ch.ID] = token
				default: // of a type that the receiver did not ask for
					acks = append(acks, ch.ID)
				}
			}
			if len(sets) > 0 || len(acks) == 0 {
				return len(sets) > 0, nil
			}
		}
	})
	return reply{http.StatusOK, struct {
		Sets map[string]string `json:"sets"`
		More bool              `json:"moreAvailable,omitempty"`
	}{sets, more}, answered}, err
}
