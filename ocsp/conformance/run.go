package conformance

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// Config says which responder is asked, and about what.
type Config struct {
	URL    string            // required: of the responder, as a certificate's authorityInfoAccess has it
	Issuer *x509.Certificate // required: the generation that issued the certificates asked about

	// Good is required: a certificate in force. Cases about the others do not apply while they are the zero value; Unknown
	// is then drawn. A suspended certificate is one on hold.
	Good, Revoked, Suspended, Unknown jpki.Serial

	Now     func() time.Time // required
	Rand    io.Reader        // required
	Timeout time.Duration    // for each case; 0 means 5 seconds
	Skew    time.Duration    // by which clocks may differ; 0 means 10 seconds
	Only    []string         // the cases to run, by ID; nil means all

	// Progress, if set, is called with each result as it comes.
	Progress func(Result)
}

// needs are what a case can presuppose.
var needs = []string{"good", "revoked", "suspended", "prefix"}

// A Verdict is what became of a case.
type Verdict string

// The verdicts. Only a failed MUST is a breach of a standard.
const (
	Pass          Verdict = "pass"
	Fail          Verdict = "fail"
	NotApplicable Verdict = "n/a"
)

// A Result is the verdict on one case.
type Result struct {
	ID      string  `json:"id"`
	Ref     string  `json:"ref"`
	Level   string  `json:"level"`
	Title   string  `json:"title"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why,omitempty"` // one line, unless passed
}

// Conforms reports whether no MUST failed.
func Conforms(results []Result) bool {
	return !slices.ContainsFunc(results, func(r Result) bool { return r.Level == Must && r.Verdict == Fail })
}

// Run asks a responder one case after the other. An error says that the cases could not be run at all; what a responder
// gets wrong is in the results.
func (k *Kit) Run(ctx context.Context, cfg Config) ([]Result, error) {
	at, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	for _, id := range cfg.Only {
		if !slices.ContainsFunc(k.cases, func(c Case) bool { return c.ID == id }) {
			return nil, fmt.Errorf("run conformance cases: no case %q", id)
		}
	}
	var out []Result
	verdicts := map[string]Verdict{}
	for i := range k.cases {
		c := &k.cases[i]
		selected := len(cfg.Only) == 0 || slices.Contains(cfg.Only, c.ID)
		if !selected && !k.prepares(c.ID, cfg.Only) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return out, err
		}
		r := Result{ID: c.ID, Ref: c.Ref, Level: c.Level, Title: c.Title, Verdict: Pass}
		err := k.try(ctx, &cfg, at, c, verdicts)
		switch {
		case errors.Is(err, errNotApplicable):
			r.Verdict, r.Why = NotApplicable, err.Error()[len(errNotApplicable.Error()+": "):]
		case err != nil:
			r.Verdict, r.Why = Fail, err.Error()
		}
		verdicts[c.ID] = r.Verdict
		if !selected {
			continue
		}
		out = append(out, r)
		if cfg.Progress != nil {
			cfg.Progress(r)
		}
	}
	return out, ctx.Err()
}

// prepares reports whether one of the chosen cases comes after this one.
func (k *Kit) prepares(id string, chosen []string) bool {
	return slices.ContainsFunc(k.cases, func(c Case) bool { return c.After == id && slices.Contains(chosen, c.ID) })
}

// complete checks a configuration and fills in what may be left out.
func (cfg *Config) complete() (*url.URL, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Skew == 0 {
		cfg.Skew = 10 * time.Second
	}
	at, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("run conformance cases: %w", err)
	case at.Scheme != "http" && at.Scheme != "https" || at.Host == "":
		return nil, errors.New("run conformance cases: URL is not one of http or https")
	case cfg.Issuer == nil:
		return nil, errors.New("run conformance cases: Issuer is required")
	case cfg.Good.IsZero():
		return nil, errors.New("run conformance cases: Good is required")
	case cfg.Now == nil:
		return nil, errors.New("run conformance cases: Now is required")
	case cfg.Rand == nil:
		return nil, errors.New("run conformance cases: Rand is required")
	}
	if cfg.Unknown.IsZero() {
		if cfg.Unknown, err = jpki.NewSerial(cfg.Rand); err != nil {
			return nil, err
		}
	}
	return at, nil
}

// serial returns one of the serials by the word that cases use for it.
func (cfg *Config) serial(which string) (jpki.Serial, error) {
	s, ok := map[string]jpki.Serial{"good": cfg.Good, "revoked": cfg.Revoked, "suspended": cfg.Suspended, "unknown": cfg.Unknown}[which]
	switch {
	case !ok:
		return s, fmt.Errorf("no serial is called %q", which)
	case s.IsZero():
		return s, inapplicable("no " + which + " certificate was given")
	}
	return s, nil
}

// try runs one case. Steps:
//  1. decide whether it applies
//  2. write the messages, each knowing the reply before it
//  3. send them, on one connection or several
//  4. judge by every requirement; the first that is not met is the reason
func (k *Kit) try(ctx context.Context, cfg *Config, at *url.URL, c *Case, verdicts map[string]Verdict) error {
	if c.After != "" && verdicts[c.After] != Pass {
		return inapplicable("needs " + c.After)
	}
	for _, need := range c.Needs {
		if need == "prefix" {
			if at.EscapedPath() == "" || at.EscapedPath() == "/" {
				return inapplicable("the responder has the whole server to itself")
			}
			continue
		}
		if _, err := cfg.serial(need); err != nil {
			return err
		}
	}
	replies, err := k.send(ctx, cfg, at, c)
	if err != nil {
		return err
	}
	alive := func() error {
		m, err := k.make(cfg, at, Send{Body: "one"}, nil)
		if err != nil {
			return err
		}
		r := exchange(ctx, cfg, at, manner{}, m)[0]
		if err := (&judge{cfg: cfg, reply: r}).status([]string{"successful"}); err != nil {
			return fmt.Errorf("afterwards, to a plain question: %w", err)
		}
		return nil
	}
	judged := replies[len(replies)-1:]
	if c.Each {
		judged = replies
	}
	for _, requirement := range c.Require {
		meets, err := findRule(requirement)
		if err != nil {
			return err
		}
		for i, r := range judged {
			if err := meets(&judge{cfg: cfg, reply: r, all: replies, alive: alive}); err != nil {
				if len(judged) > 1 && !errors.Is(err, errNotApplicable) {
					return fmt.Errorf("reply %d: %w", i+1, err)
				}
				return err
			}
		}
	}
	return nil
}

func (k *Kit) send(ctx context.Context, cfg *Config, at *url.URL, c *Case) ([]*reply, error) {
	watch := slices.Contains(c.Require, "closed") || slices.Contains(c.Require, "bodiless")
	if c.Together != "" {
		var messages []*message
		for _, s := range c.Send {
			m, err := k.make(cfg, at, s, nil)
			if err != nil {
				return nil, err
			}
			messages = append(messages, m)
		}
		return exchange(ctx, cfg, at, manner{c.Together == "pipelined", watch}, messages...), nil
	}
	var out []*reply
	var before *reply
	for _, s := range c.Send {
		m, err := k.make(cfg, at, s, before)
		if err != nil {
			return nil, err
		}
		before = exchange(ctx, cfg, at, manner{watch: watch}, m)[0]
		out = append(out, before)
	}
	return out, nil
}

// Messages returns what the cases send, in octets, for other tools: one slice of messages for each case that applies.
// Where a message refers to the reply before it, that part is left out.
func (k *Kit) Messages(cfg Config) (map[string][][]byte, error) {
	at, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	out := map[string][][]byte{}
	for i := range k.cases {
		c := &k.cases[i]
		for _, s := range c.Send {
			m, err := k.make(&cfg, at, s, nil)
			if errors.Is(err, errNotApplicable) {
				delete(out, c.ID)
				break
			}
			if err != nil {
				return nil, fmt.Errorf("write case %q: %w", c.ID, err)
			}
			out[c.ID] = append(out[c.ID], m.octets())
		}
	}
	return out, nil
}
