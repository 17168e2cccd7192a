package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	methods     = []string{"POST", "GET"}
	connections = []string{"50", "200"}
)

// What the rows are called.
const (
	hit         = "jpki-status, cache hit"
	fromRedis   = "jpki-status, all from Redis"
	live        = "jpki-status, all signed"
	nginxMemory = "nginx, from memory"
	nginxFile   = "nginx, a file"
	cfssl       = "cfssl 1.6.5, from a file"
	plainRedis  = "net/http + go-redis"
	bareRedis   = "goroutines + rueidis"
	openSSL     = "openssl ocsp -multi 2"
	otherHit    = "other build, cache hit"
	otherLive   = "other build, all signed"
)

// A row is who was asked, and how.
type row struct {
	what, method, connections string
}

// A sample is one measurement of a row.
type sample struct {
	result
	meant float64 // share of a server's answers, if it is ours, that came from where the row says
	void  bool    // too few did: it does not count
	at    int     // the round
}

// A size is how many certificates there are in one part of the bench on scale.
type size struct {
	count         int
	hot, cold     *server
	known, random *set
}

// A bench is one run.
type bench struct {
	rounds      int
	short, full bool
	status      string // the program
	other       string // another build of it, if it is to be compared
	only        string // of which rows the names contain this
	profile     string

	dir                    string // temporary
	authority              *authority
	set, peerSet           *set
	nginxMemory, nginxFile *server
	hit, fromRedis, live   *server
	otherHit, otherLive    *server
	cfssl                  *server
	plainRedis, bareRedis  *server // on the same Redis
	sizes                  []*size
	signer                 *signer
	rates                  []rates
	samples                map[row][]sample
	order                  []row
	ends                   []func() error
}

func newBench(args []string) *bench {
	b := &bench{samples: map[row][]sample{}}
	flags := flag.NewFlagSet("benchocsp", flag.ExitOnError)
	flags.IntVar(&b.rounds, "rounds", 0, "how often everything is measured, and the table shows medians; 0 means 5, or 1 with -short")
	flags.BoolVar(&b.short, "short", false, "without the peers that have to be built, and a million certificates at most")
	flags.BoolVar(&b.full, "full", false, "a hundred million certificates, too: 5 GiB of memory and a minute more")
	flags.StringVar(&b.status, "status", "bin/jpki-status", "the server that is measured")
	flags.StringVar(&b.other, "other", "", "another build of it, which is asked the same beside it")
	flags.StringVar(&b.only, "only", "", "measure only the rows in whose names this is")
	flags.StringVar(&b.profile, "cpuprofile", "", "servers of ours write CPU profiles to files whose names begin so")
	_ = flags.Parse(args) // exits
	switch {
	case b.rounds > 0:
	case b.short:
		b.rounds = 1
	default:
		b.rounds = 5
	}
	return b
}

// peersScript builds the peers into peersFolder.
const peersScript, peersFolder = "deploy/test/bench-peers.sh", "var/bench"

// run does it all. Steps:
//  1. make the authority, start every server, warm up, and check all answers
//  2. rounds, in each of which everything is measured once
//  3. the tables and the targets
func (b *bench) run(ctx context.Context) (err error) {
	defer func() {
		for _, end := range slices.Backward(b.ends) {
			err = errors.Join(err, end())
		}
	}()
	// 1.
	start := time.Now()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "ready after %s\n", time.Since(start).Round(time.Second))
	// 2.
	begin := busy()
	for round := range b.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, b.rounds)
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	others := b.others(begin, busy())
	// 3.
	fmt.Printf("%d processors, %s, load by wrk, medians of %d round(s) of a second each; other work took %.0f %% of the machine meanwhile\n\n", runtime.NumCPU(), runtime.Version(), b.rounds, 100*others)
	b.table(os.Stdout)
	fmt.Println()
	for _, t := range b.targets() {
		fmt.Println(t)
	}
	return nil
}

// atEnd has something done when the run has ended, the last thing first.
func (b *bench) atEnd(f func() error) { b.ends = append(b.ends, f) }

// prepare gets everything ready that is not measured.
func (b *bench) prepare(ctx context.Context) (err error) {
	if _, err := exec.LookPath("wrk"); err != nil {
		return errors.New("wrk is not installed (deploy/test/install-bench.sh)")
	}
	if b.status, err = filepath.Abs(b.status); err != nil {
		return err
	}
	if b.profile != "" {
		if b.profile, err = filepath.Abs(b.profile); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp("", "benchocsp-"); err != nil {
		return err
	}
	b.atEnd(func() error { return os.RemoveAll(b.dir) })
	if b.authority, err = newAuthority(b.dir); err != nil {
		return err
	}
	snapshot, err := b.addSize(ctx, asked)
	if err != nil {
		return err
	}
	b.set = b.sizes[0].known
	b.hit, b.live = b.sizes[0].hot, b.sizes[0].cold
	answers, err := b.set.check(ctx, "POST", b.hit.address, b.hit.path, 1)
	if err != nil {
		return err
	}
	if err := b.startNginxes(ctx, len(answers[0])); err != nil {
		return err
	}
	server, err := b.startRedis(ctx)
	if err != nil {
		return err
	}
	if b.fromRedis, err = b.ours(ctx, "from-redis", snapshot, 0, server.address); err != nil {
		return err
	}
	b.fromRedis.pids = append(b.fromRedis.pids, server.pids...)
	for range 2 { // signed, then found
		if _, err := b.set.check(ctx, "POST", b.fromRedis.address, b.fromRedis.path, 1); err != nil {
			return err
		}
	}
	if err := b.startPlain(ctx, server, answers); err != nil {
		return err
	}
	if err := b.startOther(ctx, snapshot); err != nil {
		return err
	}
	if err := b.startSigner(ctx); err != nil {
		return err
	}
	if err := b.startPeers(ctx, answers); err != nil {
		return err
	}
	if b.only != "" {
		return nil
	}
	counts := []int{1e6}
	if !b.short {
		counts = append(counts, 1e7)
	}
	if b.full {
		counts = append(counts, 1e8)
	}
	for _, n := range counts {
		if _, err := b.addSize(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// addSize makes a snapshot of so many certificates and starts two servers on it, one of which keeps its answers.
func (b *bench) addSize(ctx context.Context, count int) (snapshot string, err error) {
	name := fmt.Sprint("of-", count)
	fmt.Fprintf(os.Stderr, "%d certificates\n", count)
	snapshot = filepath.Join(b.dir, name)
	plan := newPlan(count + count/20) // some cannot be asked about by every peer
	if err := plan.Add(snapshot, snapshot+".json", time.Now(), nil); err != nil {
		return "", err
	}
	z := &size{count: count}
	step := plan.Count / asked
	if z.known, err = newSet(b.authority, plan, b.dir, name+"-known", prefix, func(i int) int { return i * step }); err != nil {
		return "", err
	}
	if z.random, err = newSet(b.authority, plan, b.dir, name+"-random", prefix, func(i int) int {
		return int(uint32(i+1)*2654435761) % plan.Count // all over the place, and in no order
	}); err != nil {
		return "", err
	}
	if z.hot, err = b.ours(ctx, name+"-hot", snapshot, 256, ""); err != nil {
		return "", err
	}
	if z.cold, err = b.ours(ctx, name+"-cold", snapshot, 0, ""); err != nil {
		return "", err
	}
	if count != asked { // what is here is asked once in any case
		if _, err := z.known.check(ctx, "POST", z.hot.address, z.hot.path, 1); err != nil {
			return "", err
		}
	}
	b.sizes = append(b.sizes, z)
	return snapshot, nil
}

// startPlain puts the answers into Redis for the responders of nobody's product, and starts those.
func (b *bench) startPlain(ctx context.Context, store *server, answers [][]byte) error {
	client := redis.NewClient(&redis.Options{Addr: store.address})
	defer func() { _ = client.Close() }()
	p := client.Pipeline()
	for i, q := range b.set.questions {
		p.Set(ctx, peerKey(q.serial), answers[i], time.Hour)
	}
	if _, err := p.Exec(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name, s := range map[string]**server{"redis-responder": &b.plainRedis, "bare-responder": &b.bareRedis} {
		address, _, err := freeAddress(ctx)
		if err != nil {
			return err
		}
		*s = &server{address: address, path: prefix, pids: store.pids}
		if err := b.serve(ctx, name, *s, self, "be", name, address, store.address); err != nil {
			return err
		}
	}
	return nil
}

// startOther starts another build of our server, if there is one, as it was started itself.
func (b *bench) startOther(ctx context.Context, snapshot string) (err error) {
	if b.other == "" {
		return nil
	}
	ours := b.status
	defer func() { b.status = ours }()
	if b.status, err = filepath.Abs(b.other); err != nil {
		return err
	}
	if b.otherHit, err = b.ours(ctx, "other-hot", snapshot, 256, ""); err != nil {
		return err
	}
	if _, err := b.set.check(ctx, "POST", b.otherHit.address, b.otherHit.path, 1); err != nil {
		return err
	}
	b.otherLive, err = b.ours(ctx, "other-cold", snapshot, 0, "")
	return err
}

// startPeers starts those that have to be built, and gets ready what asks them at the root.
func (b *bench) startPeers(ctx context.Context, answers [][]byte) error {
	b.peerSet = &set{authority: b.authority, questions: b.set.questions, scripts: map[string]string{}}
	if err := b.peerSet.write(b.dir, "peers", ""); err != nil {
		return err
	}
	if err := b.writeIndex(b.set); err != nil {
		return err
	}
	if b.short {
		return nil
	}
	build := exec.CommandContext(ctx, peersScript, peersFolder, "cfssl")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the peers (-short goes without): %w", err)
	}
	program, err := filepath.Abs(filepath.Join(peersFolder, "cfssl"))
	if err != nil {
		return err
	}
	b.cfssl, err = b.startCFSSL(ctx, program, answers)
	return err
}

// A signer is the process that measures signatures.
type signer struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func (b *bench) startSigner(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := pinned(ctx, 0, self, "be", "signer", b.dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.atEnd(func() error { return errors.Join(in.Close(), cmd.Wait()) })
	b.signer = &signer{in, bufio.NewReader(out)}
	return nil
}

func (s *signer) measure() (r rates, err error) {
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		return r, err
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		return r, fmt.Errorf("measure signatures: %w", err)
	}
	_, err = fmt.Sscan(line, &r.bare, &r.fixed, &r.answers)
	return r, err
}

// A duty is one measurement of a round.
type duty struct {
	row
	server *server
	set    *set
	from   []string // where answers of ours come from
	closes bool     // the server serves one request a connection
}

// round measures everything once. Who goes first changes from round to round.
func (b *bench) round(ctx context.Context, round int) error {
	for _, n := range connections {
		for _, method := range methods {
			r, err := b.signer.measure()
			if err != nil {
				return err
			}
			b.rates = append(b.rates, r)
			at := func(what string) row { return row{what, method, n} }
			duties := []duty{
				{row: at(nginxMemory), server: b.nginxMemory, set: b.set},
				{row: at(hit), server: b.hit, set: b.set, from: []string{"near"}},
				{row: at(live), server: b.live, set: b.set, from: []string{"signed", "shared"}},
				{row: at(fromRedis), server: b.fromRedis, set: b.set, from: []string{"far", "shared"}},
				{row: at(plainRedis), server: b.plainRedis, set: b.set},
				{row: at(bareRedis), server: b.bareRedis, set: b.set},
			}
			if method == "GET" { // a file cannot be posted to
				duties = append(duties, duty{row: at(nginxFile), server: b.nginxFile, set: b.set})
			}
			if b.other != "" {
				duties = append(duties, duty{row: at(otherHit), server: b.otherHit, set: b.set, from: []string{"near"}},
					duty{row: at(otherLive), server: b.otherLive, set: b.set, from: []string{"signed", "shared"}})
			}
			if b.cfssl != nil {
				duties = append(duties, duty{row: at(cfssl), server: b.cfssl, set: b.peerSet})
			}
			duties = slices.DeleteFunc(duties, func(d duty) bool { return !strings.Contains(d.what, b.only) })
			for i := range duties {
				if err := b.measure(ctx, round, &duties[(i+round)%len(duties)]); err != nil {
					return err
				}
			}
		}
	}
	if strings.Contains(openSSL, b.only) {
		if err := b.measureOpenSSL(ctx, round); err != nil {
			return err
		}
	}
	if b.only != "" {
		return nil
	}
	for i := range b.sizes {
		z := b.sizes[(i+round)%len(b.sizes)]
		if err := b.measure(ctx, round, &duty{row: row{hotOf(z.count), "POST", "50"}, server: z.hot, set: z.known, from: []string{"near"}}); err != nil {
			return err
		}
		if err := b.measure(ctx, round, &duty{row: row{coldOf(z.count), "POST", "50"}, server: z.cold, set: z.random, from: []string{"signed", "shared"}}); err != nil {
			return err
		}
	}
	return nil
}

func hotOf(n int) string  { return fmt.Sprintf("of %.0e, 10,000 hot", float64(n)) }
func coldOf(n int) string { return fmt.Sprintf("of %.0e, any, signed", float64(n)) }

// measure asks one server for a second, after a look whether it answers rightly.
func (b *bench) measure(ctx context.Context, round int, d *duty) error {
	if d.server != b.nginxMemory && d.server != b.nginxFile {
		if _, err := d.set.check(ctx, d.method, d.server.address, d.server.path, asked/20); err != nil {
			return d.fail(err)
		}
	}
	return b.load(ctx, round, d, time.Second)
}

func (d *duty) fail(err error) error {
	return fmt.Errorf("%s, %s, %s connections: %w", d.what, d.method, d.connections, err)
}

func (b *bench) load(ctx context.Context, round int, d *duty, length time.Duration) error {
	var before, after map[string]float64
	var err error
	if d.from != nil {
		if before, err = d.server.sources(ctx); err != nil {
			return d.fail(err)
		}
	}
	cpu, err := d.server.cpu()
	if err != nil {
		return d.fail(err)
	}
	s := sample{at: round}
	if d.closes {
		s.result, err = runClosing(ctx, d.server.address, d.set.scripts[d.method], length)
	} else {
		s.result, err = runWrk(ctx, d.server.address, d.set.scripts[d.method], d.connections, length)
	}
	if err != nil {
		return d.fail(err)
	}
	used, err := d.server.cpu()
	if err != nil {
		return d.fail(err)
	}
	s.perCPU = float64(s.Requests-s.Failed) / max((used-cpu).Seconds(), 1e-3)
	if d.from != nil {
		if after, err = d.server.sources(ctx); err != nil {
			return d.fail(err)
		}
		of := func(names ...string) (n float64) {
			for _, name := range names {
				n += after[name] - before[name]
			}
			return n
		}
		s.meant = of(d.from...) / max(1, of("near", "far", "signed", "shared"))
		s.void = s.meant < 0.95
		s.Failed += int(of("tryLater", "internalError", "unauthorized", "malformedRequest", "unknown"))
	}
	if _, known := b.samples[d.row]; !known {
		b.order = append(b.order, d.row)
	}
	b.samples[d.row] = append(b.samples[d.row], s)
	return nil
}

// measureOpenSSL looks whether one "openssl ocsp" answers rightly and asks another for two seconds.
func (b *bench) measureOpenSSL(ctx context.Context, round int) error {
	s, stop, err := b.startOpenSSL(ctx)
	if err != nil {
		return err
	}
	_, err = b.peerSet.check(ctx, "POST", s.address, s.path, asked/20)
	if err := errors.Join(err, stop()); err != nil {
		return fmt.Errorf("%s: %w", openSSL, err)
	}
	if s, stop, err = b.startOpenSSL(ctx); err != nil {
		return err
	}
	return errors.Join(b.load(ctx, round, &duty{row: row{openSSL, "POST", "2"}, server: s, set: b.peerSet, closes: true}, 2*time.Second), stop())
}

// A meter is the processor time that the machine has spent, and what this process's children that ended spent of it.
type meter struct {
	all, ended time.Duration
	at         time.Time
}

func busy() meter {
	m := meter{at: time.Now(), ended: endedCPU()}
	text, _ := os.ReadFile("/proc/stat")
	var user, nice, system, idle, wait, irq, soft int64
	if n, _ := fmt.Sscanf(string(text), "cpu %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &soft); n == 7 {
		m.all = time.Duration(user+nice+system+irq+soft) * (time.Second / 100)
	}
	return m
}

// others is which share of the machine was taken by what is neither a server of ours nor wrk.
func (b *bench) others(from, to meter) float64 {
	mine := to.ended - from.ended
	seen := map[int]bool{}
	for _, s := range append([]*server{b.otherHit, b.otherLive, b.nginxMemory, b.fromRedis, b.plainRedis, b.bareRedis, b.cfssl}, b.servers()...) {
		if s == nil {
			continue
		}
		for _, pid := range s.pids {
			if !seen[pid] {
				t, _ := cpuTime(pid)
				mine += t
			}
			seen[pid] = true
		}
	}
	return max(0, (to.all-from.all-mine).Seconds()/(to.at.Sub(from.at).Seconds()*float64(runtime.NumCPU())))
}

func (b *bench) servers() (out []*server) {
	for _, z := range b.sizes {
		out = append(out, z.hot, z.cold)
	}
	return out
}

// endedCPU is the processor time of children that have ended.
func endedCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u) // cannot fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
