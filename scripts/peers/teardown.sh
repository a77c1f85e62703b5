#!/usr/bin/env bash
#help
# peers/teardown.sh [--daemons] [--dry-run]
#
# Removes exactly what peers/setup.sh made on this host: daemons that it started, with all that is in them; and, as it wrote
# down, packages that were not there before, and what it built. A package that something else needs by now stays, and is named. Prints what it removes, one a line.
#
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

dry_run=no only_daemons=no
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--dry-run) dry_run=yes ;;
	--daemons) only_daemons=yes ;;
	*) unknown_flag "$1" ;;
	esac
	shift
done

folder=$(peers_folder)
record=$(peers_record)
for name in $(daemon_names); do
	[[ -d $(daemon_folder "$name") ]] || continue
	printf 'daemon %s\n' "$name"
	[[ $dry_run == yes ]] || stop_daemon "$name"
done
[[ $only_daemons == no ]] || exit 0
if [[ ! -s $record ]]; then
	say "setup.sh installed nothing here"
	exit 0
fi
exec 9>"$folder/lock"
flock 9

family=$(distro_family)
packages=() folders=()
while read -r kind what; do
	case $kind in
	package) ! is_installed "$family" "$what" || packages+=("$what") ;;
	# The record is a file that anybody may have edited: only below the folder, and nothing with `..`.
	folder) [[ $what != "$folder"/* || $what == *..* || ! -e $what ]] || folders+=("$what") ;;
	esac
done < <(sort -u -- "$record")

printf '%s\n' ${packages[@]+"${packages[@]}"} ${folders[@]+"${folders[@]}"}
[[ $dry_run == no ]] || exit 0

if ((${#folders[@]})); then
	rm -rf -- "${folders[@]}"
fi
kept=()
if ((${#packages[@]})); then
	# These commands remove the named packages and no other, and refuse when another one needs them.
	case $family in
	debian | ubuntu) remove=(dpkg --purge) ;;
	fedora) remove=(rpm --erase) ;;
	arch) remove=(pacman --remove --noconfirm) ;;
	esac
	find_root "removing needs root; run as root: ${remove[*]} ${packages[*]}"
	# All at once, since they may need each other; one by one where one of them has to stay.
	if ! ${as_root[@]+"${as_root[@]}"} "${remove[@]}" "${packages[@]}" >&2; then
		for package in "${packages[@]}"; do
			! is_installed "$family" "$package" ||
				${as_root[@]+"${as_root[@]}"} "${remove[@]}" "$package" >/dev/null 2>&1 || kept+=("$package")
		done
	fi
fi
rm -f -- "$record"
if ((${#kept[@]})); then
	say "kept, since other packages need them by now: ${kept[*]}"
	printf 'package %s\n' "${kept[@]}" >"$record"
	exit 3
fi
