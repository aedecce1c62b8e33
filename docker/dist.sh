#!/usr/bin/env bash
# The binary of the image, target/dist/sidewing: built so that it counts what it runs, shown a small form of the bench and
# the demo, and built again by these counts. Arguments go to both builds: docker/dist.sh --features all-stores
#
# Needs `rustup component add llvm-tools`. About 40 minutes and 8 GB on two cores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
counting=$target/counting
counts=$counting/counts
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$profdata" ] || { echo "docker/dist.sh: no llvm-profdata: rustup component add llvm-tools" >&2; exit 1; }

# The same profile, so that functions have the same names; but what is counted does not need the long link.
rm -rf "$counts"
RUSTFLAGS="-Cprofile-generate=$counts -Clinker-plugin-lto=no -Clto=off" CARGO_TARGET_DIR=$counting \
    cargo bench --locked --profile dist "$@" --no-run --bench goals
goals=$(find "$counting/dist/deps" -name 'goals-*' -type f -executable -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
SIDEWING_BINARY=$counting/dist/sidewing "$goals" --bench --scale 10 --without-peers
"$counting/dist/sidewing" demo --once
"$profdata" merge --text "$counts"/*.profraw | awk -f docker/practised.awk >"$counts/practised.txt"
"$profdata" merge --output "$counts/merged.profdata" "$counts/practised.txt"

# What did not run is not copied to where it is called from, and what stands there again and again is there once.
flags="-Cprofile-use=$counts/merged.profdata -Cllvm-args=-enable-machine-outliner=conservative-pgo"
flags+=" -Cllvm-args=-inlinecold-threshold=5 -Cllvm-args=-inline-cold-callsite-threshold=5"
# Where Rust links with lld: equal functions are there once, and relocations take little room (glibc 2.36 reads them so).
case $host in
x86_64-unknown-linux-gnu) flags+=" -Clink-arg=-Wl,--icf=all -Clink-arg=-Wl,-z,pack-relative-relocs" ;;
esac
RUSTFLAGS=$flags cargo build --locked --profile dist "$@" --bin sidewing
