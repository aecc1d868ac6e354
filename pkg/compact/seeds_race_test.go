//go:build race

package compact

// usualSeeds is lower under the race detector, which makes a world four times as
// long; `make simulate` runs the full number without.
const usualSeeds = 100
