package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openjpki/jpki"
)

// again is how long a question waits before it is asked once more: a relay may have taken it and died.
const (
	again   = 60 * time.Millisecond
	reading = 5 * time.Second // for one answer, of who reads the whole copy
)

// FollowerConfig is what a [Follower] needs. It takes no clock.
type FollowerConfig struct {
	Server Server    // required
	Key    []byte    // required: the relay's
	Rand   io.Reader // required; safe for concurrent use, as crypto/rand's is

	Prefix   string        // the relay's
	Patience time.Duration // with Redis; 0 means 250 ms
}

// A Follower reads the log from what a [Relay] has copied to Redis. It satisfies the contract of [Log], and fails when it
// cannot: use it through [Logs], with the database behind it.
//
// How it knows that its view is complete: for each read it draws a number and puts it into Redis. The relay, having seen
// the number, reads the log to its end, copies what is new, and publishes how far the log went together with the number.
// So everything that was committed before the read began is in the copy up to there. No clock is compared with another,
// and nothing that lay in Redis before, however it came back there, can contain the number.
type Follower struct {
	cfg    FollowerConfig
	client redis.UniversalClient
	keys   keys
	wake   chan struct{}

	mu      sync.Mutex
	up      bool // Run hears from Redis
	err     error
	waiting map[nonce]chan beat
	heard   beat // the last one
	gap     beat // the copy of this epoch begins behind this position
	tallies jpki.Tally
}

// NewFollower returns a follower. It connects when run.
func NewFollower(cfg FollowerConfig) (*Follower, error) {
	if err := cfg.Server.check(); err != nil {
		return nil, fmt.Errorf("make follower: %w", err)
	}
	switch {
	case len(cfg.Key) < 32:
		return nil, errors.New("make follower: Key of at least 32 octets is required")
	case cfg.Rand == nil:
		return nil, errors.New("make follower: Rand is required")
	case cfg.Patience < 0:
		return nil, errors.New("make follower: Patience is negative")
	}
	def(&cfg.Prefix, "jpki:log")
	def(&cfg.Patience, 250*time.Millisecond)
	return &Follower{
		cfg: cfg, keys: keysOf(cfg.Prefix), wake: make(chan struct{}, 1), waiting: map[nonce]chan beat{},
		err: errNotRun, client: redis.NewUniversalClient(cfg.Server.options(8, cfg.Patience)),
	}, nil
}

var (
	errNotRun = errors.New("the follower has not heard from Redis yet")
	errGap    = errors.New("the copy in Redis begins later")
)

// Wake returns a channel that is signalled when entries have been copied: whoever keeps a view should read then.
func (f *Follower) Wake() <-chan struct{} { return f.wake }

// Err returns why reads fail at present, as far as that is known, or nil.
func (f *Follower) Err() error { f.mu.Lock(); defer f.mu.Unlock(); return f.err }

// Outcomes returns how often each outcome occurred: read (answered), gap (older than the copy), silent (no answer in
// time), down (not connected), failed (Redis failed in between), incomplete (the copy lacked what it should have had),
// and forged, for what had no right MAC.
func (f *Follower) Outcomes() map[string]uint64 { return f.tallies.Snapshot() }

// Run listens to the relay until ctx ends, and returns its error; it is called once. Reads fail while it does not run.
func (f *Follower) Run(ctx context.Context) error {
	defer func() {
		f.set(errNotRun)
		_ = f.client.Close()
	}()
	last, rest := "0-0", 10*time.Millisecond
	for ctx.Err() == nil {
		var err error
		if last, err = f.listen(ctx, last); err != nil {
			f.set(err)
			relearn(ctx, f.client)
			pause(ctx, rest)
			rest = min(2*rest, time.Second)
			continue
		}
		f.set(nil)
		rest = 10 * time.Millisecond
	}
	return ctx.Err()
}

func (f *Follower) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up, f.err = err == nil, err
}

// listen waits for beats behind the one heard last and hears them.
func (f *Follower) listen(ctx context.Context, last string) (string, error) {
	const block = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, block+f.cfg.Patience)
	defer cancel()
	streams, err := f.client.XRead(ctx, &redis.XReadArgs{Streams: []string{f.keys.beats, last}, Block: block, Count: 100}).Result()
	if errors.Is(err, redis.Nil) {
		// Silence. Should Redis have lost its beats and made new ones at an earlier time, by its clock, begin anew.
		ends, err := f.client.XRevRangeN(ctx, f.keys.beats, "+", "-", 1).Result()
		if err == nil && (len(ends) == 0 || ends[0].ID != last) {
			last = "0-0"
		}
		return last, err
	}
	if err != nil {
		return last, err
	}
	for _, s := range streams {
		for _, m := range s.Messages {
			last = m.ID
			text, _ := m.Values["b"].(string)
			b, err := parseBeat(f.cfg.Key, []byte(text))
			if err != nil {
				f.tallies.Add("forged")
				continue
			}
			f.hear(b)
		}
	}
	return last, nil
}

// hear hands a beat to those whose questions it answers.
func (f *Follower) hear(b beat) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range b.nonces {
		if c, ok := f.waiting[n]; ok {
			delete(f.waiting, n)
			c <- b // has room
		}
	}
	if b.position != f.heard.position || b.epoch != f.heard.epoch {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	f.heard = b
	f.heard.nonces = nil
}

// StatusChanges is [Log]'s, from the copy in Redis. It fails when Redis or the relay does not answer before ctx ends, and
// at once when the copy does not reach back so far.
func (f *Follower) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	changes, outcome, err := f.read(ctx, after, limit)
	f.tallies.Add(outcome)
	if err != nil {
		return nil, fmt.Errorf("read copy of status log: %w", err)
	}
	return changes, nil
}

func (f *Follower) read(ctx context.Context, after int64, limit int) (changes []jpki.StatusChange, outcome string, err error) {
	f.mu.Lock()
	up, err, gap, present := f.up, f.err, f.gap, f.heard.epoch
	f.mu.Unlock()
	switch {
	case !up:
		return nil, "down", err
	case after < 0 || limit < 1:
		return nil, "failed", errors.New("no such part of the log")
	case gap.epoch == present && after < gap.position:
		return nil, "gap", errGap
	}
	b, err := f.ask(ctx)
	if err != nil {
		return nil, "silent", err
	}
	if after >= b.position {
		return nil, "read", nil
	}
	stream := f.keys.entries + b.epoch.String()
	entries, err := f.client.XRangeN(ctx, stream, streamID(after+1), "+", int64(limit)).Result()
	if err != nil {
		return nil, "failed", err
	}
	changes = make([]jpki.StatusChange, 0, len(entries))
	for i, m := range entries {
		c, err := f.open(b.epoch, m)
		switch {
		case err != nil:
			f.tallies.Add("forged")
			return nil, "failed", err
		case i == 0 && c.Seq > after+1:
			f.mu.Lock()
			f.gap = beat{epoch: b.epoch, position: c.Seq - 1}
			f.mu.Unlock()
			return nil, "gap", errGap
		case c.Seq != after+int64(i)+1:
			return nil, "incomplete", fmt.Errorf("the copy has entry %d where %d belongs", c.Seq, after+int64(i)+1)
		}
		changes = append(changes, c)
	}
	if got := after + int64(len(changes)); len(changes) < limit && got < b.position {
		return nil, "incomplete", fmt.Errorf("the copy ends at %d, the log at %d", got, b.position)
	}
	return changes, "read", nil
}

// open reads one entry of the stream.
func (f *Follower) open(e epoch, m redis.XMessage) (c jpki.StatusChange, err error) {
	seq, err := parseStreamID(m.ID)
	if err != nil {
		return c, err
	}
	sealed, _ := m.Values["e"].(string)
	body, err := unseal(f.cfg.Key, e, seq, []byte(sealed))
	if err != nil {
		return c, err
	}
	if c, err = parseEntry(body); err != nil {
		return c, err
	}
	c.Seq = seq
	return c, nil
}

// ask asks a new question and waits for its answer.
func (f *Follower) ask(ctx context.Context) (beat, error) {
	var n nonce
	if _, err := io.ReadFull(f.cfg.Rand, n[:]); err != nil {
		return beat{}, fmt.Errorf("draw question: %w", err)
	}
	answer := make(chan beat, 1)
	f.mu.Lock()
	f.waiting[n] = answer
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.waiting, n)
		f.mu.Unlock()
	}()
	timer := time.NewTimer(again)
	defer timer.Stop()
	for {
		p := f.client.Pipeline()
		p.RPush(ctx, f.keys.questions, n[:])
		p.LTrim(ctx, f.keys.questions, -4*maxNonces, -1) // should no relay take them
		p.PExpire(ctx, f.keys.questions, time.Minute)
		if _, err := p.Exec(ctx); err != nil {
			return beat{}, err
		}
		select {
		case b := <-answer:
			return b, nil
		case <-timer.C:
			timer.Reset(again)
		case <-ctx.Done():
			return beat{}, fmt.Errorf("no relay has answered: %w", ctx.Err())
		}
	}
}
