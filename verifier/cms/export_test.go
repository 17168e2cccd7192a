package cms

// Definite is what brings BER into a form that can be read as DER.
var Definite = definite

// QuickAndFull returns what the quick look at an encoding and the full one say of it: how many octets its first element takes,
// and whether it stays as it is. The quick one may say no to anything.
func QuickAndFull(raw []byte) (quick int, quickOK bool, full int, fullOK bool) {
	quick, quickOK = isDefinite(raw)
	p := plan{}
	full, _, err := p.measure(raw, 0)
	return quick, quickOK, full, err == nil && (len(p.lengths) == 0 || p.lengths[0] == verbatim)
}

// UTCTime is the quick reader of signing times.
var UTCTime = utcTime

// Remembered counts what a cache has.
func Remembered(c *Cache) int { return len(c.young) + len(c.old) }
