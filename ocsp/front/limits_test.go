package front_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openjpki/jpki/ocsp"
	"github.com/openjpki/jpki/ocsp/front"
)

// TestMain lets the test program be a client of its own with many connections: one process may not have enough files.
func TestMain(m *testing.M) {
	if address := os.Getenv("FRONT_TEST_IDLE_CLIENT"); address != "" {
		if err := idleClient(address, os.Args[1]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// until waits for something that must come about; if it never does, the test hangs and says where.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never came about: %s", what)
}

// ended reports whether the other side has ended the connection without a word.
func ended(c net.Conn) bool {
	n, err := c.Read(make([]byte, 1))
	return n == 0 && err != nil && !os.IsTimeout(err)
}

func TestByteByByte(t *testing.T) {
	_, address := start(t, front.Config{})
	raw := post("mumble") + "GET /ocsp/MAYwBDACMAA= HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab" +
		"POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nmu\r\n4\r\nmble\r\n0\r\nA: b\r\n\r\n" + post("mumble")
	c := dial(t, address)
	in := bufio.NewReader(c)
	go func() {
		for i := range raw {
			_, _ = io.WriteString(c, raw[i:i+1])
			if i%7 == 0 {
				time.Sleep(time.Millisecond) // so that they do come one by one
			}
		}
	}()
	for i, want := range []string{ok, "get true request 3006300430023000 none-match \"\" since \"\" address \"127.0.0.1\" certificate ", ok, ok} {
		if a := readAnswer(t, in, "POST"); a.Body != want {
			t.Errorf("%d: %q", i, a.Body)
		}
	}
}

// A request must arrive as a whole in time, however its octets are spread; a connection that waits may wait longer.
func TestSlowClients(t *testing.T) {
	s, address := start(t, front.Config{Arrive: 200 * time.Millisecond, Idle: time.Hour})
	patient := dial(t, address)
	in := bufio.NewReader(patient)
	fmt.Fprint(patient, post("mumble"))
	readAnswer(t, in, "POST")
	for name, beginning := range map[string]string{
		"head":        "POST /ocsp HTTP/1.1\r\n",
		"body":        "POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"chunks":      "POST /ocsp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n",
		"second head": post("mumble") + "POST /ocsp HTTP/1.1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, address)
			go func() {
				for _, err := io.WriteString(c, beginning); err == nil; _, err = io.WriteString(c, "a") {
					time.Sleep(10 * time.Millisecond)
				}
			}()
			in := bufio.NewReader(c)
			if name == "second head" {
				readAnswer(t, in, "POST")
			}
			if a := readAnswer(t, in, "POST"); a.Code != http.StatusRequestTimeout || !a.Last {
				t.Error(a)
			}
		})
	}
	t.Run("nothing at all", func(t *testing.T) {
		t.Parallel()
		if !ended(dial(t, address)) {
			t.Error("goes on")
		}
	})
	t.Cleanup(func() {
		if n := s.Outcomes()["too-slow"]; n != 4 {
			t.Error(n)
		}
		fmt.Fprint(patient, post("mumble"))
		if a := readAnswer(t, in, "POST"); a.Body != ok {
			t.Error("who only waits was ended as well")
		}
	})
}

func TestIdleEnds(t *testing.T) {
	_, address := start(t, front.Config{Idle: 100 * time.Millisecond})
	c := dial(t, address)
	in := bufio.NewReader(c)
	fmt.Fprint(c, post("mumble"))
	readAnswer(t, in, "POST")
	if _, err := in.ReadByte(); err != io.EOF {
		t.Error(err)
	}
}

// Whoever sends and never reads is given up, and takes no more than the sockets hold.
func TestClientThatNeverReads(t *testing.T) {
	s, address := start(t, front.Config{Write: 200 * time.Millisecond})
	c := dial(t, address)
	for {
		if _, err := io.WriteString(c, post("big")); err != nil {
			break
		}
	}
	until(t, "the connection ends", func() bool { return s.Open() == 0 })
	if got := s.Outcomes(); got["not-taken"] != 1 || got["exchanged"] > 1000 {
		t.Error(got)
	}
}

func TestHalfClosed(t *testing.T) {
	s, address := start(t, front.Config{})
	if got := talk(t, address, post("mumble")+post("mumble")); codes(got) != "200 200" { // closes its half
		t.Error(codes(got))
	}
	if got := talk(t, address, post("mumble")+"POST /ocsp HTTP/1.1\r\nHo"); codes(got) != "200" {
		t.Error(codes(got))
	}
	if got := talk(t, address, strings.TrimSuffix(post("mumble"), "e")); codes(got) != "" {
		t.Error(codes(got))
	}
	until(t, "all connections end", func() bool { return s.Open() == 0 })
}

// Many requests in one go are answered in order; a wrong one ends the row, and what was answered before it arrives.
func TestPipelining(t *testing.T) {
	_, address := start(t, front.Config{})
	var raw strings.Builder
	for i := range 2000 {
		raw.WriteString(post(strconv.Itoa(i)))
	}
	raw.WriteString("POST /ocsp HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
	raw.WriteString(strings.Repeat(post("mumble"), 1000)) // which a reset would let the answers be lost for
	got := talk(t, address, raw.String())
	if len(got) != 2001 || got[2000].Code != 400 || !got[2000].Last {
		t.Fatal(len(got))
	}
	for i, a := range got[:2000] {
		if want := seen(&ocsp.Query{Request: []byte(strconv.Itoa(i)), Client: ocsp.Client{Address: "127.0.0.1"}}); a.Body != want {
			t.Fatalf("%d: %q", i, a.Body)
		}
	}
}

// Busy connections come to the gate many times over, and all of them get on.
func TestGate(t *testing.T) {
	s, address := start(t, front.Config{})
	const conns, turns = 60, 200
	errs := make(chan error, conns)
	for range conns {
		c := dial(t, address)
		go func() {
			in := bufio.NewReader(c)
			for range turns {
				if _, err := io.WriteString(c, post("mumble")); err != nil {
					errs <- err
					return
				}
				resp, err := http.ReadResponse(in, nil)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range conns {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := s.Outcomes()["exchanged"]; n != conns*turns {
		t.Errorf("%d requests were exchanged, not %d", n, conns*turns)
	}
}

func TestConnectionsOfOneAddress(t *testing.T) {
	s, address := start(t, front.Config{PerAddress: 2})
	a, b := dial(t, address), dial(t, address)
	until(t, "two are open", func() bool { return s.Open() == 2 })
	if !ended(dial(t, address)) {
		t.Error("a third may stay")
	}
	_ = a.Close()
	until(t, "one is open", func() bool { return s.Open() == 1 })
	for _, c := range []net.Conn{b, dial(t, address)} {
		fmt.Fprint(c, post("mumble"))
		if a := readAnswer(t, bufio.NewReader(c), "POST"); a.Body != ok {
			t.Error(a)
		}
	}
	if n := s.Outcomes()["too-many-from-address"]; n != 1 {
		t.Error(n)
	}
}

// When all connections are taken, one that waits has to go; one that works has not.
func TestConnectionsInAll(t *testing.T) {
	m := newMirror()
	s, address := start(t, front.Config{Connections: 2, Exchanger: m})
	working, waiting := dial(t, address), dial(t, address)
	fmt.Fprint(working, post("wait"))
	<-m.entered
	until(t, "two are open", func() bool { return s.Open() == 2 })
	third := dial(t, address)
	fmt.Fprint(third, post("wait"))
	<-m.entered
	if !ended(waiting) {
		t.Error("the one that waited goes on")
	}
	until(t, "two are open", func() bool { return s.Open() == 2 })
	if !ended(dial(t, address)) {
		t.Error("a third is served although two are at work")
	}
	close(m.release)
	for _, c := range []net.Conn{working, third} {
		if a := readAnswer(t, bufio.NewReader(c), "POST"); a.Code != 200 {
			t.Error(a)
		}
	}
	if got := s.Outcomes(); got["evicted"] != 1 || got["too-many-connections"] != 1 {
		t.Error(got)
	}
}

// Requests under way are answered, those that still come as well, each with the news that it is the last; nothing that
// was answered is lost.
func TestShutdownUnderLoad(t *testing.T) {
	s, address := start(t, front.Config{Other: http.NotFoundHandler()})
	var answered, last atomic.Uint64
	var wg sync.WaitGroup
	begun := make(chan struct{}, 1000)
	for i := range 50 {
		wg.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for n := 0; ; n++ {
				batch := 1 + i%3
				if _, err := io.WriteString(c, strings.Repeat(post("mumble"), batch)); err != nil {
					return
				}
				for range batch {
					if _, err := in.Peek(1); err != nil {
						return
					}
					if a := readAnswer(t, in, "POST"); a.Body != ok {
						t.Error(a)
					} else if answered.Add(1); a.Last {
						last.Add(1)
						return
					}
				}
				if n == 10 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range 50 {
		<-begun
	}
	handed := dial(t, address)
	fmt.Fprint(handed, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
	readAnswer(t, bufio.NewReader(handed), "GET")
	idle := dial(t, address)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if exchanged := s.Outcomes()["exchanged"]; answered.Load() != exchanged || last.Load() != 50 {
		t.Errorf("%d answers to %d requests arrived, %d of 50 clients were told that it was the last", answered.Load(), exchanged, last.Load())
	}
	if !ended(idle) || !ended(handed) || s.Open() != 0 {
		t.Error("connections that waited are still open")
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("still listens")
	}
}

func TestShutdownGivesUp(t *testing.T) {
	m := newMirror()
	defer close(m.release)
	s, address := start(t, front.Config{Exchanger: m})
	c := dial(t, address)
	fmt.Fprint(c, post("wait"))
	<-m.entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err == nil {
		t.Error("a request under way was not waited for")
	}
	if !ended(c) {
		t.Error("its connection goes on")
	}
}

// Connections that wait hold little. They are held by another process.
func TestManyIdleConnections(t *testing.T) {
	n := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(n)+200 {
		n = 2_000
		t.Logf("only %d files may be open: testing with %d connections", limit.Cur, n)
	}
	s, address := start(t, front.Config{PerAddress: n + 10, Idle: time.Hour, Arrive: time.Minute})
	memory := func() uint64 {
		runtime.GC()
		runtime.GC() // the first lets stacks shrink at the next
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := memory()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, strconv.Itoa(n))
	cmd.Env = append(os.Environ(), "FRONT_TEST_IDLE_CLIENT="+address)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "all wait" {
		t.Fatal(lines.Text())
	}
	used := memory() - before
	t.Logf("%d connections wait in %d MB, %d octets each", n, used>>20, used/uint64(n))
	if used > uint64(n)*10<<10 && !underRaceDetector { // which makes stacks larger
		t.Error("too much")
	}
	if s.Open() != n {
		t.Error(s.Open())
	}
	if got := talk(t, address, post("mumble")); codes(got) != "200" { // nobody else is kept waiting
		t.Error(codes(got))
	}
	in.Close()
	if !lines.Scan() || lines.Text() != fmt.Sprintf("%d answered again", n) {
		t.Error(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	until(t, "all connections end", func() bool { return s.Open() == 0 })
}

func idleClient(address, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, n)
	ask := func(c net.Conn) error {
		if _, err := io.WriteString(c, post("mumble")); err != nil {
			return err
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	for i := range conns {
		if conns[i], err = net.Dial("tcp", address); err != nil { //nolint:gosec // the test says where
			return err
		}
		if err := ask(conns[i]); err != nil {
			return err
		}
	}
	fmt.Println("all wait")
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		if err := ask(c); err != nil {
			return err
		}
	}
	fmt.Println(n, "answered again")
	return nil
}

// One connection may ask for OCSP and for other things, in any order; net/http serves it from the first other thing on.
func TestOtherThings(t *testing.T) {
	other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.RemoteAddr[:9], body) //nolint:gosec // no browser reads it
	})
	s, address := start(t, front.Config{Other: other, PerAddress: 1})
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	got := talk(t, address, post("mumble")+get("/crl/a//b?c")+post("mumble")+
		"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"+get("/ocsp/MAYwBDACMAA=")+"DELETE /ocsp HTTP/1.1\r\nHost: x\r\n\r\n")
	var bodies []string
	for _, a := range got[:len(got)-1] {
		bodies = append(bodies, a.Body)
	}
	want := []string{ok, "GET /crl/a//b?c 127.0.0.1 ", ok, "PUT /x 127.0.0.1 abc", "get true request 3006300430023000 none-match \"\" since \"\" address \"127.0.0.1\" certificate "}
	if strings.Join(bodies, "\n") != strings.Join(want, "\n") || got[5].Code != http.StatusMethodNotAllowed {
		t.Errorf("%q", bodies)
	}
	// It counts as a connection until it ends.
	until(t, "all connections end", func() bool { return s.Open() == 0 })
	c := dial(t, address)
	fmt.Fprint(c, get("/x"))
	readAnswer(t, bufio.NewReader(c), "GET")
	if !ended(dial(t, address)) {
		t.Error("a second connection of one address")
	}
	_ = c.Close()
	until(t, "all connections end", func() bool { return s.Open() == 0 })
	// Hostile heads are refused before anybody else sees them.
	if got := talk(t, address, "GET /crl/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"); codes(got) != "400" {
		t.Error(codes(got))
	}
}

// Files go out whole, by whatever way net/http sends them.
func TestOtherSendsFiles(t *testing.T) {
	path := t.TempDir() + "/list.crl"
	content := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	_, address := start(t, front.Config{Other: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) })})
	got := talk(t, address, "GET /list.crl HTTP/1.1\r\nHost: x\r\n\r\nGET /list.crl HTTP/1.1\r\nHost: x\r\nRange: bytes=1-3\r\n\r\n", "GET", "GET")
	if codes(got) != "200 206" || got[0].Body != content || got[1].Body != "123" {
		t.Error(codes(got))
	}
}

// Embedded, a server needs no listener; what it is not asked for goes on to the other handler.
func TestEmbedded(t *testing.T) {
	s, err := front.New(front.Config{Exchanger: newMirror(), Now: time.Now, Log: quiet, Prefix: "/ocsp"})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]int{"/ocsp": 200, "/elsewhere": 404} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, target, strings.NewReader("mumble")))
		if w.Code != want {
			t.Error(target, w.Code)
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
