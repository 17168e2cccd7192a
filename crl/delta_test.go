package crl_test

import (
	"context"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/crl"
)

// logged is an entry of a test's status log.
type logged struct {
	partition string
	change    crl.Change
}

// Changes reads the log of a world.
func (w *world) Changes(_ context.Context, _ jpki.IssuerID, partition string, after int64, limit int) (out []crl.Change, mark crl.Mark, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changesAsked++
	for _, l := range w.log[after:] {
		if (partition == "" || partition == l.partition) && len(out) <= limit {
			out = append(out, l.change)
		}
	}
	return out, crl.Mark{AsOf: w.now, Position: int64(len(w.log))}, w.err
}
