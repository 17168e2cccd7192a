package reader

import (
	"net"
	"syscall"
)

// acknowledgeNow asks for the next acknowledgements without delay. The system forgets it from time to time; and if it refuses, things are slow.
func acknowledgeNow(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) })
}
