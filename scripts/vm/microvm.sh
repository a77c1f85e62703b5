#!/usr/bin/env bash
# QEMU's smallest PC: no PCI, no ACPI, qboot as its firmware.
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

machine_options() {
	# With ACPI this machine has no PIT, and a kernel that cannot calibrate its clock against KVM's waits for ever.
	echo microvm,acpi=off,rtc=on
}

virtio_bus() {
	echo device
}

own_firmware() {
	echo qboot
}

vm_main "$@"
