package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/openjpki/jpki/ca/client"
)

// An entry of the journal says how far a card has come.
type entry struct {
	Card        string              `json:"card"`
	Step        step                `json:"step"`
	Holder      string              `json:"holder"`
	Key         string              `json:"key"` // idempotency key of the order
	Requests    []client.KeyRequest `json:"requests,omitempty"`
	Certificate string              `json:"certificate,omitempty"` // SHA-256 of the authentication certificate, hexadecimal
}

type step string

// The steps that are written down before the next thing is done.
const (
	ordered step = "ordered" // before the authority is asked: the same question gets the same certificates
	proven  step = "proven"  // before the card is closed: a closed card is known again by its certificate
	done    step = "done"
	refused step = "refused" // by the authority; the card stays blank and may be for somebody else
)

// begin reads the journal, drops a torn last line, and finds out who still waits.
func (l *line) begin(holders []string, journal string) error {
	l.cards, l.changed = map[string]entry{}, make(chan struct{})
	served := map[string]step{}
	if journal != "" {
		f, err := os.OpenFile(journal, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		l.journal = f
		whole := int64(0)
		for r := bufio.NewReader(f); ; {
			text, err := r.ReadBytes('\n')
			if errors.Is(err, io.EOF) {
				break
			}
			var e entry
			if err == nil {
				err = json.Unmarshal(text, &e)
			}
			if err != nil || !slices.Contains(holders, e.Holder) {
				return errors.Join(fmt.Errorf("%s is no journal of this queue", journal), err, f.Close())
			}
			l.cards[e.Card], served[e.Holder] = e, e.Step
			whole += int64(len(text))
		}
		_, err = f.Seek(whole, io.SeekStart)
		if err = errors.Join(err, f.Truncate(whole)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	for _, h := range holders {
		switch served[h] {
		case done:
			continue
		case refused:
			l.refused++
			continue
		case "":
			l.waiting = append(l.waiting, h)
		}
		l.open++
	}
	if l.open == 0 {
		close(l.changed)
	}
	return nil
}

// record writes down how far a card has come, durably, before anything is built upon it.
func (l *line) record(e entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.journal != nil {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := l.journal.Write(append(text, '\n')); err != nil {
			return err
		}
		if err := l.journal.Sync(); err != nil {
			return err
		}
	}
	l.cards[e.Card] = e
	if e.Step == done || e.Step == refused {
		if e.Step == refused {
			l.refused++
		} else {
			fmt.Fprintln(l.out, e.Card, e.Holder)
		}
		l.bar.Increment()
		if l.open--; l.open == 0 {
			close(l.changed)
		}
	}
	return nil
}

// take gives a card its holder: the one of its order, or the next that waits.
func (l *line) take(id string) (e entry, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.cards[id]; ok && (e.Step == ordered || e.Step == proven) {
		return e, true
	}
	if len(l.waiting) == 0 {
		return entry{}, false
	}
	e = entry{Card: id, Step: ordered, Holder: l.waiting[0], Key: rand.Text()}
	l.waiting = l.waiting[1:]
	return e, true
}

// giveBack lets the holder wait again for whom nothing was ordered.
func (l *line) giveBack(holder string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.Insert(l.waiting, 0, holder)
}
