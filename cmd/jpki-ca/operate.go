package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
	"github.com/openjpki/jpki/ca/store"
	"github.com/openjpki/jpki/cmd/internal/boot"
)

// commands are what an operator may order, with the number of their arguments.
var commands = map[string]int{"migrate": 0, "init": 2, "enrol": 2, "disable": 1, "tenant": 4, "end-tenant": 1, "add": 2, "activate": 1}

// operate carries out one command on the database. Each is one transaction, is in the audit record under the operator's
// name, and can be given while servers run.
func (c *config) operate(ctx context.Context, operator string, args []string, out io.Writer) (err error) {
	name, args := args[0], args[1:]
	n, known := commands[name]
	switch {
	case !known:
		return boot.UsageError{Err: fmt.Errorf("unknown command %q (see -help)", name)}
	case len(args) != n:
		return boot.UsageError{Err: fmt.Errorf("%s takes %d arguments (see -help)", name, n)}
	case name == "migrate":
		db, err := store.Create(ctx, c.Database)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "the schema is the one that this program knows")
		return db.Close()
	case operator == "":
		return boot.UsageError{Err: errors.New("-operator is required (see -help)")}
	}
	by := jpki.Actor{Role: jpki.System, ID: operator}
	db, err := c.openDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if name == "init" {
		return c.initialise(ctx, db, by, args, out)
	}
	a, err := c.authority(ctx, db, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	switch name {
	case "enrol":
		return c.admit(ctx, a, by, args, out)
	case "disable":
		if err := a.Disable(ctx, by, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s is shut out\n", args[0])
		return nil
	case "tenant":
		return registerTenant(ctx, a, by, args, out)
	case "end-tenant":
		return endTenant(ctx, a, by, args[0], out)
	case "add":
		return c.addGeneration(ctx, a, by, args, out)
	default:
		return c.activate(ctx, a, db, by, args[0], out)
	}
}

// initialise records the first generation of each CA. A second time it refuses: later ones are added and activated.
func (c *config) initialise(ctx context.Context, db *store.Store, by jpki.Actor, files []string, out io.Writer) error {
	var first []ca.Issuer
	for i, name := range jpki.CAs {
		cert, err := c.argument(files[i])
		if err != nil {
			return err
		}
		issuer, err := c.issuer(ctx, jpki.IssuerID{CA: name, Generation: 1}, cert)
		if err != nil {
			return err
		}
		first = append(first, issuer)
	}
	// It checks that keys, certificates and profile fit together.
	if _, err := c.newAuthority(db, first, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	now := time.Now()
	err := db.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Generations()
		if err != nil {
			return err
		}
		if len(known) > 0 {
			return jpki.Errorf(jpki.Conflict, "generations are on record already: add and activate change them")
		}
		for _, i := range first {
			if err := tx.AddGeneration(store.Generation{Issuer: i.ID, Certificate: i.Certificate.Raw, Active: true}, now); err != nil {
				return err
			}
			detail := map[string]any{"serial": fmt.Sprintf("%X", i.Certificate.SerialNumber), "not_after": i.Certificate.NotAfter}
			if err := tx.Audit(now, by, "generation.added", i.ID.String(), detail); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, i := range first {
		fmt.Fprintf(out, "%s issues, until %s\n", i.ID, i.Certificate.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// argument reads a certificate that the command line names, relative to where the operator stands.
func (c *config) argument(path string) ([]byte, error) {
	cert, err := boot.Dir("").Certificate(path)
	if err != nil {
		return nil, err
	}
	return cert.Raw, nil
}

// admit enrols who has a certificate of the infrastructure's.
func (c *config) admit(ctx context.Context, a *ca.Authority, by jpki.Actor, args []string, out io.Writer) error {
	parts := strings.Split(args[0], ":")
	if len(parts) < 2 || len(parts) > 3 {
		return boot.UsageError{Err: fmt.Errorf("%q is not ROLE:NAME or ROLE:NAME:MUNICIPALITY (see -help)", args[0])}
	}
	who := jpki.Actor{Role: jpki.Role(parts[0]), ID: parts[1]}
	if len(parts) == 3 {
		who.Municipality = parts[2]
	}
	cert, err := boot.Dir("").Certificate(args[1])
	if err != nil {
		return err
	}
	if err := a.Enrol(ctx, by, who, cert); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s %s is admitted\n", who.Role, who.ID)
	return nil
}

// registerTenant lets an operator of a verifier act for a relying party, or changes what that is entitled to.
func registerTenant(ctx context.Context, a *ca.Authority, by jpki.Actor, args []string, out io.Writer) error {
	number, err := jpki.ParseCorporateNumber(args[1])
	if err != nil {
		return boot.UsageError{Err: err}
	}
	t := store.Tenant{Operator: args[0], Number: number, Name: args[3]}
	for u := range strings.SplitSeq(args[2], ",") {
		t.Uses = append(t.Uses, jpki.Use(u))
	}
	if err := a.RegisterTenant(ctx, by, t); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s acts for %s\n", t.Operator, t.Number)
	return nil
}

func (c *config) addGeneration(ctx context.Context, a *ca.Authority, by jpki.Actor, args []string, out io.Writer) error {
	id, err := jpki.ParseIssuerID(args[0])
	if err != nil {
		return err
	}
	cert, err := c.argument(args[1])
	if err != nil {
		return err
	}
	i, err := c.issuer(ctx, id, cert)
	if err != nil {
		return err
	}
	if err := a.AddGeneration(ctx, by, i); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is on record; its CRLs and its certificate are published by the servers that run. Then activate it\n", id)
	return nil
}

func (c *config) activate(ctx context.Context, a *ca.Authority, db *store.Store, by jpki.Actor, name string, out io.Writer) error {
	id, err := jpki.ParseIssuerID(name)
	if err != nil {
		return err
	}
	recorded, err := generations(ctx, db)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(recorded, func(g store.Generation) bool { return g.Issuer == id })
	if at < 0 {
		return jpki.Errorf(jpki.NotFound, "generation %s is not on record", id)
	}
	i, err := c.issuer(ctx, id, recorded[at].Certificate)
	if err != nil {
		return err
	}
	if err := a.Activate(ctx, by, i); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s issues; servers that run follow within a second\n", id)
	return nil
}
