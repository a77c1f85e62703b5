#!/usr/bin/env bash
#help
# qemu-version.sh [--arch NAME | --qemu lean]
#
# Prints two lines: "QEMU emulator version ..." and the path of the binary. Exits with 3 when there is no such QEMU. The
# variable UNLADEN_QEMU names another binary than qemu-system-x86_64, UNLADEN_QEMU_LEAN another than
# qemu-system-x86_64-microvm, UNLADEN_QEMU_AARCH64 another than qemu-system-aarch64.
#
#   --arch NAME  x86_64 (default) or aarch64
#   --qemu NAME  full (default), or lean: the distribution's small build for microvm
#   --help       this text
#end
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
exec </dev/null

while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--arch)
		need_value "$1" "$@"
		one_of "$1" "$2" x86_64 aarch64
		if [[ $2 == aarch64 ]]; then
			qemu_variable=UNLADEN_QEMU_AARCH64 qemu_name=qemu-system-aarch64 qemu_purpose=aarch64
		fi
		shift 2
		;;
	--qemu)
		need_value "$1" "$@"
		one_of "$1" "$2" full lean
		[[ $2 == full ]] || choose_lean_qemu
		shift 2
		;;
	*) unknown_flag "$1" ;;
	esac
done

binary=$(find_qemu)
answer=$("$binary" --version) || host_lacks "'$binary --version' failed"
line=${answer%%$'\n'*}
[[ $line == 'QEMU emulator version '* ]] || host_lacks "'$binary' is not QEMU: it says '$line'"
printf '%s\n' "$line" "$binary"
