package ocsp

// element splits in after the one element that it has to begin with. Lengths are of the shortest form and below 64 KiB.
func element(in []byte, tag byte) (body, rest []byte, ok bool) {
	if len(in) < 2 || in[0] != tag {
		return nil, nil, false
	}
	n, head := int(in[1]), 2
	switch {
	case n < 0x80:
	case n == 0x81 && len(in) > 2 && in[2] >= 0x80:
		n, head = int(in[2]), 3
	case n == 0x82 && len(in) > 3 && in[2] != 0:
		n, head = int(in[2])<<8|int(in[3]), 4
	default:
		return nil, nil, false
	}
	if len(in)-head < n {
		return nil, nil, false
	}
	return in[head : head+n], in[head+n:], true
}

// A simple request asks about one certificate and says nothing else.
type simple struct {
	certID []byte // DER
	issuer []byte // what stands in the CertID before the serial: algorithm and hashes
	serial []byte // contents of the INTEGER, in its shortest form
}

// readSimple reads a request of the kind that nearly all are of, without allocating. It refuses what [ParseRequest] would
// refuse; what it refuses is for ParseRequest.
func readSimple(der []byte) (q simple, ok bool) {
	for range 4 { // OCSPRequest, TBSRequest, requestList, Request
		var rest []byte
		if der, rest, ok = element(der, tagSequence); !ok || len(rest) != 0 {
			return q, false
		}
	}
	q.certID = der
	_, rest, ok := element(der, tagSequence)
	if !ok || len(rest) != 0 {
		return q, false
	}
	q.issuer, q.serial, ok = splitCertID(der)
	return q, ok
}

// splitCertID takes a CertID apart. Whether its beginning names an issuer is for the table of those that we know.
func splitCertID(der []byte) (issuer, serial []byte, ok bool) {
	body, _, ok := element(der, tagSequence)
	if !ok {
		return nil, nil, false
	}
	rest := body
	for _, tag := range []byte{tagSequence, tagOctets, tagOctets} {
		if _, rest, ok = element(rest, tag); !ok {
			return nil, nil, false
		}
	}
	issuer = body[:len(body)-len(rest)]
	serial, rest, ok = element(rest, tagInteger)
	if !ok || len(rest) != 0 || len(serial) == 0 || len(serial) > 1 && (serial[0] == 0 && serial[1] < 0x80 || serial[0] == 0xff && serial[1] >= 0x80) {
		return nil, nil, false
	}
	return issuer, serial, true
}
