package crl

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// makeFile writes, beside path, a file that can take its place, and returns its name. One left by a crash is started afresh.
func makeFile(path string, write func(io.Writer) error) (name string, err error) {
	dir := filepath.Dir(path)
	name = filepath.Join(dir, "."+filepath.Base(path)+".new")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // as above
	if err != nil {
		return "", err
	}
	b := bufio.NewWriterSize(f, bufferSize)
	err = firstError(func() error { return write(b) }, b.Flush, f.Sync)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(name))
	}
	return name, nil
}

// syncDir makes a change of names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir waits until the caller alone may publish; closing the result ends that. The lock belongs to the open file, so
// goroutines exclude each other as processes do, and it ends with the process however that ends.
func lockDir(ctx context.Context, dir string) (io.Closer, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, d.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), d.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// makeDir makes a directory durably, if there is none.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // CRLs are public; another user serves them
		return err
	}
	return syncDir(filepath.Dir(dir))
}
