package cms

import (
	"bytes"
	"errors"
	"hash/maphash"
	"sync"
)

// A Cache remembers certificates that were taken apart and their keys, so that signers who sign often, and authorities, are
// read once. It says nothing of them. It is bounded, forgets what was not asked for lately, and is safe for concurrent use.
type Cache struct {
	half       int
	seed       maphash.Seed
	mu         sync.RWMutex
	young, old map[uint64]*certificate // by a hash nobody else can compute; that the octets are the same is compared
}

// NewCache returns a cache for at most entries certificates of some 2,000 octets each.
func NewCache(entries int) (*Cache, error) {
	if entries < 2 || entries > 1<<24 {
		return nil, errors.New("a cache has 2 to 16,777,216 entries")
	}
	return &Cache{half: entries / 2, seed: maphash.MakeSeed(), young: map[uint64]*certificate{}}, nil
}

// maxRemembered is how long a certificate may be to be remembered.
const maxRemembered = 16 << 10

// certificate is parseCertificate for certificates that come again. A nil cache just parses.
func (c *Cache) certificate(der []byte) *certificate {
	if c == nil || len(der) > maxRemembered {
		return parseCertificate(der)
	}
	sum := maphash.Bytes(c.seed, der)
	c.mu.RLock()
	found, young := c.young[sum]
	if !young {
		found = c.old[sum]
	}
	c.mu.RUnlock()
	if found == nil || !bytes.Equal(found.raw, der) {
		if found = parseCertificate(bytes.Clone(der)); found == nil { // what is kept must not alias a caller's buffer
			return nil
		}
		young = false
	}
	if !young {
		c.mu.Lock()
		if len(c.young) >= c.half {
			c.old, c.young = c.young, make(map[uint64]*certificate)
		}
		c.young[sum] = found
		c.mu.Unlock()
	}
	return found
}
