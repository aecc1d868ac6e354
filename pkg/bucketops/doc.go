// Package bucketops is the engine of the operator's hand tool: it looks at the
// blocks of a bucket and checks, repairs, marks, copies, rewrites and removes them.
//
// It stands on floor 6. What is decided by rule (retention, deletion,
// downsampling) is decided by planner, as the compactor has it; what happens to a
// bucket happens through blockio, in the only safe order. The rules of its own:
//
//   - Every operation that writes is a list of actions, which a dry run shows and
//     otherwise says how they ended. An action that ends in an error does not keep
//     the next block from its own.
//   - Nothing is overwritten. A block that is made of another has a name and bytes
//     that follow from it, so an operation that broke off is finished by repeating it.
//   - What is written is read back before it is uploaded, and nothing is made of a
//     block with findings, except by Repair.
//   - No operation but Cleanup removes a block. The others mark it.
package bucketops
