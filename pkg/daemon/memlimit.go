package daemon

import (
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory sets GOMEMLIMIT to a share of the container's memory limit, unless
// the environment has set it.
func limitMemory(ratio float64, log *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit, found := memoryLimit(os.DirFS("/"))
	if !found {
		log.Warn("GOMEMLIMIT not set", "reason", "the cgroup has no memory limit")
		return
	}
	debug.SetMemoryLimit(int64(float64(limit) * ratio))
	log.Info("GOMEMLIMIT set", "bytes", debug.SetMemoryLimit(-1), "cgroup_limit", limit)
}

// memoryLimit returns the memory limit in bytes of the container that the
// process runs in: a container sees its own cgroup (version 2) as the root.
func memoryLimit(root fs.FS) (limit int64, found bool) {
	b, err := fs.ReadFile(root, "sys/fs/cgroup/memory.max")
	if err != nil {
		return 0, false
	}
	limit, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max" is no limit
	return limit, err == nil
}
