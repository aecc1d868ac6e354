// Package arch holds the rules of the house as tests: which package may import
// which, how long files and functions may be, what the map (ARCHITECTURE.md)
// must name. It contains nothing else and stands beside the floors.
//
// To add a package: give it a row in floors (floors_test.go) and a line in
// ARCHITECTURE.md. To bend an arrow: change the row, the design note and
// ARCHITECTURE.md in the same commit.
package arch
