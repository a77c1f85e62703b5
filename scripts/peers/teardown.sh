#!/usr/bin/env bash
#help
# peers/teardown.sh [--packages] [--daemons] [--dry-run]
#
# Removes what peers/setup.sh made on this host: daemons that it started, with all that is in them, their sockets and
# folders, and the programs that it built. Prints what it removes, one a line.
#
#   --packages  also the packages that setup.sh installed, as it wrote them down; those that were there before are not among
#               them. One that something else needs by now stays, and is named. Needs root or sudo.
#   --daemons   only the daemons
#   --dry-run   only print it
#   --help      this text
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

dry_run=no only_daemons=no with_packages=no
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--dry-run) dry_run=yes ;;
	--packages) with_packages=yes ;;
	--daemons) only_daemons=yes ;;
	*) unknown_flag "$1" ;;
	esac
	shift
done

[[ $only_daemons == no || $with_packages == no ]] || wrong_use "--daemons leaves packages alone; --packages removes them"

folder=$(peers_folder)
record=$(peers_record)
[[ -d $folder ]] || {
	say "setup.sh made nothing here"
	exit 0
}
exec 9>"$folder/lock"
flock 9
for name in $(daemon_names); do
	[[ -d $(daemon_folder "$name") ]] || continue
	printf 'daemon %s\n' "$name"
	[[ $dry_run == yes ]] || stop_daemon "$name"
done
if [[ $dry_run == no ]]; then
	remove_strays
	rmdir -- "$folder/daemons" 2>/dev/null || true
fi
[[ $only_daemons == no ]] || exit 0

family=$(distro_family)
packages=() folders=()
while read -r kind what; do
	case $kind in
	package) ! is_installed "$family" "$what" || packages+=("$what") ;;
	# The record is a file that anybody may have edited: only below the folder, and nothing with `..`.
	folder) [[ $what != "$folder"/* || $what == *..* || ! -e $what ]] || folders+=("$what") ;;
	esac
done < <([[ ! -s $record ]] || sort -u -- "$record")

((${#folders[@]} == 0)) || printf 'folder %s\n' "${folders[@]}"
[[ $with_packages == no || ${#packages[@]} -eq 0 ]] || printf 'package %s\n' "${packages[@]}"
[[ $dry_run == no ]] || exit 0

((${#folders[@]} == 0)) || rm -rf -- "${folders[@]}"
# What a build that was killed left.
rm -rf -- "$folder"/.draft.*

# Removes the named packages and no other, and leaves in `kept` those that another one needs.
remove_packages() { # PACKAGE...
	local remove package
	case $family in
	debian | ubuntu) remove=(dpkg --purge) ;;
	fedora) remove=(rpm --erase) ;;
	arch) remove=(pacman --remove --noconfirm) ;;
	esac
	find_root "removing needs root; run as root: ${remove[*]} $*"
	# All at once, since they may need each other; one by one where one of them has to stay.
	! ${as_root[@]+"${as_root[@]}"} "${remove[@]}" "$@" >&2 || return 0
	for package in "$@"; do
		! is_installed "$family" "$package" ||
			${as_root[@]+"${as_root[@]}"} "${remove[@]}" "$package" >/dev/null 2>&1 || kept+=("$package")
	done
}

kept=() status=0
if ((${#packages[@]})) && [[ $with_packages == no ]]; then
	kept=("${packages[@]}")
	say "packages that setup.sh installed stay; this removes them: $0 --packages"
elif ((${#packages[@]})); then
	remove_packages "${packages[@]}"
	if ((${#kept[@]})); then
		say "kept, since other packages need them by now: ${kept[*]}"
		status=3
	fi
fi
rm -f -- "$record"
if ((${#kept[@]})); then
	printf 'package %s\n' "${kept[@]}" >"$record"
else
	# Only when nothing else is in it; somebody who waits for the lock makes another.
	rm -f -- "$folder/lock"
	rmdir -- "$folder" 2>/dev/null || true
fi
exit "$status"
