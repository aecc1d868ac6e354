package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cage is a memory cgroup: what is in it and needs more memory than it has is killed. The cache of files
// counts, and is given up first. A nil cage holds nobody.
type cage struct {
	dir  string
	most string // the file that says how much was used at its peak
}

// newCage makes a cage of so many bytes, or none where the machine lets nobody make one.
func newCage(limit int64) (*cage, error) {
	for _, version := range []struct{ root, limit, most string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},
	} {
		c := &cage{dir: filepath.Join(version.root, fmt.Sprintf("varve-bench-%d", os.Getpid())), most: version.most}
		if os.Mkdir(c.dir, 0o755) != nil {
			continue
		}
		err := os.WriteFile(filepath.Join(c.dir, version.limit), strconv.AppendInt(nil, limit, 10), 0)
		if err == nil {
			return c, nil
		}
		if err := errors.Join(err, c.Close()); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("limit memory by the cgroup %s: %w; run where it can be written to, or not even be made: then peak RSS is the judge", c.dir, err)
		}
	}
	return nil, nil //nolint:nilnil // as said above
}

// command is one that begins inside the cage.
func (c *cage) command(path string, args []string) (string, []string) {
	if c == nil {
		return path, args
	}
	return "/bin/sh", append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(c.dir, "cgroup.procs"), path}, args...)
}

// String says how much memory was used.
func (c *cage) String() string {
	if c == nil {
		return "no cgroup could be made, so peak RSS is the judge"
	}
	content, err := os.ReadFile(filepath.Join(c.dir, c.most))
	if err != nil {
		return err.Error()
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("its cgroup had %s MiB at its peak, cached files included", mib(n))
}

// Close takes the cage away; nobody is in it any more.
func (c *cage) Close() error {
	if c == nil {
		return nil
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C { // processes leave a little after their end
		if err := os.Remove(c.dir); err == nil || time.Since(began) > time.Second {
			return err
		}
	}
}
