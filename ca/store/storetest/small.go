package storetest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"testing"
)

// NewSmallCluster makes a server of which all data, or only the write-ahead log, lie on a small disk of their own, to be
// filled: a tmpfs in a mount namespace that ends with the test. Root makes one, and others may where the kernel lets them
// have user namespaces; elsewhere the test is skipped, or fails where JPKI_TEST_REQUIRE is 1.
func NewSmallCluster(t *testing.T, onlyLog bool) *Cluster {
	t.Helper()
	bin := programs(t)
	var holder *exec.Cmd
	t.Cleanup(func() { // behind the cluster's own, which stops the server
		if holder != nil {
			_ = holder.Process.Kill()
			_ = holder.Wait()
		}
	})
	c := newCluster(t, bin)
	c.small = c.dir + "/data"
	unshare, options := []string{"unshare", "--mount"}, "size=96m,mode=0700"
	c.flags, c.set = []string{"--wal-segsize=1"}, " -c min_wal_size=2MB -c max_wal_size=4MB -c restart_after_crash=off"
	if onlyLog {
		c.small = c.dir + "/wal"
		options = "size=32m,mode=0700"
		c.flags = append(c.flags, "--waldir="+c.small)
		c.set += " -c wal_keep_size=1GB" // or finished segments would be used again
	}
	if err := os.Mkdir(c.small, 0o700); err != nil {
		t.Fatal(err)
	}
	nsenter := []string{"nsenter", "--mount"}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		options += ",uid=" + u.Uid
	} else {
		unshare = append(unshare, "--user", "--map-current-user", "--keep-caps")
		nsenter = append(nsenter, "--user", "--preserve-credentials")
	}
	holder = exec.Command(unshare[0], append(unshare[1:], "sh", "-c", `mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && exec sleep 3600`, "sh", options, c.small)...)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	holder.Stderr = &said
	if err = holder.Start(); err == nil {
		_, err = fmt.Fscanln(out, new(string))
	}
	if err != nil {
		if holder.Process != nil {
			_ = holder.Wait()
		}
		holder = nil
		if os.Getenv("JPKI_TEST_REQUIRE") == "1" {
			t.Fatalf("no disk of one's own: %v\n%s", err, &said)
		}
		t.Skipf("no disk of one's own: %v", err)
	}
	c.enter = append(nsenter, "--target", fmt.Sprint(holder.Process.Pid), "--")
	c.init()
	return c
}

// Fill leaves no room on a small cluster's disk.
func (c *Cluster) Fill() {
	c.t.Helper()
	_, _ = c.run("/bin/sh", "-c", `cat /dev/zero > "$1"`, "sh", c.small+"/filler") // ends when the disk is full
}

// Clear makes room again, and starts the server if it had given up, which it then reports.
func (c *Cluster) Clear() (stopped bool) {
	c.t.Helper()
	c.must("/bin/rm", "-f", c.small+"/filler")
	_, err := c.run("pg_ctl", "-D", c.dir+"/data", "status")
	if err != nil {
		c.Start()
	}
	return err != nil
}
