#!/usr/bin/env bash
# Builds the named tools at their pinned versions, once, and prints the
# directory that holds a link to each of them.
#
#   tools/build.sh NAME...     build what is missing, print the directory
#   tools/build.sh --list      print every name this script knows
#
# A tool lives in $VARVE_CACHE/tools/KEY/NAME, where KEY is a hash of its
# module's go.mod and go.sum, the Go version and the build flags: a changed pin
# is built anew, everything else is found. The links stand in
# $VARVE_CACHE/tools/bin. Several invocations may run at the same time: a binary
# and its link each appear by rename. VARVE_CACHE defaults to varve/ in the
# user's cache directory.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${VARVE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/varve}/tools
links=$cache/bin

export CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly

# Debug information is of no use in a tool; leaving it out halves the file.
strip='-s -w'
prometheus="$strip -X github.com/prometheus/common/version.Version=3.15.0"

# name | module directory | package | build tags | linker flags
# toxiproxy's package is called "server", hence the names of our own.
table="
buf                   | tools/buf  | github.com/bufbuild/buf/cmd/buf                            |                     | $strip
golangci-lint         | tools/lint | github.com/golangci/golangci-lint/v2/cmd/golangci-lint     |                     | $strip
protoc-gen-go         | tools      | google.golang.org/protobuf/cmd/protoc-gen-go               |                     | $strip
protoc-gen-go-grpc    | tools      | google.golang.org/grpc/cmd/protoc-gen-go-grpc              |                     | $strip
protoc-gen-go-vtproto | tools      | github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto |                    | $strip
gotestsum             | tools      | gotest.tools/gotestsum                                     |                     | $strip
benchstat             | tools      | golang.org/x/perf/cmd/benchstat                            |                     | $strip
prometheus            | e2e/tools  | github.com/prometheus/prometheus/cmd/prometheus            | remove_all_sd,netgo | $prometheus
promtool              | e2e/tools  | github.com/prometheus/prometheus/cmd/promtool              | remove_all_sd,netgo | $prometheus
versitygw             | e2e/tools  | github.com/versity/versitygw/cmd/versitygw                 |                     |
toxiproxy             | e2e/tools  | github.com/Shopify/toxiproxy/v2/cmd/server                 |                     | $strip
kubeconform           | e2e/tools  | github.com/yannh/kubeconform/cmd/kubeconform               |                     | $strip
"

# row NAME prints the table's row of a tool, its fields separated by single bars.
row() {
	local found
	found=$(sed -n "s/[[:space:]]*|[[:space:]]*/|/g; s/[[:space:]]*$//; /^$1|/p" <<<"$table")
	if [ -z "$found" ]; then
		echo "tools/build.sh: no tool is named $1; tools/build.sh --list names them all" >&2
		return 1
	fi
	echo "$found"
}

build() {
	local name module package tags ldflags key dir part
	IFS='|' read -r name module package tags ldflags <<<"$1"
	key=$( (go env GOVERSION GOOS GOARCH && echo "$1" && cat "$root/$module/go.mod" "$root/$module/go.sum") | git hash-object --stdin)
	dir=$cache/${key:0:16}
	if [ ! -x "$dir/$name" ]; then
		mkdir -p "$dir"
		echo "building $name (once; kept in $dir)" >&2
		part=$(mktemp -d "$dir/.part-XXXXXX")
		nice go build -C "$root/$module" -trimpath -tags "$tags" -ldflags "$ldflags" -o "$part/$name" "$package"
		mv -f "$part/$name" "$dir/$name"
		rmdir "$part"
	fi
	mkdir -p "$links"
	part=$(mktemp -u "$links/.link-XXXXXX")
	ln -s "../${key:0:16}/$name" "$part"
	mv -f "$part" "$links/$name"
}

if [ "${1:-}" = --list ]; then
	sed -n 's/^\([a-z][a-z-]*\) .*/\1/p' <<<"$table"
	exit
fi
for name in "$@"; do
	line=$(row "$name")
	build "$line"
done
echo "$links"
