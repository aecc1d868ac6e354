package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	barWidth = 30
	barEvery = 100 * time.Millisecond // between two drawings
	eraseEnd = "\x1b[K"               // the rest of a terminal's line
)

// bar draws how far long work has come, if there is a terminal to draw on. It is
// safe for concurrent use.
type bar struct {
	w io.Writer // nil without a terminal

	mu    sync.Mutex
	what  string
	drawn time.Time
}

func newBar(w io.Writer) *bar {
	f, ok := w.(*os.File)
	if !ok {
		return &bar{}
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &bar{}
	}
	return &bar{w: w}
}

// show draws done of total.
func (b *bar) show(what string, done, total int64) {
	if b.w == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if what == b.what && now.Sub(b.drawn) < barEvery {
		return
	}
	b.what, b.drawn = what, now
	_, _ = io.WriteString(b.w, line(what, done, total)) // a bar that cannot be drawn hurts nobody
}

// clear takes the bar away, for the result to come.
func (b *bar) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w != nil && b.what != "" {
		_, _ = io.WriteString(b.w, "\r"+eraseEnd)
	}
}

// line is one drawing.
func line(what string, done, total int64) string {
	share := int64(barWidth)
	percent := int64(100)
	if total > 0 {
		share, percent = min(done, total)*barWidth/total, min(done, total)*100/total
	}
	return fmt.Sprintf("\r[%s%s] %3d%% %s%s", strings.Repeat("=", int(share)), strings.Repeat(" ", int(barWidth-share)), percent, what, eraseEnd)
}
