#!/usr/bin/env bash
#help
# setup.sh [--check] [--for PURPOSE]...
#
# Installs the packages of the distribution that are missing: Debian and Ubuntu with apt, Fedora with dnf, Arch with
# pacman. Prints the names of what it installs, one a line. Needs root or sudo.
#
#   --for run            start guests, and build the suite itself (default)
#   --for build-kernel   what guest/kernel.sh needs to build the small guest kernel
#   --for aarch64        start arm64 guests on another processor
#   --for test           what the tests and checks of the project need
#   --for all            all of these; --for may be given several times
#   --check              install nothing: print what is missing, and exit with 3 if anything is
#   --help               this text
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
# shellcheck source=scripts/packages.sh
source "$here/packages.sh"
exec </dev/null

check=no purposes=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--check) check=yes ;;
	--for)
		need_value "$1" "$@"
		one_of "$1" "$2" run build-kernel aarch64 test all
		purposes+=("$2")
		shift
		;;
	*) unknown_flag "$1" ;;
	esac
	shift
done
((${#purposes[@]})) || purposes=(run)

# The package, where this release has it.
if_known() { # PACKAGE
	! apt-cache show "$1" >/dev/null 2>&1 || printf '%s\n' "$1"
}

# A table of names for each family: easier to keep right than rules that translate them.
packages_for() { # FAMILY PURPOSE
	case $1/$2 in
	# QEMU brings its firmware: SeaBIOS for q35, qboot for microvm. gcc links Rust programs.
	# virtiofsd is part of QEMU's packages in older releases.
	debian/run | ubuntu/run) echo qemu-system-x86 util-linux gcc libc6-dev "$(if_known virtiofsd)" ;;
	fedora/run) echo qemu-system-x86-core virtiofsd util-linux gcc glibc-devel ;;
	arch/run) echo qemu-system-x86 virtiofsd util-linux gcc glibc ;;
	# zstd: some distributions pack with it the kernel that `kernel.sh --distro` unpacks.
	debian/build-kernel | ubuntu/build-kernel) # Ubuntu packs its source with bzip2.
		echo linux-source gcc libc6-dev binutils make flex bison bc libelf-dev perl tar xz-utils bzip2 lz4 zstd mawk diffutils util-linux
		;;
	fedora/build-kernel)
		echo gcc glibc-devel binutils make flex bison bc elfutils-libelf-devel perl tar xz lz4 zstd gawk diffutils util-linux curl
		;;
	arch/build-kernel)
		echo gcc glibc binutils make flex bison bc libelf perl tar xz lz4 zstd gawk diffutils util-linux curl
		;;
	debian/aarch64 | ubuntu/aarch64) echo qemu-system-arm ;;
	fedora/aarch64) echo qemu-system-aarch64-core ;;
	arch/aarch64) echo qemu-system-aarch64 ;;
	# The browser opens the report page. Ubuntu has it as a snap only, which a script should not force on a host.
	# busybox and setpriv (of util-linux) go into the guest that tests boot.
	# The engines are what tests run `unladen-oci` under; dockerd wants runc to be there as well.
	debian/test) echo shellcheck chromium busybox-static util-linux binutils libc-bin podman conmon docker.io containerd runc ;;
	ubuntu/test) echo shellcheck busybox-static util-linux binutils libc-bin podman conmon docker.io containerd runc ;;
	fedora/test) echo ShellCheck chromium busybox util-linux binutils glibc-common podman conmon moby-engine containerd runc ;;
	arch/test) echo shellcheck chromium busybox util-linux binutils podman conmon docker containerd runc ;;
	esac
}

family=$(distro_family)
for i in "${!purposes[@]}"; do
	[[ ${purposes[i]} != all ]] || purposes=(run build-kernel aarch64 test)
done

if [[ $family == other ]]; then
	say "this distribution's package manager is not known here; install, under the names it uses:"
	for purpose in "${purposes[@]}"; do
		say "for $purpose: $(packages_for arch "$purpose")"
	done
	say "these are the names of Arch Linux; the parts needed are the programs of those names, and the headers of libc and libelf"
	exit 3
fi

missing=()
declare -A seen=()
for purpose in "${purposes[@]}"; do
	for package in $(packages_for "$family" "$purpose"); do
		[[ -z ${seen[$package]:-} ]] || continue
		seen[$package]=1
		is_installed "$family" "$package" || missing+=("$package")
	done
done

if ((${#missing[@]} == 0)); then
	say "nothing is missing for: ${purposes[*]}"
	exit 0
fi
if [[ $check == yes ]]; then
	printf '%s\n' "${missing[@]}"
	say "missing for ${purposes[*]}: ${missing[*]}"
	say "install with: $0$(printf ' --for %s' "${purposes[@]}")"
	exit 3
fi

install_packages "$family" "${missing[@]}"
printf '%s\n' "${missing[@]}"
