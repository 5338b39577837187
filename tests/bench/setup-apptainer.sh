#!/bin/bash
# setup-apptainer.sh - a Debian sid tree with Apptainer in ${SIFORGE_PEERS:-~/.cache/siforge-peers}; keeps what is there.
#
#   FOLDER/sid     the tree
#   FOLDER/work    its /tmp
#   FOLDER/enter   enter [-u USER] COMMAND…   runs COMMAND in the tree, as root or as USER ("peer", uid 1000)
#
# enter uses pivot_root in a mount namespace of its own, not chroot: the kernel refuses user namespaces to a chrooted
# process (user_namespaces(7)), and Apptainer needs them for ordinary users.
set -euo pipefail
folder=${SIFORGE_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/siforge-peers}
[ "$(id -u)" = 0 ] || { echo "setup-apptainer.sh needs root" >&2; exit 1; }
if [ -x "$folder/enter" ] && "$folder/enter" apptainer --version 2> /dev/null; then exit 0; fi

mkdir -p "$folder/work"
folder=$(realpath "$folder")
chmod 1777 "$folder/work"
sid=$folder/sid
if [ ! -e "$folder/.apptainer-done" ]; then
  rm -rf --one-file-system "$sid"
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' | awk '$2=="bookworm"{sub("/$","",$1); print $1; exit}')
  # sid's Release file of a snapshot is past its Valid-Until.
  mmdebstrap --variant=apt --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
    --include=apptainer,squashfs-tools,squashfuse,fuse3,fuse-overlayfs,libcap2-bin,ca-certificates,passwd,uidmap,mount,python3 \
    sid "$sid" "deb ${mirror:-http://deb.debian.org/debian} sid main"
  rm -rf "$sid"/var/cache/apt/archives/*.deb
  chroot "$sid" useradd -m -u 1000 -s /bin/bash peer
  printf 'peer:100000:65536\n' | tee "$sid/etc/subuid" > "$sid/etc/subgid"
  touch "$folder/.apptainer-done"
fi
cat > "$folder/enter" <<ENTER
#!/bin/bash
user=
if [ "\${1:-}" = -u ]; then user=\$2; shift 2; fi
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \\
  unshare -m --propagation private bash -c '
set -e
tree=\$1 work=\$2 user=\$3; shift 3
mount --rbind "\$tree" "\$tree"
mount -t proc proc "\$tree/proc"; mount --rbind /sys "\$tree/sys"; mount --rbind /dev "\$tree/dev"
mount -t tmpfs -o mode=755 tmpfs "\$tree/run"
# The host often has /dev/fuse as 0600; an ordinary user needs it: a node of our own over it.
mknod -m 666 "\$tree/run/.fuse" c 10 229; chmod 666 "\$tree/run/.fuse"; mount --bind "\$tree/run/.fuse" "\$tree/dev/fuse"
mount --bind "\$work" "\$tree/tmp"
cd "\$tree"; pivot_root . .; umount -l .; cd /
if [ -n "\$user" ]; then
  export HOME=/home/\$user USER=\$user; cd "\$HOME"
  exec setpriv --reuid "\$user" --regid "\$user" --init-groups -- "\$@"
fi
export HOME=/root USER=root; exec "\$@"' enter "$sid" "$folder/work" "\$user" "\$@"
ENTER
chmod 755 "$folder/enter"
# Apptainer asks for every capability as root and fails where root lacks one: give it those that there are.
if ! capsh --print | grep -q '^Bounding.*cap_sys_resource'; then
  sed -i 's/^root default capabilities = .*/root default capabilities = file/' "$sid/etc/apptainer/apptainer.conf"
  names=$(capsh --decode="$(awk '$1=="CapBnd:"{print $2}' /proc/self/status)" | sed 's/.*=//' | tr 'a-z' 'A-Z' | sed 's/[^,]*/"&"/g')
  printf '{"users":{"root":[%s]}}\n' "$names" > "$sid/etc/apptainer/capability.json"
fi
"$folder/enter" apptainer --version
