package crl

// ReadTimes is what servers and publishers read off the beginning of a file.
var ReadTimes = readTimes

// CheckStream is the half of Check that alone sees long lists.
var CheckStream = checkStream

// AppendTime encodes the time of an entry.
var AppendTime = appendTime
