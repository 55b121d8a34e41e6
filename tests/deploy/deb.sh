#!/usr/bin/env bash
# The Debian package: builds it (make deb), checks it with lintian, and installs, starts, upgrades and removes it in a copy-on-write view
# of this system, which stays as it is. Needs root. `make test-deb`; ends with 'N passed, N failed'.
set -u
cd "$(dirname "$0")/../.." || exit 1
passed=0 failed=0
work=$(mktemp -d)

check() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$work/out" 2>&1; then
    passed=$((passed + 1)) && echo "ok     $name"
  else
    failed=$((failed + 1)) && echo "FAILED $name" && tail -30 "$work/out" | sed 's/^/       | /'
  fi
}

# ---- inside the view ----
if [ "${1:-}" = inside ]; then
  packages=$2
  export DEBIAN_FRONTEND=noninteractive
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d # starts no service
  url=http://127.0.0.1:18080
  # What the unit starts, as the user that it names.
  start() {
    local user command
    user=$(sed -n 's/^User=//p' /lib/systemd/system/hwgqd.service)
    command=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/hwgqd.service)
    # shellcheck disable=SC2086
    setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs $command --listen 127.0.0.1:18080 2>"$work/log" &
    server=$!
    for _ in $(seq 200); do curl -fs "$url/readyz" >/dev/null && return 0; sleep 0.05; done
    cat "$work/log" >&2
    return 1
  }
  served_by() { [ "$(stat -c %U "/proc/$server")" = hwgqd ] && curl -fsS "$url/v1/models" | grep -q cifar10 && curl -fsS -T tests/images/baseline.jpg "$url/classify" | grep -q predictions; }
  stop() { kill -TERM "$server" && wait "$server"; }
  files() {
    find /etc /usr /var /opt -xdev \( -path /var/cache -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/systemd \) -prune \
      -o \( -name '*-' -o -name '*.cache' \) -o -print | sort
  }
  accounts() { cut -d: -f1 /etc/passwd /etc/group | sort; }
  newer() { # FILE.deb: the same package with the next version
    local folder=$work/repack
    rm -rf "$folder"
    dpkg-deb -R "$1" "$folder" && sed -i 's/^Version: .*/Version: 0.1.0+1/; s/(= 0\.1\.0)/(= 0.1.0+1)/' "$folder/DEBIAN/control" && dpkg-deb -b "$folder" "$work/new_$(basename "$1")"
  }
  apt-get purge -y -qq hwgqd libhwgq0 libhwgq-dev >/dev/null 2>&1
  files >"$work/files-before"
  accounts >"$work/accounts-before"
  check "installs" dpkg -i "$packages"/*.deb
  check "makes the service user" sh -c 'getent passwd hwgqd | grep -q nologin'
  check "the unit is right" systemd-analyze verify /lib/systemd/system/hwgqd.service /lib/systemd/system/hwgqd.socket
  check "the configuration is right" hwgqd --check --config /etc/hwgqd/hwgqd.json
  check "man pages" sh -c 'man -w hwgqd && man -w hwgq && man -w hwgqd.json'
  check "starts" start
  check "serves as the service user" served_by
  check "stops with status 0" stop
  check "the example compiles with the library's package" sh -c "cc /usr/share/doc/libhwgq-dev/examples/embed.c -o '$work/embed' \$(pkg-config --cflags --libs hwgq) && head -c 3072 /dev/zero | '$work/embed' /usr/share/hwgqd/models/zoo/cifar10.hwgq | grep -c . | grep -qx 5"
  sed -i 's/"queue_capacity": 256/"queue_capacity": 99/' /etc/hwgqd/hwgqd.json
  for deb in "$packages"/*.deb; do newer "$deb" >/dev/null; done
  check "upgrades" dpkg --force-confdef --force-confold -i "$work"/new_*.deb
  check "to the new version" sh -c '[ "$(dpkg-query -W -f "\${Version}" hwgqd)" = 0.1.0+1 ]'
  check "and keeps a changed configuration" grep -q '"queue_capacity": 99' /etc/hwgqd/hwgqd.json
  check "starts after the upgrade" start
  check "serves after the upgrade" served_by
  check "stops after the upgrade" stop
  check "is removed" dpkg -r hwgqd libhwgq-dev libhwgq0
  check "and leaves its configuration" test -f /etc/hwgqd/hwgqd.json
  check "is purged" dpkg -P hwgqd libhwgq0 libhwgq-dev
  files >"$work/files-after"
  accounts >"$work/accounts-after"
  check "leaves no file" diff "$work/files-before" "$work/files-after"
  check "leaves no user" diff "$work/accounts-before" "$work/accounts-after"
  rm -rf "$work"
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
fi

[ "$(id -u)" -eq 0 ] || { echo "tests/deploy/deb.sh: needs root" >&2; exit 1; }
command -v dh >/dev/null && command -v lintian >/dev/null || {
  echo "Installing debhelper, fakeroot and lintian"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debhelper fakeroot lintian >/dev/null || exit 1
}
check "make deb" make deb
check "three packages and a source package" sh -c '[ "$(ls build/deb/*.deb | grep -vc dbgsym)" = 3 ] && ls build/deb/*.dsc'
check "lintian finds no errors or warnings" lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs,no-nmu-in-changelog,source-nmu-has-incorrect-version-number build/deb/*.changes
mkdir -p "$work/packages" "$work/view"
for deb in build/deb/*.deb; do case $deb in *dbgsym*) ;; *) cp "$deb" "$work/packages" ;; esac; done
# An overlay of the whole system in memory; it goes away with its mount namespace.
unshare -m --propagation private bash -c '
  set -e
  mount -t tmpfs view "$1"
  mkdir "$1/upper" "$1/work" "$1/system"
  mount -t overlay view -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/system"
  mount --bind /proc "$1/system/proc"
  mount --bind /dev "$1/system/dev"
  for folder in "$2" "$3"; do # they may be mounts of their own
    mkdir -p "$1/system$folder"
    mount --bind "$folder" "$1/system$folder"
  done
  chroot "$1/system" sh -c "cd \"\$1\" && exec tests/deploy/deb.sh inside \"\$2\"" sh "$2" "$3"
' bash "$work/view" "$PWD" "$work/packages" | tee "$work/inside"
status=${PIPESTATUS[0]}
read -r p _ f _ <<<"$(tail -1 "$work/inside" | tr -d ,)"
[ "$status" -eq 0 ] || [ "${f:-0}" -gt 0 ] || f=1
passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
rm -rf "$work"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
