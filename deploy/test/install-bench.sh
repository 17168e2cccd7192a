#!/usr/bin/env bash
# Installs the outside programs that only the benchmarks of OCSP need, as far as they are missing: nginx and wrk.
# Says nothing when all are there. Needs Debian or a relative of it.
set -euo pipefail

"$(dirname "$0")/install.sh"

packages=()
[[ -x /usr/sbin/nginx ]] || command -v nginx >/dev/null || packages+=(nginx-light)
command -v wrk >/dev/null || packages+=(wrk)
((${#packages[@]})) || exit 0

command -v apt-get >/dev/null || { echo "missing, and there is no apt-get to install it: ${packages[*]} (Debian's names)" >&2; exit 1; }
as_root=()
((EUID == 0)) || as_root=(sudo)
echo "installing ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -o Acquire::Retries=3 "$@" >"$log" 2>&1 </dev/null; }
apt update || true
apt install --no-install-recommends "${packages[@]}" || { cat "$log" >&2; exit 1; }
