#!/usr/bin/env bash
# Compares benchmarks of the working tree with those of another revision.
#
#   tools/bench-compare.sh BASE BENCH PACKAGE...
#
# Both sides are compiled first, then run in turns ten times, because a shared
# machine drifts; allocations come first in the report, because they do not.
set -euo pipefail
cd "$(dirname "$0")/.."
base=$1 bench=$2
shift 2

benchstat=$(tools/build.sh benchstat)/benchstat
dir=$(mktemp -d)
trap 'git worktree remove --force "$dir/tree" >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
git worktree add --quiet --detach "$dir/tree" "$base"

compile() { # TREE SIDE PACKAGE...
	local tree=$1 side=$2 package
	shift 2
	mkdir -p "$dir/$side"
	while read -r package; do
		go test -C "$tree" -c -o "$dir/$side/$(tr / _ <<<"$package").test" "$package"
	done < <(cd "$tree" && go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}' "$@" | tee "$dir/$side.dirs" | cut -d' ' -f1)
}
compile "$PWD" new "$@"
compile "$dir/tree" old "$@"

for round in 1 2 3 4 5 6 7 8 9 10; do
	for side in old new; do
		echo "round $round, $side" >&2
		while read -r package source; do
			(cd "$source" && "$dir/$side/$(tr / _ <<<"$package").test" -test.run '^$' -test.bench "$bench" -test.benchmem) >>"$dir/$side.txt"
		done <"$dir/$side.dirs"
	done
done
for unit in allocs/op B/op sec/op; do
	"$benchstat" -filter ".unit:$unit" "old=$dir/old.txt" "new=$dir/new.txt"
done
