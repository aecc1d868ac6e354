#!/usr/bin/env bash
# Runs make targets one after another, whatever becomes of those before, and
# ends with a line for each: how long it took and whether it held.
#
#   tools/steps.sh TARGET...
set -uo pipefail
cd "$(dirname "$0")/.."

summary=() code=0
for target in "$@"; do
	echo "== $target"
	start=$SECONDS
	if make --no-print-directory "$target"; then
		verdict=ok
	else
		verdict=BROKEN code=1
	fi
	summary+=("$(printf '%-16s %4ds  %s' "$target" $((SECONDS - start)) "$verdict")")
done
echo "== summary"
printf '%s\n' "${summary[@]}"
exit $code
