//go:build race

package dedup

// The race detector makes the simulation about ten times slower.
const simulations = 1_000
