package sandbox

import (
	"context"
	"errors"
	"iter"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
)

// Seeded yields the certificates that [Seed] added to a sandbox that runs, those of which there is only a status apart:
// none if nobody seeded any.
func (e Env) Seeded(ctx context.Context) (iter.Seq2[client.Certificate, error], error) {
	station, err := e.Station()
	if err != nil {
		return nil, err
	}
	found := station.Search(ctx, client.Search{Holder: seedHolder})
	return func(yield func(client.Certificate, error) bool) {
		for cert, err := range found {
			if errors.Is(err, jpki.UnknownHolder) { // the first seed brings the holder
				return
			}
			if !yield(cert, err) {
				return
			}
		}
	}, nil
}
