package query

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// aggregateLabel marks a selector, inside a rewritten expression only, with the
// aggregate that it reads. The querier takes it off; users cannot send it.
const aggregateLabel = "__varve_aggregate__"

// rewriteForAggregates returns the expression in which every function over a
// range of downsampled data reads the aggregates it means:
//
//	count_over_time(x[r])  is  sum_over_time of COUNT
//	avg_over_time(x[r])    is  sum_over_time of SUM / sum_over_time of COUNT
//
// in subqueries, too. The same text comes back when there is nothing to rewrite.
func rewriteForAggregates(expr parser.Expr) (string, error) {
	before := expr.String()
	rewritten, err := rewriteNode(expr)
	if err != nil {
		return "", err
	}
	if after := rewritten.String(); after != before {
		return after, nil
	}
	return before, nil
}

func rewriteNode(expr parser.Expr) (_ parser.Expr, err error) {
	switch e := expr.(type) {
	case *parser.Call:
		if m, ok := rangeOf(e); ok {
			if r, _ := readingOf(e.Func.Name); r.rewritten {
				return rewriteCall(e, m)
			}
		}
		for i := range e.Args {
			if e.Args[i], err = rewriteNode(e.Args[i]); err != nil {
				return nil, err
			}
		}
	case *parser.AggregateExpr:
		if e.Param != nil {
			if e.Param, err = rewriteNode(e.Param); err != nil {
				return nil, err
			}
		}
		e.Expr, err = rewriteNode(e.Expr)
	case *parser.BinaryExpr:
		if e.LHS, err = rewriteNode(e.LHS); err != nil {
			return nil, err
		}
		e.RHS, err = rewriteNode(e.RHS)
	case *parser.ParenExpr:
		e.Expr, err = rewriteNode(e.Expr)
	case *parser.UnaryExpr:
		e.Expr, err = rewriteNode(e.Expr)
	case *parser.SubqueryExpr:
		e.Expr, err = rewriteNode(e.Expr)
	case *parser.StepInvariantExpr:
		e.Expr, err = rewriteNode(e.Expr)
	}
	return expr, err
}

// rangeOf returns the matrix selector that is a call's only argument.
func rangeOf(call *parser.Call) (*parser.MatrixSelector, bool) {
	if len(call.Args) != 1 {
		return nil, false
	}
	arg := call.Args[0]
	for {
		switch a := arg.(type) {
		case *parser.ParenExpr:
			arg = a.Expr
		case *parser.StepInvariantExpr:
			arg = a.Expr
		case *parser.MatrixSelector:
			return a, true
		default:
			return nil, false
		}
	}
}

func rewriteCall(call *parser.Call, m *parser.MatrixSelector) (parser.Expr, error) {
	marked, ok := m.VectorSelector.(*parser.VectorSelector)
	if !ok {
		return nil, fmt.Errorf("rewrite %s for downsampled data: it has no selector", call)
	}
	counted := *marked
	counted.LabelMatchers = append(slices.Clip(marked.LabelMatchers),
		labels.MustNewMatcher(labels.MatchEqual, aggregateLabel, "count"))
	countSelector := *m
	countSelector.VectorSelector = &counted

	total := parser.Functions["sum_over_time"]
	counts := &parser.Call{Func: total, Args: parser.Expressions{&countSelector}}
	if call.Func.Name == "count_over_time" {
		return counts, nil
	}
	return &parser.ParenExpr{Expr: &parser.BinaryExpr{
		Op:             parser.DIV,
		LHS:            &parser.Call{Func: total, Args: parser.Expressions{m}},
		RHS:            counts,
		VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
	}}, nil
}

// unmark takes the mark off the matchers of a selector.
func unmark(matchers []*labels.Matcher) (_ []*labels.Matcher, marked bool) {
	for i, m := range matchers {
		if m.Name == aggregateLabel {
			rest := append([]*labels.Matcher{}, matchers[:i]...)
			return append(rest, matchers[i+1:]...), true
		}
	}
	return matchers, false
}

// refuseMarks is the error for an expression that already names the mark.
func refuseMarks(expr parser.Expr) error {
	for _, selector := range parser.ExtractSelectors(expr) {
		if _, marked := unmark(selector); marked {
			return fmt.Errorf("the label %s is reserved; remove it from the query", aggregateLabel)
		}
	}
	return nil
}
