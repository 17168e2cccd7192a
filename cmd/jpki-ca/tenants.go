package main

import (
	"context"
	"fmt"
	"io"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca"
)

// endTenant ends a relying party's registration: its operator gets nothing more for it.
func endTenant(ctx context.Context, a *ca.Authority, by jpki.Actor, number string, out io.Writer) error {
	if err := a.EndTenant(ctx, by, jpki.CorporateNumber(number)); err != nil {
		return err
	}
	fmt.Fprintf(out, "nobody acts for %s any more\n", number)
	return nil
}
