// Package dedup makes one series out of the replicas of a series: what two or
// more Prometheus servers with equal configuration scraped from one process.
//
// It stands on floor 3: a function of chunks, without clock, disk or metric
// names. There is one algorithm with two faces: NewSet gives chunks, for the compactor,
// and Iterators read samples, for queries. Both give the same.
//
// What holds for raw samples (docs/design/0006-dedup.md says how):
//
//   - every output sample is an input sample, strictly increasing in time;
//   - every sample of every replica has an output sample within 1.5 scrape intervals;
//   - a counter resets only where a replica saw it reset, as long as the
//     clocks of the replicas differ by less than 0.4 intervals;
//   - the choice is made in fixed cells of two hours from the samples in them,
//     so neither chunks nor the borders of blocks and queries matter;
//   - raw input gives the same samples in a query and in the compactor, and
//     output that goes through again does not change.
package dedup
