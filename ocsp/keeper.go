package ocsp

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/openjpki/jpki"
)

// A Certifier has a responder's key certified by exactly the key of one issuer: the authority, or a station to it. The key
// can sign, for its request has to prove that it is ours.
type Certifier interface {
	CertifyResponder(ctx context.Context, issuer jpki.IssuerID, key crypto.Signer) (*x509.Certificate, error)
}

// A Post is one delegate that a [Keeper] keeps filled.
type Post struct {
	Issuer            jpki.IssuerID
	IssuerCertificate *x509.Certificate
	NewKey            func(context.Context) (crypto.Signer, error) // makes the key of the next delegate; always of one kind
	Now               *Delegate                                    // who has the post when the program starts; nil for nobody
}

// KeeperConfig is what a [Keeper] needs.
type KeeperConfig struct {
	Posts     []Post                 // required; the default of an issuer first
	Certifier Certifier              // required
	Use       func([]Delegate) error // required: [Responder.SetDelegates]
	Now       func() time.Time       // required
	Rand      io.Reader              // required: spreads the renewals of many responders

	// Keep, if not nil, is given every new delegate before it is used, to have it again after a restart. After an error it
	// is not used.
	Keep func(context.Context, Delegate) error

	Interval time.Duration // between two looks at the posts; 0 means 1 minute
	Timeout  time.Duration // for making one delegate; 0 means 30 seconds
}

// A Keeper replaces delegates before their certificates end: a new key and a new certificate when a third of the old one's
// life is left, or up to a tenth of it earlier, which differs from post to post. The old delegate answers until the new one
// is in force. When the authority cannot be reached there is time to try again, at every look.
type Keeper struct {
	cfg    KeeperConfig
	turn   sync.Mutex // one look at a time; guards posts, next, shares and told
	posts  []Post
	shares []float64  // how much earlier than the last third, as a share of the life
	next   []Delegate // certified, but not valid yet
	told   bool       // Use knows all the holders

	mu       sync.Mutex // guards holders
	holders  []Delegate // zero for nobody
	outcomes jpki.Tally
}

// NewKeeper returns a keeper. Before the first [Keeper.Look] nobody is replaced.
func NewKeeper(cfg KeeperConfig) (*Keeper, error) {
	switch {
	case len(cfg.Posts) == 0:
		return nil, errors.New("make keeper of delegates: Posts are required")
	case cfg.Certifier == nil || cfg.Use == nil || cfg.Now == nil || cfg.Rand == nil:
		return nil, errors.New("make keeper of delegates: Certifier, Use, Now and Rand are required")
	case cfg.Interval < 0 || cfg.Timeout < 0:
		return nil, errors.New("make keeper of delegates: a duration is negative")
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	k := &Keeper{cfg: cfg}
	for _, p := range cfg.Posts {
		if err := k.add(p); err != nil {
			return nil, fmt.Errorf("make keeper of delegates: %w", err)
		}
	}
	return k, nil
}

// add makes room for a post, the last.
func (k *Keeper) add(p Post) error {
	if p.IssuerCertificate == nil || p.NewKey == nil {
		return errors.New("a post lacks the issuer's certificate or NewKey")
	}
	var random [1]byte
	if _, err := io.ReadFull(k.cfg.Rand, random[:]); err != nil {
		return err
	}
	holder := Delegate{}
	if p.Now != nil {
		holder = *p.Now
	}
	k.posts, k.shares = append(k.posts, p), append(k.shares, float64(random[0])/255/10)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.holders, k.next = append(k.holders, holder), append(k.next, Delegate{})
	return nil
}

// AddPost adds a post, as for a new generation, and has it filled before it returns; the others are left alone. After an
// error there is no such post.
func (k *Keeper) AddPost(ctx context.Context, p Post) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	err := k.add(p)
	if err != nil {
		return fmt.Errorf("add post for %s: %w", p.Issuer, err)
	}
	i := len(k.posts) - 1
	err = k.fill(ctx, i)
	if err == nil && k.holders[i].Certificate == nil {
		err = errors.New("the certificate is not valid yet")
	}
	if err == nil {
		err = k.tell()
	}
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.posts, k.shares, k.holders, k.next = k.posts[:i], k.shares[:i], k.holders[:i], k.next[:i]
		return fmt.Errorf("add post for %s: %w", p.Issuer, err)
	}
	return nil
}

// Delegates returns those who hold the posts now.
func (k *Keeper) Delegates() []Delegate {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []Delegate
	for _, d := range k.holders {
		if d.Certificate != nil {
			out = append(out, d)
		}
	}
	return out
}

// Outcomes returns how often delegates were renewed, and how often that failed.
func (k *Keeper) Outcomes() map[string]uint64 { return k.outcomes.Snapshot() }

// Run looks at the posts at once and then every Interval, until ctx ends; it returns ctx's error.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Interval)
	defer tick.Stop()
	for {
		_ = k.Look(ctx) // counted; what failed is tried again
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Look replaces the delegates whose time has come. An error is about one or more posts; the others are looked after.
func (k *Keeper) Look(ctx context.Context) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	var failed []error
	for i := range k.posts {
		if err := k.fill(ctx, i); err != nil {
			failed = append(failed, fmt.Errorf("renew delegate for %s: %w", k.posts[i].Issuer, err))
		}
	}
	if !k.told && len(k.Delegates()) > 0 {
		if err := k.tell(); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// fill replaces the holder of a post if it is time to.
func (k *Keeper) fill(ctx context.Context, i int) error {
	now := k.cfg.Now()
	if k.next[i].Certificate == nil && k.due(i, now) {
		d, err := k.renew(ctx, &k.posts[i], k.holders[i].Certificate)
		if err != nil {
			k.outcomes.Add("failed")
			return err
		}
		k.outcomes.Add("renewed")
		k.next[i] = d
	}
	if c := k.next[i].Certificate; c != nil && !now.Before(c.NotBefore) {
		k.mu.Lock()
		k.holders[i], k.next[i] = k.next[i], Delegate{}
		k.mu.Unlock()
		k.told = false
	}
	return nil
}

// tell has the holders used.
func (k *Keeper) tell() error {
	err := k.cfg.Use(k.Delegates())
	if k.told = err == nil; !k.told {
		k.outcomes.Add("refused")
	}
	return err
}

// due reports whether a post has to be filled anew.
func (k *Keeper) due(i int, now time.Time) bool {
	c := k.holders[i].Certificate
	if c == nil {
		return true
	}
	life := c.NotAfter.Sub(c.NotBefore)
	return c.NotAfter.Sub(now) <= life/3+time.Duration(k.shares[i]*float64(life))
}

// renew makes a key and has it certified. What comes back is tried before anybody depends on it.
func (k *Keeper) renew(ctx context.Context, p *Post, old *x509.Certificate) (Delegate, error) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	key, err := p.NewKey(ctx)
	if err != nil {
		return Delegate{}, fmt.Errorf("make key: %w", err)
	}
	cert, err := k.cfg.Certifier.CertifyResponder(ctx, p.Issuer, key)
	if err != nil {
		return Delegate{}, fmt.Errorf("certify key: %w", err)
	}
	d := Delegate{Issuer: p.Issuer, IssuerCertificate: p.IssuerCertificate, Certificate: cert, Key: key}
	if _, err := newDelegate(d, &Config{}); err != nil {
		return Delegate{}, err
	}
	if !k.cfg.Now().Before(cert.NotAfter) || old != nil && !cert.NotAfter.After(old.NotAfter) {
		return Delegate{}, errors.New("certificate ends no later than what we have")
	}
	if k.cfg.Keep != nil {
		if err := k.cfg.Keep(ctx, d); err != nil {
			return Delegate{}, fmt.Errorf("keep delegate: %w", err)
		}
	}
	return d, nil
}
