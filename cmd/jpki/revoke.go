package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
)

// revokeOrder is what the command line of revoke says.
type revokeOrder struct {
	keys                    []string
	station, batch          string
	from, until, generation string
	cause, name, operator   string
	expect, rate            int
	asJSON                  bool
	criteria                store.Criteria
}

// revokeCommand is what an operator does when many certificates must end at once.
func revokeCommand() *cobra.Command {
	var o revokeOrder
	c := &cobra.Command{
		Use: "revoke", Short: "Revoke every certificate that fits criteria, many at once",
		Long: `Without -expect it changes nothing and counts the certificates in force that fit all the criteria given, by kind and
municipality. With -expect N, the number that the preview showed, it revokes them: each with an entry of its own in the audit
record under the operator's name; OCSP and CRLs follow. Killed or interrupted, the same command does what is missing, and
nothing twice; -name tells orders apart. -rate leaves room for the counters.

-station is whoever had the certificates issued, as the audit record names it; -batch how the idempotency keys of their
requests begin. The causes are key-compromised, record-error and ca-key-leak. It works on the sandbox's database, whether that
runs or not.`,
		Example: `  jpki revoke -station counter:aoba-1 -from 2026-04-01T00:00:00+09:00
  jpki revoke -station counter:aoba-1 -from 2026-04-01T00:00:00+09:00 -cause record-error -name drill-1 -operator sato -expect 812 -rate 500
  jpki revoke -generation sign-1 -cause ca-key-leak -name leak -operator sato -expect 100000`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.parse(); err != nil {
				return usageError{err}
			}
			ordered := c.Flags().Changed("expect")
			if ordered && (o.cause == "" || o.name == "" || o.operator == "") {
				return usageError{errors.New("-expect needs -cause, -name and -operator")}
			}
			return sandbox.WithAuthority(c.Context(), dirOf(c), func(a *ca.Authority) error {
				if ordered {
					return o.carryOut(c, a)
				}
				return o.preview(c, a)
			})
		},
	}
	c.Flags().StringSliceVar(&o.keys, "key-hash", nil, "SHA-256 of a public key (SubjectPublicKeyInfo), hexadecimal; several with commas")
	c.Flags().StringVar(&o.station, "station", "", "who had them issued: ROLE:NAME")
	c.Flags().StringVar(&o.batch, "batch", "", "how the idempotency keys begin")
	c.Flags().StringVar(&o.from, "from", "", "issued then or later (RFC 3339)")
	c.Flags().StringVar(&o.until, "until", "", "issued before (RFC 3339)")
	c.Flags().StringVar(&o.generation, "generation", "", "the generation that issued them: sign-1, auth-1 …")
	c.Flags().StringVar(&o.cause, "cause", "", "why: key-compromised, record-error or ca-key-leak")
	c.Flags().StringVar(&o.name, "name", "", "of the order; the same again goes on with it")
	c.Flags().StringVar(&o.operator, "operator", "", "who orders it")
	c.Flags().IntVar(&o.expect, "expect", 0, "how many the preview showed: the confirmation")
	c.Flags().IntVar(&o.rate, "rate", 0, "certificates a second, at most (default: no limit)")
	c.Flags().BoolVar(&o.asJSON, "json", false, "print the outcome as JSON")
	return c
}

func (o *revokeOrder) parse() (err error) {
	o.criteria = store.Criteria{KeyHashes: o.keys, Actor: o.station, KeyPrefix: o.batch}
	for _, t := range []struct {
		text string
		to   *time.Time
	}{{o.from, &o.criteria.From}, {o.until, &o.criteria.Until}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return fmt.Errorf("%q is not a time as in 2026-04-01T00:00:00+09:00", t.text)
		}
	}
	if o.generation != "" {
		if o.criteria.Issuer, err = jpki.ParseIssuerID(o.generation); err != nil {
			return errors.New("-generation must be like sign-1")
		}
	}
	return nil
}

func (o *revokeOrder) preview(c *cobra.Command, a *ca.Authority) error {
	counts, err := a.PreviewRevocation(c.Context(), o.criteria)
	if err != nil {
		return err
	}
	total := 0
	type row struct {
		Kind         jpki.Kind  `json:"kind"`
		Municipality string     `json:"municipality"`
		State        jpki.State `json:"state"`
		Count        int        `json:"count"`
	}
	rows := []row{}
	for _, m := range counts {
		total += m.Count
		rows = append(rows, row{m.Kind, m.Municipality, m.State, m.Count})
	}
	if o.asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(struct {
			Total  int   `json:"total"`
			Counts []row `json:"counts"`
		}{total, rows})
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", r.Kind, r.Municipality, r.State, r.Count)
	}
	fmt.Fprintf(w, "total\t\t\t%d\n", total)
	return w.Flush()
}

func (o *revokeOrder) carryOut(c *cobra.Command, a *ca.Authority) error {
	bars, bar := progress(c.Context(), "revoke", o.expect, 0)
	total, err := a.RevokeAll(c.Context(), ca.Operator(o.operator), ca.MassRevocation{
		Name: o.name, Criteria: o.criteria, Cause: jpki.Cause(o.cause), Expect: o.expect, PerSecond: o.rate,
		Progress: func(done, total int) { bar.SetCurrent(int64(o.expect - total + done)) }, // of an order that goes on, less is left than was expected
	})
	if err == nil {
		bar.SetCurrent(int64(o.expect))
	}
	bar.Abort(false) // does nothing to one that is full
	bars.Wait()
	if err != nil {
		return err
	}
	if o.asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(struct {
			Name    string `json:"name"`
			Revoked int    `json:"revoked"`
		}{o.name, o.expect})
	}
	if total < o.expect {
		fmt.Fprintf(c.OutOrStdout(), "%d were left of an order that had begun before\n", total)
	}
	fmt.Fprintf(c.OutOrStdout(), "order %s is carried out: %d certificates\n", o.name, o.expect)
	return nil
}
