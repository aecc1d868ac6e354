//go:build !race

package compact

// usualSeeds is how many worlds are simulated unless told otherwise.
const usualSeeds = 500
