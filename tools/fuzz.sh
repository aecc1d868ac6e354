#!/usr/bin/env bash
# Fuzzes every target of the module whose name matches, one after another,
# whatever becomes of those before.
#
#   tools/fuzz.sh DURATION [PATTERN]
set -euo pipefail
cd "$(dirname "$0")/.."
duration=$1 pattern=${2:-.}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# run fuzzes one target. Before Go 1.27 the end of the duration can itself be
# reported as a failure (go.dev/issue/75804); one of ours also names its input.
run() {
	local name=$1 package=$2
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$package" 2>&1 | tee "$log" && return
	grep -qx ' *context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"
}

found=0 code=0
while IFS=: read -r file name; do
	found=$((found + 1))
	echo "$name in ${file%/*}, $duration"
	run "$name" "./${file%/*}" || code=1
done < <(git ls-files --cached --others --exclude-standard -- 'pkg/*_test.go' 'cmd/*_test.go' 'internal/*_test.go' |
	xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' /dev/null | sed 's/:func /:/' | grep -E ":.*$pattern" || true)
if [ "$found" = 0 ]; then
	echo "no fuzz target matches $pattern" >&2
	exit 1
fi
exit $code
