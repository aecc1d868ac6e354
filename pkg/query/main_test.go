package query

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func millis(t int64) time.Time { return time.UnixMilli(t).UTC() }
