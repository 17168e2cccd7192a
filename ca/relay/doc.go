// Package relay carries the authority's status log to responders through Redis, within milliseconds of a commit.
//
// It owns [Relay], which runs beside the authority's database and copies committed entries, [Follower], which gives a
// responder the copy as a log of its own, and [Logs], which reads from the next log when one does not answer.
// It decides nothing and keeps nothing: Redis holds the last part of the log, and what is not there is read from the database.
// It trusts no clock and no age of anything in Redis. A view is complete because the relay has read the log to its end
// after it saw a number that the follower had just drawn; a MAC shows that a relay wrote what is read.
// A Relay and a Follower are run by one goroutine each; StatusChanges is safe for concurrent use and fails rather than
// leave out an entry.
// Start at Follower.StatusChanges and, on the other side, Relay.advance.
package relay
