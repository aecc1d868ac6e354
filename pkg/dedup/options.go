package dedup

import "fmt"

// Func names an algorithm.
type Func uint8

// The algorithms.
const (
	// Default keeps to the first replica and fills its holes from the others.
	Default Func = iota
	// Chain takes every sample of every replica, of equal times that of the
	// first. It is right for exact copies, and wrong for replicas that scrape on their own.
	Chain
	// Penalty behaves like the algorithm of the same name in Thanos, for comparison.
	Penalty
)

// String is the name of the algorithm in flags.
func (f Func) String() string {
	switch f {
	case Default:
		return "default"
	case Chain:
		return "chain"
	case Penalty:
		return "penalty"
	}
	return fmt.Sprintf("dedup.Func(%d)", f)
}

// ParseFunc reads the name of an algorithm; an empty one means Default.
func ParseFunc(name string) (Func, error) {
	if name == "" {
		return Default, nil
	}
	for _, f := range []Func{Default, Chain, Penalty} {
		if name == f.String() {
			return f, nil
		}
	}
	return Default, fmt.Errorf("deduplication function %q is unknown; use %s, %s or %s", name, Default, Chain, Penalty)
}

// Options are the settings of the package.
type Options struct {
	// Func is the algorithm for raw samples. Downsampled chunks are always
	// merged window by window.
	Func Func
}

// Defaults are the options of a normal installation.
func Defaults() Options { return Options{Func: Default} }

// Validate reports what makes the options unusable.
func (o Options) Validate() error {
	if o.Func > Penalty {
		return fmt.Errorf("%s is unknown; use %s, %s or %s", o.Func, Default, Chain, Penalty)
	}
	return nil
}
