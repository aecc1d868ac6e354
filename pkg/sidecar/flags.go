package sidecar

import (
	"fmt"
	"path/filepath"

	"github.com/varve-io/varve/pkg/promclient"
)

// CheckFlags says whether Prometheus leaves its blocks alone until they are
// shipped: it does not merge blocks, or it waits for our state file. The error
// says what to change.
func (o ShipperOptions) CheckFlags(f promclient.Flags) error {
	if o.Durations == AnyDurations || f.MinBlock == f.MaxBlock || o.awaited(f) {
		return nil
	}
	return fmt.Errorf("Prometheus merges its blocks before they are shipped (--storage.tsdb.min-block-duration=%s, max-block-duration=%s): "+
		"start it with both at 2h, or with --storage.tsdb.delay-compact-file.path=%s (Prometheus 3.9 and newer), or set --shipper.ignore-unequal-block-size",
		f.MinBlock, f.MaxBlock, filepath.Join(f.Dir, o.StateFile))
}

// awaited reports whether the file that Prometheus waits for is ours. The data
// directory may be mounted under another path here.
func (o ShipperOptions) awaited(f promclient.Flags) bool {
	if f.DelayCompactFile == "" {
		return false
	}
	file := filepath.Clean(f.DelayCompactFile)
	return file == filepath.Join(f.Dir, o.StateFile) || file == filepath.Join(o.Dir, o.StateFile)
}
