package crl

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/openjpki/jpki"
)

// MaxShards is into how many shards an issuer's certificates can be spread.
const MaxShards = 1000

// Shard names one of the partitions that say nothing of a holder: "h0" to "h999". Into which one a certificate falls is
// drawn once, when it is issued, and stands in it; a name says nothing of how many there are, so their number may change.
func Shard(n int) string { return "h" + strconv.Itoa(n) }

// ParseShard reads exactly the form that Shard writes.
func ParseShard(s string) (n int, ok bool) {
	digits, h := strings.CutPrefix(s, "h")
	n, err := strconv.Atoi(digits)
	return n, h && err == nil && n >= 0 && n < MaxShards && Shard(n) == s
}

// ShardOf returns the shard of a serial number among count: each is as likely as any other, and whoever chose the number
// could not choose it.
func ShardOf(serial jpki.Serial, count int) string {
	sum := sha256.Sum256(serial.Bytes())
	return Shard(int(binary.BigEndian.Uint64(sum[:8]) % uint64(count)))
}
