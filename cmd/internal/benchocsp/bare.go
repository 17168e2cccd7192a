package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openjpki/jpki/ocsp"
)

// serveBare is as little as a responder on Redis can be: a goroutine for each connection, no more of HTTP and of OCSP read than
// it takes to find the serial number, and rueidis, which sends look-ups of all goroutines together. It has no limits, no
// time-outs and no index of statuses, authenticates nothing that Redis says and counts nothing.
func serveBare(ctx context.Context, address, store string) error {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{store}, DisableCache: true})
	if err != nil {
		return err
	}
	defer client.Close()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = c.Close() }()
			_ = serveBareConn(ctx, c, client) // the client went
		}()
	}
}

// serveBareConn serves one connection.
func serveBareConn(ctx context.Context, c net.Conn, client rueidis.Client) error {
	in, out, der := make([]byte, 0, 4<<10), make([]byte, 0, 4<<10), make([]byte, 0, 1<<10)
	for {
		n, err := c.Read(in[len(in):cap(in)])
		if err != nil {
			return err
		}
		in = in[:len(in)+n]
		out = out[:0]
		rest := in
		for {
			request, length, err := bareRequest(rest, der)
			if err != nil {
				return err
			}
			if length == 0 {
				break
			}
			rest = rest[length:]
			serial, err := bareSerial(request)
			if err != nil {
				return err
			}
			answer, err := client.Do(ctx, client.B().Get().Key("peer:"+hex.EncodeToString(serial)).Build()).AsBytes()
			if err != nil {
				return err
			}
			out = append(out, "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\nCache-Control: max-age=60, public, no-transform, must-revalidate\r\nContent-Length: "...)
			out = append(strconv.AppendInt(out, int64(len(answer)), 10), "\r\nDate: "...)
			out = append(append(time.Now().UTC().AppendFormat(out, http.TimeFormat), "\r\n\r\n"...), answer...)
		}
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return err
			}
		}
		in = in[:copy(in, rest)]
	}
}

// bareRequest returns the OCSP request of the first HTTP request and the length of that; 0 if it is not there as a whole. What
// it decodes goes to der.
func bareRequest(in, der []byte) (request []byte, length int, err error) {
	end := bytes.Index(in, []byte("\r\n\r\n")) + 4
	if end < 4 {
		return nil, 0, nil
	}
	if path, ok := bytes.CutPrefix(in[:end], []byte("GET "+prefix)); ok {
		path, _, _ = bytes.Cut(path, []byte(" "))
		request, err = ocsp.DecodeGET(path, der)
		return request, end, err
	}
	_, text, ok := bytes.Cut(in[:end], []byte("Content-Length: "))
	text, _, _ = bytes.Cut(text, []byte("\r"))
	n, err := strconv.Atoi(string(text))
	switch {
	case !ok || err != nil || n < 0:
		return nil, 0, fmt.Errorf("no length: %w", err)
	case len(in) < end+n:
		return nil, 0, nil
	}
	return in[end : end+n], end + n, nil
}

// bareSerial returns the serial number of the first certificate asked about.
func bareSerial(der []byte) ([]byte, error) {
	in := cryptobyte.String(der)
	for range 5 { // OCSPRequest, TBSRequest, requestList, Request, CertID
		if !in.ReadASN1(&in, asn1.SEQUENCE) {
			return nil, errors.New("no request")
		}
	}
	var serial cryptobyte.String
	if !in.SkipASN1(asn1.SEQUENCE) || !in.SkipASN1(asn1.OCTET_STRING) || !in.SkipASN1(asn1.OCTET_STRING) || !in.ReadASN1(&serial, asn1.INTEGER) {
		return nil, errors.New("no serial number")
	}
	return serial, nil
}
