package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/hsm/card/reader"
)

func cardBlank() *cobra.Command {
	n := 1
	c := &cobra.Command{
		Use: "blank", Short: "Make blank cards, to be personalised in a reader",
		Long: `Makes virtual cards without keys, PINs and certificates and prints their numbers. Needs a running sandbox, which says what keys its cards have.`,
		Example: `  jpki card serve $(jpki card blank)           # then, elsewhere: jpki station personalise
  jpki card blank -n 100`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if n < 1 {
				return usageError{errors.New("-n is how many cards, at least one")}
			}
			env, err := sandbox.Load(dirOf(c))
			if err != nil {
				return err
			}
			for range n {
				k, err := card.New(card.Config{Dir: env.CardDir, ID: "C" + rand.Text()[:12], Keys: env.Keys(), Blank: true, Rand: rand.Reader})
				if err != nil {
					return err
				}
				fmt.Fprintln(c.OutOrStdout(), k.ID())
			}
			return nil
		},
	}
	c.Flags().IntVar(&n, "n", n, "how many")
	return c
}

func cardServe() *cobra.Command {
	slot, feed := reader.DefaultSlot, false
	c := &cobra.Command{
		Use: "serve CARD…", Short: "Put cards into virtual readers, for OpenSC and every other program that uses PC/SC",
		Long: `Puts each CARD into a slot of vpcd, the virtual reader of vsmartcard (Debian: pcscd vsmartcard-vpcd), the first at -reader, the others at the ports
behind it, and answers it as the JPKI applet until Ctrl-C, which pulls the cards. When vpcd goes away the card waits for it to come back.

With -feed there is one slot, and the cards come one after the other: each once the one before has been personalised.`,
		Example: `  jpki card serve $CARD
  pkcs11-tool --login --pin 1234 --sign --id 01 -m SHA256-RSA-PKCS -i contract.txt -o contract.sig
  jpki card blank -n 100 > cards; jpki card serve -feed $(cat cards)`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("want at least one argument: CARD")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			cards := make([]*card.Card, len(args))
			for i, name := range args {
				var err error
				if cards[i], err = openCard(c, name); err != nil {
					return err
				}
			}
			host, text, err := net.SplitHostPort(slot)
			port, e := strconv.Atoi(text)
			if err = errors.Join(err, e); err != nil {
				return usageError{fmt.Errorf("-reader: %w", err)}
			}
			f := feeder{out: c.ErrOrStderr()}
			if feed {
				for i, k := range cards {
					if i > 0 {
						select {
						case <-c.Context().Done():
							return nil
						case <-time.After(reader.SwapTime):
						}
					}
					if err := f.show(c.Context(), slot, k, true); err != nil || c.Context().Err() != nil {
						return err
					}
				}
				return nil
			}
			work, ctx := errgroup.WithContext(c.Context())
			for i, k := range cards {
				work.Go(func() error { return f.show(ctx, net.JoinHostPort(host, strconv.Itoa(port+i)), k, false) })
			}
			return work.Wait()
		},
	}
	c.Flags().StringVar(&slot, "reader", slot, "host:port of vpcd's first slot")
	c.Flags().BoolVar(&feed, "feed", false, "one card after the other, as each becomes active")
	return c
}

// A feeder puts cards into virtual readers and says so.
type feeder struct {
	mu  sync.Mutex
	out io.Writer
}

// show keeps a card in a slot until the context ends or, if it is to be fed, the card is active and without power.
func (f *feeder) show(ctx context.Context, slot string, k *card.Card, fed bool) error {
	session, err := card.NewSession(k)
	if err != nil {
		return err
	}
	var failed error
	off := func() bool {
		blank, err := k.Blank()
		failed = err
		return err != nil || fed && !blank
	}
	for told := false; ; {
		if !told {
			f.say("%s: card %s", slot, k.ID())
		}
		err := reader.Slot{Addr: slot, Card: session, Off: off}.Show(ctx)
		if err == nil {
			return failed
		}
		if !told {
			f.say("%s: %v; trying again until the reader is there", slot, err)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (f *feeder) say(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(f.out, format+"\n", args...)
}
