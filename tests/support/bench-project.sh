#!/bin/bash
# A real project for bench-build.sh: ripgrep with all of its dependencies, from the registry that cargo is set up for, on
# a root file system with Debian's Rust toolchain, from the mirrors that apt is set up for.
#
#   bench-project.sh DIR         makes DIR/context and DIR/base.tar; what is there already is used again
#
# The dependencies lie in the context, so that every builder does the same work without a network; it is built as one does
# who works on it, without optimisation, so that the compiler leaves something of the builders to be seen.
# Needs root, cargo and mmdebstrap.
set -euo pipefail

dir=${1:?the directory to make the project in}
crate=ripgrep
# The newest that Debian's compiler takes.
version=13.0.0
mkdir -p "$dir"
temporary=$(mktemp -d "$dir/.new.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

if [ ! -e "$dir/context" ]; then
    mkdir -p "$temporary/fetch/src"
    : > "$temporary/fetch/src/lib.rs"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2018"\n[dependencies]\n%s = "=%s"\n' \
        "$crate" "$version" > "$temporary/fetch/Cargo.toml"
    cargo vendor -q --manifest-path "$temporary/fetch/Cargo.toml" "$temporary/vendor" > /dev/null
    mv "$temporary/vendor/$crate" "$temporary/context"
    rm "$temporary/context/.cargo-checksum.json"
    (cd "$temporary/context" && mkdir -p .cargo && cargo vendor --locked vendor 2> /dev/null > .cargo/config.toml)
    printf 'target\n.git\n' > "$temporary/context/.dockerignore"
    cat > "$temporary/context/Dockerfile" <<'EOF'
FROM project:1 AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/src/target cargo build --frozen && cp target/debug/rg /rg

FROM project:1
COPY --from=build /rg /usr/local/bin/rg
ENTRYPOINT ["rg"]
EOF
    mv "$temporary/context" "$dir/context"
fi

if [ ! -e "$dir/base.tar" ]; then
    mmdebstrap --quiet --variant=minbase --include=cargo,rustc,gcc,libc6-dev \
        --dpkgopt=path-exclude=/usr/share/doc/* --dpkgopt=path-exclude=/usr/share/man/* \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$temporary/base.tar"
    mv "$temporary/base.tar" "$dir/base.tar"
fi
