#!/usr/bin/env bash
# Builds the Dockerfile and checks what comes out on a machine without a container engine: Debian or one of its
# children, as root, with buildah, podman, runc and debootstrap from apt.
#
#   scripts/replay-image.sh [cpu|cuda]
#
# The base image is not pulled: a stand-in of its name is made from Debian's packages. Packages come from where this
# machine's apt and pip take them; TORCH_INDEX is handed to the build if it is set, also when it is empty.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-cpu}
image=localhost/pansharpen:$target
base=$(sed -n 's/^ARG PYTHON_IMAGE=\([^@]*\).*/\1/p' Dockerfile)
release=${base##*-}
work=$(mktemp -d)
store=(--root "$work/store" --runroot "$work/run")

clean() {
  buildah "${store[@]}" rm --all > /dev/null 2>&1 || true
  for mounted in "$work/store/overlay" "$work/store"; do
    if mountpoint -q "$mounted"; then umount "$mounted"; fi
  done
  rm -rf --one-file-system "$work"
}
trap clean EXIT

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

stand_in() {
  local mirror container
  mirror=$(apt-get indextargets --format "\$(REPO_URI)" 'Created-By: Packages' "Codename: $release" | head -n 1)
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
    "$release" "$work/debian" "$mirror" > /dev/null
  ln -s python3 "$work/debian/usr/bin/python"
  container=$(buildah "${store[@]}" from scratch)
  buildah "${store[@]}" add --quiet "$container" "$work/debian" / > /dev/null
  buildah "${store[@]}" commit --quiet --rm "$container" "docker.io/library/$base" > /dev/null
  rm -rf "$work/debian"
}

# This machine's pip configuration as one file, with the files and folders that it names, as options of buildah. An
# index in a folder keeps its files beside its pages.
pip_mounts() {
  local settings path
  settings=$(pip config list | sed -nE "s/^(global|:env:)\.\.?([a-z-]+)='(.*)'$/\2 = \3/p" | sort -u)
  printf '[global]\n%s\n' "$(sort -u -t ' ' -k 1,1 <<< "$settings")" > "$work/pip.conf"
  printf -- '--volume\n%s:/etc/pip.conf:ro\n' "$work/pip.conf"
  { grep -oE '(= | |file://)/[^ ]+' "$work/pip.conf" || true; } | sed -E 's#^(= | |file://)##; s#/simple/?$##' |
    sort -u |
    while read -r path; do
      if [ -e "$path" ]; then printf -- '--volume\n%s:%s:ro\n' "$path" "$path"; fi
    done
}

build() {
  local mounts
  mapfile -t mounts < <(pip_mounts)
  buildah "${store[@]}" bud --pull=never --isolation chroot --layers --format docker --target "$target" \
    --build-arg "PYTHON_IMAGE=$base" ${TORCH_INDEX+--build-arg "TORCH_INDEX=$TORCH_INDEX"} "${mounts[@]}" \
    --tag "$image" . > "$work/build.log" 2>&1 || { tail -n 40 "$work/build.log" && return 1; }
}

say "a stand-in for $base"
stand_in
say "build of the target $target"
build
say "checks"
python3 scripts/check_image.py "$image" --engine "podman --runtime runc ${store[*]}" \
  --run-options "--pull=never --read-only-tmpfs=false --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
say "done"
