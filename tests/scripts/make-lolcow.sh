#!/bin/bash
# make-lolcow.sh FOLDER - makes an OCI layout (image "image") of Debian with fortune, cowsay and lolcat; keeps what is there.
# Image "base" is its first layer alone.
#
#   layer 1  Debian, as mmdebstrap makes it
#   layer 2  fortune-mod, cowsay, lolcat, ping; files of apt removed again (whiteouts)
#   layer 3  a file capability, a user's home, a removed folder (whiteouts)
#   layer 4  a hard link to a file of layer 2, an opaque folder, a whiteout: written by hand, no tool makes them all
#
# Needs root, mmdebstrap, umoci, python3. The packages are what gives a converter work; the traps are in layers 3 and 4.
set -euo pipefail
. "$(dirname "$0")/make-image.sh"
begin "${1:?folder}"

mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' | awk '$2=="bookworm"{sub("/$","",$1); print $1; exit}')
mirror=${mirror:-http://deb.debian.org/debian}
# --aptopt: a mirror that is a snapshot has a Release file past its Valid-Until.
mmdebstrap --quiet --variant=minbase --include=ca-certificates --aptopt='Acquire::Check-Valid-Until "false"' \
  --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --setup-hook='mkdir -p "$1/etc/apt/apt.conf.d"; echo "Acquire::Check-Valid-Until \"false\";" > "$1/etc/apt/apt.conf.d/99snapshot"' \
  bookworm base.tar "deb $mirror bookworm main"

umoci init --layout layout
umoci new --image layout:image
umoci raw add-layer --image layout:image base.tar
umoci tag --image layout:image base
rm base.tar
umoci unpack --image layout:image bundle

cp /etc/resolv.conf "$root/etc/resolv.conf.host"
saved=$(mktemp -u resolv.XXXX)
[ -e "$root/etc/resolv.conf" ] && mv "$root/etc/resolv.conf" "$saved"
mv "$root/etc/resolv.conf.host" "$root/etc/resolv.conf"
run apt-get -q update
run apt-get -qy install --no-install-recommends fortune-mod fortunes-min cowsay lolcat iputils-ping libcap2-bin
run apt-get clean
rm -rf "$root"/var/lib/apt/lists/*
rm "$root/etc/resolv.conf"
[ -e "$saved" ] && mv "$saved" "$root/etc/resolv.conf"
layer

setcap cap_net_raw+ep "$root/usr/bin/ping"
run useradd -m -u 1000 cow
rm -rf "$root/usr/share/perl5/Text/Balanced" "$root/var/cache/debconf"
layer

python3 - <<'PY'
import io
import tarfile

def entry(archive, name, contents=b"", **fields):
    info = tarfile.TarInfo(name)
    info.mtime, info.mode, info.size = 1704067200, 0o644, len(contents)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(contents))

with tarfile.open("top.tar", "w", format=tarfile.PAX_FORMAT) as archive:
    entry(archive, "usr/games/fortune-hard", type=tarfile.LNKTYPE, linkname="usr/games/fortune")
    entry(archive, "etc/apt", type=tarfile.DIRTYPE, mode=0o755)
    entry(archive, "etc/apt/.wh..wh..opq")
    entry(archive, "etc/apt/sources.list", b"# none: this image is complete\n")
    entry(archive, "etc/.wh.issue.net")
    entry(archive, "etc/moo", b"moo\n")
PY
umoci raw add-layer --image layout:image top.tar
umoci config --image layout:image --config.entrypoint sh --config.entrypoint -c --config.entrypoint 'fortune | cowsay | lolcat' \
  --config.env LC_ALL=C --config.env PATH=/usr/games:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  --config.label org.opencontainers.image.title=lolcow --architecture amd64 --os linux
umoci gc --layout layout
finish
