package query

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/varve-io/varve/pkg/storeapi"
)

// maxSubquerySteps is how many points in time one subquery may be evaluated at.
// The engine takes 16 bytes for each before it counts a sample or looks at the
// query's deadline, so it has to be asked beforehand; a week by the second is well below.
const maxSubquerySteps = 1_000_000

// refuseLongSubqueries refuses an expression, evaluated over a span of time, in
// which a subquery has too many steps. A subquery inside another is evaluated
// over the range of both. everyDefault is the step of a subquery that has none.
func refuseLongSubqueries(expr parser.Node, over, everyDefault time.Duration) error {
	if s, ok := expr.(*parser.SubqueryExpr); ok {
		every := s.Step
		if every <= 0 {
			every = everyDefault
		}
		over += s.Range
		if over < 0 || over/every > maxSubquerySteps {
			return fmt.Errorf("%w: the subquery %s has more than %d steps; shorten its range or lengthen its step", storeapi.ErrLimit, s, maxSubquerySteps)
		}
	}
	for child := range parser.ChildrenIter(expr) {
		if err := refuseLongSubqueries(child, over, everyDefault); err != nil {
			return err
		}
	}
	return nil
}
