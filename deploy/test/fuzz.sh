#!/usr/bin/env bash
# usage: fuzz.sh TIME [GO TEST FLAG…]
#
# Runs every fuzz target of the module for TIME. An input that fails is written to testdata/fuzz beside the target:
# commit it with the correction, it is a test from then on. Inputs are minimized by one run only: by time, a target
# whose runs differ, because they sign with a fresh nonce, spends its whole TIME on that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
time=$1
shift
failed=0
while IFS=: read -r file target; do
  package=./$(dirname "$file") package=${package%/.}
  echo "== $package $target"
  go test "$@" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "$package" || failed=1
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -oHE '^func Fuzz[A-Za-z0-9_]*' | sed 's/func //' | sort)
exit "$failed"
