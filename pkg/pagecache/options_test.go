package pagecache

import (
	"strings"
	"testing"
)

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for want, change := range map[string]func(*Options){
		"-1 bytes of memory":    func(o *Options) { o.MemoryBytes = -1 },
		"1024 bytes of disk":    func(o *Options) { o.DiskBytes = 1024 },
		"-5 bytes of disk":      func(o *Options) { o.DiskBytes = -5 },
		"0 bucket requests":     func(o *Options) { o.Concurrency = 0 },
		"parts of 4096 bytes":   func(o *Options) { o.PartBytes = 4096 },
		"0 attempts":            func(o *Options) { o.Attempts = 0 },
		"-1ns of patience with": func(o *Options) { o.Patience = -1 },
	} {
		o := Defaults()
		change(&o)
		err := o.Validate()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "give") {
			t.Errorf("error is %v, want one about %s that says what to give", err, want)
		}
	}
}

func TestSegmentsAreFewAndSmall(t *testing.T) {
	for _, limit := range []int64{minDisk, 1 << 30, 4 << 30, 100 << 30, 1 << 40} {
		length := segmentLength(limit)
		if length < maxRecord || length > maxSegment || limit/length > 2*mostSegments || limit/length < segmentShare {
			t.Errorf("limit %d: segments of %d bytes", limit, length)
		}
	}
}
