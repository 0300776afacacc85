# Berth. On a fresh machine with a Rust toolchain: `make demo`, `make test`.

CARGO   ?= cargo
TARGET  ?= $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
PREFIX  ?= /usr/local
BIN     := $(abspath $(TARGET))/release

# The two binaries that stand between clone and exec are linked statically: no dynamic loader on the
# hot path, and the shim's memory stays below a megabyte.
STATIC  := -C target-feature=+crt-static -C relocation-model=static
# The runtime puts its program file out of reach before the C library is set up, and does without the bounds of its
# stack (runtime/sys/src/entry.rs).
ENTRY_x86_64 := -C link-arg=-Wl,--entry=berth_entry \
    -C link-arg=-Wl,--undefined=berth_no_stack_bounds,--defsym=pthread_getattr_np=berth_no_stack_bounds
ENTRY   := $(ENTRY_$(shell uname -m))

# Its pages are mapped anew for each container: size is time and memory (docs/decisions/0104).
SMALL   := -C opt-level=s -C lto=fat -C codegen-units=1

# Its C library is musl where the toolchain has that or can get it (asked once, and only to build); else the host's, which
# takes longer to start (docs/decisions/0215).
MUSL    := $(shell uname -m)-unknown-linux-musl
LIBRARY  = $(eval LIBRARY := $(shell tests/support/target.sh $(MUSL)))$(LIBRARY)
RUNTIME  = $(CARGO) rustc --locked --release -p berth-runtime --bin berth-runtime $(addprefix --target ,$(LIBRARY)) -- \
    $(STATIC) $(ENTRY) $(SMALL)
BUILT    = $(TARGET)/$(addsuffix /,$(LIBRARY))release/berth-runtime

# Where shells look for completions.
COMPLETIONS := bash-completion/completions zsh/site-functions fish/vendor_completions.d

export BERTH_BIN_DIR := $(BIN)

.PHONY: all build order demo test test-vm bench lint fmt install packages packages-test clean

all: build

build:
	$(CARGO) build --locked --release -p berth -p berthd
	$(CARGO) rustc --locked --release -p berth-shim --bin berth-shim -- $(STATIC)
	$(RUNTIME)
	$(if $(LIBRARY),install -m 0755 $(BUILT) $(BIN)/berth-runtime)

# Which functions of the runtime come first in its file (as root; takes minutes).
order:
	$(RUNTIME) -C strip=none
	tests/support/order.py $(abspath $(BUILT)) runtime/bin/order.ld

packages:
	tests/support/packages.sh demo

packages-test:
	tests/support/packages.sh test

demo: packages build
	examples/demo.sh

# Everything: lints, unit and integration tests, the cgroup v2 machine, and at the end a leak check.
test: packages-test build
	tests/support/run.sh

# The publishable comparison: one page and one set of tables in docs/benchmarks.
bench: packages-test build
	tests/support/packages.sh bench
	$(CARGO) rustc --locked --release -p berth-core --example floor $(addprefix --target ,$(LIBRARY)) -- $(STATIC)
	$(if $(LIBRARY),install -D -m 0755 -t $(BIN)/examples $(TARGET)/$(LIBRARY)/release/examples/floor)
	$(CARGO) build --locked --release -p berth-store --example pull_floor
	SUITES="$(SUITES)" tests/support/bench.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all

install: build
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(BIN)/berth $(BIN)/berthd $(BIN)/berth-shim $(BIN)/berth-runtime
	$(BIN)/berth man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,$(COMPLETIONS))
	$(BIN)/berth completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/berth
	$(BIN)/berth completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_berth
	$(BIN)/berth completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/berth.fish

clean:
	$(CARGO) clean
