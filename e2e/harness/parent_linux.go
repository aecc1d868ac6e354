package harness

import "syscall"

// diesWithParent makes the kernel end a process whose parent has gone, so that
// a test binary that is killed or times out leaves nothing behind.
func diesWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
