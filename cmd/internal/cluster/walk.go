package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// walk walks through the life of a card. Steps:
//  1. the register reports a resident, a counter has a card's certificates issued
//  2. every status server says good, and the verifier relies on the holder's signature
//  3. the card is lost and suspended: every status server says so, the verifier does not rely on it
//  4. it is revoked: the same, and for ever
//  5. the audit record is whole
func walk(ctx context.Context, c *cluster, out io.Writer) error {
	y, err := newCity(c)
	if err != nil {
		return err
	}
	b, err := newBank(c)
	if err != nil {
		return err
	}
	all := c.asked()
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(out, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	k, order, err := prepare(0, "walker")
	if err != nil {
		return err
	}
	everywhere := func(want string) error {
		for _, s := range k.certificates {
			for _, r := range all {
				if err := until(ctx, r.name+" says "+want, func() error {
					said, err := r.ask(ctx, y, s)
					if err == nil && said != want {
						err = fmt.Errorf("it says %s", said)
					}
					return err
				}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	relies := func(want bool) error {
		v, err := b.verify(ctx, k)
		if err == nil && (v.Indication == passed) != want {
			err = fmt.Errorf("the verifier says %s %s", v.Indication, v.SubIndication)
		}
		if err == nil {
			say("the verifier says %s %s", v.Indication, v.SubIndication)
		}
		return err
	}
	// 1.
	if err := y.register(ctx, 0, k.name); err != nil {
		return err
	}
	if err := y.issue(ctx, 0, k, order); err != nil {
		return err
	}
	say("issued %s and %s", k.certificates[0].id, k.certificates[1].id)
	// 2.
	if err := everywhere(sayGood); err != nil {
		return err
	}
	say("good at all %d status servers", len(all))
	if err := relies(true); err != nil {
		return err
	}
	for _, step := range []struct {
		to  jpki.State
		say string
	}{{jpki.Suspended, saySuspended}, {jpki.Revoked, sayRevoked}} { // 3., 4.
		if err := y.change(ctx, 1, k, step.to); err != nil {
			return err
		}
		if err := everywhere(step.say); err != nil {
			return err
		}
		say("%s at all %d status servers", step.say, len(all))
		if err := relies(false); err != nil {
			return err
		}
	}
	// 5.
	found, err := c.audit(ctx)
	if err != nil {
		return err
	}
	say("the audit record is whole: %d entries, %d signed checkpoints", found.Entries, found.Checkpoints)
	return c.well(ctx)
}

// findings are what "jpki audit verify" says.
type findings struct {
	Whole        bool     `json:"whole"`
	Wrong        []string `json:"wrong"`
	Entries      int64    `json:"entries"`
	Checkpoints  int      `json:"checkpoints"`
	Certificates int      `json:"certificates"`
}

// audit has the audit record, the status log and the present statuses compared, by the tool that operators have for it.
func (c *cluster) audit(ctx context.Context) (f findings, err error) {
	args := []string{"audit", "verify", "-json", "-database", c.database("jpki_ca", "jpki"), "-key", c.path("audit.pub")}
	for _, a := range c.authorities {
		args = append(args, "-checkpoints", c.path(a.name, "checkpoints"))
	}
	text, err := command(ctx, c.dir, "", c.program("jpki"), args...)
	if bad := json.Unmarshal([]byte(text), &f); bad != nil {
		return f, errors.Join(err, bad)
	}
	if !f.Whole {
		return f, fmt.Errorf("the audit record is not whole: %s", strings.Join(f.Wrong, "; "))
	}
	return f, err
}
