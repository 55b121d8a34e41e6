#!/usr/bin/env bash
# Builds the container image, starts it, classifies an image, scrapes it and stops it. Uses Docker where a daemon answers, else
# buildah (as root, no daemon needed) on a base image made by debootstrap.
#   usage: docker/test.sh [IMAGE.jpg]      ends with 'N passed, N failed'
set -u
cd "$(dirname "$0")/.." || exit 1
picture=${1:-tests/images/baseline.jpg}
base=docker.io/library/debian:bookworm-slim
passed=0 failed=0 server= engine=none container=
work=$(mktemp -d)

check() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    passed=$((passed + 1)) && echo "ok     $name"
  else
    failed=$((failed + 1)) && echo "FAILED $name" && tail -20 "$work/out" | sed 's/^/       | /'
  fi
}
finish() {
  if [ "$engine" = docker ]; then
    docker rm -f "$server" >/dev/null 2>&1
  elif [ -n "$server" ]; then
    kill "$server" 2>/dev/null
    buildah rm "$container" >/dev/null 2>&1
  fi
  rm -rf "$work"
}
trap finish EXIT

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port

if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  engine=docker
  check "docker build" docker build -q -f docker/Dockerfile -t hwgqd .
  server=$(docker run -d --read-only --cap-drop ALL -p "127.0.0.1:$port:8080" hwgqd)
  healthy() { docker exec "$server" hwgqd --health --listen 127.0.0.1:8080; }
  without_rights() { [ "$(docker exec "$server" stat -c %u /proc/1)" = 65532 ]; }
  stop() { docker stop -t 30 "$server" && [ "$(docker inspect -f '{{.State.ExitCode}}' "$server")" = 0 ]; }
else
  engine=buildah
  [ "$(id -u)" -eq 0 ] || { echo "No Docker daemon answers here; building with buildah needs root." >&2; exit 1; }
  command -v buildah >/dev/null && command -v debootstrap >/dev/null || {
    echo "Installing buildah and debootstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null || exit 1
  }
  export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
  if ! buildah images -q "$base" >/dev/null 2>&1; then
    echo "Making the base image with debootstrap"
    debootstrap --variant=minbase bookworm "$work/root" >"$work/debootstrap.log" 2>&1 || { tail "$work/debootstrap.log"; exit 1; }
    scratch=$(buildah from scratch)
    buildah add -q "$scratch" "$work/root" / >/dev/null
    buildah commit -q --rm "$scratch" "$base" >/dev/null
    rm -rf "$work/root"
  fi
  check "buildah bud" buildah bud -q --pull-never --format docker --network host -f docker/Dockerfile -t hwgqd .
  container=$(buildah from --pull-never hwgqd) || { echo "0 passed, 1 failed"; exit 1; }
  # The daemon's own process id is needed to signal it: buildah run waits for its child, so the shell's job is asked to find it.
  buildah run --isolation chroot --network host --user 65532:65532 "$container" -- /usr/local/bin/hwgqd \
    --config /usr/local/share/hwgqd/config/hwgqd.json --listen "127.0.0.1:$port" >"$work/server.log" 2>&1 &
  server=$!
  healthy() { buildah run --isolation chroot --network host "$container" -- /usr/local/bin/hwgqd --health --listen "127.0.0.1:$port"; }
  daemon_pid() { # the descendant of the buildah process that runs hwgqd
    local pids=$server next pid
    while [ -n "$pids" ]; do
      next=
      for pid in $pids; do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = hwgqd ] && { echo "$pid"; return 0; }
        next="$next $(cat "/proc/$pid/task/$pid/children" 2>/dev/null)"
      done
      pids=$(echo $next)
    done
    return 1
  }
  without_rights() { [ "$(stat -c %u "/proc/$(daemon_pid)")" = 65532 ]; }
  stop() { kill -TERM "$(daemon_pid)" && wait "$server"; }
fi

ready=1
for _ in $(seq 100); do
  curl -fs "$url/readyz" >/dev/null && ready=0 && break
  sleep 0.1
done
check "ready" test "$ready" = 0
[ "$ready" = 0 ] || tail -20 "$work/server.log" 2>/dev/null
check "healthcheck" healthy
check "classifies a JPEG" sh -c "curl -fsS -F image=@'$picture' '$url/classify' | tee /dev/stderr | grep -q '\"predictions\"'"
check "every shipped network is served" sh -c "curl -fsS '$url/v1/models' | grep -q cifar10 && curl -fsS '$url/v1/models' | grep -q fashion-mnist"
check "metrics count the request" sh -c "curl -fsS '$url/metrics' | grep -E '^hwgqd_requests_total\{.*code=\"200\".*\} [1-9]'"
check "runs as a user without rights" without_rights
check "stops with status 0 on SIGTERM" stop
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
