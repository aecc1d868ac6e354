#!/usr/bin/env bash
# Runs a make target and reports tracked or new files that it changed, so that
# generated files cannot drift from their sources.
#
#   tools/unchanged.sh TARGET PATTERN...     patterns as git has them: '*.pb.go'
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
shift

fingerprint() {
	git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while read -r f; do
		if [ -e "$f" ]; then echo "$(git hash-object "$f") $f"; fi
	done
}

before=$(fingerprint "$@")
make --no-print-directory "$target"
if ! changes=$(diff <(echo "$before") <(fingerprint "$@")); then
	echo "make $target changes these files; commit the result:" >&2
	awk '/^[<>]/ && NF > 2 {print "  " $3}' <<<"$changes" | sort -u >&2
	exit 1
fi
