#!/usr/bin/env bash
# usage: cluster.sh HOST…
#
# Makes one Redis Cluster of the servers, half of them replicas, unless it is there.
set -euo pipefail
export REDISCLI_AUTH
REDISCLI_AUTH=$(cat /var/lib/jpki/admin.password)
redis() { redis-cli --tls --cacert /var/lib/jpki/infrastructure.pem --user admin --no-auth-warning "$@"; }
nodes=()
for host; do
  until [[ $(redis -h "$host" ping 2>/dev/null) = PONG ]]; do sleep 0.5; done
  nodes+=("$(getent ahostsv4 "$host" | awk 'NR == 1 {print $1}'):6379") # CLUSTER MEET takes addresses only
done
! redis -h "$1" cluster info | grep -q cluster_state:ok || exit 0
redis --cluster create "${nodes[@]}" --cluster-replicas 1 --cluster-yes
