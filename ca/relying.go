package ca

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/store"
)

// maxTenantName bounds a relying party's name, in characters.
const maxTenantName = 100

// RegisterTenant registers a relying party with the operator of a verifier, who must be enrolled, or changes its name and what
// it is entitled to. A relying party has one operator: another's is a [jpki.Conflict].
func (a *Authority) RegisterTenant(ctx context.Context, by jpki.Actor, t store.Tenant) error {
	if by.Role != jpki.System {
		return jpki.Errorf(jpki.Forbidden, "a %s registers no relying parties", by.Role)
	}
	if _, err := jpki.ParseCorporateNumber(string(t.Number)); err != nil {
		return err
	}
	if err := checkText("name", t.Name, maxTenantName); err != nil {
		return err
	}
	t.Uses = slices.Compact(slices.Sorted(slices.Values(t.Uses)))
	if len(t.Uses) == 0 || slices.ContainsFunc(t.Uses, func(u jpki.Use) bool { return !slices.Contains(jpki.Uses, u) }) {
		return jpki.Errorf(jpki.Malformed, "the uses are signature, authentication or both")
	}
	feed, err := a.drawID()
	if err != nil {
		return err
	}
	t.Key = make([]byte, sha256.Size)
	if _, err := io.ReadFull(a.rand, t.Key); err != nil {
		return fmt.Errorf("draw key of users' identifiers: %w", err)
	}
	now := a.now()
	behind, err := a.feedBegins(ctx, t.Operator, now)
	if err != nil {
		return err
	}
	return a.store.Update(ctx, func(tx *store.Tx) error {
		s, err := tx.Station(t.Operator)
		if err != nil {
			return err
		}
		if s.Role != jpki.Verifying || s.Disabled {
			return jpki.Errorf(jpki.UnknownStation, "%s is no operator of a verifier", t.Operator)
		}
		known, err := tx.Tenant(t.Number)
		switch {
		case errors.Is(err, jpki.UnknownTenant):
		case err != nil:
			return err
		case known.Operator != t.Operator:
			return jpki.Errorf(jpki.Conflict, "the relying party is registered with another operator")
		}
		if err := tx.PutOperator(t.Operator, feed, behind); err != nil {
			return fmt.Errorf("record operator: %w", err)
		}
		if err := tx.PutTenant(t, now); err != nil {
			return fmt.Errorf("record relying party: %w", err)
		}
		return tx.Audit(now, by, "relying-party.registered", string(t.Number), map[string]any{"operator": t.Operator, "uses": t.Uses})
	})
}

// feedBegins returns the position behind which an operator's feed begins if the operator is new. That is 0, but in a database that was
// restored: an operator of this name may have been registered after the backup, and knows positions that are not to get another
// meaning, as [Restored.Lift] sees to for those of the backup. It looks apart from the registration because it reads the audit record.
func (a *Authority) feedBegins(ctx context.Context, operator string, now time.Time) (behind int64, err error) {
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.Operator(operator); !errors.Is(err, jpki.UnknownTenant) {
			return err
		}
		_, _, err := tx.FenceRaised()
		switch {
		case err == nil:
			behind = now.UnixMicro()
		case errors.Is(err, jpki.NotFound):
			err = nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("find where the feed begins: %w", err)
	}
	return behind, nil
}

// EndTenant ends a relying party's registration: its operator gets nothing more for it.
func (a *Authority) EndTenant(ctx context.Context, by jpki.Actor, number jpki.CorporateNumber) error {
	if by.Role != jpki.System {
		return jpki.Errorf(jpki.Forbidden, "a %s ends no registrations", by.Role)
	}
	now := a.now()
	return a.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.EndTenant(number, now); err != nil {
			return err
		}
		return tx.Audit(now, by, "relying-party.ended", string(number), nil)
	})
}

// Tenants returns all relying parties that ever were, without their keys.
func (a *Authority) Tenants(ctx context.Context) (list []store.Tenant, err error) {
	err = a.store.View(ctx, func(tx *store.Tx) error {
		list, err = tx.Tenants()
		return err
	})
	for i := range list {
		list[i].Key = nil
	}
	return list, err
}

// tenantFor returns the relying party for which an operator acts, if it is entitled to a use; "" asks for none.
func tenantFor(tx *store.Tx, by jpki.Actor, number jpki.CorporateNumber, use jpki.Use) (store.Tenant, error) {
	if by.Role != jpki.Verifying {
		return store.Tenant{}, jpki.Errorf(jpki.Forbidden, "a %s acts for no relying party", by.Role)
	}
	if _, err := jpki.ParseCorporateNumber(string(number)); err != nil {
		return store.Tenant{}, err
	}
	t, err := tx.Tenant(number)
	if err != nil {
		return t, err
	}
	if t.Operator != by.ID || t.Ended {
		return t, jpki.Errorf(jpki.UnknownTenant, "")
	}
	if use != "" && !slices.Contains(t.Uses, use) {
		return t, jpki.Errorf(jpki.Forbidden, "the relying party is not entitled to certificates for %s", use)
	}
	return t, nil
}

var (
	purposeForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	userForm    = regexp.MustCompile(`^[a-z2-7]{32}$`)
)

func checkPurpose(s string) error {
	if !purposeForm.MatchString(s) {
		return jpki.Errorf(jpki.Malformed, "purpose must be 1 to 64 of a-z, 0-9 and hyphen")
	}
	if jpki.ContainsMyNumber(s) {
		return jpki.Errorf(jpki.MyNumberPresent, "in purpose")
	}
	return nil
}

func checkUser(s string) error {
	if !userForm.MatchString(s) {
		return jpki.Errorf(jpki.Malformed, "user must be 32 of a-z and 2-7")
	}
	return nil
}

// checkText checks what people read: one line.
func checkText(field, s string, most int) error {
	n := utf8.RuneCountInString(s)
	if n == 0 || n > most || !utf8.ValidString(s) || strings.TrimSpace(s) != s || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '　' }) {
		return jpki.Errorf(jpki.Malformed, "%s must be 1 to %d printable characters in one line", field, most)
	}
	if jpki.ContainsMyNumber(s) {
		return jpki.Errorf(jpki.MyNumberPresent, "in %s", field)
	}
	return nil
}

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// drawID returns 128 bits of chance in 26 letters and digits.
func (a *Authority) drawID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(a.rand, b[:]); err != nil {
		return "", fmt.Errorf("draw identifier: %w", err)
	}
	return lowerBase32.EncodeToString(b[:]), nil
}

// pairwise returns the identifier of a holder for the tenant of a key: 160 bits of HMAC-SHA-256. Who has not both keys cannot
// tell whether two tenants' identifiers are one person's. It says nothing of certificates, so it outlives them.
func pairwise(key []byte, holder string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte("JPKI user, version 1\x00" + holder))
	return lowerBase32.EncodeToString(m.Sum(nil)[:20])
}

// userOf returns the user that a holder is to a tenant, locked, and whether the tenant had not asked about them before.
func userOf(tx *store.Tx, t store.Tenant, holder string, now time.Time) (u store.User, fresh bool, err error) {
	id := pairwise(t.Key, holder)
	if u, err = tx.User(t.Number, id); !errors.Is(err, jpki.UnknownUser) {
		return u, false, err
	}
	if fresh, err = tx.AddUser(store.User{Tenant: t.Number, ID: id, Holder: holder}, now); err != nil {
		return u, false, err
	}
	u, err = tx.User(t.Number, id)
	return u, fresh, err
}

// An IdentityRequest asks, for a relying party and a purpose, whose certificate it is: by ID or DER.
type IdentityRequest struct {
	Tenant  jpki.CorporateNumber
	Purpose string
	ID      *jpki.CertID
	DER     []byte
	Linkage bool // ask for the certificate of the other use; only who is entitled to both
}

// An Identity is a person as one tenant knows them.
type Identity struct {
	User   string
	New    bool
	Kind   jpki.Kind
	Latest bool
	State  jpki.State
	Linked *store.Certificate // the certificate in force for the other use on the same token; nil if there is none
}

// Identify says who the holder of a certificate is to a relying party, never who they are. Steps:
//  1. check the request; find the certificate
//  2. check that the operator acts for the relying party, which must be entitled to the certificate's use, and to both for the linkage
//  3. find or make the user; note of which kind the tenant knows a certificate, and which signature certificate is the newest
//  4. in the holder's record: who asked, and what for
func (a *Authority) Identify(ctx context.Context, by jpki.Actor, req IdentityRequest) (out Identity, err error) {
	// 1.
	if err := checkPurpose(req.Purpose); err != nil {
		return out, err
	}
	if (req.ID == nil) == (len(req.DER) == 0) {
		return out, jpki.Errorf(jpki.Malformed, "name the certificate by id or give it")
	}
	id := req.ID
	if id == nil {
		c, err := a.OnRecord(ctx, req.DER)
		if err != nil {
			return out, err
		}
		id = &c.ID
	}
	ref, err := a.drawID()
	if err != nil {
		return out, err
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		// 2.
		if _, err := tenantFor(tx, by, req.Tenant, ""); err != nil { // a stranger learns nothing, not even that there is none
			return err
		}
		c, err := tx.Certificate(*id)
		if err != nil {
			return err
		}
		t, err := tenantFor(tx, by, req.Tenant, c.Kind.Use())
		if err != nil {
			return err
		}
		if req.Linkage && len(t.Uses) < len(jpki.Uses) {
			return jpki.Errorf(jpki.Forbidden, "the linkage is for relying parties that are entitled to both uses")
		}
		// 3.
		u, fresh, err := userOf(tx, t, c.Holder, now)
		if err != nil {
			return err
		}
		all, err := tx.CertificatesOf(c.Holder)
		if err != nil {
			return err
		}
		out = Identity{User: u.ID, New: fresh, Kind: c.Kind, Latest: true, State: c.Status.State}
		for _, o := range all {
			if o.Kind == c.Kind && newer(o, c) {
				out.Latest = false
			}
			if o.Kind.Use() != c.Kind.Use() && o.Token == c.Token && o.Status.State == jpki.Good && o.Live(now) && req.Linkage {
				out.Linked = &o
			}
		}
		was := u
		if u.Kinds = u.Kinds.With(c.Kind); c.Kind.Use() == jpki.ForSignature {
			know(&u, c, all)
		}
		if u != was {
			if err := tx.SetUser(u); err != nil {
				return fmt.Errorf("note certificate: %w", err)
			}
		}
		// 4.
		_, err = tx.AddRecords(store.Recorded{Operator: by.ID, Ref: drawnRef(ref), Holder: c.Holder, Tenant: t.Number, Action: recordIdentity, Purpose: req.Purpose, At: now})
		return err
	})
	return out, err
}

// newer reports whether one certificate was issued after another.
func newer(c, than store.Certificate) bool {
	return c.IssuedAt.After(than.IssuedAt) || c.IssuedAt.Equal(than.IssuedAt) && c.Replaces != nil && *c.Replaces == than.ID
}

// know notes that a tenant knows a signature certificate, if it is newer than what it knew.
func know(u *store.User, c store.Certificate, all []store.Certificate) {
	if u.Known == nil {
		u.Known = &c.ID
		return
	}
	i := slices.IndexFunc(all, func(o store.Certificate) bool { return o.ID == *u.Known })
	if i < 0 || newer(c, all[i]) {
		u.Known = &c.ID
	}
}

// MaxWatches is how many watches one request makes or ends.
const MaxWatches = 1000

// A WatchOutcome says what became of a list of watches.
type WatchOutcome struct {
	Changed int      // made or ended
	Unknown []string // users whom the tenant does not know
}

// Watch has a tenant told what changes about its users, each under a purpose. Whatever commits after Watch returned is told,
// nothing that committed before it began.
func (a *Authority) Watch(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, list []store.Watch) (WatchOutcome, error) {
	return a.watches(ctx, by, tenant, list, recordWatch, func(tx *store.Tx, list []store.Watch, now time.Time) (int64, error) {
		end, err := tx.StatusEnd()
		if err != nil {
			return 0, err
		}
		return tx.AddWatches(tenant, list, end, now)
	})
}

// EndWatches ends watches. Nothing that commits afterwards is told.
func (a *Authority) EndWatches(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, list []store.Watch) (WatchOutcome, error) {
	return a.watches(ctx, by, tenant, list, recordWatchEnded, func(tx *store.Tx, list []store.Watch, _ time.Time) (int64, error) { return tx.EndWatches(tenant, list) })
}

// watches is both. Steps:
//  1. check the list
//  2. check that the operator acts for the tenant, and find the users
//  3. under the lock of the derivation, so that no change falls between, make or end them
//  4. in the holders' records: who watches, and what for
func (a *Authority) watches(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, list []store.Watch, action string, do func(*store.Tx, []store.Watch, time.Time) (int64, error)) (out WatchOutcome, err error) {
	// 1.
	if len(list) == 0 || len(list) > MaxWatches {
		return out, jpki.Errorf(jpki.Malformed, "a request has 1 to %d watches", MaxWatches)
	}
	names := make([]string, len(list))
	for i, w := range list {
		if err := errors.Join(checkUser(w.User), checkPurpose(w.Purpose)); err != nil {
			return out, err
		}
		names[i] = w.User
	}
	drawn, err := a.drawID()
	if err != nil {
		return out, err
	}
	now := a.now()
	err = a.store.Update(ctx, func(tx *store.Tx) error {
		out = WatchOutcome{}
		// 2.
		t, err := tenantFor(tx, by, tenant, "")
		if err != nil {
			return err
		}
		users, err := tx.Users(tenant, slices.Compact(slices.Sorted(slices.Values(names))))
		if err != nil {
			return fmt.Errorf("find users: %w", err)
		}
		var known []store.Watch
		var records []store.Recorded
		seen := map[store.Watch]bool{}
		for _, w := range list {
			w = store.Watch{User: w.User, Purpose: w.Purpose}
			u, ok := users[w.User]
			switch {
			case !ok && !slices.Contains(out.Unknown, w.User):
				out.Unknown = append(out.Unknown, w.User)
			case ok && !seen[w]:
				seen[w] = true
				known = append(known, w)
				records = append(records, store.Recorded{Operator: by.ID, Ref: drawnRef(fmt.Sprint(drawn, "-", len(known))), Holder: u.Holder, Tenant: t.Number, Action: action, Purpose: w.Purpose, At: now})
			}
		}
		if len(known) == 0 {
			return nil
		}
		// 3.
		if _, err := tx.LockChanges(); err != nil {
			return err
		}
		n, err := do(tx, known, now)
		if err != nil {
			return err
		}
		// 4.
		out.Changed = int(n)
		_, err = tx.AddRecords(records...)
		return err
	})
	return out, err
}

// Watches returns up to limit of a tenant's watches behind one, in the order of users and purposes.
func (a *Authority) Watches(ctx context.Context, by jpki.Actor, tenant jpki.CorporateNumber, after store.Watch, limit int) (list []store.Watch, err error) {
	err = a.store.View(ctx, func(tx *store.Tx) error {
		if _, err := tenantFor(tx, by, tenant, ""); err != nil {
			return err
		}
		list, err = tx.Watches(tenant, after, limit)
		return err
	})
	return list, err
}
