package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/hsm/card/reader"
)

func stationPersonalise() *cobra.Command {
	var holder, queue, journal, socket string
	var readers []string
	var signPIN, authPIN string
	c := &cobra.Command{
		Use: "personalise", Short: "Personalise blank cards in readers, one or a queue; goes on with pulled cards and after crashes",
		Long: `Waits for a blank card in a reader of PC/SC, has it make its keys, asks the authority for certificates with requests that the card signs, writes
them on the card, has the card show that it works, and closes it against further personalisation. A card that is pulled meanwhile is taken up
where it was when it comes back, in whatever reader.

With -queue there is one card for each line of FILE, the identifier of a holder, and every reader works: each card that is put in is for the
next holder. The journal, FILE.journal, makes the same command go on after an interruption, and gives no card twice.

Prints a line for each finished card: its number and its holder. Exit code 3: some were refused by the authority.`,
		Example: `  jpki station personalise -holder sample-holder
  jpki station personalise -queue holders.txt`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if holder != "" && queue != "" {
				return usageError{errors.New("-holder and -queue exclude each other")}
			}
			if err := errors.Join(card.CheckPIN(jpki.CardSign, signPIN), card.CheckPIN(jpki.CardAuth, authPIN)); err != nil {
				return usageError{err}
			}
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			station, err := env.Station()
			if err != nil {
				return err
			}
			holders := []string{holder}
			switch {
			case queue != "":
				if holders, err = readHolders(queue); err != nil {
					return err
				}
			case holder == "":
				if holders[0], err = someHolder(c.Context(), env, ""); err != nil {
					return err
				}
			}
			if journal == "" && queue != "" {
				journal = queue + ".journal"
			}
			l := &line{
				station: station, socket: socket, readers: readers, pause: time.Second,
				pins: map[jpki.Kind]string{jpki.CardSign: signPIN, jpki.CardAuth: authPIN},
				out:  c.OutOrStdout(), notes: c.ErrOrStderr(),
			}
			return l.work(c.Context(), holders, journal)
		},
	}
	pins(c, &signPIN, &authPIN)
	c.Flags().StringVar(&holder, "holder", "", "whom the card is for; default: somebody new")
	c.Flags().StringVar(&queue, "queue", "", "file with the holders, one a line")
	c.Flags().StringVar(&journal, "journal", "", "file that remembers orders (default FILE.journal; needed for going on)")
	c.Flags().StringArrayVar(&readers, "reader", nil, "use this reader only; may be repeated (default: all)")
	c.Flags().StringVar(&socket, "pcscd", reader.DefaultSocket, "socket of pcscd")
	return c
}

// readHolders reads identifiers, one a line; blank lines are passed over.
func readHolders(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	holders := strings.Fields(string(text))
	slices.Sort(holders)
	if twice := len(slices.Compact(slices.Clone(holders))) < len(holders); twice || len(holders) == 0 {
		return nil, fmt.Errorf("%s has no holder, or one twice", path)
	}
	return strings.Fields(string(text)), nil
}

// A line is one or several readers at which cards are personalised for a queue of holders.
type line struct {
	station *client.Client
	socket  string
	readers []string // to use; empty: all
	pause   time.Duration
	pins    map[jpki.Kind]string
	out     io.Writer // finished cards
	notes   io.Writer // what happens

	mu      sync.Mutex
	journal *os.File // nil: only remembered
	waiting []string // holders without a card
	cards   map[string]entry
	open    int // holders whose cards are not done
	refused int
	bar     *mpb.Bar
	changed chan struct{} // closed when open falls to zero
}

// work personalises a card for each holder that has none according to the journal.
func (l *line) work(ctx context.Context, holders []string, journal string) error {
	if err := l.begin(holders, journal); err != nil {
		return err
	}
	if l.journal != nil {
		defer l.journal.Close()
	}
	bars, bar := progress(ctx, "cards", len(holders), len(holders)-l.open)
	l.bar = bar
	err := l.everyReader(ctx)
	if err != nil {
		bar.Abort(false)
	}
	bars.Wait()
	l.note("%d of %d cards done, %d refused", len(holders)-l.open-l.refused, len(holders), l.refused)
	if err == nil && l.refused > 0 {
		return errNo
	}
	return err
}

func (l *line) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.notes, format+"\n", args...)
}

// pollEvery is how often a reader is looked at for a card.
const pollEvery = 50 * time.Millisecond

// everyReader works at all readers until every holder has been served, and begins anew when pcscd was gone.
func (l *line) everyReader(ctx context.Context) error {
	for told := false; ; {
		names, err := l.find(ctx)
		if err == nil {
			told = false
			work, ctx := errgroup.WithContext(ctx)
			for _, name := range names {
				work.Go(func() error { return l.atReader(ctx, name) })
			}
			err = work.Wait()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, reader.ErrDaemonGone):
			return err
		}
		if !told {
			l.note("%v; waiting for it", err)
			told = true
		}
		if err := l.wait(ctx, 4*pollEvery); err != nil {
			return err
		}
	}
}

// find returns the readers to work at, and waits until there is one.
func (l *line) find(ctx context.Context) (names []string, err error) {
	c, err := reader.Dial(ctx, l.socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	for told := false; ; {
		states, err := c.Readers(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range states {
			if len(l.readers) == 0 || slices.Contains(l.readers, s.Reader) {
				names = append(names, s.Reader)
			}
		}
		if len(names) > 0 {
			return names, nil
		}
		if !told {
			l.note("there is no such reader; waiting for one")
			told = true
		}
		if err := l.wait(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
}

func (l *line) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// atReader personalises the cards that are put into one reader.
func (l *line) atReader(ctx context.Context, name string) (err error) {
	c, err := reader.Dial(ctx, l.socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	seen, event, noted := false, uint32(0), "" // of the card that was dealt with
	for {
		select {
		case <-l.changed:
			return nil
		default:
		}
		states, err := c.Readers(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(states, func(s reader.State) bool { return s.Reader == name })
		if i < 0 || !states[i].Present || seen && states[i].Event == event {
			if err := l.wait(ctx, pollEvery); err != nil {
				return err
			}
			continue
		}
		if event != states[i].Event {
			noted = ""
		}
		again, note, err := l.oneCard(ctx, c, name)
		if err != nil {
			return err
		}
		if note != "" && note != noted {
			l.note("%s: %s", name, note)
		}
		seen, event, noted = !again, states[i].Event, note
		if err := l.wait(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// oneCard deals with the card in a reader. It reports again if that is to be tried once more although nobody put a card in, and what is
// to be said about it.
func (l *line) oneCard(ctx context.Context, c *reader.Client, name string) (again bool, note string, err error) {
	conn, err := c.Connect(ctx, name)
	if err == nil {
		err = l.personalise(ctx, reader.NewTerminal(conn), name)
		if e := conn.Disconnect(ctx); errors.Is(e, reader.ErrDaemonGone) {
			err = errors.Join(err, e)
		}
	}
	_, answered := errors.AsType[*reader.StatusError](err)
	_, wrongPIN := errors.AsType[*card.WrongPINError](err)
	code, isCode := errors.AsType[reader.Code](err)
	switch {
	case err == nil:
		return false, "", nil
	case errors.Is(err, errFree):
		return true, "", nil
	case ctx.Err() != nil || errors.Is(err, reader.ErrDaemonGone):
		return false, "", err
	case errors.Is(err, reader.ErrCardGone):
		return true, "the card was pulled; it goes on when it is put in again", nil
	case answered, wrongPIN, errors.Is(err, card.ErrLocked), errors.Is(err, card.ErrNoCertificate), errors.Is(err, errUnfit):
		return false, err.Error() + "; take the card out", nil
	case isCode: // somebody else uses the card, or so
		return true, code.Error(), nil
	}
	return false, "", err
}

// refusals are the authority's answers that are about the holder. After any other the line stops.
var refusals = []jpki.Problem{jpki.UnknownHolder, jpki.NotEligible, jpki.AlreadyCertified, jpki.NoValidityLeft, jpki.WrongMunicipality, jpki.Malformed, jpki.MyNumberPresent}

// errFree is the error of a card whose holder was refused: it is for the next.
var errFree = errors.New("the card is free")

// errUnfit is the error of a card with which nothing is to be done here.
var errUnfit = errors.New("not for this queue")

// personalise does the work on one card. Steps:
//  1. the card's number and PINs, and its keys, made or found made
//  2. requests signed by the card, and the order in the journal
//  3. certificates from the authority, the same however often one asks
//  4. certificates onto the card, and the card's proof that it works, in the journal
//  5. the card is closed
//
// A card that was closed already is known by its certificate.
func (l *line) personalise(ctx context.Context, t *reader.Terminal, name string) error {
	blank, err := t.SelectPersonalisation(ctx)
	if err != nil {
		return err
	}
	if !blank {
		return l.recognise(ctx, t)
	}
	// 1.
	id, _, err := t.Identity(ctx)
	if err != nil {
		return err
	}
	e, ok := l.take(id)
	if !ok {
		return fmt.Errorf("card %s: nobody waits for a card: %w", id, errUnfit)
	}
	if err := l.order(ctx, t, &e); err != nil {
		if e.Requests == nil {
			l.giveBack(e.Holder)
		}
		return err
	}
	// 3.
	answer, err := l.ask(ctx, e)
	if err != nil {
		if !slices.Contains(refusals, jpki.ProblemOf(err)) {
			return err
		}
		l.note("%s: card %s for %s: %s", name, id, e.Holder, explain(err))
		e.Step = refused
		if err := l.record(e); err != nil {
			return err
		}
		return errFree
	}
	// 4.
	if _, err := t.SelectPersonalisation(ctx); err != nil {
		return err
	}
	type pair struct{ certificate, ca []byte }
	written := map[jpki.Kind]pair{}
	for _, issued := range answer.Certificates {
		der, err := client.DER(issued.Certificate)
		if err != nil {
			return err
		}
		ca, err := client.DER(issued.Issuer)
		if err != nil {
			return err
		}
		if err := t.Write(ctx, issued.Kind, der, ca); err != nil {
			return err
		}
		written[issued.Kind] = pair{der, ca}
	}
	for _, kind := range card.Kinds {
		if err := t.Prove(ctx, kind, l.pins[kind], written[kind].certificate, written[kind].ca); err != nil {
			return err
		}
	}
	e.Step, e.Certificate = proven, fingerprint(written[jpki.CardAuth].certificate)
	if err := l.record(e); err != nil {
		return err
	}
	// 5.
	if _, err := t.SelectPersonalisation(ctx); err != nil {
		return err
	}
	if err := t.Activate(ctx); err != nil {
		return err
	}
	e.Step = done
	return l.record(e)
}

// order has the card make its keys and sign requests, and writes the order down. What is written down already has to fit the card.
func (l *line) order(ctx context.Context, t *reader.Terminal, e *entry) error {
	publics := map[jpki.Kind]crypto.PublicKey{}
	for _, kind := range card.Kinds {
		if err := t.SetPIN(ctx, kind, l.pins[kind]); err != nil {
			return err
		}
		pub, err := t.MakeKey(ctx, kind)
		if err != nil {
			return err
		}
		publics[kind] = pub
	}
	if e.Requests != nil {
		for _, r := range e.Requests {
			block, _ := pem.Decode([]byte(r.Request))
			if block == nil {
				return errors.New("the journal has an order without requests")
			}
			request, err := x509.ParseCertificateRequest(block.Bytes)
			if err != nil {
				return err
			}
			if k, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(publics[r.Kind]) {
				return fmt.Errorf("card %s has other keys than were ordered for: %w", e.Card, errUnfit)
			}
		}
		return nil
	}
	// 2.
	var requests []client.KeyRequest
	for _, kind := range card.Kinds {
		der, err := t.Request(ctx, kind, l.pins[kind], publics[kind])
		if err != nil {
			return err
		}
		requests = append(requests, client.KeyRequest{Kind: kind, Request: client.RequestPEM(der)})
	}
	next := *e
	next.Requests = requests
	if err := l.record(next); err != nil {
		return err
	}
	*e = next
	return nil
}

// ask orders the certificates, again and again while what hinders passes by itself.
func (l *line) ask(ctx context.Context, e entry) (answer client.Certificates, err error) {
	for try := range fruitless + 1 {
		answer, err = l.station.Issue(ctx, e.Key, client.CertificateOrder{Holder: e.Holder, Token: e.Card, Requests: e.Requests})
		if err == nil || !passes(jpki.ProblemOf(err)) || try == fruitless {
			break
		}
		if err := l.wait(ctx, l.pause<<try); err != nil {
			return answer, err
		}
	}
	return answer, err
}

// recognise finds out whether a card that is not blank is one whose last word got lost.
func (l *line) recognise(ctx context.Context, t *reader.Terminal) error {
	found, err := t.SelectJPKI(ctx)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("no JPKI card: %w", errUnfit)
	}
	der, err := t.Certificate(ctx, jpki.CardAuth)
	if err != nil {
		return err
	}
	l.mu.Lock()
	var lost *entry
	for _, e := range l.cards {
		if e.Step == proven && e.Certificate == fingerprint(der) {
			lost = &e
		}
	}
	l.mu.Unlock()
	if lost == nil {
		return fmt.Errorf("the card is no blank one: %w", errUnfit)
	}
	lost.Step = done
	return l.record(*lost)
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(bytes.Clone(der))
	return hex.EncodeToString(sum[:])
}
