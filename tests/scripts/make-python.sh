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
. "$(dirname "$0")/make-image.sh"
lolcow=$(realpath "${2:?folder of lolcow}")
begin "${1:?folder}"

cp -r "$lolcow" layout
umoci tag --image layout:base image
umoci unpack --image layout:image bundle

cp /etc/resolv.conf "$root/etc/resolv.conf"
run apt-get -q update
run apt-get -qy install --no-install-recommends python3 python3-pip python3-numpy python3-scipy python3-matplotlib
layer

wheels pandas==2.2.3 scikit-learn==1.5.2 joblib threadpoolctl python-dateutil pytz tzdata six
pip_install pandas scikit-learn joblib threadpoolctl python-dateutil pytz tzdata six
layer

rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root/usr/share/doc" "$root/usr/share/fonts/truetype" "$root/etc/resolv.conf"
run useradd -m -u 1000 app
layer
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
finish
