package storetest

import (
	"database/sql"
	"os"
	"path/filepath"
)

// Archive has the server keep every finished segment of its write-ahead log in a folder beside its data, as deploy's
// archive_command would on another machine. It restarts the server.
func (c *Cluster) Archive() {
	c.t.Helper()
	c.must("/bin/mkdir", "-p", c.dir+"/archive")
	run(c.t, c.URL("postgres"), "ALTER SYSTEM SET archive_mode = on")
	run(c.t, c.URL("postgres"), "ALTER SYSTEM SET archive_command = 'test ! -f "+c.dir+"/archive/%f && cp %p "+c.dir+"/archive/%f'")
	c.must("pg_ctl", "-D", c.dir+"/data", "-m", "fast", "-w", "-t", "60", "stop")
	c.Start()
}

// BaseBackup takes a copy of the running server's files, from which Recover begins.
func (c *Cluster) BaseBackup() {
	c.t.Helper()
	c.must("pg_basebackup", "-D", c.dir+"/base", "-X", "none", "-c", "fast", "--no-sync", "-d", c.URL("postgres"))
}

// Now is the server's time, as recovery_target_time takes it. What was committed before is before it, what is committed
// afterwards behind it.
func (c *Cluster) Now() (at string) {
	c.t.Helper()
	db, err := sql.Open("pgx", c.URL("postgres"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRow("SELECT clock_timestamp()::text FROM pg_sleep(0.01)").Scan(&at); err != nil {
		c.t.Fatal(err)
	}
	return at
}

// SwitchLog has everything written so far archived, and waits for it.
func (c *Cluster) SwitchLog() {
	c.t.Helper()
	run(c.t, c.URL("postgres"), `DO $$
DECLARE last text := pg_walfile_name(pg_switch_wal());
BEGIN
	FOR i IN 1..600 LOOP
		PERFORM pg_stat_clear_snapshot();
		IF EXISTS (SELECT FROM pg_stat_archiver WHERE last_archived_wal >= last) THEN RETURN; END IF;
		PERFORM pg_sleep(0.1);
	END LOOP;
	RAISE EXCEPTION 'the log is not archived';
END $$`)
}

// Recover replaces the data of a stopped server by the base backup and what was archived up to a time, and starts it.
func (c *Cluster) Recover(until string) {
	c.t.Helper()
	if err := os.RemoveAll(c.dir + "/data"); err != nil {
		c.t.Fatal(err)
	}
	c.must("/bin/cp", "-a", c.dir+"/base", c.dir+"/data")
	settings := "restore_command = 'cp " + c.dir + "/archive/%f %p'\nrecovery_target_time = '" + until + "'\nrecovery_target_action = 'promote'\narchive_mode = off\n"
	f, err := os.OpenFile(filepath.Join(c.dir, "data", "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := f.WriteString(settings); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.must("/bin/touch", c.dir+"/data/recovery.signal")
	c.Start()
	run(c.t, c.URL("postgres"), `DO $$ BEGIN
		FOR i IN 1..600 LOOP
			IF NOT pg_is_in_recovery() THEN RETURN; END IF;
			PERFORM pg_sleep(0.1);
		END LOOP;
		RAISE EXCEPTION 'the server is still recovering';
	END $$`)
}
