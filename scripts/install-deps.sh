#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: PHP, Node, npm, Python,
# Redis, nginx, PostgreSQL, iproute2 and Chromium from the distribution, the JavaScript
# packages from npm. Running it again does nothing, and nothing is touched that is
# already there.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need php php-cli
need node nodejs
need npm npm
need python3 python3
need redis-server redis-server
need chromium chromium
need openssl openssl
need ip iproute2
[ -x /usr/sbin/nginx ] || need nginx nginx
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || need initdb postgresql

if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null 2>&1 || { echo "please install: ${missing[*]}" >&2; exit 1; }
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  "${root[@]}" apt-get update -qq </dev/null
  "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi

# npm writes node_modules/.package-lock.json last: older than the lock file means stale or half done.
for folder in test/sdk examples/tickets/web; do
  if [ ! "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ]; then
    (cd "$folder" && npm ci --silent --no-audit --no-fund </dev/null)
    touch "$folder/node_modules/.package-lock.json"
  fi
done
