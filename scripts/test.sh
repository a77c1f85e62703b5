#!/usr/bin/env bash
#help
# test.sh [--no-setup]
#
# Everything that continuous integration checks, on a clean clone: formatting, lints, scripts, documentation, tests
# with real namespaces and real guests, benches, and one whole run. Installs what it needs first. Needs root for
# the tests of cgroups; tests that cannot run say so and are counted.
#
#   --no-setup   install no packages and build no guest kernel
#   --help       this text
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
exec </dev/null

setup=yes
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--no-setup) setup=no ;;
	*) unknown_flag "$1" ;;
	esac
	shift
done

cd -- "$here/.."
SECONDS=0
scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
step() {
	printf '\n== %s (at %d min %02d s)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)) >&2
}

have cargo || host_lacks "no Rust toolchain: install one from https://rustup.rs, then run this again"
if [[ $setup == yes ]]; then
	step "packages"
	"$here/setup.sh" --for run --for aarch64 --for test
	# With it the command carries a payload for arm64 guests; without it their tests are skipped.
	! have rustup || rustup target add aarch64-unknown-none || say "no target aarch64-unknown-none"
	step "other runtimes to compare with"
	"$here/peers/setup.sh"
	if ! "$here/guest/kernel.sh" --path; then
		step "guest kernel"
		"$here/setup.sh" --for build-kernel
		"$here/guest/kernel.sh"
	fi
	step "the distribution's kernels"
	"$here/guest/kernel.sh" --distro
	"$here/guest/kernel.sh" --distro --arch aarch64 || say "no arm64 kernel: tests of such guests are skipped"
fi

# What is built here is built once.
export CARGO_INCREMENTAL=0

step "scripts"
find scripts .ci -type f \( -name '*.sh' -o -name run \) -exec shellcheck -x {} +

step "formatting"
cargo fmt --check
rustfmt --check --edition 2024 src/payload/program/main.rs

step "lints"
cargo clippy --all-targets --locked -- -D warnings
# The payload is compiled by the build script, out of cargo's sight.
clippy-driver --edition=2024 --crate-type=bin --crate-name=unladen_payload --emit=metadata -Cpanic=abort \
	-D warnings -D clippy::undocumented_unsafe_blocks -o "$scratch/payload.rmeta" src/payload/program/main.rs

step "documentation"
RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked --document-private-items

step "building the tests"
cargo test --locked --no-run

step "tests"
# On continuous integration the list of tests that may be skipped is empty.
if [[ -n ${CI:-} ]]; then
	export UNLADEN_NO_SKIPS=1
fi
cargo test --locked --no-fail-fast -- --test-threads=4

step "benches"
# Each bench once; with the tests' profile, which is built already.
cargo bench --locked --profile dev -- --test

step "one whole run"
"$here/reproduce.sh" --no-setup --profile smoke --out "$scratch/run"
target/release/unladen clean --dry-run

step "done"
