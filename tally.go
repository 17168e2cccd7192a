package jpki

import (
	"sync"
	"sync/atomic"
)

// A Tally counts outcomes by label. It is what libraries keep instead of a metrics client, so that linking them
// brings none; a server turns its snapshot into metrics. Labels must come from a closed list, never from input.
// The zero value is ready; it is safe for concurrent use.
type Tally struct{ m sync.Map } // label → *atomic.Uint64

// Add counts one outcome.
func (t *Tally) Add(label string) {
	v, ok := t.m.Load(label)
	if !ok {
		v, _ = t.m.LoadOrStore(label, new(atomic.Uint64))
	}
	v.(*atomic.Uint64).Add(1)
}

// Snapshot returns the counts so far.
func (t *Tally) Snapshot() map[string]uint64 {
	out := map[string]uint64{}
	t.m.Range(func(k, v any) bool { out[k.(string)] = v.(*atomic.Uint64).Load(); return true })
	return out
}
