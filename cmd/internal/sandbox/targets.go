package sandbox

import (
	"context"
	"iter"

	"github.com/openjpki/jpki/ca/client"
)

// Seeded yields the certificates that [Seed] added to a sandbox that runs, those of which there is only a status apart.
func (e Env) Seeded(ctx context.Context) (iter.Seq2[client.Certificate, error], error) {
	station, err := e.Station()
	if err != nil {
		return nil, err
	}
	return station.Search(ctx, client.Search{Holder: seedHolder}), nil
}
