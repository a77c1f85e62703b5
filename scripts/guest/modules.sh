#!/usr/bin/env bash
#help
# modules.sh --kernel FILE --module NAME... --loader FILE --payload FILE --out FILE [--add SRC:DST]...
#
# Writes an initial file system for a guest whose kernel has some drivers as modules: the loader is /init, the payload
# is /payload, and the modules with all that they need are /modules/00.ko and so on, in the order of loading.
#
#   --kernel FILE    a kernel of kernel.sh; its modules stand beside it, or belong to the running system
#   --module NAME    a module; one that is built in is left out; may be given several times
#   --loader FILE    the static program that loads them
#   --payload FILE   the static program that it then becomes
#   --out FILE       where to write; replaced in one step
#   --add SRC:DST    as for initramfs.sh
#   --help           this text
#
# Root is not needed. Exits with 3 when the kernel has no such module.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
exec </dev/null

kernel='' loader='' payload='' out='' names=() adds=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--kernel | --module | --loader | --payload | --out | --add) need_value "$1" "$@" ;;
	*) unknown_flag "$1" ;;
	esac
	case $1 in
	--kernel) kernel=$2 ;;
	--module)
		[[ $2 =~ ^[A-Za-z0-9_-]+$ ]] || wrong_use "$1: not a module's name: '$2'"
		names+=("$2")
		;;
	--loader) loader=$2 ;;
	--payload) payload=$2 ;;
	--out) out=$2 ;;
	--add) adds+=("$1" "$2") ;;
	esac
	shift 2
done
readable_file --kernel "$kernel"
readable_file --loader "$loader"
readable_file --payload "$payload"
[[ -n $out ]] || wrong_use "--out is missing"

folder=$(dirname -- "$kernel")
release=$(sed -n 's/^version=//p' "$folder/info" 2>/dev/null) || true
for modules in "$folder/modules" "/lib/modules/$release" "/usr/lib/modules/$release" ''; do
	[[ -d $modules/kernel ]] && break
done
[[ -n $modules ]] || host_lacks "no modules of the kernel '$kernel' beside it or in /lib/modules"

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
mkdir -- "$work/modules"

# A module's file may be written with - where its name has _.
find_module() { # NAME
	local pattern=${1//[-_]/[-_]}
	find "$modules/kernel" -name "$pattern.ko" -o -name "$pattern.ko.[gxz]*" | head -n 1
}

built_in() { # NAME
	[[ -r $modules/modules.builtin ]] && grep -qE "/${1//[-_]/[-_]}\.ko\$" "$modules/modules.builtin"
}

unpack() { # FILE
	case $1 in
	*.ko) cat -- "$1" ;;
	*.ko.gz) gzip -dc -- "$1" ;;
	*.ko.xz) xz -dc -- "$1" ;;
	*.ko.zst) zstd -dcq -- "$1" ;;
	*) host_lacks "'$1' is packed in an unknown way" ;;
	esac
}

declare -A seen=()
count=0

# Depth first, so that each comes after what it needs. Its own file says what that is.
add_module() { # NAME
	local name=${1//-/_} file needs need
	[[ -z ${seen[$name]:-} ]] || return 0
	seen[$name]=yes
	if built_in "$name"; then
		return
	fi
	file=$(find_module "$name")
	[[ -n $file ]] || host_lacks "this kernel has neither a built-in driver nor a module $1"
	unpack "$file" >"$work/$name.ko"
	needs=$(tr '\0' '\n' <"$work/$name.ko" | sed -n 's/^depends=//p' | tr ',' ' ')
	for need in $needs; do
		add_module "$need"
	done
	mv -- "$work/$name.ko" "$work/modules/$(printf '%02d' "$count").ko"
	count=$((count + 1))
}

for name in ${names[@]+"${names[@]}"}; do
	add_module "$name"
done
((count <= 100)) || host_lacks "more than 100 modules are needed"
"$here/initramfs.sh" --payload "$loader" --add "$payload:/payload" --add "$work/modules:/modules" --out "$out" \
	${adds[@]+"${adds[@]}"}
