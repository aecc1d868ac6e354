package blocktest

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/value"
)

// Text writes series so that two of them are equal if and only if their texts
// are: one line a series, with time@value for each sample. Unlike NaN itself, a
// stale marker in it equals another.
func Text(series []Series) string {
	var b strings.Builder
	for _, s := range series {
		b.WriteString(s.Labels.String())
		for _, p := range s.Samples {
			fmt.Fprintf(&b, " %d@%s", p.T, p.value())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (p Sample) value() string {
	var text string
	switch {
	case p.H != nil:
		text = fmt.Sprintf("%d%s", p.H.Schema, p.H)
	case p.FH != nil:
		text = fmt.Sprintf("%d%s", p.FH.Schema, p.FH)
	case value.IsStaleNaN(p.V):
		text = "stale"
	default:
		text = fmt.Sprint(p.V)
	}
	if p.ST != 0 {
		text += fmt.Sprintf("(since %d)", p.ST)
	}
	return text
}
