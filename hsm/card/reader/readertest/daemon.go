// Package readertest runs a pcscd with virtual readers for one test.
//
// A [Daemon] has its socket, its readers and their ports to itself, so tests run beside each other and beside the machine's own pcscd. It speaks to
// nobody: that is what package reader and other programs do, which find it by [Daemon.Env].
// Start at Start.
package readertest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	program = "/usr/sbin/pcscd"
	driver  = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
)

// patience bounds every wait. Nothing is asserted about speed.
const patience = time.Minute

// A Daemon is a running pcscd.
type Daemon struct {
	Socket string
	Slots  []string // host:port of each virtual reader's card
	tb     testing.TB
	dir    string
	cmd    *exec.Cmd
	ended  chan struct{}
}

// Start runs a pcscd with two readers, which is all that vpcd has in one process, until the test ends. Without pcscd or vpcd the test is skipped or, with JPKI_TEST_REQUIRE=1,
// fails.
func Start(tb testing.TB) *Daemon {
	tb.Helper()
	for _, path := range []string{program, driver} {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
				tb.Fatalf("pcscd and vpcd are required: %v", err)
			}
			tb.Skip("pcscd and vpcd are not installed")
		}
	}
	d := &Daemon{tb: tb, dir: tb.TempDir()}
	d.Socket = filepath.Join(d.dir, "pcscd.comm")
	if err := os.Mkdir(filepath.Join(d.dir, "readers"), 0o700); err != nil {
		tb.Fatal(err)
	}
	port := freePair(tb)
	for p := port; p < port+2; p++ {
		d.Slots = append(d.Slots, net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
	}
	config := fmt.Sprintf("FRIENDLYNAME \"Virtual\"\nDEVICENAME /dev/null:%d\nLIBPATH %s\nCHANNELID %d\n", port, driver, port)
	if err := os.WriteFile(filepath.Join(d.dir, "readers", "vpcd"), []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Kill)
	d.Restart()
	return d
}

// Env is the environment of programs that are to find this pcscd, and no files of this user.
func (d *Daemon) Env() []string {
	return append(os.Environ(), "PCSCLITE_CSOCK_NAME="+d.Socket, "HOME="+d.dir, "LANG=C")
}

// PID is the process's.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Restart starts pcscd again after [Daemon.Kill]. It gets its socket as systemd would give it, which is the only way to choose one.
func (d *Daemon) Restart() {
	d.tb.Helper()
	_ = os.Remove(d.Socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.Socket, Net: "unix"})
	if err != nil {
		d.tb.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer func() { _ = l.Close() }()
	file, err := l.File()
	if err != nil {
		d.tb.Fatal(err)
	}
	defer file.Close()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.tb.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -f -c "$1"`, program, filepath.Join(d.dir, "readers"))
	d.cmd.ExtraFiles = []*os.File{file}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.tb.Fatal(err)
	}
	cmd, ended := d.cmd, make(chan struct{})
	d.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
	// Up once every reader listens for its card.
	for deadline := time.Now().Add(patience); !d.listens(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-ended:
			d.tb.Fatalf("pcscd ended: %s\n%s", cmd.ProcessState, d.Log())
		default:
		}
		if time.Now().After(deadline) {
			d.tb.Fatalf("pcscd keeps us waiting\n%s", d.Log())
		}
	}
}

// listens reports whether nobody else can listen where the readers do. To connect would be to put in a card.
func (d *Daemon) listens() bool {
	for _, slot := range d.Slots {
		if l, err := net.Listen("tcp", slot); err == nil {
			_ = l.Close()
			return false
		}
	}
	return true
}

// Kill ends pcscd at once, as kill -9 does; its socket stays behind without anybody listening.
func (d *Daemon) Kill() {
	if d.cmd == nil || d.cmd.Process == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// Log is what pcscd said.
func (d *Daemon) Log() string {
	text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(text)
}

// freePair finds two neighbouring ports, below the range from which outgoing connections take theirs.
func freePair(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := 10_000 + 2*rand.IntN(11_000)
		free := true
		for p := port; p < port+2; p++ {
			l, err := net.Listen("tcp", ":"+strconv.Itoa(p))
			if err != nil {
				free = false
				continue
			}
			_ = l.Close()
		}
		if free {
			return port
		}
	}
	tb.Fatal("no free ports")
	return 0
}
