# siforge: make demo shows it, make test proves it. Everything else is Cargo's.

CARGO ?= cargo
export PATH := $(PATH):/usr/local/go/bin

.PHONY: help build release test bench demo lint crd clean images

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

build: ## build everything, unoptimised
	$(CARGO) build --workspace

# The command line is linked statically: a launch then starts in a millisecond less, as there is nothing to load.
# (Like any program of glibc's, build it on the distribution that it will run on.)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

release: ## build what ships, optimised: target/release/{siforge,siforge-operator,siforge-agent,siforge-runtime,libsiforge_spank.so}
	$(CARGO) build --release --locked -p siforge-operator -p siforge-node-agent -p siforge-runtime -p siforge-spank
	RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" $(CARGO) build --release --locked --target $(HOST) -p siforge-cli
	install -m 755 target/$(HOST)/release/siforge target/release/siforge

test: ## install what the tests need, then run every test
	tests/scripts/run-tests.sh

demo: release ## the whole on this machine: KEEP=1 leaves it running, IMAGE=docker://… takes another image
	tests/scripts/install-deps.sh demo
	$(CARGO) build --release -p siforge-tests --bins
	SIFORGE_BIN_DIR=$(CURDIR)/target/release KEEP=$(KEEP) IMAGE=$(IMAGE) target/release/siforge-demo

bench: release ## measure against Apptainer and check the bars; PART=pull|definition|image|launch|big|fuse, ROUNDS=n, JSON=file
	tests/scripts/install-deps.sh bench
	tests/bench/setup-apptainer.sh
	$(CARGO) build --release -p siforge-tests --bins
	SIFORGE_BIN_DIR=$(CURDIR)/target/release ROUNDS=$(ROUNDS) JSON=$(JSON) target/release/siforge-bench $(PART)

lint: ## formatting, clippy, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	if command -v cargo-deny > /dev/null; then $(CARGO) deny check; fi

crd: ## write the CRD that the operator prints
	$(CARGO) run -q -p siforge-operator -- crd > crds/singularityimages.siforge.dev.yaml.new
	mv crds/singularityimages.siforge.dev.yaml.new crds/singularityimages.siforge.dev.yaml

images: ## make the lolcow image of tests and demo into the cache
	tests/scripts/make-lolcow.sh "$${XDG_CACHE_HOME:-$$HOME/.cache}/siforge-test/lolcow-2"

clean: ## remove what was built here; caches in ~/.cache stay
	$(CARGO) clean
