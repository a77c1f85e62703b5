#!/usr/bin/env bash
# QEMU's machine without a model in hardware, with an arm64 processor. Its console is a PL011 (ttyAMA0) and its channel
# a serial port on PCI (ttyS0), where a PC's are ttyS0 and ttyS1. It has no device for an exit code: a guest that resets
# it ends QEMU with 0.
set -euo pipefail
# shellcheck source=scripts/vm/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

qemu_variable=UNLADEN_QEMU_AARCH64 qemu_name=qemu-system-aarch64 qemu_purpose=aarch64

machine_options() {
	echo virt
}

virtio_bus() {
	echo pci
}

own_firmware() {
	echo none
}

check_kernel() {
	local magic
	# "ARM\x64" at offset 56 (Documentation/arm64/booting.rst).
	magic=$(od -An -tx1 -j 56 -N 4 -- "$kernel")
	[[ $magic == ' 41 52 4d 64' ]] || wrong_use "--kernel: '$kernel' is no arm64 Image"
	[[ $untuned$incoming$generation_id == nonono && -z $memory_file$trace_fd$devices && $balloon == off &&
		$rootfs == initramfs && $firmware == none ]] || wrong_use "virt has none of the other machines' special options"
}

check_accel() {
	[[ $accel == tcg || $(uname -m) == aarch64 ]] || host_lacks "--accel kvm: this host's processor is no arm64"
}

kernel_words() {
	# Where this machine has its PL011 (hw/arm/virt.c in QEMU's source, VIRT_UART). Without the address the kernel reads it
	# from the device tree, after its first words.
	local early=earlycon=pl011,0x9000000
	local words=(console=ttyAMA0 panic=-1)
	if [[ $verbose == yes ]]; then
		words+=(ignore_loglevel "$early")
	else
		# As on a PC: the early console prints the banner, and from `quiet` on only errors come out.
		words+=(loglevel=6 "$early" quiet)
	fi
	printf '%s' "${words[*]}${append:+ $append}"
}

machine_part() {
	vector+=(-nodefaults -no-user-config -display none -no-reboot -M "$(machine_options)" -accel "$accel")
	# `max` signs pointers, which costs an emulator several times the rest.
	if [[ $accel == tcg ]]; then
		vector+=(-cpu cortex-a57)
	else
		vector+=(-cpu host)
	fi
	vector+=(-m "$memory" -smp "$cpus" -kernel "$kernel")
	[[ -z $initrd ]] || vector+=(-initrd "$initrd")
	vector+=(-append "$(kernel_words)")
}

own_devices() {
	vector+=(-device "pci-serial,chardev=channel")
}

vm_main "$@"
