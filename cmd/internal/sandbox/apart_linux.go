package sandbox

import "syscall"

// apart keeps a terminal's Ctrl-C from a child process, whose end is ours to choose, and ends it with us.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
