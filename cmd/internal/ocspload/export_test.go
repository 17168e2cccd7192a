package ocspload

import (
	"io"
	"time"
)

// A Response is what the reader found, copied.
type Response struct {
	Code  int
	Body  string
	Size  int
	Close bool
}

// ReadResponses reads responses until the first error.
func ReadResponses(in io.Reader) (out []Response, err error) {
	r := newReader(in)
	for {
		resp, err := r.next()
		if err != nil {
			return out, err
		}
		out = append(out, Response{resp.code, string(resp.body), resp.size, resp.close})
		if resp.close {
			return out, nil
		}
	}
}

// Measure counts latencies.
func Measure(latencies []time.Duration) *Histogram {
	var r recorder
	for _, d := range latencies {
		r.add(d)
	}
	h := new(Histogram)
	h.merge(&r)
	return h
}
