package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// meter reads what Linux says of a process.
type meter struct{ pid int }

// tick is the unit of CPU time in /proc; it is the same on every Linux.
const tick = 10 * time.Millisecond

// cpu is the CPU time that the process has used.
func (m meter) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		return 0, err
	}
	// The second field, the name in parentheses, may hold spaces; user and system time are the 14th and 15th.
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read the CPU time of process %d: unexpected %q", m.pid, content)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// memory is resident memory in bytes, now and at its peak since resetPeak.
func (m meter) memory() (now, peak int64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(line, ":")
		var dst *int64
		switch name {
		case "VmRSS":
			dst = &now
		case "VmHWM":
			dst = &peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read the memory of process %d: %w", m.pid, err)
		}
		*dst = kib << 10
	}
	return now, peak, nil
}

// resetPeak forgets the peak of the resident memory.
func (m meter) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.pid), []byte("5"), 0)
}
