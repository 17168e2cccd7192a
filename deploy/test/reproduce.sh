#!/usr/bin/env bash
# usage: reproduce.sh DIR CGO:PACKAGE…
#
# Builds each package twice, from copies of the source in two folders of different names and with a build cache of its own
# for the second, and compares the executables. CGO is 0 or 1. DIR is made, and what is below it replaced.
# The commit is not stamped into them: the copies have no repository. A build of one clean commit stamps the same everywhere.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
first=$dir/one second=$dir/another/place
chmod -R u+w "$dir" && rm -rf "$first" "$dir/another" "$dir/cache"
for copy in "$first" "$second"; do
  mkdir -p "$copy/out"
  (cd "$root" && git ls-files -z -co --exclude-standard -- '*.go' go.mod go.sum cmd ca crl hsm ocsp verifier | while IFS= read -r -d '' f; do [[ ! -e $f ]] || printf '%s\0' "$f"; done |
    sort -zu | tar -c --null -T -) | tar -x -C "$copy"
done
code=0
for each; do
  cgo=${each%%:*} package=${each#*:} name=$(basename "${each#*:}")
  (cd "$first" && CGO_ENABLED=$cgo "${GO:-go}" build -trimpath -buildvcs=false -o "out/$name" "$package")
  (cd "$second" && GOCACHE=$dir/cache CGO_ENABLED=$cgo "${GO:-go}" build -trimpath -buildvcs=false -o "out/$name" "$package")
  if cmp "$first/out/$name" "$second/out/$name"; then
    echo "$name: identical, CGO_ENABLED=$cgo, SHA-256 $(sha256sum <"$first/out/$name" | cut -d' ' -f1)"
  else
    echo "$name: differs, CGO_ENABLED=$cgo" >&2
    code=1
  fi
done
exit "$code"
