//go:build !linux

package sandbox

import "syscall"

// apart keeps a terminal's Ctrl-C from a child process, whose end is ours to choose.
func apart() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
