#!/usr/bin/env bash
#help
# virtiofsd.sh --root PATH (--fd N | --socket FILE) [--print]
#
# Serves a folder to one guest, as --rootfs virtiofs of the machine scripts wants it; with --print only says how. It
# ends when the guest's QEMU does.
#
#   --root PATH     the folder, with /init in it
#   --fd N          a listening Unix stream socket
#   --socket FILE   where to make such a socket
#   --print         print the argument vector, one element a line, and exit
#   --help          this text
#
# There are two programs of this name: QEMU's own (up to 7.2) and the one that took its place. Either will do. They
# shut themselves up in the folder, which needs root, or user namespaces with the newer one. The variable
# UNLADEN_VIRTIOFSD names another binary.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
exec </dev/null

root='' fd='' socket='' print=no
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--print)
		print=yes
		shift
		continue
		;;
	--root | --fd | --socket) need_value "$1" "$@" ;;
	*) unknown_flag "$1" ;;
	esac
	case $1 in
	--root) root=$2 ;;
	--fd)
		whole_number "$1" "$2" 3 1048576
		fd=$2
		;;
	--socket) socket=$2 ;;
	esac
	shift 2
done
[[ -n $root ]] || wrong_use "--root is missing"
[[ -d $root ]] || host_lacks "--root: no folder at '$root'"
[[ -n $fd || -n $socket ]] || wrong_use "--fd or --socket is missing"
[[ -z $fd || -z $socket ]] || wrong_use "--fd and --socket exclude each other"
[[ $root == /* ]] || root=$PWD/$root
[[ $root != *,* ]] || wrong_use "virtiofsd takes a comma in a path for the end of an option"

# Distributions do not put it into the path: nobody calls it by hand.
find_virtiofsd() {
	local path
	for path in "${UNLADEN_VIRTIOFSD:-}" /usr/libexec/virtiofsd /usr/lib/virtiofsd /usr/lib/virtiofsd/virtiofsd \
		/usr/lib/qemu/virtiofsd "$(command -v virtiofsd || true)"; do
		if [[ -n $path && -f $path && -x $path ]]; then
			printf '%s\n' "$path"
			return
		fi
		[[ -z ${UNLADEN_VIRTIOFSD:-} ]] || host_lacks "UNLADEN_VIRTIOFSD: no program '$UNLADEN_VIRTIOFSD'"
	done
	host_lacks "no virtiofsd on this host; install it: $here/../setup.sh --for run"
}

binary=$(find_virtiofsd)
help=$("$binary" --help 2>&1) || host_lacks "'$binary --help' failed"
vector=("$binary")
if [[ -n $fd ]]; then
	vector+=("--fd=$fd")
else
	vector+=("--socket-path=$socket")
fi
if [[ $help == *--shared-dir* ]]; then
	vector+=("--shared-dir=$root" --log-level=error)
else
	vector+=(-o "source=$root" -o log_level=err)
fi
if [[ $print == yes ]]; then
	printf '%s\n' "${vector[@]}"
	exit 0
fi
exec "${vector[@]}"
