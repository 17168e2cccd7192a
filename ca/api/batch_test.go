package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/ca/store/storetest"
)

func lineOf(t *testing.T, key, holder, token string, kinds ...jpki.Kind) client.BatchLine {
	t.Helper()
	return client.BatchLine{Key: key, Holder: holder, Token: token, Requests: order(t, token, kinds...).Requests}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// results sends a body as it is, over HTTP/1.1, and reads the answers.
func results[T any](t *testing.T, w *world, path, body string, as string) (out []T) {
	t.Helper()
	pair := w.counter
	if as == "register" {
		pair = w.register
	}
	_, resp, text := w.post(t, pair, "POST", path, "", body)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != client.NDJSON {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
	for line := range strings.Lines(text) {
		var r T
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, r)
	}
	return out
}

func say(r client.BatchResult) string {
	if r.Problem != nil {
		return fmt.Sprintf("%d %s %s", r.Line, r.Key, r.Problem.Problem())
	}
	return fmt.Sprintf("%d %s %d: %d certificates, %d delivered, %d changed", r.Line, r.Key, r.Status, len(r.Certificates), len(r.Delivered), len(r.Changed))
}

func TestBatch(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorldOn(t, db)
		for _, h := range []string{"h2", "h3"} {
			if _, err := w.as(w.register).ReportEvent(t.Context(), registered(h, "99101")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.as(w.register).ReportEvent(t.Context(), registered("far", "99202")); err != nil {
			t.Fatal(err)
		}
		one, two := lineOf(t, "k1", "h1", "card-1", jpki.CardSign, jpki.CardAuth), lineOf(t, "k2", "h2", "card-2", jpki.CardAuth)
		other := lineOf(t, "k1", "h3", "card-3", jpki.CardAuth)
		body := strings.Join([]string{
			encode(t, one), encode(t, two), "", // a blank line
			encode(t, client.BatchLine{Key: "k3", Op: client.DeliverOp, Token: "card-1"}),
			encode(t, client.BatchLine{Key: "k4", Op: client.DiscardOp, Token: "card-2"}),
			`{"key":"k5","holder":`, `[1]`, `{"key":"k5","surprise":1}`, "\xff", `{"key":"621498320257","op":"deliver","token":"card-1"}`,
			`{"key":"k5","op":"deliver","token":"` + strings.Repeat("x", 64<<10) + `"}`,
			`{"op":"deliver","token":"card-1"}`, `{"key":"k5","op":"explode","token":"card-1"}`, `{"key":"k5","op":"deliver","token":"card-1","holder":"h1"}`,
			encode(t, lineOf(t, "k5", "h9", "card-9", jpki.CardAuth)), encode(t, lineOf(t, "k7", "far", "card-far", jpki.CardAuth)),
			encode(t, client.BatchLine{Key: "k8", Op: client.DiscardOp, Token: "card-1"}), // delivered
			encode(t, client.BatchLine{Key: "k9", Op: client.RenewOp, Holder: "h1", Token: "card-1", Requests: other.Requests}),
		}, "\n")
		want := []string{
			"1 k1 201: 2 certificates, 0 delivered, 0 changed", "2 k2 201: 1 certificates, 0 delivered, 0 changed",
			"4 k3 200: 0 certificates, 2 delivered, 0 changed", "5 k4 200: 0 certificates, 0 delivered, 1 changed",
			"6  malformed", "7  malformed", "8  malformed", "9  malformed", "10  my-number-present", "11  too-large",
			"12  idempotency-required", "13 k5 malformed", "14 k5 malformed", "15 k5 unknown-holder", "16 k7 wrong-municipality",
			"17 k8 forbidden-transition", "18 k9 not-renewable",
		}
		first := results[client.BatchResult](t, w, "/station/v1/batches", body, "counter")
		var got []string
		for _, r := range first {
			got = append(got, say(r))
		}
		// A line that could be parsed but holds a bad value keeps its key: which those are is not the point here.
		for i := range got {
			if strings.HasSuffix(want[i], "  malformed") {
				got[i] = strings.Replace(got[i], " k5 ", "  ", 1)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		log, _ := db.StatusChanges(t.Context(), 0, 100)
		again := results[client.BatchResult](t, w, "/station/v1/batches", body, "counter")
		for i := range first {
			for _, r := range []*client.BatchResult{&first[i], &again[i]} {
				if r.Problem != nil {
					r.Problem.RequestID = ""
				}
			}
		}
		if diff := cmp.Diff(encode(t, first), encode(t, again)); diff != "" {
			t.Error("the same batch again gets other answers", diff)
		}
		if after, _ := db.StatusChanges(t.Context(), 0, 100); len(after) != len(log) {
			t.Error("the same batch again changed statuses")
		}
		reused := client.BatchLine{Key: "k6", Holder: "h3", Token: "card-3", Requests: two.Requests}
		if reused := results[client.BatchResult](t, w, "/station/v1/batches", encode(t, reused), "counter"); reused[0].Problem.Problem() != jpki.KeyReused {
			t.Error("a key certified before:", say(reused[0]))
		}
		if other := results[client.BatchResult](t, w, "/station/v1/batches", encode(t, other), "counter"); other[0].Problem.Problem() != jpki.IdempotencyReused {
			t.Error("another order under a used key:", say(other[0]))
		}
		if n := w.handler.LineOutcomes(); n["ok"] != 8 || n["my-number-present"] != 2 {
			t.Error(n)
		}
		if log := w.log.String(); strings.Contains(log, "card-1") || strings.Contains(log, "6214") {
			t.Error("the log tells of lines")
		}
	})
}

func TestBatchStreams(t *testing.T) {
	w := newWorld(t)
	ask := make(chan client.BatchLine)
	lines := func(yield func(client.BatchLine) bool) {
		for l := range ask {
			if !yield(l) {
				return
			}
		}
	}
	// A client that sends the next line only when it has the answer: nothing waits for a full buffer on the server's side.
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/station/v1/batches", pr)
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: w.tls(w.counter), ForceAttemptHTTP2: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(resp.Body)
	for i := range 3 {
		if _, err := fmt.Fprintln(pw, encode(t, client.BatchLine{Key: fmt.Sprint("k", i), Op: client.DeliverOp, Token: "card-9"})); err != nil {
			t.Fatal(err)
		}
		var r client.BatchResult
		if err := answers.Decode(&r); err != nil || r.Line != i+1 || !errors.Is(r.Err(), jpki.UnknownToken) {
			t.Fatal(r, err)
		}
	}
	// A station that is shut out finishes no batch.
	if err := w.authority.Disable(t.Context(), jpki.Actor{Role: jpki.System, ID: "test"}, "aoba-1"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	_, _ = fmt.Fprintln(pw, `{"key":"k9","op":"deliver","token":"card-9"}`)
	var r client.BatchResult
	if err := answers.Decode(&r); err != nil || !errors.Is(r.Err(), jpki.UnknownStation) {
		t.Error(r, err)
	}
	if err := answers.Decode(&r); !errors.Is(err, io.EOF) {
		t.Error("the batch goes on", r, err)
	}
	_ = pw.Close()
	for _, err := range w.as(w.counter).Batch(t.Context(), lines) {
		if !errors.Is(err, jpki.UnknownStation) {
			t.Error(err)
		}
	}
	close(ask)
}

// Somebody who hangs up in the middle leaves whole cards and can go on where it broke off.
func TestBatchBrokenOff(t *testing.T) {
	w := newWorld(t)
	const cards = 12
	var all []client.BatchLine
	for i := range cards {
		h := fmt.Sprint("p", i)
		if _, err := w.as(w.register).ReportEvent(t.Context(), registered(h, "99101")); err != nil {
			t.Fatal(err)
		}
		all = append(all, lineOf(t, "key-"+h, h, "card-"+h, jpki.CardAuth))
	}
	ctx, cancel := context.WithCancel(t.Context())
	issued := map[string]jpki.CertID{}
	for r, err := range w.as(w.counter).Batch(ctx, slices.Values(all)) {
		if err != nil {
			break
		}
		issued[r.Key] = r.Certificates[0].ID
		if len(issued) == 3 {
			cancel()
		}
	}
	cancel()
	// Lines that were begun are completed; while one is, a repetition is told so and has to come again.
	n := 0
	for again := true; again; {
		again, n = false, 0
		for r, err := range w.as(w.counter).Batch(t.Context(), slices.Values(all)) {
			if err != nil || r.Line != n+1 || r.Key != all[n].Key {
				t.Fatalf("%+v %v", r, err)
			}
			n++
			if errors.Is(r.Err(), jpki.InProgress) {
				again = true
				continue
			}
			if r.Err() != nil {
				t.Fatal(r.Err())
			}
			if id, done := issued[r.Key]; done && id != r.Certificates[0].ID {
				t.Errorf("%s got two certificates", r.Key)
			}
		}
	}
	log, _ := w.db.StatusChanges(t.Context(), 0, 100)
	if n != cards || len(log) != cards {
		t.Errorf("%d lines answered, %d entries in the status log, want %d", n, len(log), cards)
	}
}

func TestBatchLimits(t *testing.T) {
	w := newWorld(t)
	got := results[client.BatchResult](t, w, "/station/v1/batches", strings.Repeat("x\n", client.MaxLines+5), "counter")
	if len(got) != client.MaxLines+1 || got[client.MaxLines].Problem.Problem() != jpki.TooLarge || got[0].Problem.Problem() != jpki.Malformed {
		t.Errorf("%d answers, the last %s", len(got), say(got[len(got)-1]))
	}
	if got := results[client.BatchResult](t, w, "/station/v1/batches", "", "counter"); len(got) != 0 {
		t.Error("an empty batch has answers", got)
	}
}

func TestQuotas(t *testing.T) {
	w := newWorld(t)
	adm, err := ca.NewAdmission(ca.AdmissionConfig{Now: time.Now, Rate: 0.001, Burst: 2, Streams: 1, Concurrent: 1, Waiting: 1, Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	w.handler.Admission = adm
	end, _ := adm.Stream("aoba-1")
	if got, resp, _ := w.post(t, w.counter, "POST", "/station/v1/batches", "", ""); got != string(jpki.RateLimited) || resp.Header.Get("Retry-After") == "" {
		t.Error("a batch too many:", got)
	}
	end()
	busy, _ := adm.Single(t.Context(), "somebody")
	if got, _, _ := w.post(t, w.counter, "POST", "/station/v1/certificates", "k", encode(t, order(t, "card-1", jpki.CardAuth))); got != string(jpki.RateLimited) {
		t.Error("waited too long:", got)
	}
	busy()
	if got, resp, _ := w.post(t, w.counter, "GET", "/station/v1/tokens/card-1", "", ""); got != string(jpki.RateLimited) || resp.Header.Get("Retry-After") == "" {
		t.Error("more than the quota:", got)
	}
	if got, _, _ := w.post(t, w.counter, "POST", "/station/v1/suspensions", "k", `{"token":"card-1","cause":"lost"}`); got != string(jpki.UnknownToken) {
		t.Error("a loss report is counted:", got)
	}
	if got, _, _ := w.post(t, w.hotline, "GET", "/station/v1/tokens/card-1", "", ""); got != string(jpki.UnknownToken) {
		t.Error("another station's quota:", got)
	}
}

func TestFeed(t *testing.T) {
	storetest.OnBoth(t, func(t *testing.T, db *store.Store) {
		w := newWorldOn(t, db)
		const people = 450
		events := func(yield func(jpki.Event) bool) {
			for i := range people {
				h := fmt.Sprint("p", i)
				moved := registered(h, "99202")
				moved.ID, moved.Type, moved.Attributes.Address, moved.EffectiveAt = "move-"+h, jpki.AddressChanged, "砂箱県湊市港町1番", time.Now().Add(-time.Second)
				if !yield(registered(h, "99101")) || !yield(moved) {
					return
				}
			}
		}
		feed := w.as(w.register)
		// Events are told at one time and told again.
		told := slices.Collect(iter.Seq[jpki.Event](events))
		for range 2 {
			n := 0
			for r, err := range feed.Feed(t.Context(), slices.Values(told)) {
				if err != nil || r.Err() != nil || !r.Applied || r.ID != told[n].ID || r.Line != n+1 {
					t.Fatalf("%+v %v", r, err)
				}
				n++
			}
			if n != len(told) {
				t.Fatalf("%d answers to %d events", n, len(told))
			}
		}
		var h store.Holder
		if err := db.View(t.Context(), func(tx *store.Tx) (err error) { h, err = tx.Holder("p449"); return err }); err != nil || h.Municipality != "99202" {
			t.Error(h.Municipality, err)
		}
		dead := jpki.Event{ID: "d", Holder: "p0", Type: jpki.Death, EffectiveAt: time.Now().Add(-time.Millisecond)}
		future := jpki.Event{ID: "f", Holder: "p1", Type: jpki.Death, EffectiveAt: time.Now().Add(time.Hour)}
		nobody := jpki.Event{ID: "n", Holder: "nobody", Type: jpki.Death, EffectiveAt: dead.EffectiveAt}
		var body bytes.Buffer
		for _, e := range []jpki.Event{dead, future, nobody} {
			fmt.Fprintln(&body, encode(t, e))
		}
		body.WriteString(`{"id":"x","holder":"621498320257"}` + "\n" + `{"id":"y","holder":"` + strings.Repeat("h", 9000) + `"}` + "\n{")
		var got []string
		for _, r := range results[client.FeedResult](t, w, "/registry/v1/batches", body.String(), "register") {
			got = append(got, fmt.Sprint(r.Line, " ", r.ID, " ", r.Applied, " ", jpki.ProblemOf(r.Err())))
		}
		want := []string{"1 d true internal", "2 f false internal", "3 n false unknown-holder", "4  false my-number-present", "5  false too-large", "6  false malformed"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSearchByTheClient(t *testing.T) {
	w := newWorld(t)
	counter := w.as(w.counter)
	var serial jpki.Serial
	for i := range 3 {
		got, err := counter.Issue(t.Context(), fmt.Sprint("k", i), order(t, fmt.Sprint("card-", i), jpki.CardSign, jpki.CardAuth))
		if err != nil {
			t.Fatal(err)
		}
		serial = got.Certificates[0].ID.Serial
	}
	count := func(seq iter.Seq2[client.Certificate, error]) (n int) {
		for c, err := range seq {
			if err != nil || c.Certificate == "" || c.Holder != "h1" || c.Token == "" || c.State == "" {
				t.Fatal(c, err)
			}
			n++
		}
		return n
	}
	for name, c := range map[string]struct {
		s    client.Search
		want int
	}{
		"holder": {client.Search{Holder: "h1"}, 6}, "revoked": {client.Search{Holder: "h1", State: jpki.Revoked}, 4},
		"token": {client.Search{Token: "card-2"}, 2}, "serial": {client.Search{Serial: serial}, 1},
	} {
		if n := count(counter.Search(t.Context(), c.s)); n != c.want {
			t.Errorf("%s: %d, want %d", name, n, c.want)
		}
	}
	if n := count(counter.Undelivered(t.Context(), 0)); n != 2 {
		t.Errorf("%d undelivered", n)
	}
	if n := count(counter.Undelivered(t.Context(), 1)); n != 0 {
		t.Errorf("%d undelivered for a day", n)
	}
	var page client.Page
	path, seen := "/station/v1/certificates?holder=h1&limit=4", 0
	for {
		_, _, text := w.post(t, w.counter, "GET", path, "", "")
		page = client.Page{}
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Fatal(err)
		}
		if seen += len(page.Certificates); page.Next == nil {
			break
		}
		path = "/station/v1/certificates?holder=h1&limit=4&after=" + page.Next.String()
	}
	if seen != 6 {
		t.Errorf("%d on all pages", seen)
	}
	for _, err := range counter.Search(t.Context(), client.Search{}) {
		if !errors.Is(err, jpki.Malformed) {
			t.Error(err)
		}
	}
}
