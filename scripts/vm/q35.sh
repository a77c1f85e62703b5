#!/usr/bin/env bash
# QEMU's ordinary PC: PCI Express, ACPI, SeaBIOS as its firmware.
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

machine_kernel() {
	echo "uncompressed kernel (vmlinux) with a PVH entry, or a bzImage"
}

machine_options() {
	# Parts that no guest here uses; SeaBIOS and the kernel would look after each of them.
	echo q35,smm=off,vmport=off,sata=off,smbus=off
}

check_kernel() {
	is_elf "$kernel" || is_bzimage "$kernel" || wrong_use "--kernel: '$kernel' is neither a vmlinux nor a bzImage"
}

vm_main "$@"
