// Command benchapi measures what the verifier's API costs beside the library that it serves.
//
// It starts a server in a process of its own, with evidence in SQLite, another with evidence in PostgreSQL if JPKI_TEST_POSTGRES names
// one, and sends them raw signatures and CMS documents, one by one and in batches; in the same rounds it gives the same to the library.
// Both are counted in processor time, the server's read from the kernel, so neither the sender nor a disk that is slow to sync counts,
// nor PostgreSQL's own processes; SQLite works in the server's. Statuses come from memory in both. It judges nothing but its target
// and exits with 0 when that is missed. make bench-api runs it. Start at run.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openjpki/jpki/verifier"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 5 && os.Args[1] == "serve" { // what the bench starts for itself
		err = serve(ctx, os.Args[2], os.Args[3], os.Args[4])
	} else {
		b := bench{}
		flag.IntVar(&b.rounds, "rounds", 3, "how often everything is measured; the table shows medians")
		flag.DurationVar(&b.slice, "slice", 2*time.Second, "how long one measurement lasts")
		flag.StringVar(&b.profile, "profile", "", "a `folder` for the servers' processor profiles, one a database")
		flag.Parse() // exits
		err = b.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchapi:", err)
		os.Exit(1)
	}
}

type bench struct {
	rounds  int
	slice   time.Duration
	profile string

	w       *world
	servers []*server
}

// A server is a process with the API and a database.
type server struct {
	name string
	url  string
	pid  int
	stop func()
}

// target is what the API reaches of the library's rate per core.
const target = 0.8

// A row is one kind of message: by the library, and as requests or lines to a path.
type row struct {
	name    string
	library func(context.Context, int) error
	line    func(int) []byte
	samples map[string][]float64
}

// The ways of asking, in the order of the columns.
var ways = []struct{ name, token, path string }{
	{"batch", keepsToken, "/v1/verifications/batch"},
	{"batch, nothing kept", plainToken, "/v1/verifications/batch"},
	{"one by one", keepsToken, "/v1/verifications"},
	{"one by one, nothing kept", plainToken, "/v1/verifications"},
}

// run measures everything. Steps:
//  1. make keys and messages, which the server's process reads
//  2. start the servers
//  3. rounds: the library, then each way, one right after the other
func (b *bench) run(ctx context.Context) error {
	// 1.
	dir, err := os.MkdirTemp("", "benchapi")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if b.w, err = newWorld(); err != nil {
		return err
	}
	if err := b.w.save(dir); err != nil {
		return err
	}
	// 2.
	databases := [][2]string{{"SQLite", "sqlite:" + filepath.Join(dir, "verifier.db")}}
	if url := os.Getenv("JPKI_TEST_POSTGRES"); url != "" {
		databases = append(databases, [2]string{"PostgreSQL", url})
	}
	for _, d := range databases {
		s, err := b.start(ctx, dir, d[0], d[1])
		if err != nil {
			return fmt.Errorf("start server with %s: %w", d[0], err)
		}
		defer s.stop()
		b.servers = append(b.servers, s)
	}
	// 3.
	library, err := b.w.verifier()
	if err != nil {
		return err
	}
	rows := []*row{
		{name: "raw signature, RSA-2048", line: b.w.rawLine, library: func(ctx context.Context, i int) error {
			res, err := library.Signature(ctx, b.w.raw(i))
			return good(res.OK(), err)
		}},
		{name: "CAdES B-B, 3 KB, RSA-2048", line: b.w.cmsLine, library: func(ctx context.Context, i int) error {
			res, err := library.Document(ctx, verifier.DocumentInput{Data: b.w.documents[i%messages]})
			return good(res.OK(), err)
		}},
	}
	for range b.rounds {
		for _, r := range rows {
			if err := b.measure(ctx, r); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	b.report(rows)
	return nil
}

// start starts a server and waits for its address.
func (b *bench) start(ctx context.Context, dir, name, database string) (*server, error) {
	profile := ""
	if b.profile != "" {
		profile = filepath.Join(b.profile, strings.ToLower(name)+".pprof")
	}
	cmd := exec.CommandContext(ctx, os.Args[0], "serve", dir, database, profile) //nolint:gosec // itself
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{name: name, pid: cmd.Process.Pid, stop: func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }}
	if s.url, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		s.stop()
		return nil, err
	}
	s.url = strings.TrimSpace(s.url)
	return s, nil
}

func good(ok bool, err error) error {
	if err == nil && !ok {
		err = errors.New("not verified")
	}
	return err
}

// measure adds a sample of every way to a row, in verdicts per processor second.
func (b *bench) measure(ctx context.Context, r *row) error {
	if r.samples == nil {
		r.samples = map[string][]float64{}
	}
	own, err := b.library(ctx, r.library)
	if err != nil {
		return err
	}
	r.samples["library"] = append(r.samples["library"], own)
	for _, on := range b.servers {
		for _, way := range ways {
			send := b.requests
			if strings.HasSuffix(way.path, "/batch") {
				send = b.batch
			}
			used, err := cpuOf(on.pid)
			if err != nil {
				return err
			}
			n, err := send(ctx, on.url+way.path, way.token, r.line)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", on.name, way.name, err)
			}
			now, err := cpuOf(on.pid)
			if err != nil {
				return err
			}
			r.samples[on.name+way.name] = append(r.samples[on.name+way.name], float64(n)/(now-used))
		}
	}
	return nil
}

// library returns the library's rate with every processor at work, as the server has it: two that share a core slow each other down.
func (b *bench) library(ctx context.Context, verify func(context.Context, int) error) (float64, error) {
	end, used, workers := time.Now().Add(b.slice), ownCPU(), runtime.GOMAXPROCS(0)
	counts, failures := make([]int, workers), make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for ; time.Now().Before(end) && failures[w] == nil; counts[w]++ {
				failures[w] = verify(ctx, w+workers*counts[w])
			}
		})
	}
	all.Wait()
	n := 0
	for _, c := range counts {
		n += c
	}
	return float64(n) / (ownCPU() - used), errors.Join(failures...)
}

// senders ask one by one at the same time.
const senders = 16

// requests sends one by one and returns how many verdicts came.
func (b *bench) requests(ctx context.Context, url, token string, line func(int) []byte) (int, error) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	defer client.CloseIdleConnections()
	end := time.Now().Add(b.slice)
	var all sync.WaitGroup
	counts, failures := make([]int, senders), make([]error, senders)
	for s := range senders {
		all.Go(func() {
			for i := s; time.Now().Before(end); i += senders {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(line(i)))
				if err != nil {
					failures[s] = err
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				req.Header.Set("Content-Type", "application/json")
				resp, err := client.Do(req)
				if err != nil {
					failures[s] = err
					return
				}
				answer, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || !bytes.Contains(answer, []byte(`"indication":"TOTAL-PASSED"`)) {
					failures[s] = fmt.Errorf("%w %.200s", err, answer)
					return
				}
				counts[s]++
			}
		})
	}
	all.Wait()
	n := 0
	for _, c := range counts {
		n += c
	}
	return n, errors.Join(failures...)
}

// batch sends lines and returns how many verdicts came.
func (b *bench) batch(ctx context.Context, url, token string, line func(int) []byte) (int, error) {
	body, in := io.Pipe()
	go func() {
		out := bufio.NewWriterSize(in, 64<<10)
		for i, end := 0, time.Now().Add(b.slice); time.Now().Before(end) && i < 90_000; i++ {
			if _, err := out.Write(append(slices.Clip(line(i)), '\n')); err != nil {
				break
			}
		}
		_ = in.CloseWithError(out.Flush())
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	n := 0
	for r := bufio.NewReaderSize(resp.Body, 1<<20); ; n++ {
		answer, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(answer) == 0 {
			return n, nil
		}
		if err != nil || !bytes.Contains(answer, []byte(`"indication":"TOTAL-PASSED"`)) {
			return n, fmt.Errorf("%w %.200s", err, answer)
		}
	}
}

func (b *bench) report(rows []*row) {
	fmt.Printf("%d processors, %s, medians of %d round(s) of %v, verdicts per processor second\n\n", runtime.NumCPU(), runtime.Version(), b.rounds, b.slice)
	ratio := func(r *row, samples string) float64 {
		var out []float64
		for i, v := range r.samples[samples] {
			out = append(out, v/r.samples["library"][i])
		}
		return median(out)
	}
	for _, r := range rows {
		fmt.Printf("%-26s %-36s %7.0f\n", r.name, "library", median(r.samples["library"]))
		for _, on := range b.servers {
			for _, way := range ways {
				fmt.Printf("%-26s %-36s %7.0f  %.2f of the library\n", "", on.name+", "+way.name, median(r.samples[on.name+way.name]), ratio(r, on.name+way.name))
			}
		}
	}
	fmt.Println()
	for _, r := range rows {
		for _, on := range b.servers {
			verdict, got := "missed", ratio(r, on.name+ways[0].name)
			if got >= target {
				verdict = "met"
			}
			fmt.Printf("target %s, %s, %s: %.2f of the library, wanted %.2f: %s\n", r.name, on.name, ways[0].name, got, target, verdict)
		}
	}
}

func median(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// ownCPU returns what this process has used of the processors, in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// cpuOf returns what another process has used: fields 14 and 15 of its stat, in hundredths of a second (proc(5)).
func cpuOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, errors.New("/proc has another form here")
	}
	user, err := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100, errors.Join(err, err2)
}

func line(members map[string]string) []byte {
	out, _ := json.Marshal(members) // strings
	return out
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
