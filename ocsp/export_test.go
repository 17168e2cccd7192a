package ocsp

// DecodePath is for the fuzz test of the one parser that has no exported face.
var DecodePath = decodePath
