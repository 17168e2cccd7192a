// Login is what a bank runs to log customers in with a card: a page with a challenge, the card's signature on it, and a session in
// a cookie.
//
// It owns the page, the [server] and its sessions; client.go asks the verifier by its Go client, plain.go does the same with nothing
// but HTTP, and sentences.go has what customers are told. It does not read cards: an app or a helper on the customer's machine does, and
// fills in the form. With a sandbox up (make run), on the page's message with the sample holder's key in place of a card:
//
//	. var/sandbox/env; export VERIFIER_URL VERIFIER_TOKEN
//	go run ./verifier/examples/login -listen 127.0.0.1:8070
//
// Sessions and challenges are bound to cookies that no script and no other site can use; they are Secure, so in production the
// server stands behind TLS and -origin says under which name. It is safe for many customers at once.
// Start at handler.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"
)

// A challenge is what the card is to sign.
type challenge struct {
	ID      string
	Message []byte
}

// An answer is the verifier's. Code is a verdict's, or the name of a problem, and then there is no verdict.
type answer struct {
	ok   bool
	code string
	user string // what a bank finds its customer by: the same as when the account was opened, whatever card or phone is used now
}

// verifier is asked in one of two ways. A problem of challenge, and what cannot be reached, is an error; that of login is a code.
type verifier interface {
	// challenge begins a log-in at this origin that only who has the binding can end.
	challenge(ctx context.Context, origin, binding string) (challenge, error)
	login(ctx context.Context, challengeID string, certificate, signature []byte, origin, binding string) (answer, error)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where customers' browsers come")
	origin := flag.String("origin", "", "what browsers call this server (default: http:// and the address)")
	plain := flag.Bool("plain", false, "ask with plain HTTP instead of the Go client")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *listen, *origin, *plain)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "login:", err)
		os.Exit(1)
	}
}

// run answers browsers until ctx ends.
func run(ctx context.Context, listen, origin string, plain bool) error {
	var v verifier
	v, err := withClient(os.Getenv("VERIFIER_URL"), os.Getenv("VERIFIER_TOKEN"))
	if plain {
		v, err = withHTTP(os.Getenv("VERIFIER_URL"), os.Getenv("VERIFIER_TOKEN")), nil
	}
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	if origin == "" {
		origin = "http://" + l.Addr().String()
	}
	fmt.Println(origin)
	web := &http.Server{Handler: newServer(v, origin, time.Now).handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = web.Close() })
	if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
