#!/usr/bin/env bash
#help
# compare-runtimes.sh [--setup] [OPTION]...
#
# Measures how long this project's `container run`, runc, crun, youki, bwrap and unshare take for one container, from
# the call that makes the command's process until it is reaped: in random order in each round of one run, with the same
# program, root filesystem, namespaces, mounts, limits, capabilities and seccomp filter as far as each of them can. Then
# the same within a program, against a container made by hand. Prints medians with 95 % intervals, the ratio of each to
# ours, and what each of them does and does not do. What is not installed is named and left out. Needs root.
#
#   --dynamic       measure the command as `cargo build --release` makes it. Otherwise it is the static build for
#                   musl, which starts sooner, where Rust's target for it is installed (rustup target add)
#   --setup         install the others first: peers/setup.sh, which peers/teardown.sh --packages undoes
#   --rounds N      trials of each (default 50)
#   --only NAME     only this one beside ours (repeatable)
#   --job JOB       what the containers run: true (default), three instructions without a C library; or busybox
#   --seed N        seed of the order and of the intervals
#   --deadline S    seconds that one command may take (default 10)
#   --out FILE      write every trial to this file, with the columns of a run's samples.csv
#   --help          this text
#
# Exit codes: 0 all was measured and nothing is left of it, 1 some trials failed or something was left behind, 2 wrong
# use, 3 the host lacks something.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
exec </dev/null

setup=no dynamic=no options=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--setup) setup=yes ;;
	--dynamic) dynamic=yes ;;
	--rounds)
		need_value "$1" "$@"
		whole_number "$1" "$2" 1 100000
		options+=("$1" "$2")
		shift
		;;
	--deadline)
		need_value "$1" "$@"
		whole_number "$1" "$2" 1 600
		options+=("$1" "$2")
		shift
		;;
	--out)
		need_value "$1" "$@"
		# The bench does not run in the caller's folder.
		[[ -d $(dirname -- "$2") ]] || wrong_use "$1: no folder for '$2'"
		options+=("$1" "$(realpath -- "$2")")
		shift
		;;
	--job)
		need_value "$1" "$@"
		one_of "$1" "$2" true busybox
		options+=("$1" "$2")
		shift
		;;
	--only | --seed)
		need_value "$1" "$@"
		options+=("$1" "$2")
		shift
		;;
	*) unknown_flag "$1" ;;
	esac
	shift
done

((EUID == 0)) || host_lacks "run as root: most of the runtimes need it to set limits"
have cargo || host_lacks "no Rust toolchain: install one from https://rustup.rs, then run this again"
[[ $setup == no ]] || "$here/peers/setup.sh" runc crun bwrap unshare youki >&2
cd -- "$here/.."
target=$(uname -m)-unknown-linux-musl
if [[ $dynamic == no && -d $(rustc --print sysroot)/lib/rustlib/$target ]]; then
	cargo build --quiet --locked --release --target "$target" --bin unladen
	options+=(--unladen "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/unladen")
fi
exec cargo bench --quiet --locked --bench runtimes -- ${options[@]+"${options[@]}"}
