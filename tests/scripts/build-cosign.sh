#!/bin/bash
# build-cosign.sh FOLDER - builds cosign, and a registry with the referrers API, from the Go module in tests/cosign into
# FOLDER. What is there is kept. Two builds at once wait for each other. 2 minutes when Go's build cache is cold.
set -euo pipefail
folder=$(realpath -m "${1:?folder}")
module=$(realpath "$(dirname "$0")/../cosign")
PATH=$PATH:/usr/local/go/bin
mkdir -p "$folder"
exec 9> "$folder/.lock"
flock 9
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -trimpath -mod=readonly"
build() { # name package
  [ -x "$folder/$1" ] && return
  echo "building $1 from source into $folder (once; minutes)" >&2
  # Built aside and renamed, so that an interrupted build leaves nothing that looks done.
  (cd "$module" && go build -ldflags "-s -w" -o "$folder/.$1.new" "$2")
  mv "$folder/.$1.new" "$folder/$1"
}
build cosign github.com/sigstore/cosign/v3/cmd/cosign
build referrers ./referrers
