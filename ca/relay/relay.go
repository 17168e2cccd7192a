package relay

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/openjpki/jpki"
)

// A Log is the status log. StatusChanges returns the entries after a position, at most limit of them, in sequence order
// and without gaps. It reflects everything committed before the call began, so fewer than limit means that there were
// no more then. It ends when ctx does.
type Log interface {
	StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error)
}

// page is how many entries are read, and given to Redis, at once.
const page = 1000

// Config is what a [Relay] needs. It takes no clock: durations are measured by timers, the lease by Redis.
type Config struct {
	Server Server    // required
	Log    Log       // required; must read the primary, for an answer from a copy that lags would be a lie
	Key    []byte    // required, at least 32 octets: shared with the followers; who has it can speak for the log
	Rand   io.Reader // required

	Prefix   string          // of every key; "" means "jpki:log"
	Wake     <-chan struct{} // optional: signalled after a commit
	Interval time.Duration   // between two reads of the log; 0 means 100 ms
	Pace     time.Duration   // at most two reads in such a time, however many ask; 0 means 5 ms
	Lease    time.Duration   // after which another relay may take over from one that died; 0 means 3 seconds
	Keep     int64           // entries kept in Redis, roughly; 0 means 100000
	Patience time.Duration   // with Redis; 0 means 1 second
	Timeout  time.Duration   // given to one read of the log; 0 means 10 seconds
}

// A Relay copies the log to Redis and answers followers' questions. Several may run: one has the lease and works.
//
// Nothing depends on there being only one. Each write is a script that Redis runs as one: it is refused unless the writer
// has the lease, the epoch is still the writer's, and the copy ends where the writer believes; and Redis itself refuses an
// entry whose number is not greater than the last. A relay that was stopped for an hour and goes on in the middle of a
// write can at worst publish an answer that is late, but true.
type Relay struct {
	cfg    Config
	client redis.UniversalClient
	token  string // in the lease; drawn once
	keys   keys

	// of the goroutine in Run
	epoch    epoch
	started  bool   // epoch is one whose copy we have compared with the log, up to position
	position int64  // of the last entry that the copy has, or after which it begins
	last     []byte // that entry's body; nil at 0
	empty    bool   // the copy has no entry yet

	mu       sync.Mutex
	asked    []nonce
	err      error
	working  bool
	outcomes jpki.Tally

	question chan struct{} // signalled when asked has grown
}

type keys struct{ lease, epoch, questions, beats, entries string }

func keysOf(prefix string) keys {
	tag := fmt.Sprintf("{%s:%d}:", prefix, format)
	return keys{lease: tag + "lease", epoch: tag + "epoch", questions: tag + "questions", beats: tag + "beats", entries: tag + "entries:"}
}

// New returns a relay. It connects when run.
func New(cfg Config) (*Relay, error) {
	if err := cfg.Server.check(); err != nil {
		return nil, fmt.Errorf("make relay: %w", err)
	}
	switch {
	case cfg.Log == nil:
		return nil, errors.New("make relay: Log is required")
	case len(cfg.Key) < 32:
		return nil, errors.New("make relay: Key of at least 32 octets is required")
	case cfg.Rand == nil:
		return nil, errors.New("make relay: Rand is required")
	case cfg.Interval < 0 || cfg.Pace < 0 || cfg.Lease < 0 || cfg.Keep < 0 || cfg.Patience < 0 || cfg.Timeout < 0:
		return nil, errors.New("make relay: a limit is negative")
	}
	def(&cfg.Prefix, "jpki:log")
	def(&cfg.Interval, 100*time.Millisecond)
	def(&cfg.Pace, 5*time.Millisecond)
	def(&cfg.Lease, 3*time.Second)
	def(&cfg.Keep, 100000)
	def(&cfg.Patience, time.Second)
	def(&cfg.Timeout, 10*time.Second)
	var token [16]byte
	if _, err := io.ReadFull(cfg.Rand, token[:]); err != nil {
		return nil, fmt.Errorf("draw token: %w", err)
	}
	return &Relay{
		cfg: cfg, token: hex.EncodeToString(token[:]), keys: keysOf(cfg.Prefix), question: make(chan struct{}, 1),
		client: redis.NewUniversalClient(cfg.Server.options(4, cfg.Patience)),
	}, nil
}

func def[T comparable](v *T, or T) {
	if zero := *new(T); *v == zero {
		*v = or
	}
}

// pause waits for d or for ctx to end.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// ErrLease is why a relay that is well does not work: another does, and this one stands by.
var ErrLease = errors.New("another relay has the lease")

// Other reasons for which a relay begins anew: another epoch is the present one, the copy ends elsewhere, the log is not
// what it was.
var (
	errEpoch     = errors.New("the copy in Redis has been replaced")
	errPosition  = errors.New("the copy in Redis ends elsewhere")
	errRewritten = errors.New("the log is no longer what was copied")
)

// Run works until ctx ends, and returns its error; it is called once. What goes wrong is tried again: see [Relay.Err].
func (r *Relay) Run(ctx context.Context) error {
	defer func() {
		_ = r.run(context.WithoutCancel(ctx), release, []string{r.keys.lease}, r.token) // else another waits for the lease to expire
		_ = r.client.Close()
	}()
	for ctx.Err() == nil {
		err := r.work(ctx)
		r.note(err, false)
		if errors.Is(err, errRewritten) {
			r.started = false
		}
		if !errors.Is(err, ErrLease) {
			relearn(ctx, r.client)
		}
		pause(ctx, min(r.cfg.Lease/10, r.cfg.Interval))
	}
	return ctx.Err()
}

func (r *Relay) note(err error, working bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.working = err, working
}

// Err returns why the relay does not work at present, or nil; having no lease is a reason, too.
func (r *Relay) Err() error { r.mu.Lock(); defer r.mu.Unlock(); return r.err }

// Working reports whether this relay is the one that works.
func (r *Relay) Working() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.working }

// Outcomes returns how often each outcome occurred: entry and answer count what was published, compared the times at
// which a copy was taken over, rebuilt those at which a new epoch began, and lost those at which the work broke off.
func (r *Relay) Outcomes() map[string]uint64 { return r.outcomes.Snapshot() }

// work takes the lease, makes sure of the copy and keeps it up to date for as long as nothing is in the way.
func (r *Relay) work(ctx context.Context) error {
	if err := r.run(ctx, acquire, []string{r.keys.lease}, r.token, r.cfg.Lease.Milliseconds()); err != nil {
		return err
	}
	if err := r.takeOver(ctx); err != nil {
		return fmt.Errorf("compare copy with status log: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var listening sync.WaitGroup
	listening.Go(func() { r.listen(ctx) })
	defer listening.Wait()
	defer cancel()

	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	wake := r.cfg.Wake
	hurried := false         // the last read was not followed by a pause
	idle := time.Duration(0) // at most that long since the lease was prolonged
	for {
		asked := r.questions() // before the log is read: this is what an answer says
		renew := idle >= r.cfg.Lease/3
		if err := r.advance(ctx, asked, renew); err != nil {
			r.outcomes.Add("lost")
			return fmt.Errorf("copy status log: %w", err)
		}
		if idle += r.cfg.Interval; renew {
			idle = 0
		}
		r.note(nil, true)
		// After a commit the followers that were woken by it ask at once, and are answered at once.
		if hurried = !hurried && len(asked) == 0; !hurried {
			pause(ctx, r.cfg.Pace)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-r.question:
		case _, open := <-wake:
			if !open {
				wake = nil
			}
		}
	}
}

// questions takes what has been asked so far, as much as one beat can answer.
func (r *Relay) questions() []nonce {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.asked), maxNonces)
	asked := r.asked[:n:n]
	if r.asked = r.asked[n:]; len(r.asked) > 0 {
		r.signal()
	}
	return asked
}

func (r *Relay) signal() {
	select {
	case r.question <- struct{}{}:
	default:
	}
}

// listen takes questions out of Redis as they come. Those that it took and nobody answers are asked again.
func (r *Relay) listen(ctx context.Context) {
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, r.cfg.Patience)
		first, err := r.client.Do(wait, "BLPOP", r.keys.questions, "0.2").StringSlice()
		var more []string
		if err == nil {
			more, err = r.client.LPopCount(wait, r.keys.questions, 4*maxNonces).Result()
		}
		cancel()
		if len(first) == 2 {
			more = append(more, first[1])
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			pause(ctx, r.cfg.Interval)
		}
		r.mu.Lock()
		for _, s := range more {
			if len(s) == len(nonce{}) && len(r.asked) < 16*maxNonces {
				r.asked = append(r.asked, nonce([]byte(s)))
			}
		}
		r.mu.Unlock()
		if len(more) > 0 {
			r.signal()
		}
	}
}

// advance copies what is new, to the end of the log, and then answers the questions, all of which were seen before the log
// was read. Each read begins with the entry copied last, to see that the log is still the one that was copied.
func (r *Relay) advance(ctx context.Context, asked []nonce, renew bool) error {
	for {
		changes, err := r.read(ctx, max(0, r.position-1), page)
		if err != nil {
			return err
		}
		end := len(changes) < page
		if r.position > 0 {
			if len(changes) == 0 {
				return errRewritten
			}
			body, err := marshalEntry(changes[0])
			if err != nil || changes[0].Seq != r.position || !bytes.Equal(body, r.last) {
				return errRewritten
			}
			changes = changes[1:]
		}
		if !end {
			if err := r.publish(ctx, changes, nil); err != nil {
				return err
			}
			continue
		}
		if len(changes) == 0 && len(asked) == 0 && !renew {
			return nil
		}
		return r.publish(ctx, changes, &beat{epoch: r.epoch, nonces: asked})
	}
}

// read reads a page of the log and sees that nothing is missing in it.
func (r *Relay) read(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	changes, err := r.cfg.Log.StatusChanges(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	for i, c := range changes {
		if c.Seq != after+int64(i)+1 {
			return nil, fmt.Errorf("the log has entry %d where %d belongs", c.Seq, after+int64(i)+1)
		}
	}
	return changes, nil
}

// publish appends entries to the copy and, if b is given, a beat with the position then reached: all of it or nothing.
func (r *Relay) publish(ctx context.Context, changes []jpki.StatusChange, b *beat) error {
	position, last := r.position, r.last
	args := make([]any, 6, 6+2*len(changes))
	for _, c := range changes {
		body, err := marshalEntry(c)
		if err != nil {
			return fmt.Errorf("entry %d: %w", c.Seq, err)
		}
		args = append(args, streamID(c.Seq), seal(r.cfg.Key, r.epoch, c.Seq, body))
		position, last = c.Seq, body
	}
	tail, beatText := "", []byte(nil)
	if !r.empty {
		tail = streamID(r.position)
	}
	if b != nil {
		b.position = position
		beatText = b.marshal(r.cfg.Key)
	}
	copy(args, []any{r.token, r.cfg.Lease.Milliseconds(), r.epoch.String(), tail, r.cfg.Keep, beatText})
	if err := r.run(ctx, appendCopy, []string{r.keys.lease, r.keys.epoch, r.keys.entries + r.epoch.String(), r.keys.beats}, args...); err != nil {
		return err
	}
	r.position, r.last = position, last
	r.empty = r.empty && len(changes) == 0
	for range changes {
		r.outcomes.Add("entry")
	}
	if b != nil {
		for range b.nonces {
			r.outcomes.Add("answer")
		}
	}
	return nil
}

// takeOver finds out what may be kept of the copy in Redis: all of it, if it is the log; else nothing, and a new epoch
// begins. A copy of our own need only be compared from where we left it, or where it now ends if it has become shorter:
// a copy is only appended to, so that an old one is the beginning of a new one.
func (r *Relay) takeOver(ctx context.Context) error {
	name, err := r.client.Get(ctx, r.keys.epoch).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	if e, ok := parseEpoch(name); ok {
		from := int64(1)
		if r.started && r.epoch == e {
			from = max(1, r.position)
		} else {
			r.started = false
		}
		same, err := r.compare(ctx, e, from)
		if err != nil {
			return err
		}
		if same {
			r.epoch, r.started, r.empty = e, true, false
			r.outcomes.Add("compared")
			return nil
		}
	}
	return r.begin(ctx)
}

// compare reports whether the copy's entries from a position on are those of the log, and notes where it ends.
func (r *Relay) compare(ctx context.Context, e epoch, from int64) (same bool, err error) {
	stream := r.keys.entries + e.String()
	ends, err := r.client.XRevRangeN(ctx, stream, "+", "-", 1).Result()
	if err != nil || len(ends) == 0 {
		return false, err
	}
	info, err := r.client.XInfoStream(ctx, stream).Result()
	if err != nil {
		return false, err
	}
	tail, err := parseStreamID(ends[0].ID)
	if err != nil || info.LastGeneratedID != ends[0].ID { // something behind it was deleted: Redis would not take it again
		return false, nil //nolint:nilerr // what is not ours is replaced
	}
	for next := min(from, tail); next <= tail; {
		entries, err := r.client.XRangeN(ctx, stream, streamID(next), "+", page).Result()
		if err != nil || len(entries) == 0 {
			return false, err
		}
		first, err := parseStreamID(entries[0].ID)
		if err != nil || next != from && first != next {
			return false, nil //nolint:nilerr // likewise
		}
		changes, err := r.read(ctx, first-1, len(entries))
		if err != nil || len(changes) != len(entries) {
			return false, err
		}
		for i, c := range changes {
			body, err := marshalEntry(c)
			if err != nil {
				return false, fmt.Errorf("entry %d: %w", c.Seq, err)
			}
			if sealed, _ := entries[i].Values["e"].(string); entries[i].ID != streamID(c.Seq) || sealed != string(seal(r.cfg.Key, e, c.Seq, body)) {
				return false, nil
			}
			r.position, r.last = c.Seq, body
		}
		next = r.position + 1
		if err := r.run(ctx, acquire, []string{r.keys.lease}, r.token, r.cfg.Lease.Milliseconds()); err != nil {
			return false, err
		}
	}
	// A copy that is further behind than what it may hold is quicker made anew.
	further, err := r.read(ctx, r.position+r.cfg.Keep, 1)
	return len(further) == 0, err
}

// begin begins a new epoch, with the last part of the log.
func (r *Relay) begin(ctx context.Context) error {
	end, err := r.end(ctx)
	if err != nil {
		return err
	}
	var e epoch
	if _, err := io.ReadFull(r.cfg.Rand, e[:]); err != nil {
		return fmt.Errorf("draw epoch: %w", err)
	}
	position, last := max(0, end-r.cfg.Keep), []byte(nil)
	if position > 0 {
		changes, err := r.read(ctx, position-1, 1)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return errRewritten
		}
		if last, err = marshalEntry(changes[0]); err != nil {
			return fmt.Errorf("entry %d: %w", position, err)
		}
	}
	if err := r.run(ctx, replace, []string{r.keys.lease, r.keys.epoch}, r.token, r.cfg.Lease.Milliseconds(), e.String()); err != nil {
		return err
	}
	r.epoch, r.position, r.last, r.started, r.empty = e, position, last, true, true
	r.outcomes.Add("rebuilt")
	return nil
}

// end finds the log's last number by halving: the log tells only what comes after a number.
func (r *Relay) end(ctx context.Context) (int64, error) {
	low, high := int64(0), int64(1) // low exists, or is 0
	exists := func(seq int64) (bool, error) { there, err := r.read(ctx, seq-1, 1); return len(there) > 0, err }
	for {
		there, err := exists(high)
		if err != nil {
			return 0, err
		}
		if !there {
			break
		}
		low, high = high, 2*high
	}
	for high > low+1 {
		middle := low + (high-low)/2
		there, err := exists(middle)
		switch {
		case err != nil:
			return 0, err
		case there:
			low = middle
		default:
			high = middle
		}
	}
	return low, nil
}

// run runs a script, which answers OK or says what is in the way.
func (r *Relay) run(ctx context.Context, s *redis.Script, keys []string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	answer, err := s.Run(ctx, r.client, keys, args...).Text()
	if err != nil {
		return err
	}
	switch answer {
	case "OK":
		return nil
	case "lease":
		return ErrLease
	case "epoch":
		return errEpoch
	case "position":
		return errPosition
	}
	return errors.New("a script's answer makes no sense")
}

// The scripts. What is written by one, with what is asked before, happens in Redis as one.
var (
	// acquire takes or prolongs the lease.
	acquire = redis.NewScript(`
		local holder = redis.call('GET', KEYS[1])
		if holder and holder ~= ARGV[1] then return 'lease' end
		redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
		return 'OK'`)

	// release gives the lease back.
	release = redis.NewScript(`
		if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
		return 'OK'`)

	// replace begins a new epoch.
	replace = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lease' end
		redis.call('PEXPIRE', KEYS[1], ARGV[2])
		redis.call('SET', KEYS[2], ARGV[3])
		return 'OK'`)

	// appendCopy appends entries to the copy and a beat to the beats. Copies of former epochs expire within a day.
	appendCopy = redis.NewScript(`
		if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lease' end
		if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 'epoch' end
		local tail = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
		local id = ''
		if tail[1] then id = tail[1][1] end
		if id ~= ARGV[4] then return 'position' end
		for i = 7, #ARGV, 2 do
			redis.call('XADD', KEYS[3], ARGV[i], 'e', ARGV[i + 1])
		end
		redis.call('XTRIM', KEYS[3], 'MAXLEN', '~', ARGV[5])
		if ARGV[6] ~= '' then
			redis.call('XADD', KEYS[4], 'MAXLEN', '~', 200, '*', 'b', ARGV[6])
		end
		redis.call('PEXPIRE', KEYS[1], ARGV[2])
		redis.call('PEXPIRE', KEYS[3], 86400000)
		return 'OK'`)
)
