package ocsp_test

import (
	"context"
	"sync"
	"time"

	"github.com/openjpki/jpki/ocsp"
)

// A shelf is the simplest there can be; tests have it lie.
type shelf struct {
	mu     sync.Mutex
	values map[string][]byte
	get    func(key string, value []byte, ok bool) ([]byte, bool) // if set, has the last word
	put    func(key string, value []byte) []byte                  // if set, says what is kept
	slow   chan struct{}                                          // if set, Get waits for it or the end of its context
}

func (s *shelf) Get(ctx context.Context, key string) ([]byte, bool) {
	if s.slow != nil {
		select {
		case <-s.slow:
		case <-ctx.Done():
			return nil, false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	if s.get != nil {
		return s.get(key, v, ok)
	}
	return v, ok
}

func (s *shelf) Put(key string, value []byte, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	if s.put != nil {
		value = s.put(key, value)
	}
	s.values[key] = value
}

func (s *shelf) len() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.values) }

func withNear(_ *world, c *ocsp.Config) { c.Near = new(shelf) }
