//go:build !linux

package harness

import "syscall"

// diesWithParent has no counterpart here; see parent_linux.go.
func diesWithParent() *syscall.SysProcAttr { return nil }
