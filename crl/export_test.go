package crl

// ReadTimes is what servers and publishers read off the beginning of a file.
var ReadTimes = readTimes
