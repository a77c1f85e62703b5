#!/usr/bin/env bash
# QEMU's ordinary PC: PCI Express, ACPI, SeaBIOS as its firmware.
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

machine_options() {
	# Parts that no guest here uses; SeaBIOS and the kernel would look after each of them.
	echo q35,smm=off,vmport=off,sata=off,smbus=off
}

virtio_bus() {
	echo pci
}

own_firmware() {
	echo seabios
}

vm_main "$@"
