#!/usr/bin/env bash
#help
# kernel.sh [--distro [--arch aarch64]] [--bzimage] [--path] [--jobs N]
#
# Makes sure the small guest kernel is in the cache and prints the path of its vmlinux: one line on standard output.
#
#   --bzimage  print the path of the compressed kernel beside it, made from the same build, instead
#   --distro   the distribution's own kernel for virtual machines instead, as it comes, to compare with
#   --arch     with --distro: aarch64 for the kernel of an arm64 guest, an Image (Debian only); default x86_64
#   --path     build and download nothing: print the path if the kernel is cached, else exit with 3
#   --jobs N   parallel compilations (default: the number of processors)
#   --help     this text
#
# The small kernel is built from the distribution's kernel source (Debian, Ubuntu: the package behind linux-source, as
# installed, or else downloaded and unpacked privately). Elsewhere it is built from the release of kernel.org named in
# this script; its checksum is looked up in the list which kernel.org publishes beside it, over the same connection, so
# it proves an undamaged download, not more. What the kernel contains is written in kernel.config.
#
# Everything lands in $XDG_CACHE_HOME/unladen/guest (default ~/.cache): kernel-<hash> with vmlinux (uncompressed, PVH),
# bzImage, config, System.map and info; distro-<hash> with vmlinux, bzImage, config, modules and info; foreign-<hash>
# with Image, config and info. Once there, it
# is used without any network, until kernel.config or the recipe changes. Delete the folder to build it anew from
# a newer source. Root is not needed. A build takes 5 to 6 minutes on two idle processors, and 3 GB of the disk while it
# runs.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
exec </dev/null

# Part of every hash below: raise it when this script builds something else from the same source and configuration.
readonly recipe=1
readonly upstream_version=6.1.192
readonly upstream_base=${UNLADEN_KERNEL_MIRROR:-https://cdn.kernel.org/pub/linux/kernel/v6.x}
readonly fragment=$here/kernel.config
readonly setup="$here/../setup.sh --for build-kernel"

distro=no path_only=no jobs='' file=vmlinux arch=x86_64
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--distro) distro=yes ;;
	--bzimage) file=bzImage ;;
	--arch)
		need_value "$1" "$@"
		one_of "$1" "$2" x86_64 aarch64
		arch=$2
		shift
		;;
	--path) path_only=yes ;;
	--jobs)
		need_value "$1" "$@"
		whole_number "$1" "$2" 1 1024
		jobs=$2
		shift
		;;
	*) unknown_flag "$1" ;;
	esac
	shift
done
[[ -n $jobs ]] || jobs=$(nproc)
if [[ $arch == aarch64 ]]; then
	[[ $distro == yes ]] || wrong_use "--arch: the small kernel is for x86_64; say --distro too"
	[[ $file == vmlinux ]] || wrong_use "--arch: an arm64 kernel is no bzImage"
	file=Image
fi

cache=$(cache_root)/guest
family=$(distro_family)

short_hash() {
	sha256sum | cut -c 1-16
}

# A pointer file says which folder answers to a request, so that a cached kernel is found without asking the package
# manager which source is current.
if [[ $arch == aarch64 ]]; then
	pointer=$cache/foreign.$(printf '%s\n' "$recipe" "$family" "$arch" | short_hash).pointer
elif [[ $distro == yes ]]; then
	# Where the running kernel is what we take, another running kernel is another request.
	[[ $family == debian || $family == ubuntu ]] && release='' || release=$(uname -r)
	pointer=$cache/distro.$(printf '%s\n' "$recipe" "$family" "$release" | short_hash).pointer
else
	pointer=$cache/kernel.$({
		printf '%s\n' "$recipe"
		cat -- "$fragment"
	} | short_hash).pointer
fi

print_if_cached() {
	local folder
	[[ -r $pointer ]] || return 1
	folder=$(<"$pointer")
	[[ $folder =~ ^(kernel|distro|foreign)-[0-9a-f]{16}$ && -s $cache/$folder/$file ]] || return 1
	[[ -s $cache/$folder/vmlinux || $arch == aarch64 ]] || return 1
	printf '%s\n' "$cache/$folder/$file"
}

if print_if_cached; then
	exit 0
fi
again="$0$([[ $distro == no ]] || echo ' --distro')$([[ $arch == x86_64 ]] || echo " --arch $arch")"
[[ $path_only == no ]] || host_lacks "the kernel is not in the cache; get it with: $again"

[[ $(uname -m) == x86_64 || $arch == aarch64 ]] ||
	host_lacks "guests are x86_64, this host is $(uname -m), and cross-compiling is not supported"
mkdir -p -- "$cache" || host_lacks "cannot create the cache folder '$cache'"
[[ -w $cache ]] || host_lacks "cannot write in the cache folder '$cache'"
have flock || host_lacks "no flock on this host; install util-linux"

# The lock goes on to every child, make too: when this script is killed so hard that it cannot clean up, nobody starts
# to remove the folder below while a compiler still writes in it.
exec 9>"$cache/lock"
if ! flock -n 9; then
	say "another kernel is being made; waiting for it"
	flock 9
	if print_if_cached; then
		exit 0
	fi
fi

rm -rf -- "$cache"/.work.*
work=$(mktemp -d -- "$cache/.work.XXXXXX")
child=''
clean_up() {
	# A compilation is a process group of its own: see `logged`.
	if [[ -n $child ]]; then
		kill -- "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

# logged STEP COMMAND...: output to a log, whose end is shown when the command fails. In the background, since bash
# obeys a signal only between foreground commands, and a compilation is minutes long.
logged() {
	local step=$1 status=0
	shift
	say "$step"
	set -m
	"$@" >"$work/log" 2>&1 &
	child=$!
	set +m
	wait "$child" || status=$?
	child=''
	if ((status != 0)); then
		tail -n 30 -- "$work/log" >&2
		say "$step: failed with status $status"
		return 1
	fi
}

need_programs() {
	local missing=() program
	for program in "$@"; do
		have "$program" || missing+=("$program")
	done
	((${#missing[@]} == 0)) || host_lacks "not installed: ${missing[*]}; install what is missing with: $setup"
}

# need_space MEGABYTES
need_space() {
	local free
	free=$(df -Pm -- "$cache" | awk 'NR == 2 { print $4 }')
	((free >= $1)) || host_lacks "only $free MB free in '$cache', $1 MB are needed"
}

# download_package PACKAGE[=VERSION] FOLDER: fetches and unpacks; the package manager itself checks the signature.
download_package() {
	mkdir -p -- "$work/deb" "$2"
	rm -f -- "$work"/deb/*.deb
	logged "downloading the package $1" env -C "$work/deb" apt-get -o APT::Sandbox::User="$(id -un)" download "$1" ||
		host_lacks "cannot download the package $1; is the network up, and are the package lists there? apt-get update (as root)"
	logged "unpacking the package $1" dpkg-deb -x "$work"/deb/*.deb "$2" || host_lacks "cannot unpack the package $1"
	rm -f -- "$work"/deb/*.deb
}

# first_dependency PACKAGE PATTERN: the package that a meta-package stands for.
first_dependency() {
	apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: //p' | grep -E -m 1 -- "$2" || true
}

candidate_version() {
	apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: //p'
}

# publish KIND IDENTITY: moves $work/out to its final name, then points to it.
publish() {
	local folder
	folder=$1-$({
		printf '%s\n' "$recipe" "$2"
		[[ $1 != kernel ]] || cat -- "$fragment"
	} | short_hash)
	# A folder of that name without its vmlinux is damaged: publishing is the last step.
	rm -rf -- "${cache:?}/$folder"
	mv -T -- "$work/out" "$cache/$folder"
	printf '%s\n' "$folder" >"$work/pointer"
	mv -f -- "$work/pointer" "$pointer"
	print_if_cached
}

# --- the small kernel ---------------------------------------------------------------------------------------------

# Leaves the source in $work/source and its name in `identity`.
get_source() {
	mkdir -- "$work/source"
	case $family in
	debian | ubuntu) get_packaged_source ;;
	*) get_upstream_source ;;
	esac
}

get_packaged_source() {
	local package version root archive
	package=$(first_dependency linux-source '^linux-source-[0-9]')
	[[ -n $package ]] || package=$(dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' 'linux-source-[0-9]*' 2>/dev/null |
		sed -n 's/ ii *$//p' | sort -V | tail -n 1)
	[[ -n $package ]] || host_lacks "the package lists know no linux-source; run apt-get update (as root), or: $setup"
	version=$(dpkg-query -W -f '${db:Status-Abbrev}${Version}' "$package" 2>/dev/null | sed -n 's/^ii *//p') || true
	if [[ -n $version ]]; then
		root=''
	else
		version=$(candidate_version "$package")
		root=$work/package
		download_package "$package=$version" "$root"
	fi
	# Ubuntu keeps the archive one folder deeper and a link to it beside.
	archive=$(find "$root/usr/src" -maxdepth 2 -type f -path "*$package*" -name 'linux-source-*.tar.*' | sort | head -n 1)
	[[ -n $archive ]] || host_lacks "the package $package holds no source archive"
	identity="$package $version"
	unpack_source "$archive"
	rm -rf -- "$work/package"
}

fetch() { # URL FILE
	if have curl; then
		logged "downloading $1" curl -fsSL --retry 3 -o "$2" -- "$1"
	elif have wget; then
		logged "downloading $1" wget -q -O "$2" -- "$1"
	else
		host_lacks "neither curl nor wget is installed"
	fi || host_lacks "cannot download $1"
}

get_upstream_source() {
	local archive=linux-$upstream_version.tar.xz sum
	fetch "$upstream_base/sha256sums.asc" "$work/sums"
	sum=$(sed -n "s/^\([0-9a-f]\{64\}\)  $archive\$/\1/p" "$work/sums")
	[[ -n $sum ]] || host_lacks "$upstream_base/sha256sums.asc does not list $archive"
	fetch "$upstream_base/$archive" "$work/$archive"
	(cd -- "$work" && sha256sum --quiet -c <<<"$sum  $archive") >&2 || host_lacks "$archive does not have its published checksum"
	identity="kernel.org $upstream_version"
	unpack_source "$work/$archive"
	rm -f -- "$work/$archive"
}

unpack_source() {
	logged "unpacking ${1##*/}" tar -xf "$1" -C "$work/source" --strip-components=1 || host_lacks "cannot unpack '$1'"
}

kernel_make() {
	make -C "$work/source" O="$work/build" "$@"
}

configure() {
	mkdir -p -- "$work/build"
	kernel_make tinyconfig
	# merge_config only joins the files; kconfig then resolves them in one go.
	(cd -- "$work/build" && "$work/source/scripts/kconfig/merge_config.sh" -m -O . .config "$fragment")
	kernel_make olddefconfig
}

# kconfig drops silently what it cannot satisfy.
check_configuration() {
	local line option bad=()
	while IFS= read -r line; do
		option=${line%%=*}
		case $line in
		CONFIG_*=n) ! grep -q "^$option=" "$work/build/.config" || bad+=("$line") ;;
		CONFIG_*) grep -qxF -- "$line" "$work/build/.config" || bad+=("$line") ;;
		esac
	done <"$fragment"
	((${#bad[@]} == 0)) || {
		say "this kernel source does not accept these lines of kernel.config: ${bad[*]}"
		exit 1
	}
}

build() {
	local started=$SECONDS identity='' built=$work/build out=$work/out compiler
	need_programs make gcc ld strip readelf flex bison bc lz4 perl tar xz awk cmp
	printf '#include <libelf.h>\n' | gcc -E -x c - >/dev/null 2>&1 ||
		host_lacks "the header libelf.h is missing; install what is missing with: $setup"
	need_space 3000
	get_source
	logged "configuring $identity" configure || exit 1
	check_configuration
	# Names and times of this host do not belong in the kernel.
	logged "compiling the guest kernel (some minutes)" \
		kernel_make -j "$jobs" KBUILD_BUILD_USER=unladen KBUILD_BUILD_HOST=unladen \
		KBUILD_BUILD_VERSION=1 KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' vmlinux bzImage || exit 1
	readelf -n "$built/vmlinux" 2>/dev/null | grep -q Xen || {
		say "the kernel came out without a PVH entry"
		exit 1
	}
	compiler=$(gcc --version)
	mkdir -- "$out"
	strip --strip-all -o "$out/vmlinux" "$built/vmlinux"
	cp -- "$built/arch/x86/boot/bzImage" "$out/bzImage"
	cp -- "$built/.config" "$out/config"
	cp -- "$built/System.map" "$out/System.map"
	{
		printf 'version=%s\n' "$(cat -- "$built/include/config/kernel.release")"
		printf 'source=%s\n' "$identity"
		printf 'compiler=%s\n' "${compiler%%$'\n'*}"
		printf 'recipe=%s\n' "$recipe"
		printf 'vmlinux_sha256=%s\n' "$(sha256sum <"$out/vmlinux" | cut -d ' ' -f 1)"
		printf 'build_seconds=%s\n' "$((SECONDS - started))"
	} >"$out/info"
	publish kernel "$identity"
}

# --- the distribution's kernel ------------------------------------------------------------------------------------

little_endian() { # FILE OFFSET BYTES
	od -An -v -j "$2" -N "$3" -t "u$3" --endian=little -- "$1" | tr -d ' '
}

# extract_vmlinux BZIMAGE FILE: the boot protocol (2.08 and later) says where the compressed kernel lies.
extract_vmlinux() {
	local offset size magic tool
	[[ $(tail -c +515 -- "$1" | head -c 4) == HdrS ]] || host_lacks "'$1' is not a bzImage"
	(($(little_endian "$1" 518 2) >= 0x208)) || host_lacks "'$1' is too old to say where its kernel lies"
	offset=$((($(little_endian "$1" 497 1) + 1) * 512 + $(little_endian "$1" 584 4)))
	size=$(little_endian "$1" 588 4)
	# The last four bytes are the unpacked size, which the build appends; gzip alone has them itself.
	tail -c +"$((offset + 1))" -- "$1" | head -c "$((size - 4))" >"$work/payload" || true
	magic=$(od -An -N 4 -t x1 -- "$work/payload" | tr -d ' ')
	case $magic in
	1f8b*)
		tail -c +"$((offset + 1))" -- "$1" | head -c "$size" >"$work/payload" || true
		tool=gzip
		;;
	fd377a58) tool=xz ;;
	28b52ffd) tool=zstd ;;
	02214c18) tool=lz4 ;;
	425a68*) tool=bzip2 ;;
	5d0000*) tool=lzma ;;
	894c5a4f) tool=lzop ;;
	*) host_lacks "the kernel in '$1' is packed in an unknown way ($magic)" ;;
	esac
	have "$tool" || host_lacks "unpacking the kernel needs $tool, which is not installed"
	"$tool" -dc <"$work/payload" >"$2" || host_lacks "$tool cannot unpack the kernel in '$1'"
	rm -f -- "$work/payload"
	[[ $(head -c 4 -- "$2" | od -An -tx1) == ' 7f 45 4c 46' ]] || host_lacks "what '$1' unpacks to is not an ELF file"
}

# keep_distro IDENTITY RELEASE BZIMAGE CONFIG MODULES
keep_distro() {
	local out=$work/out
	mkdir -- "$out"
	cp -- "$3" "$out/bzImage" || host_lacks "cannot read '$3'"
	extract_vmlinux "$out/bzImage" "$out/vmlinux"
	[[ ! -r $4 ]] || cp -- "$4" "$out/config"
	if [[ -d $5 ]]; then
		mv -T -- "$5" "$out/modules"
	fi
	{
		printf 'version=%s\n' "$2"
		printf 'source=%s\n' "$1"
		printf 'recipe=%s\n' "$recipe"
		printf 'vmlinux_sha256=%s\n' "$(sha256sum <"$out/vmlinux" | cut -d ' ' -f 1)"
	} >"$out/info"
	publish distro "$1"
}

get_distro_packages() { # META-PACKAGE
	local image version release root=$work/image
	image=$(first_dependency "$1" '^linux-image-[0-9]')
	[[ -n $image ]] || host_lacks "the package lists know no $1; run apt-get update (as root)"
	version=$(candidate_version "$image")
	release=${image#linux-image-}
	need_space 600
	download_package "$image=$version" "$root"
	if [[ $family == ubuntu ]]; then
		# There the modules and the configuration are a package of their own.
		download_package "linux-modules-$release" "$root"
	fi
	local modules=$root/lib/modules/$release
	[[ -d $modules ]] || modules=$root/usr/lib/modules/$release
	keep_distro "$image $version" "$release" "$root/boot/vmlinuz-$release" "$root/boot/config-$release" "$modules"
}

# The package manager with lists of its own, for another architecture than the host's: nothing of the host changes.
foreign_apt() { # PROGRAM ARGUMENT...
	APT_CONFIG=$work/apt/conf "$@"
}

get_foreign_package() { # META-PACKAGE
	local image version release root=$work/image
	need_programs apt-get apt-cache dpkg-deb
	need_space 300
	mkdir -p -- "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/deb"
	: >"$work/apt/status"
	cat >"$work/apt/conf" <<-EOT
		APT::Architecture "arm64";
		APT::Architectures { "arm64"; };
		APT::Sandbox::User "$(id -un)";
		Dir::State "$work/apt";
		Dir::State::lists "$work/apt/lists";
		Dir::State::status "$work/apt/status";
		Dir::Cache "$work/apt/cache";
	EOT
	logged "reading the package lists for arm64" foreign_apt apt-get -q update || host_lacks "cannot read the package lists for arm64"
	image=$(foreign_apt apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: //p' | grep -E -m 1 '^linux-image-[0-9]') ||
		host_lacks "the package lists for arm64 know no $1"
	version=$(foreign_apt apt-cache policy "$image" | sed -n 's/^ *Candidate: //p')
	release=${image#linux-image-}
	logged "downloading the package $image" foreign_apt env -C "$work/deb" apt-get download "$image=$version" ||
		host_lacks "cannot download the package $image"
	logged "unpacking the package $image" dpkg-deb -x "$work"/deb/*.deb "$root" || host_lacks "cannot unpack the package $image"
	keep_foreign "$image $version" "$release" "$root/boot/vmlinuz-$release" "$root/boot/config-$release"
}

# keep_foreign IDENTITY RELEASE IMAGE CONFIG
keep_foreign() {
	local out=$work/out
	mkdir -- "$out"
	if [[ $(head -c 2 -- "$3" | od -An -tx1) == ' 1f 8b' ]]; then
		gzip -dc -- "$3" >"$out/Image" || host_lacks "gzip cannot unpack '$3'"
	else
		cp -- "$3" "$out/Image" || host_lacks "cannot read '$3'"
	fi
	# "ARM\x64" at offset 56 (Documentation/arm64/booting.rst).
	[[ $(od -An -tx1 -j 56 -N 4 -- "$out/Image") == ' 41 52 4d 64' ]] || host_lacks "'$3' is no arm64 Image"
	[[ ! -r $4 ]] || cp -- "$4" "$out/config"
	{
		printf 'version=%s\n' "$2"
		printf 'source=%s\n' "$1"
		printf 'recipe=%s\n' "$recipe"
		printf 'image_sha256=%s\n' "$(sha256sum <"$out/Image" | cut -d ' ' -f 1)"
	} >"$out/info"
	publish foreign "$1"
}

get_running_kernel() {
	local release image
	release=$(uname -r)
	for image in "/boot/vmlinuz-$release" "/lib/modules/$release/vmlinuz" "/usr/lib/modules/$release/vmlinuz"; do
		[[ -r $image ]] || continue
		need_space 200
		# No modules: they belong to the running system, and a copy would be large.
		keep_distro "running $release" "$release" "$image" "/boot/config-$release" ''
		return
	done
	host_lacks "no readable kernel image of $release in /boot or /lib/modules (some distributions let only root read it)"
}

unset ARCH CROSS_COMPILE O KBUILD_OUTPUT KCONFIG_CONFIG MAKEFLAGS MFLAGS LOCALVERSION CFLAGS LDFLAGS KCFLAGS
if [[ $arch == aarch64 ]]; then
	[[ $family == debian ]] || host_lacks "the kernel for arm64 is fetched from Debian's packages only"
	get_foreign_package linux-image-cloud-arm64
elif [[ $distro == no ]]; then
	build
else
	case $family in
	debian) get_distro_packages linux-image-cloud-amd64 ;;
	ubuntu) get_distro_packages linux-image-virtual ;;
	*) get_running_kernel ;;
	esac
fi
