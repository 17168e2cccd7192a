//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package front

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// A socket reads and writes a TCP connection by recv and send. Both are asked not to wait, so the Go scheduler need not be
// told of them as of system calls that may; and they pass by the file system's layer, which read and write go through.
// Together that is a seventh of a whole exchange. Waiting, deadlines and closing remain the business of package net.
type socket struct {
	raw   syscall.RawConn
	buf   []byte
	n     int
	errno syscall.Errno
	recv  func(fd uintptr) bool // kept, or each call would allocate one
	send  func(fd uintptr) bool
}

// direct returns the fastest way to read and write a connection: itself, if it is not TCP.
func direct(c net.Conn) io.ReadWriter {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	s := &socket{raw: raw}
	s.recv = func(fd uintptr) bool {
		s.transfer(syscall.SYS_RECVFROM, fd, s.buf, syscall.MSG_DONTWAIT)
		return s.errno != syscall.EAGAIN
	}
	s.send = func(fd uintptr) bool {
		for s.n < len(s.buf) {
			before := s.n
			s.transfer(syscall.SYS_SENDTO, fd, s.buf[before:], syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
			if s.errno != 0 {
				s.n = before
				return s.errno != syscall.EAGAIN
			}
			s.n += before
		}
		return true
	}
	return s
}

func (s *socket) transfer(trap, fd uintptr, b []byte, flags uintptr) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0) //nolint:gosec // as package syscall does it
		if errno != syscall.EINTR {
			s.n, s.errno = int(n), errno
			return
		}
	}
}

func (s *socket) Read(b []byte) (int, error) {
	s.buf, s.n, s.errno = b, 0, 0
	err := s.raw.Read(s.recv)
	s.buf = nil
	switch {
	case err != nil:
		return 0, err
	case s.errno != 0:
		return 0, s.errno
	case s.n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	return s.n, nil
}

func (s *socket) Write(b []byte) (int, error) {
	s.buf, s.n, s.errno = b, 0, 0
	err := s.raw.Write(s.send)
	s.buf = nil
	if err == nil && s.errno != 0 {
		err = s.errno
	}
	return s.n, err
}
