#!/bin/bash
# build-kube.sh FOLDER - builds kube-apiserver, kubectl and etcd from the Go modules in tests/kube into FOLDER.
# What is there is kept. Two builds at once wait for each other. Minutes when Go's build cache is cold.
set -euo pipefail
folder=$(realpath -m "${1:?folder}")
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
