package ocsp

// DecodePath is [DecodeGET] for a path that is a string.
func DecodePath(path string) ([]byte, error) { return decodePath(path, nil) }
