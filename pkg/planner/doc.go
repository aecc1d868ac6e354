// Package planner decides what should happen next in a bucket: Plan turns the
// set of its blocks, a policy and the time into jobs.
//
// Floor 3: a pure function of its arguments. The invariants:
//
//   - Jobs of one plan do not get in each other's way: no block is a source of
//     two, so they may run in any order and in parallel.
//   - Doing all jobs and planning again, over and over, ends in an empty plan.
//   - What a job makes follows from its sources, so a plan that is repeated
//     after a crash asks for the same blocks again.
//   - A block is expired only when every coarser resolution that outlives it exists.
//
// docs/design/0007-planning.md gives the rules and their reasons; the scripts in
// testdata tell them as stories.
package planner
