#!/usr/bin/env bash
#help
# rootfs.sh --payload FILE (--folder DIR | --image FILE) [--add FILE:DST]...
#
# Makes a root file system in which the payload is /init, for guests that have theirs on a device.
#
#   --payload FILE   the static program that becomes /init, mode 755
#   --folder DIR     a folder, for 9p; it must not exist yet
#   --image FILE     an ext4 image without a journal, for virtio-blk; replaced in one step; needs mke2fs (e2fsprogs)
#   --add FILE:DST   also put FILE at the absolute path DST, which is directly below /, mode 644; may be given several
#                    times; the image grows by what it needs
#   --help           this text
#
# Besides /init there are the empty folders /proc /sys /dev /tmp /run: the kernel mounts its devices on /dev. Root is
# not needed.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
exec </dev/null

payload='' folder='' image='' adds=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--payload | --folder | --image | --add) need_value "$1" "$@" ;;
	*) unknown_flag "$1" ;;
	esac
	case $1 in
	--payload) payload=$2 ;;
	--folder) folder=$2 ;;
	--image) image=$2 ;;
	--add)
		[[ $2 =~ ^.+:/[A-Za-z0-9_-]+$ ]] || wrong_use "--add: must be FILE:/NAME, not '$2'"
		adds+=("$2")
		;;
	esac
	shift 2
done
[[ -n $payload ]] || wrong_use "--payload is missing"
readable_file --payload "$payload"
[[ -n $folder || -n $image ]] || wrong_use "--folder or --image is missing"
[[ -z $folder || -z $image ]] || wrong_use "--folder and --image exclude each other"
target=$folder$image
parent=$(dirname -- "$target")
[[ -d $parent && -w $parent ]] || host_lacks "cannot write in the folder '$parent'"
[[ -z $folder || ! -e $folder ]] || wrong_use "--folder: '$folder' is there already"

work=$(mktemp -d -- "$parent/.rootfs.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
mkdir -- "$work/root" "$work/root"/{proc,sys,dev,tmp,run}
install -m 755 -- "$payload" "$work/root/init"
bytes=0
for pair in ${adds[@]+"${adds[@]}"}; do
	source=${pair%:/*} target=$work/root/${pair##*:/}
	readable_file --add "$source"
	[[ ! -e $target ]] || wrong_use "--add: /${pair##*:/} is there already"
	install -m 644 -- "$source" "$target"
	bytes=$((bytes + $(stat -c %s -- "$target")))
done
chmod 755 -- "$work/root"
if [[ -n $folder ]]; then
	mv -T -- "$work/root" "$folder"
	exit 0
fi

# Not in the path of an ordinary user everywhere.
PATH=$PATH:/usr/sbin:/sbin
have mke2fs || host_lacks "no mke2fs on this host; install e2fsprogs"
# A large file in small blocks has a record for each of them in the guest's memory. An eighth more holds all inodes.
block=1024 size=4
if ((bytes > 0)); then
	block=4096 size=$((4 + bytes * 9 / 8 / 1048576))
fi
# Identity and times are fixed, so that the same payload gives the same image.
E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -b "$block" -m 0 -O ^has_journal,^metadata_csum,^resize_inode \
	-U 756e6c61-6465-6e00-0000-000000000001 -E hash_seed=756e6c61-6465-6e00-0000-000000000002,root_owner=0:0 \
	-d "$work/root" "$work/image" "${size}M" >/dev/null || host_lacks "mke2fs failed"
mv -f -- "$work/image" "$image"
