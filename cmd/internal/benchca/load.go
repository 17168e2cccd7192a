package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// A server is an HTTP server under load: ours or a peer's.
type server struct {
	address string // host:port
	tls     *tls.Config
	pid     int
}

// post encodes a request whole, before any clock starts.
func (s *server) post(path, key string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, s.address, len(body))
	if key != "" {
		fmt.Fprintf(&b, "Idempotency-Key: %s\r\n", key)
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// load sends the requests over so many connections that stay open, the same way to whichever server, for as long as
// patience lasts; each that is answered well brings so many certificates. Connecting is not counted.
func (s *server) load(ctx context.Context, requests [][]byte, clients, certificates int, patience time.Duration) (sample, error) {
	conns := make([]*conn, clients)
	defer func() {
		for _, c := range conns {
			c.close()
		}
	}()
	var g errgroup.Group
	for i := range conns {
		g.Go(func() (err error) { conns[i], err = s.dial(ctx); return err })
	}
	if err := g.Wait(); err != nil {
		return sample{}, err
	}
	cpu := cpuOf(s.pid)
	out, err := drive(len(requests), clients, patience, func(client, i int) (err error) {
		if c := conns[client]; c.over { // a server that ends a connection gets a new one
			c.close()
			again, err := s.dial(ctx)
			if err != nil {
				return err
			}
			conns[client] = again
		}
		return conns[client].ask(requests[i])
	})
	out.cpu, out.certs = cpuOf(s.pid)-cpu, out.certs*certificates
	return out, err
}

// drive has clients do n works, and says how long it took and each of them. A work that fails is counted; if more than a
// tenth fail, that is an error.
func drive(n, clients int, patience time.Duration, work func(client, i int) error) (sample, error) {
	var next atomic.Int64
	var g sync.WaitGroup
	took, failed := make([][]time.Duration, clients), make([][]error, clients)
	start := time.Now()
	for c := range clients {
		g.Go(func() {
			for time.Since(start) < patience {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				begin := time.Now()
				if err := work(c, i); err != nil {
					failed[c] = append(failed[c], err)
					continue
				}
				took[c] = append(took[c], time.Since(begin))
			}
		})
	}
	g.Wait()
	out := sample{wall: time.Since(start)}
	var first error
	for c := range clients {
		out.latencies = append(out.latencies, took[c]...)
		if out.failed += len(failed[c]); first == nil && len(failed[c]) > 0 {
			first = failed[c][0]
		}
	}
	out.certs = len(out.latencies)
	if 10*out.failed > out.certs {
		return out, fmt.Errorf("%d of %d requests failed; the first: %w", out.failed, out.failed+out.certs, first)
	}
	return out, nil
}

// A conn is a connection of HTTP/1.1, kept open. It is lean so that the load leaves the processors to the server.
type conn struct {
	c    net.Conn
	r    *bufio.Reader
	body bytes.Buffer
	over bool // nothing more can be sent
}

func (s *server) dial(ctx context.Context) (*conn, error) {
	var c net.Conn
	var err error
	if s.tls != nil {
		c, err = (&tls.Dialer{Config: s.tls}).DialContext(ctx, "tcp", s.address)
	} else {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
	}
	if err != nil {
		return nil, err
	}
	return &conn{c: c, r: bufio.NewReaderSize(c, 16<<10)}, nil
}

func (c *conn) close() {
	if c != nil {
		_ = c.c.Close()
	}
}

// maxAnswer bounds what is read of an answer, in octets.
const maxAnswer = 1 << 20

// ask sends a request and reads the answer, which must hold a certificate.
func (c *conn) ask(request []byte) error {
	c.over = true // unless all goes well
	if err := c.c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := c.c.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	c.body.Reset()
	if _, err := c.body.ReadFrom(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return err
	}
	c.over = resp.Close
	if resp.StatusCode/100 != 2 || !bytes.Contains(c.body.Bytes(), []byte("BEGIN CERTIFICATE")) {
		return fmt.Errorf("%s: %s", resp.Status, c.body.Bytes()[:min(c.body.Len(), 300)])
	}
	return nil
}
