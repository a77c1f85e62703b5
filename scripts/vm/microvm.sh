#!/usr/bin/env bash
# QEMU's smallest PC: no PCI, no ACPI, qboot as its firmware.
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

machine_kernel() {
	echo "uncompressed kernel (vmlinux) with a PVH entry"
}

machine_options() {
	# With ACPI this machine has no PIT, and a kernel that cannot calibrate its clock against KVM's waits for ever.
	echo microvm,acpi=off,rtc=on
}

check_kernel() {
	is_elf "$kernel" || wrong_use "--kernel: '$kernel' is not an uncompressed kernel (vmlinux)"
	[[ $generation_id == no ]] || wrong_use "--generation-id: this machine has no ACPI, by which a guest would find it"
}

vm_main "$@"
