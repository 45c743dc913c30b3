#!/usr/bin/env bash
# The kernels' tests on AArch64: built with Debian's compiler for it, run under qemu-aarch64. What they pin is what
# x86-64 gives, so that they pass means that both give the same bits. All run on a CPU with SDOT; those of products
# of integers, which go otherwise there, also on one without.
#
# Needs x86-64 Debian with apt-get, no root: packages are unpacked into a cache (0.7 GB), none is installed and
# nothing of the system's is changed. Where they cannot be had it says so and succeeds; PIPE_NEON=1 makes that an
# error. Arguments go to cargo test, on both CPUs.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
# Another number where the list of packages changes.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/pipe-ci/aarch64-1"

not_run() {
    echo "not run: the kernels' tests on AArch64, because $*" >&2
    [ -z "${PIPE_NEON:-}" ]
    exit
}

# Its own package lists, so that the system need not know a second architecture.
apt() {
    local command=$1
    shift
    "$command" -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
        -o Dir::State::lists="$new/lists" -o Dir::Cache="$new/cache" -qq "$@"
}

# The one package with this name among what another depends on, whatever its version.
dependency() {
    { apt apt-cache depends "$1" || true; } 2> /dev/null | sed -nE "s/^ +Depends: ($2)\$/\1/p" | head -n 1
}

fetch() {
    case "$(uname -m)" in
        x86_64) ;;
        aarch64) not_run "this machine is one: cargo test runs them" ;;
        *) not_run "this machine is no x86-64" ;;
    esac
    for tool in apt-get apt-cache dpkg-deb; do
        command -v "$tool" > /dev/null || not_run "there is no $tool"
    done
    mkdir -p "$(dirname "$cache")"
    new=$(mktemp -d "$cache.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    mkdir -p "$new/lists/partial" "$new/cache/archives/partial" "$new/packages" "$new/tree"
    apt apt-get update || not_run "apt-get update failed"

    local std llvm gcc
    std=$(dependency libstd-rust-web-dev 'libstd-rust-web-[0-9.]+')
    llvm=$(dependency "$std" 'libllvm[0-9]+')
    gcc=$(dependency gcc-aarch64-linux-gnu 'gcc-[0-9]+-aarch64-linux-gnu')
    [ -n "$std" ] && [ -n "$llvm" ] && [ -n "$gcc" ] || not_run "apt-get knows no rustc-web or no cross gcc"
    # The compiler of one version with both standard libraries, a linker with AArch64's C library, and qemu.
    (cd "$new/packages" && apt apt-get download rustc-web "$std" "$llvm" libstd-rust-web-dev:amd64 \
        libstd-rust-web-dev:arm64 "$gcc" "$(dependency "$gcc" 'libgcc-[0-9]+-dev-arm64-cross')" \
        libgcc-s1-arm64-cross libc6-arm64-cross libc6-dev-arm64-cross binutils-aarch64-linux-gnu \
        qemu-user-static) || not_run "apt-get could not download the packages"
    for package in "$new"/packages/*.deb; do
        dpkg-deb -x "$package" "$new/tree"
    done
    # Of qemu for forty machines one is used.
    find "$new/tree/usr/bin" -name 'qemu-*' ! -name qemu-aarch64-static -delete
    ln -s "$(cd "$new/tree/usr/bin" && ls aarch64-linux-gnu-gcc-[0-9]*)" "$new/tree/usr/bin/aarch64-linux-gnu-gcc"
    mv -T "$new/tree" "$cache" 2> /dev/null || [ -e "$cache" ]
}

[ -e "$cache" ] || fetch

# A build folder of its own: this compiler is not the one that the others were filled by.
export CARGO_TARGET_DIR=target/neon
export RUSTC="$cache/usr/bin/rustc" LD_LIBRARY_PATH="$cache/usr/lib/x86_64-linux-gnu"
"$RUSTC" --version || not_run "Debian's rustc does not start"
export PATH="$cache/usr/bin:$PATH" QEMU_LD_PREFIX="$cache/usr/aarch64-linux-gnu"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
export CARGO_ENCODED_RUSTFLAGS="-Clink-arg=--sysroot=$cache"
on() {
    export QEMU_CPU=$1
    shift
    printf '== %s\n' "$QEMU_CPU"
    cargo test -p pipe-kernels --tests --target "$target" --locked "$@"
}

# Emulated, the matrix takes many minutes; the pinned digests of every spec stand for it.
if [ $# -gt 0 ]; then on neoverse-n1 "$@"; else on neoverse-n1 -- --skip one_digest_for_every_way; fi
[ $# -gt 0 ] || set -- -- dot_tests selftest every_platform
on cortex-a53 "$@"
