package path

import (
	"bytes"
	"errors"
	"hash/maphash"
	"sync"
)

// verified names a signature that was found right: SHA-256 of all that was signed, and of the signer's key.
type verified [2][32]byte

// A Cache remembers certificates that were read and signatures that were right. It says nothing of validity, which is
// judged anew each time, so nothing in it goes stale. It is bounded: when full, it forgets what was not asked for lately.
type Cache struct {
	signatures   generations[verified, struct{}]
	certificates generations[uint64, *Certificate] // by a hash nobody else can compute; that the octets are the same is compared
	seed         maphash.Seed
}

// NewCache returns a cache for at most entries signatures (some 70 octets each) and as many certificates (some 2,000).
func NewCache(entries int) (*Cache, error) {
	if entries < 2 || entries > 1<<24 {
		return nil, errors.New("a cache has 2 to 16,777,216 entries")
	}
	c := &Cache{seed: maphash.MakeSeed()}
	c.signatures.half, c.certificates.half = entries/2, entries/2
	return c, nil
}

// Certificate is [ParseCertificate] for certificates that come again and again. A nil cache just parses.
func (c *Cache) Certificate(raw []byte) (*Certificate, error) {
	if c == nil {
		return ParseCertificate(raw)
	}
	sum := maphash.Bytes(c.seed, raw)
	if cert, ok := c.certificates.get(sum); ok && bytes.Equal(cert.Raw, raw) {
		return cert, nil
	}
	cert, err := ParseCertificate(append([]byte(nil), raw...)) // what is kept must not alias a caller's buffer
	if err == nil {
		c.certificates.put(sum, cert)
	}
	return cert, err
}

func (c *Cache) knows(id verified) bool {
	if c == nil {
		return false
	}
	_, ok := c.signatures.get(id)
	return ok
}

func (c *Cache) remember(id verified) {
	if c != nil {
		c.signatures.put(id, struct{}{})
	}
}

// generations is a map that forgets its older half when the younger one is full.
type generations[K comparable, V any] struct {
	half       int
	mu         sync.RWMutex
	young, old map[K]V
}

func (g *generations[K, V]) get(k K) (V, bool) {
	g.mu.RLock()
	v, ok := g.young[k]
	if ok {
		g.mu.RUnlock()
		return v, true
	}
	v, ok = g.old[k]
	g.mu.RUnlock()
	if ok {
		g.put(k, v)
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.young == nil || len(g.young) >= g.half {
		g.old, g.young = g.young, make(map[K]V)
	}
	g.young[k] = v
}
