package sandbox

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/verifier/client"
)

// tellPurpose is for what the story's bank follows its customer, and tellPath marks its receiver, so that the next story finds one that is
// left of a story that was killed.
const (
	tellPurpose = "account"
	tellPath    = "/receiver-of-the-story"
)

// watched is a customer whom the bank follows, and where it is told of changes.
type watched struct {
	bank     *client.Client
	user     string
	after    int64 // where the feed ended before
	endpoint *client.Endpoint
	server   *http.Server
	got      chan client.Change
	moved    time.Time
}

// stop ends the receiver and what was asked for.
func (w *watched) stop() {
	if w.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if w.endpoint != nil {
		_ = w.bank.DeleteEndpoint(ctx, w.endpoint.ID)
	}
	_ = w.server.Close()
}

// receive is the bank's receiver: it believes only what is signed, and takes what comes twice once.
func (w *watched) receive(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	_, change, err := client.ReadWebhook(w.endpoint.Secret, r.Header, body, time.Now())
	if err != nil {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
	if change != nil {
		select {
		case w.got <- *change:
		default: // the story has heard enough
		}
	}
}

// watch has the bank verify with both certificates of the new card whose they are, and follow that user. It must have met the signature
// certificate, too, or it is not told of moves.
func (t *story) watch(ctx context.Context) (err error) {
	w := &t.watched
	if w.bank, err = client.New(client.Config{URL: t.s.env.VerifierURL, Token: t.s.env.VerifierToken}); err != nil {
		return err
	}
	digest, hash, signature, err := SignWith(t.second, jpki.CardSign, SignPIN, []byte(application))
	if err != nil {
		return err
	}
	ask := client.Identify{IdentifyUser: true, Purpose: tellPurpose}
	name := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384"}[hash]
	signed, err := w.bank.VerifySignature(ctx, client.SignatureRequest{Certificate: t.newSign, Digest: digest, Hash: name, Signature: signature, Keep: client.Keep{Identify: ask}})
	if err != nil {
		return err
	}
	ch, err := w.bank.Challenge(ctx, client.Session{})
	if err != nil {
		return err
	}
	if _, _, signature, err = SignWith(t.second, jpki.CardAuth, AuthPIN, ch.Message); err != nil {
		return err
	}
	login, err := w.bank.Login(ctx, client.LoginRequest{ChallengeID: ch.ID, Certificate: t.newAuth, Signature: signature, Identify: ask})
	if err != nil {
		return err
	}
	if signed.User == nil || login.User == nil || signed.User.ID != login.User.ID {
		return errors.New("the two certificates of one card are not one user's")
	}
	w.user = signed.User.ID
	t.note("user %s, by signature and by log-in: no serial number is needed", "利用者ID %s（署名でもログインでも同じ。証明書番号の保存は不要）", w.user)
	return w.listen(ctx)
}

// listen starts the bank's receiver and asks to be told.
func (w *watched) listen(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	w.got, w.server = make(chan client.Change, 64), &http.Server{ReadHeaderTimeout: 10 * time.Second}
	old, err := w.bank.Endpoints(ctx)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	for _, e := range old {
		if strings.HasSuffix(e.URL, tellPath) {
			if err := w.bank.DeleteEndpoint(ctx, e.ID); err != nil {
				return errors.Join(err, listener.Close())
			}
		}
	}
	if w.after, err = w.bank.FeedEnd(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	if w.endpoint, err = w.bank.CreateEndpoint(ctx, "http://"+listener.Addr().String()+tellPath, w.after); err != nil {
		return errors.Join(err, listener.Close())
	}
	w.server.Handler = http.HandlerFunc(w.receive)
	go func() { _ = w.server.Serve(listener) }() // ends with stop
	_, err = w.bank.CreateWatches(ctx, client.Watch{User: w.user, Purpose: tellPurpose})
	return err
}

// toldWithin is how long the story waits for news.
const toldWithin = 20 * time.Second

// told waits for the news of the move in the feed and by the webhook, which must be the same.
func (t *story) told(ctx context.Context) error {
	w := &t.watched
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	var news client.Change
	for after := w.after; news.ID == ""; {
		page, err := w.bank.Changes(ctx, after, 0, 8*time.Second)
		if err != nil {
			return fmt.Errorf("the feed: %w", err)
		}
		after = page.Next
		for _, c := range page.Changes {
			if c.User == w.user && c.Purpose == tellPurpose && c.Class == jpki.AttributesChanged {
				news = c
			}
		}
	}
	t.note("feed %d: %s, and not what", "フィード%d: %s（内容は含まない）", news.Sequence, news.Class)
	for {
		select {
		case <-ctx.Done():
			return errors.New("no webhook came")
		case c := <-w.got:
			if c.ID != news.ID {
				continue // of somebody else
			}
			if c != news {
				return errors.New("the webhook tells other news than the feed")
			}
			t.note("webhook: the same, signed, %d ms after the move was reported", "Webhook: 同じ内容、署名付き。転居の届出から%dミリ秒", time.Since(w.moved).Milliseconds())
			_, err := w.bank.EndWatches(ctx, client.Watch{User: w.user, Purpose: tellPurpose})
			return err
		}
	}
}
