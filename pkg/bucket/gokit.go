package bucket

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-kit/log"       //nolint:depguard // the one adapter for objstore's providers
	"github.com/go-kit/log/level" //nolint:depguard // the one adapter for objstore's providers
)

// goKit returns the logger that objstore's providers want. Lines without a level
// are debug lines.
func goKit(l *slog.Logger) log.Logger {
	return log.LoggerFunc(func(keyvals ...any) error {
		lvl, msg, attrs := slog.LevelDebug, "object storage", make([]any, 0, len(keyvals))
		for i := 0; i+1 < len(keyvals); i += 2 {
			switch key := fmt.Sprint(keyvals[i]); key {
			case "level":
				lvl = slogLevel(keyvals[i+1])
			case "msg":
				msg = fmt.Sprint(keyvals[i+1])
			default:
				attrs = append(attrs, key, keyvals[i+1])
			}
		}
		l.Log(context.Background(), lvl, msg, attrs...) //nolint:sloglint // the text is the provider's
		return nil
	})
}

func slogLevel(v any) slog.Level {
	switch v {
	case level.InfoValue():
		return slog.LevelInfo
	case level.WarnValue():
		return slog.LevelWarn
	case level.ErrorValue():
		return slog.LevelError
	}
	return slog.LevelDebug
}
