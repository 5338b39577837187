#!/bin/bash
# build-kube.sh FOLDER [node] - builds kube-apiserver, kubectl and etcd from the Go modules in tests/kube into FOLDER.
#   node: also what a cluster with a node needs: kube-scheduler, kube-controller-manager, kubelet, containerd, its shim and ctr
# What is there is kept. Two builds at once wait for each other. Minutes when Go's build cache is cold.
set -euo pipefail
folder=$(realpath -m "${1:?folder}")
part=${2:-}
modules=$(realpath "$(dirname "$0")/../kube")
PATH=$PATH:/usr/local/go/bin
mkdir -p "$folder"
exec 9> "$folder/.lock"
flock 9
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -mod=readonly"
version=$(sed -n 's/^[[:space:]]*\(require \)\?k8s.io\/kubernetes v\([0-9.]*\).*/\2/p' "$modules/go.mod")
minor=${version#*.}; minor=${minor%%.*}
component=k8s.io/component-base/version
build() { # name module-folder package ldflags
  [ -x "$folder/$1" ] && return
  echo "building $1 from source into $folder (once; minutes)" >&2
  # Built aside and renamed, so that an interrupted build leaves nothing that looks done.
  (cd "$2" && go build -ldflags "$4" -o "$folder/.$1.new" "$3")
  mv "$folder/.$1.new" "$folder/$1"
}
kube="-s -w -X $component.gitVersion=v$version -X $component.gitMajor=1 -X $component.gitMinor=$minor"
build etcd "$modules/etcd" go.etcd.io/etcd/server/v3 "-s -w"
build kube-apiserver "$modules" k8s.io/kubernetes/cmd/kube-apiserver "$kube"
build kubectl "$modules" k8s.io/kubernetes/cmd/kubectl "$kube"
[ "$part" = node ] || exit 0
for name in kube-controller-manager kube-scheduler kubelet; do
  build "$name" "$modules" "k8s.io/kubernetes/cmd/$name" "$kube"
done
containerd=github.com/containerd/containerd/v2
release=$(sed -n "s|^[[:space:]]*\(require \)\?$containerd \(v[0-9.]*\).*|\2|p" "$modules/containerd/go.mod")
for name in containerd containerd-shim-runc-v2 ctr; do
  build "$name" "$modules/containerd" "$containerd/cmd/$name" "-s -w -X $containerd/version.Version=$release"
done
