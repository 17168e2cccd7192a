package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A result is what a client saw, and what it cost the server.
type result struct {
	Requests, Failed int
	Rate             float64 // requests per second
	P50, P99         float64 // microseconds
	perCPU           float64
}

// wire returns all requests as they go over the connection.
func wire(method string) ([][]byte, error) {
	rs, err := requests()
	if err != nil {
		return nil, err
	}
	return onWire(method, prefix, rs), nil
}

// onWire returns requests as they go over a connection to a responder that lives under a path.
func onWire(method, path string, ders [][]byte) [][]byte {
	out := make([][]byte, len(ders))
	for i, der := range ders {
		if method == "GET" {
			out[i] = fmt.Appendf(nil, "GET %s/%s HTTP/1.1\r\nHost: ocsp.example\r\n\r\n", path, url.PathEscape(base64.StdEncoding.EncodeToString(der)))
		} else {
			out[i] = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: ocsp.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", cmp.Or(path, "/"), len(der), der)
		}
	}
	return out
}

// wrk makes load with wrk, with the thousand requests.
func wrk(ctx context.Context, address, method, connections string, length time.Duration, dir string) (result, error) {
	script := filepath.Join(dir, method+".lua")
	if _, err := os.Stat(script); err != nil {
		rs, err := wire(method)
		if err != nil {
			return result{}, err
		}
		if script, err = writeScript(dir, method, rs); err != nil {
			return result{}, err
		}
	}
	return runWrk(ctx, address, script, connections, length)
}

// writeScript writes a script by which wrk sends the given octets in turn, and a file with them.
func writeScript(dir, name string, requests [][]byte) (script string, err error) {
	var b []byte
	for _, r := range requests {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(r))), r...)
	}
	octets, script := filepath.Join(dir, name+".bin"), filepath.Join(dir, name+".lua")
	if err := os.WriteFile(octets, b, 0o600); err != nil {
		return "", err
	}
	return script, os.WriteFile(script, fmt.Appendf(nil, `r={}
local f=assert(io.open(%q,"rb"))
while true do
  local h=f:read(2)
  if not h then break end
  r[#r+1]=f:read(h:byte(1)*256+h:byte(2))
end
f:close()
i=0
request=function() i=i+1; if i>#r then i=1 end; return r[i] end
done=function(s,l) io.write("result ",s.requests," ",s.duration," ",l:percentile(50)," ",l:percentile(99)," ",s.errors.connect+s.errors.read+s.errors.write+s.errors.status+s.errors.timeout,"\n") end
`, octets), 0o600)
}

func runWrk(ctx context.Context, address, script, connections string, length time.Duration) (result, error) {
	seconds := strconv.Itoa(max(1, int(length.Seconds())))
	out, err := pinned(ctx, 1, "wrk", "-t1", "-c"+connections, "-d"+seconds, "-s", script, "http://"+address+prefix).CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var r result
		var micros float64
		if n, _ := fmt.Sscanf(line, "result %d %f %f %f %d", &r.Requests, &micros, &r.P50, &r.P99, &r.Failed); n == 5 {
			r.Rate = float64(r.Requests) / micros * 1e6
			return r, nil
		}
	}
	return result{}, fmt.Errorf("wrk said something else: %s", out)
}

// driver makes load with a process of this program.
func driver(ctx context.Context, address, method, connections string, length time.Duration) (r result, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := pinned(ctx, 1, self, "fronts", "-drive", address, "-methods", method, "-connections", connections, "-length", length.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

func driveAndPrint(address, method string, connections int, length time.Duration) error {
	rs, err := wire(method)
	if err != nil {
		return err
	}
	r, err := drive(address, rs, connections, length)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// drive keeps one request under way on each connection.
func drive(address string, rs [][]byte, connections int, length time.Duration) (result, error) {
	var mu sync.Mutex
	var took []time.Duration
	var total result
	var first error
	var wg sync.WaitGroup
	start := time.Now()
	for i := range connections {
		wg.Go(func() {
			mine, failed, err := one(address, rs, i, start.Add(length))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			total.Failed += failed
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	if first != nil {
		return total, first
	}
	if len(took) == 0 {
		return total, errors.New("nothing was answered")
	}
	slices.Sort(took)
	total.Requests = len(took)
	total.Rate = float64(len(took)) / time.Since(start).Seconds()
	total.P50 = float64(took[len(took)/2].Microseconds())
	total.P99 = float64(took[len(took)*99/100].Microseconds())
	return total, nil
}

// one drives one connection. Answers are all as long as the first.
func one(address string, rs [][]byte, from int, until time.Time) (took []time.Duration, failed int, err error) {
	c, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	in := bufio.NewReaderSize(c, 4<<10)
	for i := from * 37; ; i++ {
		begin := time.Now()
		if begin.After(until) {
			return took, failed, nil
		}
		if _, err := c.Write(rs[i%len(rs)]); err != nil {
			return took, failed, err
		}
		ok, err := readAnswer(in)
		if err != nil {
			return took, failed, err
		}
		if !ok {
			failed++
		}
		took = append(took, time.Since(begin))
	}
}

// driveClosing sends one request on each connection, for a server that serves no second, with so many connections at once. It
// never opens one that it does not use.
func driveClosing(address string, rs [][]byte, connections int, length time.Duration) (total result, err error) {
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	start := time.Now()
	for i := range connections {
		wg.Go(func() {
			for n := i; time.Since(start) < length; n += connections {
				begin := time.Now()
				ok, failed := exchangeOnce(address, rs[n%len(rs)])
				mu.Lock()
				took = append(took, time.Since(begin))
				if !ok {
					total.Failed++
				}
				err = failed
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if total.Requests = len(took); total.Failed == total.Requests {
		return total, fmt.Errorf("nothing was answered: %w", err)
	}
	slices.Sort(took)
	total.Rate = float64(total.Requests-total.Failed) / time.Since(start).Seconds()
	total.P50 = float64(took[len(took)/2].Microseconds())
	total.P99 = float64(took[len(took)*99/100].Microseconds())
	return total, nil
}

// runClosing makes load with a process of this program, on wrk's processor. What it sends is beside the script.
func runClosing(ctx context.Context, address, script string, length time.Duration) (r result, err error) {
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := pinned(ctx, 1, self, "be", "closing-client", address, strings.TrimSuffix(script, ".lua")+".bin", length.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

func driveClosingAndPrint(address, file, seconds string) error {
	length, err := time.ParseDuration(seconds)
	if err != nil {
		return err
	}
	octets, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var rs [][]byte
	for len(octets) >= 2 {
		n := 2 + int(binary.BigEndian.Uint16(octets))
		rs, octets = append(rs, octets[2:n]), octets[n:]
	}
	r, err := driveClosing(address, rs, 2, length)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func exchangeOnce(address string, request []byte) (ok bool, err error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return false, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(request); err != nil {
		return false, err
	}
	return readAnswer(bufio.NewReader(c))
}

func readAnswer(in *bufio.Reader) (ok bool, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	ok = bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) || bytes.HasPrefix(line, []byte("HTTP/1.0 200 "))
	length := 0
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return ok, err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return false, err
			}
		}
	}
	_, err = in.Discard(length)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return ok, err
}
