package store

import "fmt"

// JumpFeeds has every operator's feed go on behind a position, within [Store.UpdateFenced]: those behind its end may have been told
// before the database was restored, with another meaning, so nobody is told any of them again. Who comes with an older position is told that
// it is not kept, as after [Tx.ForgetChanges].
func (tx *Tx) JumpFeeds(behind int64) (feeds int64, err error) {
	if _, err := tx.LockChanges(); err != nil {
		return 0, err
	}
	if feeds, err = tx.exec(`UPDATE relying_operator SET change_seq = CASE WHEN change_seq < $1 THEN $1 ELSE change_seq + 1 END`, behind); err != nil {
		return 0, fmt.Errorf("jump feeds: %w", err)
	}
	if _, err := tx.exec(`UPDATE relying_operator SET forgotten_seq = change_seq`); err != nil {
		return 0, fmt.Errorf("jump feeds: %w", err)
	}
	_, err = tx.exec(`DELETE FROM relying_change`)
	return feeds, err
}
