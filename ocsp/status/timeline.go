package status

import (
	"errors"
	"fmt"
	"time"
)

// errRewritten is why a log is not followed: it is not the one that was read.
var errRewritten = errors.New("the log is no longer what it was")

// beginAnew reads a log that is no longer what it was from its beginning, if it says itself that it was restored and goes on
// by a new timeline (jpki.StatusChange.NewTimeline) since our view was last confirmed: then whoever restored it has also seen
// to it that it knows all that we know. Any other log, such as that of a former primary, is refused as before. Our own view
// goes on aging meanwhile, and look-ups say Unavailable before they would say what the old log said.
func (x *Index) beginAnew(cause error) error {
	x.mu.Lock()
	trial, confirmed := x.trial, x.opened
	x.mu.Unlock()
	if w := x.Watermark(); !w.IsZero() {
		confirmed = w
	}
	asked := x.cfg.Now()
	if trial || confirmed.IsZero() || asked.Before(x.anew) {
		return cause
	}
	defer func() { // a long log that is refused must not be read all the time
		x.anew = x.cfg.Now().Add(10 * x.cfg.Now().Sub(asked))
	}()
	cfg := x.cfg
	cfg.Snapshot, cfg.Wake = "", nil
	other, err := New(cfg)
	if err != nil {
		return errors.Join(cause, err)
	}
	if err := other.catchUp(); err != nil {
		return fmt.Errorf("%w; read anew: %w", cause, err)
	}
	other.afterMerge()
	if !other.timeline.Add(time.Second).After(confirmed) { // it is told to the second
		return cause
	}
	x.merging.Lock() // no merge of the old view may end in the new one
	defer x.merging.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.view.Store(other.view.Load())
	x.count.Store(other.count.Load())
	x.last, x.timeline = other.last, other.timeline
	x.saved, x.savedAt = 0, time.Time{} // the file, if there is one, is of the old log: to be replaced at once
	x.watermark.Store(other.watermark.Load())
	return nil
}
