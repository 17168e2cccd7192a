package store

import (
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/openjpki/jpki"
)

// A Certificate is an issued certificate with its present status.
type Certificate struct {
	ID          jpki.CertID
	Kind        jpki.Kind
	Holder      string
	Token       string
	Partition   string
	KeyHash     string // SHA-256 of the subjectPublicKeyInfo, hexadecimal; unique over all certificates
	DER         []byte
	NotBefore   time.Time
	NotAfter    time.Time
	IssuedAt    time.Time
	DeliveredAt *time.Time
	Replaces    *jpki.CertID // the certificate whose place it took
	Status      jpki.Status
}

// Live reports whether the certificate is neither revoked nor expired.
func (c Certificate) Live(now time.Time) bool {
	return c.Status.State != jpki.Revoked && !now.After(c.NotAfter)
}

const certificateColumns = `SELECT c.issuer, c.serial, c.kind, c.holder, c.token, s.partition, c.key_hash, c.der, c.not_before, c.not_after, c.issued_at, c.delivered_at,
	c.replaces_issuer, c.replaces_serial, s.state, s.reason, s.cause, s.since, s.version
	FROM certificate c JOIN certificate_status s ON s.issuer = c.issuer AND s.serial = c.serial `

// Certificate returns a certificate; [jpki.UnknownCertificate] when there is none.
func (tx *Tx) Certificate(id jpki.CertID) (Certificate, error) {
	if tx.ahead != nil {
		if c, known := tx.ahead.certificate(id); known {
			return *c, nil
		}
	}
	if err := tx.settle(); err != nil {
		return Certificate{}, err
	}
	c, err := scanCertificate(tx.q.QueryRowContext(tx.ctx, certificateColumns+`WHERE c.issuer = $1 AND c.serial = $2`, id.Issuer.String(), id.Serial.Bytes()))
	return c, notFound(err, jpki.UnknownCertificate)
}

// CertificatesOf returns every certificate a holder ever had, oldest first.
func (tx *Tx) CertificatesOf(holder string) ([]Certificate, error) {
	if tx.ahead != nil {
		if certs, known := tx.ahead.certificates[holder]; known {
			return slices.Clone(certs), nil
		}
	}
	if err := tx.settle(); err != nil {
		return nil, err
	}
	return queryAll(tx.ctx, tx.q, scanCertificate, certificateColumns+`WHERE c.holder = $1 ORDER BY c.issued_at, c.issuer, c.serial`, holder)
}

// CertificatesOn returns every certificate a token ever had, oldest first.
func (tx *Tx) CertificatesOn(token string) ([]Certificate, error) {
	if err := tx.settle(); err != nil {
		return nil, err
	}
	return queryAll(tx.ctx, tx.q, scanCertificate, certificateColumns+`WHERE c.token = $1 ORDER BY c.issued_at, c.issuer, c.serial`, token)
}

// KeyCertified reports whether a certificate for the key exists.
func (tx *Tx) KeyCertified(keyHash string) (bool, error) {
	if tx.ahead != nil {
		if used, known := tx.ahead.keys[keyHash]; known {
			return used, nil
		}
	}
	if err := tx.settle(); err != nil {
		return false, err
	}
	var n int
	err := tx.q.QueryRowContext(tx.ctx, `SELECT COUNT(*) FROM certificate WHERE key_hash = $1`, keyHash).Scan(&n)
	return n > 0, err
}

// AddCertificate records an issued certificate and its first status.
func (tx *Tx) AddCertificate(c Certificate) error {
	var issuer, serial any
	if c.Replaces != nil {
		issuer, serial = c.Replaces.Issuer.String(), c.Replaces.Serial.Bytes()
	}
	row := []any{
		c.ID.Issuer.String(), c.ID.Serial.Bytes(), string(c.Kind), c.Holder, c.Token, c.KeyHash, c.DER, micros(c.NotBefore), micros(c.NotAfter), micros(c.IssuedAt), issuer, serial,
	}
	if tx.ahead != nil {
		tx.ahead.pending.certificates = append(tx.ahead.pending.certificates, row)
		c.Status.Version = 1
		tx.ahead.add(c)
	} else if err := tx.perform(tx.insertCertificates([][]any{row})); err != nil {
		return err
	}
	return tx.AddStatus(jpki.StatusChange{ID: c.ID, Partition: c.Partition, NotAfter: c.NotAfter, Status: c.Status})
}

func (tx *Tx) insertCertificates(rows [][]any) task {
	const head = `INSERT INTO certificate (issuer, serial, kind, holder, token, key_hash, der, not_before, not_after, issued_at, replaces_issuer, replaces_serial)`
	return insert(head, "", rows, func(_ int64, err error) error {
		if err != nil && tx.d.unique(err) {
			return jpki.Errorf(jpki.KeyReused, "the key was certified meanwhile")
		}
		return as("write certificates")(0, err)
	})
}

// SetDelivered notes when a certificate reached its holder, once.
func (tx *Tx) SetDelivered(id jpki.CertID, at time.Time) error {
	_, err := tx.exec(`UPDATE certificate SET delivered_at = $3 WHERE issuer = $1 AND serial = $2 AND delivered_at IS NULL`,
		id.Issuer.String(), id.Serial.Bytes(), micros(at))
	return err
}

func scanCertificate(row scanner) (c Certificate, err error) {
	var issuer, state, cause string
	var serial, replacesSerial []byte
	var notBefore, notAfter, issued, since int64
	var delivered sql.NullInt64
	var replaces sql.NullString
	var reason int
	err = row.Scan(&issuer, &serial, &c.Kind, &c.Holder, &c.Token, &c.Partition, &c.KeyHash, &c.DER, &notBefore, &notAfter, &issued, &delivered,
		&replaces, &replacesSerial, &state, &reason, &cause, &since, &c.Status.Version)
	if err != nil {
		return c, err
	}
	if c.ID, err = certID(issuer, serial); err != nil {
		return c, err
	}
	if replaces.Valid {
		id, err := certID(replaces.String, replacesSerial)
		if err != nil {
			return c, err
		}
		c.Replaces = &id
	}
	c.NotBefore, c.NotAfter, c.IssuedAt, c.DeliveredAt = fromMicros(notBefore), fromMicros(notAfter), fromMicros(issued), fromOptional(delivered)
	c.Status.State, c.Status.Reason, c.Status.Cause, c.Status.Since = jpki.State(state), jpki.Reason(reason), jpki.Cause(cause), fromMicros(since)
	return c, nil
}

// An Intent is a serial number given out for a signature that is about to be made.
type Intent struct {
	ID        jpki.CertID
	Kind      jpki.Kind
	Holder    string
	Token     string
	Partition string
	NotAfter  time.Time
	Actor     string
	IdemKey   string
	CreatedAt time.Time
}

// AddIntent reserves a serial number for ever.
func (tx *Tx) AddIntent(i Intent) error {
	row := []any{i.ID.Issuer.String(), i.ID.Serial.Bytes(), string(i.Kind), i.Holder, i.Token, i.Partition, micros(i.NotAfter), i.Actor, i.IdemKey, micros(i.CreatedAt)}
	if tx.ahead != nil {
		tx.ahead.pending.intents = append(tx.ahead.pending.intents, row)
		return nil
	}
	return tx.perform(insertIntents([][]any{row}))
}

func insertIntents(rows [][]any) task {
	return insert(`INSERT INTO intent (issuer, serial, kind, holder, token, partition, not_after, actor, idem_key, created_at)`, "", rows, as("record intents"))
}

// An intentEnd is how one intent ended.
type intentEnd struct {
	id      jpki.CertID
	outcome string
	at      time.Time
}

// EndIntent closes an open intent. One that somebody else has closed is a [jpki.Conflict].
func (tx *Tx) EndIntent(id jpki.CertID, issued bool, now time.Time) error {
	end := intentEnd{id, "abandoned", now}
	if issued {
		end.outcome = "issued"
	}
	if tx.ahead != nil {
		tx.ahead.pending.ends = append(tx.ahead.pending.ends, end)
		return nil
	}
	return tx.perform(endIntents([]intentEnd{end}))
}

// endIntents closes intents, those of one issuer, outcome and time by one statement.
func endIntents(ends []intentEnd) task {
	type alike struct {
		issuer  jpki.IssuerID
		outcome string
		at      int64
	}
	var order []alike
	serials := map[alike][]any{}
	for _, e := range ends {
		k := alike{e.id.Issuer, e.outcome, micros(e.at)}
		if serials[k] == nil {
			order = append(order, k)
		}
		serials[k] = append(serials[k], e.id.Serial.Bytes())
	}
	t := task{then: func(ended int64, err error) error {
		if err == nil && ended != int64(len(ends)) {
			return jpki.Errorf(jpki.Conflict, "the issuance was ended meanwhile")
		}
		return as("end intents")(0, err)
	}}
	for _, k := range order {
		for chunk := range slices.Chunk(serials[k], listSize) {
			list, args := placeholders(chunk, 4)
			t.statements = append(t.statements, statement{
				`UPDATE intent SET outcome = $1, ended_at = $2 WHERE issuer = $3 AND outcome IS NULL AND serial IN ` + list, append([]any{k.outcome, k.at, k.issuer.String()}, args...),
			})
		}
	}
	return t
}

// OpenIntents returns intents begun before a time and not ended, oldest first.
func (tx *Tx) OpenIntents(before time.Time, limit int) ([]Intent, error) {
	if err := tx.settle(); err != nil {
		return nil, err
	}
	return queryAll(tx.ctx, tx.q, scanIntent, `SELECT issuer, serial, kind, holder, token, partition, not_after, actor, idem_key, created_at FROM intent
		WHERE outcome IS NULL AND created_at <= $1 ORDER BY created_at LIMIT $2`, micros(before), limit)
}

// OpenIntentsUnder returns the intents not ended that were begun under an idempotency key: those of one issuance.
func (tx *Tx) OpenIntentsUnder(actor, key string) ([]Intent, error) {
	if err := tx.settle(); err != nil {
		return nil, err
	}
	return queryAll(tx.ctx, tx.q, scanIntent, `SELECT issuer, serial, kind, holder, token, partition, not_after, actor, idem_key, created_at FROM intent
		WHERE outcome IS NULL AND actor = $1 AND idem_key = $2 ORDER BY issuer, serial`, actor, key)
}

func scanIntent(row scanner) (i Intent, err error) {
	var issuer string
	var serial []byte
	var notAfter, created int64
	if err = row.Scan(&issuer, &serial, &i.Kind, &i.Holder, &i.Token, &i.Partition, &notAfter, &i.Actor, &i.IdemKey, &created); err != nil {
		return i, err
	}
	i.NotAfter, i.CreatedAt = fromMicros(notAfter), fromMicros(created)
	i.ID, err = certID(issuer, serial)
	return i, err
}

// A Generation is one key of one CA, as the database knows it.
type Generation struct {
	Issuer      jpki.IssuerID
	Certificate []byte // DER of the CA certificate
	Active      bool   // issues new certificates; at most one a CA
}

// Generations returns all generations in order.
func (tx *Tx) Generations() ([]Generation, error) {
	return queryAll(tx.ctx, tx.q, func(row scanner) (g Generation, err error) {
		var issuer string
		var active int
		if err = row.Scan(&issuer, &g.Certificate, &active); err != nil {
			return g, err
		}
		g.Active = active == 1
		g.Issuer, err = jpki.ParseIssuerID(issuer)
		return g, err
	}, `SELECT issuer, certificate, active FROM generation ORDER BY created_at, issuer`)
}

// AddGeneration records a generation.
func (tx *Tx) AddGeneration(g Generation, now time.Time) error {
	_, err := tx.exec(`INSERT INTO generation (issuer, certificate, active, created_at) VALUES ($1, $2, $3, $4)`, g.Issuer.String(), g.Certificate, boolInt(g.Active), micros(now))
	if err != nil && tx.d.unique(err) {
		return jpki.Errorf(jpki.Conflict, "generation %s exists, or another is active", g.Issuer)
	}
	return err
}

// ActivateGeneration makes a recorded generation the one of its CA that issues; [jpki.NotFound] when there is none.
func (tx *Tx) ActivateGeneration(id jpki.IssuerID) error {
	generations, err := tx.Generations()
	if err != nil {
		return fmt.Errorf("read generations: %w", err)
	}
	for _, g := range generations {
		if g.Active && g.Issuer.CA == id.CA {
			if _, err := tx.exec(`UPDATE generation SET active = 0 WHERE issuer = $1`, g.Issuer.String()); err != nil {
				return fmt.Errorf("retire generation: %w", err)
			}
		}
	}
	n, err := tx.exec(`UPDATE generation SET active = 1 WHERE issuer = $1`, id.String())
	if err != nil {
		return fmt.Errorf("activate generation: %w", err)
	}
	if n != 1 {
		return jpki.Errorf(jpki.NotFound, "generation %s is not recorded", id)
	}
	return nil
}
