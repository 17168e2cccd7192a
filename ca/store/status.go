package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/openjpki/jpki"
)

// A StatusReader reads what the public zone may know: serial numbers and their statuses, no persons.
type StatusReader struct {
	db *sql.DB
	d  *dialect
}

// OpenStatusReader connects to an existing database for reading statuses only.
func OpenStatusReader(name string) (*StatusReader, error) {
	d, write, read, err := connect(name, false)
	if err != nil {
		return nil, err
	}
	if write != read {
		_ = write.Close()
	}
	return &StatusReader{db: read, d: d}, nil
}

// Close closes the connections.
func (r *StatusReader) Close() error { return r.db.Close() }

// StatusChanges returns up to limit entries of the status log behind position after, in order and without gaps. It
// reflects everything committed before the call began. From a database that was restored and not reconciled there is
// nothing to be had: [ErrFenced].
func (r *StatusReader) StatusChanges(ctx context.Context, after int64, limit int) ([]jpki.StatusChange, error) {
	changes, err := readAll(ctx, r, scanChange, `SELECT seq, issuer, serial, state, reason, cause, since, version, partition, not_after FROM status_log
		WHERE seq > CASE WHEN EXISTS (SELECT 1 FROM status_log WHERE seq = $3) THEN CAST($4 AS BIGINT) ELSE CAST($1 AS BIGINT) END ORDER BY seq LIMIT $2`, after, limit, int64(fencePosition), int64(fencePosition-1))
	if n := len(changes); err == nil && n > 0 && changes[n-1].Seq == fencePosition {
		return nil, errFenced()
	}
	return changes, err
}

// Listed returns every certificate of an issuer that is suspended or revoked, in serial order: those of one partition,
// or all when partition is empty.
func (r *StatusReader) Listed(ctx context.Context, issuer jpki.IssuerID, partition string) ([]jpki.StatusChange, error) {
	if err := r.admit(ctx); err != nil {
		return nil, err
	}
	return readAll(ctx, r, scanChange,
		`SELECT 0, issuer, serial, state, reason, cause, since, version, partition, not_after FROM certificate_status
		  WHERE issuer = $1 AND state <> 'good' AND (partition = $2 OR $2 = '') ORDER BY serial`, issuer.String(), partition)
}

// Partitions returns the CRL partitions in which an issuer has certificates.
func (r *StatusReader) Partitions(ctx context.Context, issuer jpki.IssuerID) ([]string, error) {
	return readAll(ctx, r, scanString, `SELECT DISTINCT partition FROM certificate_status WHERE issuer = $1 ORDER BY partition`, issuer.String())
}

// StatusOf returns one certificate's status; [jpki.UnknownCertificate] when the number was never given out.
func (r *StatusReader) StatusOf(ctx context.Context, id jpki.CertID) (jpki.StatusChange, error) {
	if err := r.admit(ctx); err != nil {
		return jpki.StatusChange{}, err
	}
	c, err := statusOf(ctx, r.db, id, "")
	return c, r.d.classify(ctx, err)
}

// readAll is queryAll outside a transaction: a connection that broke meanwhile is [jpki.Unavailable] here, and the next
// call has another one.
func readAll[T any](ctx context.Context, r *StatusReader, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	out, err := queryAll(ctx, r.db, scan, query, args...)
	return out, r.d.classify(ctx, err)
}

func statusOf(ctx context.Context, q querier, id jpki.CertID, lock string) (jpki.StatusChange, error) {
	c, err := scanChange(q.QueryRowContext(ctx,
		`SELECT 0, issuer, serial, state, reason, cause, since, version, partition, not_after FROM certificate_status WHERE issuer = $1 AND serial = $2`+lock,
		id.Issuer.String(), id.Serial.Bytes()))
	return c, notFound(err, jpki.UnknownCertificate)
}

// Status returns a certificate's status and locks it until the transaction ends.
func (tx *Tx) Status(id jpki.CertID) (jpki.StatusChange, error) {
	if err := tx.settle(); err != nil {
		return jpki.StatusChange{}, err
	}
	lock := tx.d.forUpdate
	if tx.readOnly {
		lock = ""
	}
	return statusOf(tx.ctx, tx.q, id, lock)
}

const insertStatus = `INSERT INTO certificate_status (issuer, serial, state, reason, cause, since, version, partition, not_after)`

var errStatusChanged = jpki.Errorf(jpki.Conflict, "the certificate's status changed meanwhile")

// AddStatus records the first status of a certificate, version 1, and appends it to the status log.
func (tx *Tx) AddStatus(c jpki.StatusChange) error {
	c.Status.Version = 1
	tx.changes = append(tx.changes, c)
	if tx.ahead != nil {
		tx.ahead.pending.statuses = append(tx.ahead.pending.statuses, changeColumns(c))
		return nil
	}
	return tx.perform(insertStatuses([][]any{changeColumns(c)}))
}

func insertStatuses(rows [][]any) task { return insert(insertStatus, "", rows, as("write statuses")) }

// SetStatus replaces a status whose version is still c.Status.Version − 1 and appends the new one to the status log;
// otherwise somebody else was first: [jpki.Conflict].
func (tx *Tx) SetStatus(c jpki.StatusChange) error {
	if done, err := tx.setAhead(c); done || err != nil {
		if err == nil {
			tx.changes = append(tx.changes, c)
		}
		return err
	}
	n, err := tx.exec(`UPDATE certificate_status SET state = $1, reason = $2, cause = $3, since = $4, version = $5
		WHERE issuer = $6 AND serial = $7 AND version = $8`,
		string(c.Status.State), int(c.Status.Reason), string(c.Status.Cause), micros(c.Status.Since), c.Status.Version,
		c.ID.Issuer.String(), c.ID.Serial.Bytes(), c.Status.Version-1)
	if err != nil {
		return fmt.Errorf("change status: %w", err)
	}
	if n != 1 {
		return errStatusChanged
	}
	tx.changes = append(tx.changes, c)
	return nil
}

func insertStatusChanges(changes []jpki.StatusChange) task {
	rows := make([][]any, len(changes))
	for i, c := range changes {
		rows[i] = append(changeColumns(c), c.Seq)
	}
	return insert(`INSERT INTO status_log (issuer, serial, state, reason, cause, since, version, partition, not_after, seq)`, "", rows, as("append to status log"))
}

func changeColumns(c jpki.StatusChange) []any {
	return []any{
		c.ID.Issuer.String(), c.ID.Serial.Bytes(), string(c.Status.State), int(c.Status.Reason), string(c.Status.Cause),
		micros(c.Status.Since), c.Status.Version, c.Partition, micros(c.NotAfter),
	}
}

func scanChange(row scanner) (c jpki.StatusChange, err error) {
	var issuer, state, cause string
	var serial []byte
	var reason int
	var since, notAfter int64
	if err = row.Scan(&c.Seq, &issuer, &serial, &state, &reason, &cause, &since, &c.Status.Version, &c.Partition, &notAfter); err != nil {
		return c, err
	}
	if c.ID, err = certID(issuer, serial); err != nil {
		return c, err
	}
	c.Status.State, c.Status.Reason, c.Status.Cause = jpki.State(state), jpki.Reason(reason), jpki.Cause(cause)
	c.Status.Since, c.NotAfter = fromMicros(since), fromMicros(notAfter)
	return c, nil
}

func certID(issuer string, serial []byte) (id jpki.CertID, err error) {
	if id.Issuer, err = jpki.ParseIssuerID(issuer); err != nil {
		return id, err
	}
	id.Serial, err = jpki.SerialFromBytes(serial)
	return id, err
}

func scanString(row scanner) (s string, err error) { return s, row.Scan(&s) }
