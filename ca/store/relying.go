package store

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openjpki/jpki"
)

// An Operator is an operator of a verifier with its feed of changes.
type Operator struct {
	ID        string // as a station
	Feed      string // names the feed, for ever
	Position  int64  // of the feed's last change
	Forgotten int64  // up to which position changes are not kept any more
}

// PutOperator records an operator, whose feed begins behind a position, unless it is recorded already.
func (tx *Tx) PutOperator(id, feed string, behind int64) error {
	_, err := tx.exec(`INSERT INTO relying_operator (id, feed, change_seq, forgotten_seq) VALUES ($1, $2, $3, $3) ON CONFLICT (id) DO NOTHING`, id, feed, behind)
	return err
}

const operatorColumns = `SELECT id, feed, change_seq, forgotten_seq FROM relying_operator `

func scanOperator(row scanner) (o Operator, err error) {
	return o, row.Scan(&o.ID, &o.Feed, &o.Position, &o.Forgotten)
}

// Operator returns an operator; [jpki.UnknownTenant] for a station that nobody made one.
func (tx *Tx) Operator(id string) (Operator, error) {
	o, err := scanOperator(tx.q.QueryRowContext(tx.ctx, operatorColumns+`WHERE id = $1`, id))
	return o, notFound(err, jpki.UnknownTenant)
}

// Operators returns operators by name; who is not known is left out.
func (tx *Tx) Operators(ids []string) (map[string]Operator, error) {
	list, err := queryIn(tx, scanOperator, operatorColumns+`WHERE id IN `, "", anys(ids))
	out := map[string]Operator{}
	for _, o := range list {
		out[o.ID] = o
	}
	return out, err
}

// A Tenant is a relying party for which an operator acts.
type Tenant struct {
	Number   jpki.CorporateNumber
	Operator string
	Name     string
	Uses     []jpki.Use // that it is entitled to
	Key      []byte     // of its users' identifiers
	Ended    bool
}

const tenantColumns = `SELECT corporate_number, operator, name, uses, pairwise_key, ended_at FROM relying_tenant `

func scanTenant(row scanner) (t Tenant, err error) {
	var uses string
	var ended sql.NullInt64
	if err = row.Scan(&t.Number, &t.Operator, &t.Name, &uses, &t.Key, &ended); err != nil {
		return t, err
	}
	for u := range strings.FieldsSeq(uses) {
		t.Uses = append(t.Uses, jpki.Use(u))
	}
	t.Ended = ended.Valid
	return t, nil
}

// Tenant returns a relying party; [jpki.UnknownTenant] when there is none.
func (tx *Tx) Tenant(number jpki.CorporateNumber) (Tenant, error) {
	t, err := scanTenant(tx.q.QueryRowContext(tx.ctx, tenantColumns+`WHERE corporate_number = $1`, string(number)))
	return t, notFound(err, jpki.UnknownTenant)
}

// Tenants returns all relying parties, by number.
func (tx *Tx) Tenants() ([]Tenant, error) {
	return queryAll(tx.ctx, tx.q, scanTenant, tenantColumns+`ORDER BY corporate_number`)
}

// PutTenant records a relying party, or changes its name and uses and lets it begin again. Key and operator stay.
func (tx *Tx) PutTenant(t Tenant, now time.Time) error {
	var uses []string
	for _, u := range t.Uses {
		uses = append(uses, string(u))
	}
	_, err := tx.exec(`INSERT INTO relying_tenant (corporate_number, operator, name, uses, pairwise_key, created_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (corporate_number) DO UPDATE SET name = excluded.name, uses = excluded.uses, ended_at = NULL`,
		string(t.Number), t.Operator, t.Name, strings.Join(uses, " "), t.Key, micros(now))
	return err
}

// EndTenant ends a relying party: nothing is answered or told to it any more. [jpki.UnknownTenant] when there is none.
func (tx *Tx) EndTenant(number jpki.CorporateNumber, now time.Time) error {
	n, err := tx.exec(`UPDATE relying_tenant SET ended_at = $2 WHERE corporate_number = $1 AND ended_at IS NULL`, string(number), micros(now))
	if err == nil && n == 0 {
		err = jpki.Errorf(jpki.UnknownTenant, "")
	}
	return err
}

// A User is a holder as one tenant knows them.
type User struct {
	Tenant jpki.CorporateNumber
	ID     string
	Holder string
	Kinds  KindSet      // of which the tenant has seen certificates
	Known  *jpki.CertID // the newest signature certificate that the tenant has seen
}

// A KindSet is a set of kinds, a bit for each in the order of [jpki.Kinds].
type KindSet int64

// With returns the set with another kind.
func (s KindSet) With(k jpki.Kind) KindSet { return s | 1<<slices.Index(jpki.Kinds, k) }

// Has reports whether a kind is in the set.
func (s KindSet) Has(k jpki.Kind) bool { return s&KindSet(0).With(k) != 0 }

const userColumns = `SELECT tenant, user_id, holder, kinds, known_issuer, known_serial FROM relying_user `

func scanUser(row scanner) (u User, err error) {
	var issuer sql.NullString
	var serial []byte
	if err = row.Scan(&u.Tenant, &u.ID, &u.Holder, &u.Kinds, &issuer, &serial); err != nil || !issuer.Valid {
		return u, err
	}
	id, err := certID(issuer.String, serial)
	u.Known = &id
	return u, err
}

// User returns a tenant's user and locks the row; [jpki.UnknownUser] when the tenant knows nobody of that name.
func (tx *Tx) User(tenant jpki.CorporateNumber, id string) (User, error) {
	u, err := scanUser(tx.q.QueryRowContext(tx.ctx, userColumns+`WHERE tenant = $1 AND user_id = $2`+tx.lock(), string(tenant), id))
	return u, notFound(err, jpki.UnknownUser)
}

// UsersOf returns the users that a holder is, of all tenants.
func (tx *Tx) UsersOf(holder string) ([]User, error) {
	return queryAll(tx.ctx, tx.q, scanUser, userColumns+`WHERE holder = $1 ORDER BY tenant`, holder)
}

// Users returns many users of a tenant by name; who is not known is left out.
func (tx *Tx) Users(tenant jpki.CorporateNumber, ids []string) (map[string]User, error) {
	out := map[string]User{}
	for chunk := range slices.Chunk(ids, listSize) {
		list, args := placeholders(anys(chunk), 2)
		found, err := queryAll(tx.ctx, tx.q, scanUser, userColumns+`WHERE tenant = $1 AND user_id IN `+list, append([]any{string(tenant)}, args...)...)
		if err != nil {
			return nil, err
		}
		for _, u := range found {
			out[u.ID] = u
		}
	}
	return out, nil
}

// AddUser records a user, unless it is recorded already: false.
func (tx *Tx) AddUser(u User, now time.Time) (added bool, err error) {
	n, err := tx.exec(`INSERT INTO relying_user (tenant, user_id, holder, kinds, created_at) VALUES ($1, $2, $3, 0, $4) ON CONFLICT (tenant, user_id) DO NOTHING`,
		string(u.Tenant), u.ID, u.Holder, micros(now))
	if err != nil {
		return false, fmt.Errorf("record user: %w", err)
	}
	return n == 1, nil
}

// SetUser writes what a tenant knows of a user, under the user's lock.
func (tx *Tx) SetUser(u User) error {
	var issuer, serial any
	if u.Known != nil {
		issuer, serial = u.Known.Issuer.String(), u.Known.Serial.Bytes()
	}
	_, err := tx.exec(`UPDATE relying_user SET kinds = $3, known_issuer = $4, known_serial = $5 WHERE tenant = $1 AND user_id = $2`,
		string(u.Tenant), u.ID, int64(u.Kinds), issuer, serial)
	return err
}

// A Watch has a tenant told of changes of a user under a purpose.
type Watch struct {
	User, Purpose string
	CreatedAt     time.Time
}

// AddWatches makes watches of users whom the tenant knows, no one twice, and returns how many were none before. They tell of
// what stands behind a position of the status log; see [Tx.LockChanges].
func (tx *Tx) AddWatches(tenant jpki.CorporateNumber, list []Watch, after int64, now time.Time) (made int64, err error) {
	rows := make([][]any, len(list))
	for i, w := range list {
		rows[i] = []any{string(tenant), w.User, w.Purpose, after, micros(now)}
	}
	err = tx.perform(insert(`INSERT INTO relying_watch (tenant, user_id, purpose, after_seq, created_at)`, ` ON CONFLICT (tenant, user_id, purpose) DO NOTHING`, rows, func(n int64, err error) error {
		made = n
		return as("make watches")(n, err)
	}))
	return made, err
}

// EndWatches ends watches and returns how many there were.
func (tx *Tx) EndWatches(tenant jpki.CorporateNumber, list []Watch) (ended int64, err error) {
	for chunk := range slices.Chunk(list, listSize) {
		query, args := valueList(`DELETE FROM relying_watch WHERE (tenant, user_id, purpose) IN (`, `)`, chunk, func(w Watch) []any { return []any{string(tenant), w.User, w.Purpose} })
		n, err := tx.exec(query, args...)
		if err != nil {
			return ended, fmt.Errorf("end watches: %w", err)
		}
		ended += n
	}
	return ended, nil
}

// Watches returns up to limit of a tenant's watches behind one, in the order of user and purpose.
func (tx *Tx) Watches(tenant jpki.CorporateNumber, after Watch, limit int) ([]Watch, error) {
	return queryAll(tx.ctx, tx.q, func(row scanner) (w Watch, err error) {
		var created int64
		err = row.Scan(&w.User, &w.Purpose, &created)
		w.CreatedAt = fromMicros(created)
		return w, err
	}, `SELECT user_id, purpose, created_at FROM relying_watch WHERE tenant = $1 AND user_id >= $2 AND (user_id > $2 OR purpose > $3) ORDER BY user_id, purpose LIMIT $4`,
		string(tenant), after.User, after.Purpose, limit)
}
