//go:build !race

package dedup

const simulations = 10_000
