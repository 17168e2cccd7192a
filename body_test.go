package jpki_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/openjpki/jpki"
)

func TestReadBody(t *testing.T) {
	for _, c := range []struct {
		body io.Reader
		want jpki.Problem
	}{
		{strings.NewReader(""), ""},
		{strings.NewReader("1234"), ""},
		{strings.NewReader("12345"), jpki.TooLarge},
		{io.MultiReader(strings.NewReader("12"), iotest.ErrReader(errors.New("reset"))), jpki.Malformed},
	} {
		_, err := jpki.ReadBody(httptest.NewRequest(http.MethodPost, "/", c.body), 4)
		if (err == nil) != (c.want == "") || err != nil && !errors.Is(err, c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// The answer about a body that is too large reaches a client that sends all of it before it reads.
func TestReadBodyLetsTheClientReadTheRefusal(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := jpki.ReadBody(r, 1024); err != nil {
			jpki.WriteProblem(w, r, err)
		}
	}))
	defer srv.Close()
	body := make([]byte, 2<<20)
	_, _ = rand.Read(body)
	for range 20 {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		request := "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2097152\r\n\r\n"
		if _, err := conn.Write(append([]byte(request), body...)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || !bytes.Contains(answer, []byte("413")) {
			t.Fatalf("%v %.80q", err, answer)
		}
		_ = conn.Close()
	}
}
