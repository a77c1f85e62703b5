#!/usr/bin/env bash
# QEMU's oldest PC (i440FX): PCI, ACPI, SeaBIOS as its firmware.
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

machine_options() {
	# Parts that no guest here uses; SeaBIOS and the kernel would look after each of them.
	echo pc,smm=off,vmport=off,usb=off
}

virtio_bus() {
	echo pci
}

own_firmware() {
	echo seabios
}

vm_main "$@"
