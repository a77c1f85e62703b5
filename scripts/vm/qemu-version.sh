#!/usr/bin/env bash
#help
# qemu-version.sh
#
# Prints two lines: "QEMU emulator version ..." and the path of the binary. Exits with 3 when there is no QEMU for x86.
# The variable UNLADEN_QEMU names another binary than qemu-system-x86_64.
#
#   --help     this text
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
	*) unknown_flag "$1" ;;
	esac
done

binary=$(find_qemu)
answer=$("$binary" --version) || host_lacks "'$binary --version' failed"
line=${answer%%$'\n'*}
[[ $line == 'QEMU emulator version '* ]] || host_lacks "'$binary' is not QEMU: it says '$line'"
printf '%s\n' "$line" "$binary"
