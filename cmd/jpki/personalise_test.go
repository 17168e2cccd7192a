package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openjpki/jpki"
	"github.com/openjpki/jpki/ca/client"
	"github.com/openjpki/jpki/cmd/internal/sandbox"
	"github.com/openjpki/jpki/hsm/card"
	"github.com/openjpki/jpki/hsm/card/reader"
	"github.com/openjpki/jpki/hsm/card/reader/readertest"
)

// nextSandbox starts a sandbox whose cards have P-384 keys, which are made in no time.
func nextSandbox(t *testing.T) sandbox.Env {
	t.Helper()
	return profiledSandbox(t, "next")
}

// profiledSandbox starts a sandbox with a profile.
func profiledSandbox(t *testing.T, profile string) sandbox.Env {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a sandbox")
	}
	dir := t.TempDir()
	p, err := launch(dir, 0, "-profile", profile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("sandbox: %s\n%s", p.cmd.ProcessState, p.out.String())
		}
	})
	env, err := sandbox.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func registerHolders(t *testing.T, env sandbox.Env, n int) (holders []string) {
	t.Helper()
	register, err := env.Register()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r := sandbox.NewResident(i)
		if err := sandbox.RegisterResident(t.Context(), register, r); err != nil {
			t.Fatal(err)
		}
		holders = append(holders, r.ID)
	}
	return holders
}

func blankCards(t *testing.T, n int) []*card.Card {
	t.Helper()
	return blankCardsFor(t, card.P384, n)
}

func blankCardsFor(t *testing.T, keys card.KeyType, n int) (cards []*card.Card) {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		c, err := card.New(card.Config{Dir: dir, ID: fmt.Sprintf("P%03d-%s", i, rand.Text()[:6]), Keys: keys, Blank: true, Rand: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		cards = append(cards, c)
	}
	return cards
}

func newLine(t *testing.T, env sandbox.Env, socket string) (l *line, out, notes *buffer) {
	t.Helper()
	station, err := env.Station()
	if err != nil {
		t.Fatal(err)
	}
	out, notes = new(buffer), new(buffer)
	return &line{
		station: station, socket: socket, pause: 50 * time.Millisecond, out: out, notes: notes,
		pins: map[jpki.Kind]string{jpki.CardSign: sandbox.SignPIN, jpki.CardAuth: sandbox.AuthPIN},
	}, out, notes
}

// checkCards looks at the cards' files and at the authority's record: each card has its own holder's certificates, once, and is closed.
func checkCards(t *testing.T, env sandbox.Env, cards []*card.Card, out string, holders []string) {
	t.Helper()
	station, err := env.Station()
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]string{}
	for text := range strings.Lines(out) {
		id, holder, _ := strings.Cut(strings.TrimSpace(text), " ")
		if served[holder] != "" {
			t.Errorf("holder %s got cards %s and %s", holder, served[holder], id)
		}
		served[holder] = id
	}
	for _, h := range holders {
		if served[h] == "" {
			t.Errorf("holder %s got no card", h)
		}
	}
	for _, c := range cards {
		if blank, err := c.Blank(); err != nil || blank {
			t.Errorf("card %s is blank: %v, %v", c.ID(), blank, err)
		}
		for kind, pin := range map[jpki.Kind]string{jpki.CardSign: sandbox.SignPIN, jpki.CardAuth: sandbox.AuthPIN} {
			der, err := c.Certificate(kind, pin)
			if err != nil {
				t.Errorf("card %s: %v", c.ID(), err)
			} else if len(der) == 0 {
				t.Errorf("card %s has an empty certificate", c.ID())
			}
		}
		n := 0
		for found, err := range station.Search(t.Context(), client.Search{Token: c.ID()}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; served[found.Holder] != c.ID() || found.State != jpki.Good {
				t.Errorf("card %s: a certificate of %s, %s", c.ID(), found.Holder, found.State)
			}
		}
		if n != 2 {
			t.Errorf("card %s: the authority has %d certificates", c.ID(), n)
		}
	}
}

// resources is what must not grow with the number of cards. Memory is in octets.
type resources struct {
	files, goroutines, threads, heap, memory, processes int // of this process, which is station and cards, and its children's children
	daemonFiles, daemonThreads, daemonMemory            int // of all daemons; a session with a client has a thread and a file of its daemon
}

// Memory that a process took from the system it does not always give back at once: it may grow by this much, for all cards together.
const (
	mayGrowHeap   = 2 << 20
	mayGrowMemory = 32 << 20
)

func measure(t *testing.T, daemons []*readertest.Daemon) resources {
	t.Helper()
	if _, err := os.Stat("/proc/self/statm"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("needs /proc")
	}
	entries := func(pid int, dir string) int {
		found, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, dir))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	resident := func(pid int) (pages int) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err == nil {
			_, err = fmt.Sscan(string(text), new(int), &pages)
		}
		if err != nil {
			t.Fatal(err)
		}
		return pages * os.Getpagesize()
	}
	debug.FreeOSMemory() // collects garbage first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	self := os.Getpid()
	r := resources{
		files: entries(self, "fd"), goroutines: runtime.NumGoroutine(), threads: entries(self, "task"), heap: int(m.HeapAlloc), memory: resident(self),
		processes: descendants(t, self),
	}
	for _, d := range daemons {
		r.daemonFiles += entries(d.PID(), "fd")
		r.daemonThreads += entries(d.PID(), "task")
		r.daemonMemory += resident(d.PID())
	}
	return r
}

// descendants counts the processes that a process started, and those that they did; who has ended but is not waited for is one of them.
func descendants(t *testing.T, pid int) (n int) {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		var state string
		var parent int
		_, rest, _ := strings.Cut(string(text), ") ")
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if _, scan := fmt.Sscan(rest, &state, &parent); err != nil || scan != nil {
			t.Fatalf("%s: %q", path, text)
		}
		children[parent] = append(children[parent], child)
	}
	for todo := children[pid]; len(todo) > 0; n++ {
		todo = append(todo[1:], children[todo[0]]...)
	}
	return n
}

// more names what there is more of than before. Threads of this process are Go's, which keeps them for later: they may be a few more.
func (r resources) more(before resources) (what []string) {
	for _, row := range []struct {
		name               string
		before, after, may int
	}{
		{"files", before.files, r.files, 0},
		{"goroutines", before.goroutines, r.goroutines, 0},
		{"threads", before.threads, r.threads, 8},
		{"octets of heap", before.heap, r.heap, mayGrowHeap},
		{"octets of memory", before.memory, r.memory, mayGrowMemory},
		{"processes", before.processes, r.processes, 0},
		{"files of daemons", before.daemonFiles, r.daemonFiles, 0},
		{"threads of daemons", before.daemonThreads, r.daemonThreads, 0},
		{"octets of daemons' memory", before.daemonMemory, r.daemonMemory, mayGrowHeap},
	} {
		if row.after > row.before+row.may {
			what = append(what, fmt.Sprintf("%d %s, %d before", row.after, row.name, row.before))
		}
	}
	return what
}

// settled measures when nothing has become less for a second: connections close by and by, and what they hold must not hide a leak.
func settled(t *testing.T, daemons []*readertest.Daemon) resources {
	t.Helper()
	least := measure(t, daemons)
	for since, deadline := time.Now(), time.Now().Add(patience); time.Since(since) < time.Second && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		r := measure(t, daemons)
		if r.files < least.files || r.goroutines < least.goroutines || r.processes < least.processes || r.daemonFiles < least.daemonFiles || r.daemonThreads < least.daemonThreads {
			since = time.Now()
		}
		least = r
	}
	return least
}

// What the soak counts it does see: one of each kind is left open on purpose, and let go.
func TestLeaksAreSeen(t *testing.T) {
	d := []*readertest.Daemon{readertest.Start(t)}
	before := settled(t, d)
	if more := settled(t, d).more(before); len(more) > 0 {
		t.Fatalf("without anything left open: %q", more)
	}
	for _, row := range []struct {
		sees []string
		open func() (release func())
	}{
		{[]string{" files,"}, func() func() {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return func() { _ = f.Close() }
		}},
		{[]string{" goroutines,"}, func() func() {
			end := make(chan struct{})
			go func() { <-end }()
			return func() { close(end) }
		}},
		{[]string{" octets of heap,", " octets of memory,"}, func() func() {
			kept := bytes.Repeat([]byte{1}, mayGrowMemory+mayGrowMemory/2)
			return func() { runtime.KeepAlive(kept); kept = nil }
		}},
		{[]string{" processes,"}, func() func() {
			cmd := exec.Command("sleep", "600")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		}},
		{[]string{" files of daemons,", " threads of daemons,"}, func() func() { // a session with pcscd
			c, err := reader.Dial(t.Context(), d[0].Socket)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Readers(t.Context()); err != nil {
				t.Fatal(err)
			}
			return func() { _ = c.Close() }
		}},
	} {
		release := row.open()
		more := strings.Join(settled(t, d).more(before), "; ")
		for _, what := range row.sees {
			if !strings.Contains(more, what) {
				t.Errorf("does not see%s but %q", what, more)
			}
		}
		release()
		if more := settled(t, d).more(before); len(more) > 0 {
			t.Errorf("%v: still sees %q after it was let go", row.sees, more)
		}
	}
}

// A hundred virtual cards go through six readers of three daemons. In between and after it the files, goroutines, threads, memory and processes of this
// process, which is station and cards at once, and the files, sessions and memory of the daemons are counted.
func TestPersonaliseAHundredCards(t *testing.T) {
	personaliseMany(t, nextSandbox(t), card.P384, 100, 16)
}

// The same with today's RSA-2048 keys, which cards make themselves: 12 cards, or as many as JPKI_CARDS says (`make soak-cards`).
func TestPersonaliseTodaysCards(t *testing.T) {
	n := 12
	if asked := os.Getenv("JPKI_CARDS"); asked != "" {
		var err error
		if n, err = strconv.Atoi(asked); err != nil || n < 7 || n > 10_000 {
			t.Fatal("JPKI_CARDS is a number from 7 to 10000")
		}
	}
	personaliseMany(t, profiledSandbox(t, "today"), card.RSA2048, n, 6)
}

// personaliseMany personalises n cards, and counts after as many as warm the line up.
func personaliseMany(t *testing.T, env sandbox.Env, keys card.KeyType, n, warm int) {
	t.Helper()
	d := []*readertest.Daemon{readertest.Start(t), readertest.Start(t), readertest.Start(t)}
	holders, cards := registerHolders(t, env, n), blankCardsFor(t, keys, n)
	// at personalises the cards at one daemon's readers.
	at := func(ctx context.Context, d *readertest.Daemon, holders []string, cards []*card.Card) (string, error) {
		l, out, notes := newLine(t, env, d.Socket)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		waiting := make(chan *card.Card, len(cards))
		for _, c := range cards {
			waiting <- c
		}
		close(waiting)
		var slots sync.WaitGroup
		for _, slot := range d.Slots {
			slots.Go(func() {
				f := feeder{out: new(buffer)}
				for c := range waiting {
					if err := f.show(ctx, slot, c, true); err != nil {
						t.Error(err)
					}
					time.Sleep(reader.SwapTime)
				}
			})
		}
		err := l.work(ctx, holders, filepath.Join(t.TempDir(), "journal"))
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, notes.String())
			cancel()
		}
		slots.Wait()
		l.station.CloseIdle()
		return out.String(), err
	}
	personalise := func(holders []string, cards []*card.Card) (out string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience+time.Duration(len(cards))*5*time.Second)
		defer cancel()
		parts := make([]string, len(d))
		var lines errgroup.Group
		for i := range d {
			from, to := len(cards)*i/len(d), len(cards)*(i+1)/len(d)
			lines.Go(func() (err error) {
				parts[i], err = at(ctx, d[i], holders[from:to], cards[from:to])
				return err
			})
		}
		if err := lines.Wait(); err != nil {
			t.Fatal(err)
		}
		return strings.Join(parts, "")
	}
	out := personalise(holders[:warm], cards[:warm])
	before := settled(t, d)
	start := time.Now()
	out += personalise(holders[warm:], cards[warm:])
	t.Logf("%d cards of type %v in %s", n-warm, keys, time.Since(start).Round(time.Millisecond))
	after := settled(t, d)
	t.Logf("after %d cards %+v, after %d %+v", warm, before, n, after)
	if more := after.more(before); len(more) > 0 {
		t.Errorf("left over: %q", more)
	}
	checkCards(t, env, cards, out, holders)
}

// A torn session ends in the middle of whatever it did: the power goes after so many commands.
type torn struct {
	*card.Session
	mu   sync.Mutex
	left int
	pull context.CancelFunc
}

func (s *torn) Transmit(command []byte) []byte {
	s.mu.Lock()
	s.left--
	gone := s.left < 0
	s.mu.Unlock()
	if gone {
		s.pull()
		return nil // an answer that nobody gets
	}
	return s.Session.Transmit(command)
}

// A card is pulled after one command, then after eight, and so on until it is done: it always ends with one order, and as one card. Every third time the
// station is killed too and goes on by its journal.
func TestPulledCardGoesOn(t *testing.T) {
	env := nextSandbox(t)
	d := readertest.Start(t)
	holders, cards := registerHolders(t, env, 1), blankCards(t, 1)
	c, journal := cards[0], filepath.Join(t.TempDir(), "journal")
	var l *line
	var out, notes *buffer
	var all strings.Builder
	var stop context.CancelFunc
	var done chan error
	begin := func() {
		l, out, notes = newLine(t, env, d.Socket)
		var ctx context.Context
		ctx, stop = context.WithCancel(t.Context()) //nolint:gosec // it is called before begin is called again, and at the end
		done = make(chan error, 1)
		go func(l *line) { done <- l.work(ctx, holders, journal) }(l)
	}
	begin()
	pulls, ended := 0, false
	for commands := 1; !ended; commands += 7 {
		session, err := card.NewSession(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, pull := context.WithTimeout(t.Context(), patience)
		err = reader.Slot{Addr: d.Slots[0], Card: &torn{Session: session, left: commands, pull: pull}, Off: func() bool {
			blank, err := c.Blank()
			return err == nil && !blank
		}}.Show(ctx)
		pull()
		if err != nil {
			t.Fatalf("%v\n%s", err, notes.String())
		}
		time.Sleep(reader.SwapTime)
		if pulls++; pulls%3 == 0 {
			stop()
			err, ended = <-done, false
			if err == nil {
				ended = true
			} else if !errors.Is(err, context.Canceled) {
				t.Fatalf("%v\n%s", err, notes.String())
			}
			all.WriteString(out.String())
			if !ended {
				begin()
			}
			continue
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%v\n%s", err, notes.String())
			}
			all.WriteString(out.String())
			ended = true
		default:
		}
		if commands > 500 {
			t.Fatalf("the card is never done\n%s", notes.String())
		}
	}
	stop()
	t.Logf("done after the card was put in %d times", pulls)
	if pulls < 4 {
		t.Error("the card was hardly ever pulled")
	}
	checkCards(t, env, cards, all.String(), holders)
}

// pcscd is killed while a queue is worked on; a holder whom the authority does not know, a card that is active already and a torn journal are in
// the way. The same command again has nothing left to do.
func TestPersonaliseThroughTrouble(t *testing.T) {
	env := nextSandbox(t)
	d := readertest.Start(t)
	holders, cards := registerHolders(t, env, 6), blankCards(t, 6)
	queue, journal := append([]string{"H-nobody"}, holders...), filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(journal, []byte(`{"card":"torn`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, out, notes := newLine(t, env, d.Socket)
	done := make(chan error, 1)
	go func() { done <- l.work(t.Context(), queue, journal) }()

	active, err := exec.Command("jpki", "card", "new", "-dir", filepath.Dir(env.CardDir)).Output()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := card.Open(env.CardPath(strings.TrimSpace(string(active))))
	if err != nil {
		t.Fatal(err)
	}
	f := feeder{out: new(buffer)}
	ctx, pull := context.WithCancel(t.Context())
	shown := make(chan error, 1)
	go func() { shown <- f.show(ctx, d.Slots[1], foreign, false) }()
	for deadline := time.Now().Add(patience); !strings.Contains(notes.String(), "no blank one"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("an active card is not noticed\n%s", notes.String())
		}
	}
	for i, c := range cards {
		fed := make(chan error, 1)
		go func() { fed <- f.show(t.Context(), d.Slots[0], c, true) }()
		if i%2 == 1 {
			time.Sleep(time.Duration(i) * 150 * time.Millisecond)
			d.Kill()
			d.Restart()
		}
		select {
		case err := <-fed:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatalf("card %d is not done\n%s", i, notes.String())
		}
		time.Sleep(reader.SwapTime)
	}
	if err := <-done; !errors.Is(err, errNo) {
		t.Fatalf("%v\n%s", err, notes.String())
	}
	pull()
	if err := <-shown; err != nil {
		t.Error(err)
	}
	if !strings.Contains(notes.String(), "6 of 7 cards done, 1 refused") {
		t.Errorf("notes:\n%s", notes.String())
	}
	checkCards(t, env, cards, out.String(), holders)
	again, _, notes := newLine(t, env, d.Socket)
	if err := again.work(t.Context(), queue, journal); !errors.Is(err, errNo) {
		t.Errorf("again: %v\n%s", err, notes.String())
	}
	other, _, _ := newLine(t, env, d.Socket)
	if err := other.work(t.Context(), []string{"H-other"}, journal); err == nil || errors.Is(err, errNo) {
		t.Errorf("went on with another queue's journal: %v", err)
	}
}
