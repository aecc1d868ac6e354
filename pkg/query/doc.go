// Package query is the engine of the querier: it discovers endpoints, fans a
// selection out to them, merges and deduplicates what comes back, and evaluates
// PromQL over it.
//
// It stands on floor 6. Its invariants: an answer that lacks something says so
// or is an error, never a silent gap (fanout.go); every byte received for a
// query is drawn from a budget (budget.go); and a query whose raw data have
// expired is answered from coarser ones that mean what its functions mean
// (aggregates.go, coarse.go).
package query
