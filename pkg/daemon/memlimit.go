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
// process runs in: a container sees its own cgroup as the root, of version 2 or 1.
func memoryLimit(root fs.FS) (limit int64, found bool) {
	for _, name := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		limit, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		const none = 1 << 60 // version 1 has a number, version 2 "max"
		return limit, err == nil && limit < none
	}
	return 0, false
}
