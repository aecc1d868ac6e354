// Package compact is the engine that keeps a bucket in shape: it merges and
// deduplicates blocks, downsamples them, expires what is past its retention and
// deletes what was marked.
//
// It stands on floor 6. planner decides, the executor does; the bucket is the
// only state. Every block it writes has a name and bytes that follow from its
// sources, and is committed by its meta.json, so that a run that was killed at
// any point is finished by running again. An error belongs to one job: the
// others go on, and a block that cannot be read is set aside by a mark.
//
// Any number of processes may work on one bucket. Each works on the streams whose
// leases it holds, and what makes a block appear or go is written only while the
// lease is held; docs/design/0011-compactor.md says how.
package compact
