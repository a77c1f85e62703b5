#!/usr/bin/env bash
#help
# peers/setup.sh [--check] [NAME...]
# peers/setup.sh --path NAME
#
# Installs other systems to compare with: runc, crun, bwrap and unshare from the distribution (Debian and Ubuntu with
# apt, Fedora with dnf, Arch with pacman), youki from its crate, which takes some minutes once and needs a Rust
# toolchain. Without a NAME all of them. Prints name and program of each, one a line. Installing packages needs root or
# sudo. What it installs it writes down in the cache folder, and peers/teardown.sh removes exactly that.
#
#   --check       install nothing: print the names of those that are missing, and exit with 3 if any is
#   --path NAME   print the program of this one and nothing else; exit with 3 if there is none
#   --help        this text
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
# shellcheck source=scripts/packages.sh
source "$here/../packages.sh"
# shellcheck source=scripts/peers/common.sh
source "$here/common.sh"
exec </dev/null

read -r -a known <<<"$(peer_names)"
check=no path='' names=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--check) check=yes ;;
	--path)
		need_value "$1" "$@"
		one_of "$1" "$2" "${known[@]}"
		path=$2
		shift
		;;
	-*) unknown_flag "$1" ;;
	*)
		one_of NAME "$1" "${known[@]}"
		names+=("$1")
		;;
	esac
	shift
done
((${#names[@]})) || names=("${known[@]}")

if [[ -n $path ]]; then
	peer_program "$path" || host_lacks "$path is not installed; install it with: $0 $path"
	exit 0
fi

missing=()
for name in "${names[@]}"; do
	peer_program "$name" >/dev/null || missing+=("$name")
done
if [[ $check == yes ]]; then
	((${#missing[@]})) || exit 0
	printf '%s\n' "${missing[@]}"
	say "install with: $0 ${missing[*]}"
	exit 3
fi

family=$(distro_family)
folder=$(peers_folder)
record=$(peers_record)
if ((${#missing[@]})); then
	have flock || host_lacks "no flock on this host; install util-linux"
	mkdir -p -- "$folder" || host_lacks "cannot create the folder '$folder'"
	exec 9>"$folder/lock"
	flock 9
fi

# Adds packages, and whatever they bring along, and writes down the difference: also when it fails half-way.
add_packages() { # PACKAGE...
	local before status=0
	before=$(list_packages "$family")
	(install_packages "$family" "$@") || status=$?
	comm -13 <(printf '%s\n' "$before") <(list_packages "$family") | sed 's/^/package /' >>"$record"
	((status == 0)) || exit "$status"
}

# Ends a compilation together with this script.
child=''
clean_up() {
	if [[ -n $child ]]; then
		kill -- "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	rm -rf -- "${draft:-}"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

# Builds a crate beside and renames it, so that nobody ever sees half of it.
build_crate() { # NAME
	local words status=0 final
	have cargo || host_lacks "no Rust toolchain: install one from https://rustup.rs, then run this again"
	final=$(crate_folder "$1")
	rm -rf -- "$folder"/.draft.*
	draft=$(mktemp -d -- "$folder/.draft.XXXXXX")
	read -r -a words <<<"$(peer_crate "$1")"
	say "building ${words[*]}; some minutes"
	# In the background, since bash obeys a signal only between foreground commands; in the project's folder, whose
	# toolchain is the one that is known to be new enough.
	set -m
	env -C "$here" CARGO_TARGET_DIR="$draft/target" cargo install --quiet --root "$draft/root" "${words[@]}" >"$draft/log" 2>&1 &
	child=$!
	set +m
	wait "$child" || status=$?
	child=''
	if ((status != 0)); then
		tail -n 30 -- "$draft/log" >&2
		host_lacks "building $1 failed"
	fi
	[[ -x $draft/root/bin/$1 ]] || host_lacks "the crate of $1 made no program of that name"
	printf 'folder %s\n' "$final" >>"$record"
	rm -rf -- "$final"
	mv -T -- "$draft/root" "$final"
	rm -rf -- "$draft"
}

for name in "${missing[@]}"; do
	# Somebody else may have made it while we waited for the lock.
	! peer_program "$name" >/dev/null || continue
	read -r -a packages <<<"$(peer_packages "$family" "$name")"
	((${#packages[@]})) ||
		host_lacks "this distribution's package manager is not known here; install $name by hand (its own site says how), and have it in PATH"
	absent=()
	for package in "${packages[@]}"; do
		is_installed "$family" "$package" || absent+=("$package")
	done
	((${#absent[@]} == 0)) || add_packages "${absent[@]}"
	[[ -z $(peer_crate "$name") ]] || build_crate "$name"
	peer_program "$name" >/dev/null || host_lacks "installed $name, yet no program of that name is found"
done

for name in "${names[@]}"; do
	printf '%s\t%s\n' "$name" "$(peer_program "$name")"
done
