#!/usr/bin/env bash
#help
# initramfs.sh --payload FILE --out FILE [--add SRC:DST]...
#
# Writes an uncompressed initial file system (cpio, "newc") in which FILE is /init.
#
#   --payload FILE   the static program that becomes /init, mode 755
#   --out FILE       where to write; replaced in one step, never half written
#   --add SRC:DST    also put SRC at the absolute path DST; a folder comes with all it contains; modes and symbolic
#                    links are kept, owners become root; may be given several times
#   --help           this text
#
# Besides /init there are /dev/console, /dev/null, /dev/ttyS0, /dev/ttyS1 and the empty folders /proc /sys /dev
# /tmp /run. The same input gives the same bytes. Neither root nor the cpio program is needed.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
exec </dev/null

payload='' out='' adds=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--payload)
		need_value "$1" "$@"
		payload=$2
		shift 2
		;;
	--out)
		need_value "$1" "$@"
		out=$2
		shift 2
		;;
	--add)
		need_value "$1" "$@"
		[[ $2 == ?*:/* ]] || wrong_use "--add: must be SRC:/DST, not '$2'"
		adds+=("$2")
		shift 2
		;;
	*) unknown_flag "$1" ;;
	esac
done
[[ -n $payload ]] || wrong_use "--payload is missing"
[[ -n $out ]] || wrong_use "--out is missing"
readable_file --payload "$payload"
[[ ! -d $out ]] || wrong_use "--out: '$out' is a folder"
folder=$(dirname -- "$out")
[[ -d $folder && -w $folder ]] || host_lacks "--out: cannot write in the folder '$folder'"

temporary=$(mktemp -- "$folder/.initramfs.XXXXXX")
trap 'rm -f -- "$temporary" "$temporary.list"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
exec 3>"$temporary"

inode=0
declare -A present=()

# pad BYTES: zeros up to the next multiple of four.
pad() {
	case $(($1 % 4)) in
	1) printf '\0\0\0' >&3 ;;
	2) printf '\0\0' >&3 ;;
	3) printf '\0' >&3 ;;
	esac
}

# header NAME MODE LINKS SIZE MAJOR MINOR: the 110 characters of a newc header, the name, its padding.
header() {
	inode=$((inode + 1))
	printf '070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\0' \
		"$inode" "$2" 0 0 "$3" 0 "$4" 0 0 "$5" "$6" "$((${#1} + 1))" 0 "$1" >&3
	pad $((110 + ${#1} + 1))
}

# claim PATH: a path may be filled once only; the kernel would silently let the last one win.
claim() {
	[[ -z ${present[$1]:-} ]] || wrong_use "--add: /$1 is there already"
	present[$1]=other
}

add_folder() { # PATH MODE
	if [[ ${present[$1]:-} == folder ]]; then
		return
	fi
	claim "$1"
	present[$1]=folder
	header "$1" $((0040000 | 0$2)) 2 0 0 0
}

add_device() { # PATH MODE MAJOR MINOR
	claim "$1"
	header "$1" $((0020000 | 0$2)) 1 0 "$3" "$4"
}

add_file() { # PATH MODE SOURCE
	local size
	claim "$1"
	size=$(stat -L -c %s -- "$3")
	((size < 4294967296)) || wrong_use "'$3' is too large for the newc format (4 GiB)"
	header "$1" $((0100000 | 0$2)) 1 "$size" 0 0
	# head keeps the archive whole when the file grows while it is read.
	head -c "$size" -- "$3" >&3
	pad "$size"
}

add_link() { # PATH TARGET
	claim "$1"
	header "$1" $((0120777)) 1 ${#2} 0 0
	printf '%s' "$2" >&3
	pad ${#2}
}

add_parents() { # PATH
	local path='' rest=$1
	while [[ $rest == */* ]]; do
		path+=${path:+/}${rest%%/*}
		rest=${rest#*/}
		add_folder "$path" 755
	done
}

add_source() { # SOURCE PATH
	local mode
	mode=$(stat -c %a -- "$1")
	add_parents "$2"
	if [[ -L $1 ]]; then
		add_link "$2" "$(readlink -- "$1")"
	elif [[ -d $1 ]]; then
		add_folder "$2" "$mode"
	elif [[ -f $1 ]]; then
		[[ -r $1 ]] || host_lacks "--add: cannot read '$1'"
		add_file "$2" "$mode" "$1"
	else
		wrong_use "--add: '$1' is neither a file nor a folder nor a symbolic link"
	fi
}

add_folder dev 755
add_folder proc 555
add_folder sys 555
add_folder tmp 1777
add_folder run 755
# The kernel opens /dev/console for the first process before anything could mount a devtmpfs.
add_device dev/console 600 5 1
add_device dev/null 666 1 3
add_device dev/ttyS0 600 4 64
add_device dev/ttyS1 600 4 65
add_file init 755 "$payload"

for pair in ${adds[@]+"${adds[@]}"}; do
	source=${pair%:/*}
	target=${pair##*:/}
	target=${target%/}
	case /$target/ in
	*/../* | */./* | ?*//*) wrong_use "--add: '/$target' is not a plain absolute path" ;;
	esac
	[[ -e $source || -L $source ]] || host_lacks "--add: nothing at '$source'"
	if [[ -d $source && ! -L $source ]]; then
		[[ -z $target ]] || add_source "$source" "$target"
		# Through a file, since a failure of find inside <() would go unseen.
		find "$source" -mindepth 1 -printf '%P\0' | sort -z >"$temporary.list" ||
			host_lacks "--add: cannot read all of '$source'"
		while IFS= read -r -d '' entry; do
			add_source "$source/$entry" "${target:+$target/}$entry"
		done <"$temporary.list"
	else
		[[ -n $target ]] || wrong_use "--add: '$source' needs a name in the guest"
		add_source "$source" "$target"
	fi
done

header 'TRAILER!!!' 0 1 0 0 0
exec 3>&-
chmod 644 -- "$temporary"
mv -f -- "$temporary" "$out"
