#!/usr/bin/env bash
#help
# reproduce.sh [--profile smoke|quick|many|full] [--out DIR]
#
# From a fresh clone to a comparison: installs missing packages, builds the command and the guest kernel, runs a
# profile, and ends with a table and the path of the report page. Safe to repeat: what is built is kept in the
# user's cache folder and in target/.
#
#   --profile NAME   smoke (under a minute), quick (some minutes; default),
#                    many (memory, density, scale) or full (half an hour)
#   --out DIR        folder for the results (default: results/RUN-ID)
#   --no-setup       install no packages
#   --help           this text
#
# Ends with the exit code of `unladen run`: 0 when everything was measured; see `unladen --help` for the others.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
exec </dev/null

profile=quick out='' setup=yes
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--profile)
		need_value "$1" "$@"
		one_of "$1" "$2" smoke quick many full
		profile=$2
		shift
		;;
	--out)
		need_value "$1" "$@"
		[[ $2 == /* ]] && out=$2 || out=$PWD/$2
		shift
		;;
	--no-setup) setup=no ;;
	*) unknown_flag "$1" ;;
	esac
	shift
done

cd -- "$here/.."
[[ -f Cargo.toml ]] || host_lacks "this script belongs into a clone of the project, and there is no Cargo.toml above it"

if [[ $setup == yes ]]; then
	"$here/setup.sh" --for run >&2
fi
have cargo || host_lacks "no Rust toolchain: install one from https://rustup.rs, then run this again"

# Without a guest kernel the machine cells are skipped, each with its reason; everything else can still be measured.
guest_kernel() { # WHAT FLAG...
	local what=$1
	shift
	"$here/guest/kernel.sh" --path "$@" >/dev/null 2>&1 && return
	if [[ $setup == yes ]]; then
		"$here/setup.sh" --for build-kernel >&2 || true
	fi
	say "making the $what guest kernel (once; some minutes when it is built)"
	"$here/guest/kernel.sh" "$@" >/dev/null || say "no $what guest kernel: its cells will be skipped"
}

say "building the command"
cargo build --release --quiet
guest_kernel small
[[ $profile != full ]] || guest_kernel distribution --distro

arguments=("$profile")
[[ -z $out ]] || arguments+=(--out "$out")
exec target/release/unladen run "${arguments[@]}"
