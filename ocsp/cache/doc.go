// Package cache keeps signed OCSP answers where the next look is cheap: in the process and in Redis.
//
// It owns [Memory] and [Redis], two shelves of one shape: Get by key, Put with a time to live.
// It knows nothing of OCSP: keys and values are opaque, and whoever takes a value off a shelf checks it. It holds nothing
// that cannot be made again, so it may lose everything at any time.
// Trouble of any kind is a miss: a shelf never returns an error and never keeps a caller longer than its deadline.
// Both are safe for concurrent use and are closed when done with; a closed shelf is empty.
// Start at Redis.Get; how look-ups are gathered and failures are kept away is in lane.go.
package cache
