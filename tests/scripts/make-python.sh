#!/bin/bash
# make-python.sh FOLDER LOLCOW - makes an OCI layout of Python with numpy, scipy, pandas and matplotlib; keeps what is there.
# LOLCOW is what make-lolcow.sh made.
#
#   image "image"     layer 1  lolcow's first layer
#                     layer 2  python3 and packages of Debian
#                     layer 3  packages of PyPI
#                     layer 4  files of apt and documentation removed (whiteouts), a user
#   image "changed"   the same, and a small layer on top
#   image "new"       layers 2 to 4 alone
#
# Needs root, umoci, python3 with pip. Some 500 MB: what a site converts every day.
set -euo pipefail
folder=$(realpath -m "${1:?folder}")
lolcow=$(realpath "${2:?folder of lolcow}")
mkdir -p "$(dirname "$folder")"
exec 9> "$folder.lock"
flock 9
[ -s "$folder/index.json" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "make-python.sh needs root to install Debian packages into an image" >&2; exit 1; }
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
cd "$work"

cp -r "$lolcow" layout
umoci tag --image layout:base image
umoci unpack --image layout:image bundle
root=bundle/rootfs
run() { chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
  ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} "$@"; }

cp /etc/resolv.conf "$root/etc/resolv.conf"
run apt-get -q update
run apt-get -qy install --no-install-recommends python3 python3-pip python3-numpy python3-scipy python3-matplotlib
umoci repack --refresh-bundle --image layout:image bundle

python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any -d wheels \
  pandas==2.2.3 scikit-learn==1.5.2 joblib threadpoolctl python-dateutil pytz tzdata six
mkdir "$root/wheels"
cp wheels/* "$root/wheels"
run python3 -m pip install -q --no-cache-dir --break-system-packages --no-index --no-deps --root-user-action=ignore \
  --find-links /wheels pandas scikit-learn joblib threadpoolctl python-dateutil pytz tzdata six
rm -r "$root/wheels"
umoci repack --refresh-bundle --image layout:image bundle

rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root/usr/share/doc" "$root/usr/share/fonts/truetype" "$root/etc/resolv.conf"
run useradd -m -u 1000 app
umoci repack --refresh-bundle --image layout:image bundle
umoci config --image layout:image --config.user app --config.workingdir /home/app --config.cmd python3 \
  --config.env PYTHONUNBUFFERED=1 --config.env PATH=/usr/local/bin:/usr/bin:/bin --architecture amd64 --os linux

mkdir top
echo 'print("changed")' > top/main.py
tar --owner=1000 --group=1000 --mtime=@1704067200 --transform 's,^top,home/app,' -cf top.tar top/main.py
umoci tag --image layout:image changed
umoci raw add-layer --image layout:changed top.tar

# The same blobs without the first.
python3 - <<'PY'
import hashlib
import json

def blob(digest):
    return open("layout/blobs/" + digest.replace(":", "/")).read()

def add(value):
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    open("layout/blobs/sha256/" + digest, "wb").write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}

index = json.load(open("layout/index.json"))
name = "org.opencontainers.image.ref.name"
image = next(entry for entry in index["manifests"] if entry["annotations"][name] == "image")
manifest = json.loads(blob(image["digest"]))
config = json.loads(blob(manifest["config"]["digest"]))
config["rootfs"]["diff_ids"] = config["rootfs"]["diff_ids"][1:]
config.pop("history", None)
manifest["config"] |= add(config)
manifest["layers"] = manifest["layers"][1:]
index["manifests"].append(image | add(manifest) | {"annotations": {name: "new"}})
json.dump(index, open("layout/index.json", "w"))
PY
rm -rf "$folder"
mv layout "$folder"
