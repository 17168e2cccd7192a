package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/verifier/store"
)

// tenantStore says which verifier's store the commands work on.
type tenantStore struct{ database, master string }

// with opens the store and gives it to f.
func (w *tenantStore) with(c *cobra.Command, f func(context.Context, *store.Store) error) (err error) {
	if (w.database == "") != (w.master == "") {
		return usageError{errors.New("-database and -master-key go together")}
	}
	ctx := c.Context()
	var s *store.Store
	if w.database == "" {
		s, err = sandbox.OpenTenants(ctx, dirOf(c))
	} else {
		var key []byte
		if key, err = sandbox.ReadMasterKey(w.master); err == nil {
			s, err = store.Open(ctx, store.Config{Database: w.database, MasterKey: key})
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(ctx, s)
}

func tenantCommand() *cobra.Command {
	var w tenantStore
	c := &cobra.Command{
		Use: "tenant", Short: "Admit organisations to the verifier's API",
		Long: `A tenant is an organisation with a Corporate Number (法人番号). What is kept for it is sealed under a key of its own. Without
-database these commands work on the sandbox's verifier, whether that runs or not; one that runs follows within a second.`,
		Example: `  jpki tenant add 5835678256246 -name aoba-bank
  jpki tenant token 5835678256246 -scopes verify,evidence
  jpki tenant list`,
	}
	c.PersistentFlags().StringVar(&w.database, "database", "", "the verifier's database: sqlite:PATH or postgres://… (default the sandbox's)")
	c.PersistentFlags().StringVar(&w.master, "master-key", "", "file with the master key, 64 hexadecimal digits")
	return group(c, tenantAdd(&w), tenantToken(&w), tenantList(&w), tenantSet(&w), tenantRevoke(&w), tenantRotate(&w))
}

func tenantAdd(w *tenantStore) *cobra.Command {
	t := store.Tenant{}
	c := &cobra.Command{
		Use: "add NUMBER", Short: "Admit an organisation by its Corporate Number",
		Example: `  jpki tenant add 5835678256246 -name aoba-bank
  jpki tenant add 8700110005901 -name aoba-telecom -retention 365 -rate 50 -quota 100000`,
		Args: exactly("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			t.ID = jpki.CorporateNumber(args[0])
			return w.with(c, func(ctx context.Context, s *store.Store) error { return s.AddTenant(ctx, t, time.Now()) })
		},
	}
	f := c.Flags()
	f.StringVar(&t.Name, "name", "", "name in logs and challenges: printable ASCII without spaces")
	f.IntVar(&t.RetentionDays, "retention", store.RetentionDays, "days for which evidence is kept; 0 keeps none")
	f.BoolVar(&t.StoreAttributes, "store-attributes", false, "keep certificates with attributes unless a request says otherwise")
	f.IntVar(&t.Rate, "rate", 0, "requests a second (default the server's)")
	f.Int64Var(&t.DailyQuota, "quota", 0, "verdicts a day (default no limit)")
	return c
}

func tenantToken(w *tenantStore) *cobra.Command {
	var scopes []string
	var expires time.Duration
	var certificate string
	c := &cobra.Command{
		Use: "token NUMBER", Short: "Give a tenant a token, or admit its client certificate",
		Long: `Prints the token, which is shown this once: only its SHA-256 is kept. With -certificate it prints nothing; the key of that
certificate is admitted instead, whoever issued it and however often it is renewed with the same key.`,
		Example: `  jpki tenant token 5835678256246
  jpki tenant token 5835678256246 -scopes verify,status -expires 2160h
  jpki tenant token 5835678256246 -certificate bank.crt`,
		Args: exactly("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			var list []store.Scope
			for _, name := range scopes {
				list = append(list, store.Scope(name))
			}
			now, end := time.Now(), time.Time{}
			if expires != 0 {
				end = now.Add(expires)
			}
			return w.with(c, func(ctx context.Context, s *store.Store) error {
				if certificate != "" {
					cert, err := sandbox.ReadCertificate(certificate)
					if err != nil {
						return err
					}
					credential := store.Credential{Kind: store.ClientCertificate, Hash: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
					_, err = s.AddCredential(ctx, jpki.CorporateNumber(args[0]), credential, list, end, now)
					return err
				}
				_, secret, err := s.AddToken(ctx, jpki.CorporateNumber(args[0]), list, end, now)
				if err == nil {
					fmt.Fprintln(c.OutOrStdout(), secret)
				}
				return err
			})
		},
	}
	f := c.Flags()
	f.StringSliceVar(&scopes, "scopes", []string{string(store.Verify), string(store.Status), string(store.Evidence)}, "what it is for: verify, status, evidence, watch, consent, holder")
	f.DurationVar(&expires, "expires", 0, "for how long (default until it is revoked)")
	f.StringVar(&certificate, "certificate", "", "a client certificate whose key is admitted instead of a token")
	return c
}

func tenantSet(w *tenantStore) *cobra.Command {
	var t store.Tenant
	var token string
	var scopes []string
	c := &cobra.Command{
		Use: "set [NUMBER]", Short: "Change a tenant's settings, or what a token is for",
		Long: `Only what is given changes. Evidence that is kept already keeps its term. After a change of the name, log-ins begin anew whose
challenge was drawn under the old one. Servers follow within a second.`,
		Example: `  jpki tenant set 5835678256246 -quota 200000 -rate 100
  jpki tenant set -token 0123456789abcdef -scopes verify,status`,
		Args: atMostOne("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			f := c.Flags()
			given := func(names ...string) bool { return slices.ContainsFunc(names, f.Changed) }
			settings := given("name", "retention", "store-attributes", "rate", "quota")
			switch {
			case (token == "") == (len(args) == 0):
				return usageError{errors.New("want a Corporate Number or -token")}
			case token != "" && (settings || !given("scopes")), token == "" && (!settings || given("scopes")):
				return usageError{errors.New("-token goes with -scopes, a Corporate Number with the other settings")}
			}
			return w.with(c, func(ctx context.Context, s *store.Store) error {
				if token != "" {
					var list []store.Scope
					for _, name := range scopes {
						list = append(list, store.Scope(name))
					}
					return s.SetScopes(ctx, token, list)
				}
				_, err := s.EditTenant(ctx, jpki.CorporateNumber(args[0]), func(have *store.Tenant) {
					if given("name") {
						have.Name = t.Name
					}
					if given("retention") {
						have.RetentionDays = t.RetentionDays
					}
					if given("store-attributes") {
						have.StoreAttributes = t.StoreAttributes
					}
					if given("rate") {
						have.Rate = t.Rate
					}
					if given("quota") {
						have.DailyQuota = t.DailyQuota
					}
				})
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&t.Name, "name", "", "name in logs and challenges: printable ASCII without spaces")
	f.IntVar(&t.RetentionDays, "retention", 0, "days for which evidence is kept; 0 keeps none")
	f.BoolVar(&t.StoreAttributes, "store-attributes", false, "keep certificates with attributes unless a request says otherwise")
	f.IntVar(&t.Rate, "rate", 0, "requests a second; 0 for the server's")
	f.Int64Var(&t.DailyQuota, "quota", 0, "verdicts a day; 0 for no limit")
	f.StringVar(&token, "token", "", "identifier of a token, as in list")
	f.StringSliceVar(&scopes, "scopes", nil, "what the token is for: verify, status, evidence, watch, consent, holder")
	return c
}

func tenantRotate(w *tenantStore) *cobra.Command {
	var previous string
	c := &cobra.Command{
		Use: "rotate-key", Short: "Seal tenants' keys under a new master key",
		Long: `Seals every key that is sealed under the -previous master key under that of -master-key, all of them or none; evidence stays as it
is. Stop the servers before, and start them with the new key afterwards. Whoever interrupts it runs it again; it prints how many keys it sealed anew.
Destroy the previous key only when backups from before are no longer needed: they open with it only.`,
		Example: "  jpki tenant rotate-key -database sqlite:verifier.db -previous master.key -master-key new.key",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if w.database == "" || w.master == "" || previous == "" {
				return usageError{errors.New("want -database, -master-key and -previous")}
			}
			var cfg store.Config
			var err error
			if cfg.MasterKey, err = sandbox.ReadMasterKey(w.master); err != nil {
				return err
			}
			if cfg.PreviousMasterKey, err = sandbox.ReadMasterKey(previous); err != nil {
				return err
			}
			cfg.Database = w.database
			s, err := store.Open(c.Context(), cfg)
			if err != nil {
				return err
			}
			n, err := s.RotateMaster(c.Context())
			if err = errors.Join(err, s.Close()); err == nil {
				fmt.Fprintln(c.OutOrStdout(), n)
			}
			return err
		},
	}
	c.Flags().StringVar(&previous, "previous", "", "file with the master key so far")
	return c
}

func tenantList(w *tenantStore) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tenants and their tokens, which are shown by identifier",
		Example: "  jpki tenant list",
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			return w.with(c, func(ctx context.Context, s *store.Store) error {
				tenants, err := s.Tenants(ctx)
				if err != nil {
					return err
				}
				out := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
				for _, t := range tenants {
					fmt.Fprintf(out, "%s\t%s\tkept %d days\t%s\n", t.ID, t.Name, t.RetentionDays, ended(t.RevokedAt, time.Time{}))
					tokens, err := s.Tokens(ctx, t.ID)
					if err != nil {
						return err
					}
					for _, k := range tokens {
						var names []string
						for _, scope := range k.Scopes {
							names = append(names, string(scope))
						}
						fmt.Fprintf(out, "  %s\t%s\t%s\t%s\n", k.ID, k.Kind, strings.Join(names, ","), ended(k.RevokedAt, k.ExpiresAt))
					}
				}
				return out.Flush()
			})
		},
	}
}

// ended says since or until when something is in force.
func ended(revoked, expires time.Time) string {
	switch {
	case !revoked.IsZero():
		return "revoked " + revoked.Format(time.RFC3339)
	case !expires.IsZero():
		return "until " + expires.Format(time.RFC3339)
	}
	return "in force"
}

func tenantRevoke(w *tenantStore) *cobra.Command {
	var token string
	c := &cobra.Command{
		Use: "revoke [NUMBER]", Short: "End a token, or a tenant with all that is kept for it",
		Long: `With -token one token ends. With a Corporate Number the tenant ends for good: its tokens are void, its evidence is deleted
and its key destroyed, so that copies of the evidence cannot be read any more.`,
		Example: `  jpki tenant revoke -token 0123456789abcdef
  jpki tenant revoke 5835678256246`,
		Args: atMostOne("NUMBER"),
		RunE: func(c *cobra.Command, args []string) error {
			if (token == "") == (len(args) == 0) {
				return usageError{errors.New("want a Corporate Number or -token")}
			}
			return w.with(c, func(ctx context.Context, s *store.Store) error {
				if token != "" {
					return s.RevokeToken(ctx, token, time.Now())
				}
				return s.RevokeTenant(ctx, jpki.CorporateNumber(args[0]), time.Now())
			})
		},
	}
	c.Flags().StringVar(&token, "token", "", "identifier of a token, as in list")
	return c
}
