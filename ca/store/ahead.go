package store

import (
	"slices"

	"github.com/openjpki/jpki"
)

// An Ahead says what a transaction over many things is going to look at; see [Tx.ReadAhead].
type Ahead struct {
	Holders      []string  // rows, which are locked, and their certificates
	SkipLocked   bool      // leave out holders whom another transaction has locked, as if they did not exist
	Certificates []string  // of these holders, whom the transaction has locked already
	Tokens       []string  // by name
	Keys         []string  // hashes of public keys
	Once         []OnceKey // idempotency keys
}

// ahead is what a transaction has read ahead, kept true by what it changes of it, and what it is going to write.
type ahead struct {
	holders      map[string]*Holder // nil: none
	certificates map[string][]Certificate
	holderOf     map[jpki.CertID]string
	phones       map[jpki.CertID][]Token // under a card signature certificate
	tokens       map[string]*Token       // nil: none
	keys         map[string]bool
	once         map[OnceKey]*onceRow // nil: none
	pending      pending
}

// pending is what is written when the transaction ends, a statement for each field and not for each row.
type pending struct {
	claims, tokens, intents, certificates, statuses, results [][]any
	ends                                                     []intentEnd
	changes                                                  []jpki.StatusChange // of statuses that exist
}

// ReadAhead reads what many commands of one transaction will look at in a few queries, after the holders are locked. The
// reading methods then answer from there, and what the writing ones record is held back and written together: when the
// transaction ends, or before anything is read that was not read ahead. An error of a held-back statement is that of the
// whole transaction: which of the commands it concerns is not known.
func (tx *Tx) ReadAhead(w Ahead) error {
	if err := tx.settle(); err != nil {
		return err
	}
	a := &ahead{
		holders: map[string]*Holder{}, certificates: map[string][]Certificate{}, holderOf: map[jpki.CertID]string{}, phones: map[jpki.CertID][]Token{},
		tokens: map[string]*Token{}, keys: map[string]bool{}, once: map[OnceKey]*onceRow{},
	}
	holders := slices.Concat(w.Holders, w.Certificates)
	var found []Holder
	var certs []Certificate
	var tokens []Token
	var used []string
	tasks := []task{
		find(&certs, scanCertificate, certificateColumns+`WHERE c.holder IN `, ` ORDER BY c.issued_at, c.issuer, c.serial`, anys(holders)),
		find(&tokens, scanToken, cardColumns+`WHERE id IN `, "", anys(w.Tokens)),
		find(&used, scanString, `SELECT key_hash FROM certificate WHERE key_hash IN `, "", anys(w.Keys)),
		findOnce(a.once, w.Once),
	}
	if len(w.Holders) > 0 {
		tasks = slices.Insert(tasks, 0, tx.lockHolders(&found, w.Holders, w.SkipLocked)) // first: what the others see is not changed any more
	}
	if err := tx.perform(tasks...); err != nil {
		return err
	}
	for _, id := range w.Holders {
		a.holders[id] = nil
	}
	for _, h := range found {
		a.holders[h.ID] = &h
	}
	for _, id := range w.Tokens {
		a.tokens[id] = nil
	}
	for _, t := range tokens {
		a.tokens[t.ID] = &t
	}
	for _, k := range w.Keys {
		a.keys[k] = slices.Contains(used, k)
	}
	for _, h := range holders {
		a.certificates[h] = nil
	}
	for _, c := range certs {
		a.certificates[c.Holder] = append(a.certificates[c.Holder], c)
		a.holderOf[c.ID] = c.Holder
	}
	if len(certs) > 0 {
		phones, err := queryIn(tx, scanToken, cardColumns+`WHERE parent_serial IS NOT NULL AND holder IN `, ` ORDER BY id`, anys(holders))
		if err != nil {
			return err
		}
		for _, p := range phones {
			a.phones[*p.Parent] = append(a.phones[*p.Parent], p)
		}
	}
	tx.ahead = a
	return nil
}

// certificate finds a certificate that was read ahead.
func (a *ahead) certificate(id jpki.CertID) (*Certificate, bool) {
	holder, known := a.holderOf[id]
	if !known {
		return nil, false
	}
	certs := a.certificates[holder]
	i := slices.IndexFunc(certs, func(c Certificate) bool { return c.ID == id })
	return &certs[i], true
}

// add enters a certificate made in this transaction.
func (a *ahead) add(c Certificate) {
	if list, known := a.certificates[c.Holder]; known {
		a.certificates[c.Holder], a.holderOf[c.ID] = append(list, c), c.Holder
	}
	a.keys[c.KeyHash] = true
}

// setAhead changes a status of which the certificate was read ahead; false when it was not.
func (tx *Tx) setAhead(c jpki.StatusChange) (bool, error) {
	if tx.ahead == nil {
		return false, nil
	}
	cert, known := tx.ahead.certificate(c.ID)
	if !known {
		return false, nil
	}
	if cert.Status.Version != c.Status.Version-1 {
		return true, errStatusChanged
	}
	cert.Status = c.Status
	tx.ahead.pending.changes = append(tx.ahead.pending.changes, c)
	return true, nil
}

// settle writes what was held back and forgets what was read ahead: called before any look at what was not.
func (tx *Tx) settle() error { return tx.perform(tx.pending()...) }

// pending is what settle does.
func (tx *Tx) pending() []task {
	if tx.ahead == nil {
		return nil
	}
	p := tx.ahead.pending
	tx.ahead = nil
	tasks := []task{insertClaims(p.claims), tx.insertTokens(p.tokens), insertIntents(p.intents), endIntents(p.ends), tx.insertCertificates(p.certificates), insertStatuses(p.statuses)}
	return append(append(tasks, changeStatuses(p.changes)...), storeResults(p.results))
}

// changeStatuses writes changes of statuses that exist. The guard is the version, as for a single one; holder locks and the
// reading before make sure that each row exists.
func changeStatuses(pending []jpki.StatusChange) (tasks []task) {
	for len(pending) > 0 {
		// One statement cannot change a row twice.
		var now, later []jpki.StatusChange
		seen := map[jpki.CertID]bool{}
		for _, c := range pending {
			if seen[c.ID] {
				later = append(later, c)
				continue
			}
			seen[c.ID], now = true, append(now, c)
		}
		rows := make([][]any, len(now))
		for i, c := range now {
			rows[i] = changeColumns(c)
		}
		tasks = append(tasks, insert(insertStatus, ` ON CONFLICT (issuer, serial) DO UPDATE SET state = excluded.state, reason = excluded.reason, cause = excluded.cause,
			since = excluded.since, version = excluded.version WHERE certificate_status.version = excluded.version - 1`, rows, func(changed int64, err error) error {
			if err == nil && changed != int64(len(rows)) {
				return errStatusChanged
			}
			return as("change statuses")(0, err)
		}))
		pending = later
	}
	return tasks
}
