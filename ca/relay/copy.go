package relay

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/redis/go-redis/v9"

	"github.com/openjpki/jpki"
)

// Copied walks what a [Relay] has left in Redis of the status log, in its order, and checks each entry: for who has lost the
// log. It is the last part only, see [Config].Keep, and as old as the relay's last work. Rand is not needed.
func Copied(ctx context.Context, cfg FollowerConfig) iter.Seq2[jpki.StatusChange, error] {
	return func(yield func(jpki.StatusChange, error) bool) {
		if err := cfg.Server.check(); err != nil || len(cfg.Key) < 32 {
			yield(jpki.StatusChange{}, errors.Join(errors.New("read copy of status log: Server and Key of at least 32 octets are required"), err))
			return
		}
		def(&cfg.Prefix, "jpki:log")
		def(&cfg.Patience, reading)
		client := redis.NewUniversalClient(cfg.Server.options(2, cfg.Patience))
		defer func() { _ = client.Close() }()
		keys := keysOf(cfg.Prefix)
		name, err := client.Get(ctx, keys.epoch).Result()
		e, ok := parseEpoch(name)
		if err == nil && !ok {
			err = errEncoding
		}
		f := Follower{cfg: cfg}
		from := "-"
		for err == nil {
			var entries []redis.XMessage
			if entries, err = client.XRangeN(ctx, keys.entries+e.String(), from, "+", page).Result(); err != nil || len(entries) == 0 {
				break
			}
			for _, m := range entries {
				c, bad := f.open(e, m)
				if bad != nil {
					err = bad
					break
				}
				if !yield(c, nil) {
					return
				}
				from = "(" + m.ID
			}
		}
		if err != nil {
			yield(jpki.StatusChange{}, fmt.Errorf("read copy of status log: %w", err))
		}
	}
}
