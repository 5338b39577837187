# make-image.sh - what the scripts that make images have in common; sourced, with `set -euo pipefail`.
#
# A folder is made aside, under a lock, and moved to its name when it is whole: who finds it finds all of it.

# begin FOLDER - ends the script if FOLDER is there; else goes into a scratch folder, which is removed at the end.
# Sets `folder`, and `root`: the root file system of the folder `bundle`, as umoci unpacks it.
begin() {
  folder=$(realpath -m "$1")
  root=bundle/rootfs
  mkdir -p "$(dirname "$folder")"
  exec 9> "$folder.lock"
  flock 9
  [ -s "$folder/index.json" ] && exit 0
  [ "$(id -u)" = 0 ] || { echo "$(basename "$0") needs root to install packages into an image" >&2; exit 1; }
  work=$(mktemp -d "$folder.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  cd "$work"
}

# finish - gives the folder `layout` its name.
finish() {
  rm -rf "$folder"
  mv layout "$folder"
}

# run COMMAND... - in the image's root, with the host's proxies.
run() {
  chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} "$@"
}

# layer - what changed in the root becomes the next layer of `image`.
layer() {
  umoci repack --refresh-bundle --image layout:image bundle
}

# wheels NAME... - fetches packages of PyPI, for the Python of Debian 12, and them alone, into the folder `wheels`.
wheels() {
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --abi cp311 --abi abi3 --abi none --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any -d wheels "$@"
}

# pip_install NAME... - installs from `wheels` into the image, and empties it.
pip_install() {
  mv wheels "$root/wheels"
  run python3 -m pip install -q --no-cache-dir --break-system-packages --no-index --no-deps --root-user-action=ignore \
    --find-links /wheels "$@"
  rm -r "$root/wheels"
}
