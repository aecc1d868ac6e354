#!/usr/bin/env bash
# Installs the servers that tests run against and that no Go module holds, from
# Debian's packages. Where that cannot be done, tests that need one say so and skip.
#
#   tools/packages.sh
set -euo pipefail

missing=()
command -v memcached >/dev/null || missing+=(memcached)
command -v redis-server >/dev/null || missing+=(redis-server)
[ ${#missing[@]} = 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "tools/packages.sh: install ${missing[*]} by hand; tests that need them skip until then" >&2
	exit 0
fi
# RUNLEVEL=1 keeps the packages' own services from starting.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2; then
	echo "tools/packages.sh: ${missing[*]} could not be installed; tests that need them skip" >&2
fi
