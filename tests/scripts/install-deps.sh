#!/bin/bash
# install-deps.sh [demo|bench] - installs the Debian packages that tests and demo use; quick and silent when all are there.
#   demo: an ordinary user goes on with what there is
#   bench: what only the benchmarks need, too
set -euo pipefail
# program that shows it is there : package
wanted="
gcc:gcc  pkg-config:pkg-config  make:make  cmake:cmake  curl:curl  ca-certificates:ca-certificates
openssl:openssl  gpg:gpg  gpg-agent:gpg-agent  htpasswd:apache2-utils  python3:python3-minimal  jq:jq  file:file  zstd:zstd  getfattr:attr  getfacl:acl  setcap:libcap2-bin
docker-registry:docker-registry  skopeo:skopeo  umoci:umoci  podman:podman  mmdebstrap:mmdebstrap  busybox:busybox-static
mksquashfs:squashfs-tools  tar2sqfs:squashfs-tools-ng  strace:strace  ip:iproute2  useradd:passwd  newuidmap:uidmap  setpriv:util-linux
runc:runc  conntrack:conntrack  containerd:containerd
munged:munge  slurmctld:slurmctld  slurmd:slurmd  srun:slurm-client
"
[ "${1:-}" != bench ] || wanted+="igzip:isal squashfuse_ll:squashfuse pip3:python3-pip"
missing=()
for pair in $wanted; do
  program=${pair%%:*} package=${pair##*:}
  case $program in
    ca-certificates) [ -s /etc/ssl/certs/ca-certificates.crt ] || missing+=("$package") ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$program" > /dev/null || missing+=("$package") ;;
  esac
done
# A header and a folder of plugins are no programs.
[ -e /usr/include/slurm/spank.h ] || missing+=(libslurm-dev)
[ -e /usr/lib/"$(gcc -print-multiarch 2>/dev/null || echo x86_64-linux-gnu)"/slurm-wlm/select_cons_tres.so ] || missing+=(slurm-wlm-basic-plugins)
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] && [ "${1:-}" = demo ]; then
    echo "not root, so these packages stay missing: ${missing[*]}" >&2
    exit 0
  elif [ "$(id -u)" != 0 ]; then
    echo "these packages are missing, install them as root: ${missing[*]}" >&2
    exit 1
  fi
  # No daemon may start by itself: the tests start their own on free ports.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q update || echo "apt-get update failed in part; trying with what there is" >&2
  apt-get -qy install --no-install-recommends "${missing[@]}"
fi

# Ordinary users make user namespaces in the tests.
allow() { # file value
  if [ -e "$1" ] && [ "$(cat "$1")" = 0 ]; then echo "$2" > "$1" || echo "cannot set $1 to $2" >&2; fi
}
if [ "$(id -u)" = 0 ]; then
  allow /proc/sys/kernel/unprivileged_userns_clone 1
  allow /proc/sys/user/max_user_namespaces 15000
fi

# The demo of an ordinary user starts no API server.
{ [ "${1:-}" = demo ] && [ "$(id -u)" != 0 ]; } || command -v go > /dev/null || [ -x /usr/local/go/bin/go ] || [ -n "${KUBEBUILDER_ASSETS:-}" ] || {
  echo "Go (1.26 or later) is missing: it builds the Kubernetes API server for the tests; or set KUBEBUILDER_ASSETS" >&2
  exit 1
}
