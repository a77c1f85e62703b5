# shellcheck shell=bash
# What both machine scripts share: options, their checks, the parts of QEMU's argument vector that do not depend on
# the machine. Sourced by microvm.sh, q35.sh and pc.sh, which define `machine_options`, `virtio_bus` (the ending of the
# names of their virtio devices) and `own_firmware`.

# shellcheck source=scripts/lib.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../lib.sh"

# Port and width of the device with which a guest ends QEMU: writing N makes QEMU exit with 2N+1.
readonly debug_exit_port=0x501

vm_help() {
	local script=${0##*/}
	cat <<EOT
$script --kernel FILE --initrd FILE [options]
$script --kernel FILE --rootfs KIND --root PATH [options]

Starts a guest on QEMU's machine type ${script%.sh}; with --print only says how.

  --kernel FILE      uncompressed kernel (vmlinux) with a PVH entry, or a bzImage
  --initrd FILE      initial file system, whose /init is the first program; may be left out where the guest needs none
  --rootfs KIND      virtio-blk, 9p or virtiofs: a root file system beside or instead of --initrd, read-only
  --root PATH        the image of a virtio-blk, or the folder of a 9p, with /init in it
  --files-fd N       connected stream socket to the server of a virtiofs, see virtiofsd.sh
  --files-socket FILE
                     the same as the socket's file
  --firmware NAME    qboot, seabios or ovmf (default: $(own_firmware))
  --devices LIST     more devices, separated by commas: net (user-mode network), rng
  --qemu NAME        full (default): the usual QEMU; lean: the distribution's small build for microvm, KVM only
  --untuned          nothing of our advice: QEMU's default machine, devices and firmware, and a bare command line
  --memory SIZE      like 128M or 1G (default 128M)
  --cpus N           virtual processors, 1 to 255 (default 1)
  --accel NAME       tcg (default) or kvm
  --name NAME        a name for the guest: letters, digits, and . _ -
  --append 'WORDS'   more words for the kernel's command line; an unknown k=v becomes a variable of /init
  --for PURPOSE      start (default): the shortest boot; density: an idle guest costs the least processor time
  --balloon NAME     off (default): none; on: a balloon device; reporting: one through which the guest gives back
                     what is free
  --tsc-khz N        the host's true TSC frequency (see tsc-khz.sh): the guest skips its calibration
  --console-fd N     pipe or file open for writing only that receives ttyS0, the kernel's console (default: standard
                     input and output)
  --channel-fd N     connected stream socket that becomes ttyS1, the payload's channel (default: ttyS1 leads nowhere)
  --qmp-fd N         connected stream socket that speaks QMP (default: none)
  --incoming         do not start, but wait for a saved state, which a QMP client asks for with migrate-incoming; all
                     other options must be those of the guest that was saved, whose kernel is not read again
  --memory-file FILE the guest's memory is this file, which is made if it does not exist
  --memory-share on|off
                     on: what the guest writes goes to the file; off (default): it stays private to this guest
  --generation-id    a device that tells the guest when it is a copy (vmgenid; q35 and pc only)
  --verbose-kernel   the kernel says on its console all it has to say
  --kernel-messages  it says there what it says by itself, without a word more
  --trace-fd N       pipe open for writing only that receives QEMU's log of the instructions that it translates for the
                     first time (tcg only) ...
  --trace-at LIST    ... at these addresses of the guest, like 0xfffffff0, separated by commas; the kernel is told not to
                     choose its own addresses
  --print            print the argument vector, one element a line, and exit
  --help             this text

The variable UNLADEN_QEMU names another QEMU binary, UNLADEN_QEMU_LEAN another lean one, UNLADEN_OVMF another OVMF image. The guest ends QEMU by writing a byte N to port $debug_exit_port
(exit code 2N+1); a panic or a reboot also ends it (exit code 0), and so does SIGTERM.
EOT
}

# The variable that names another binary, the binary, and what it is installed for.
qemu_variable=UNLADEN_QEMU qemu_name=qemu-system-x86_64 qemu_purpose=run

# Makes `find_qemu` look for the small build.
choose_lean_qemu() {
	qemu_variable=UNLADEN_QEMU_LEAN qemu_name=qemu-system-x86_64-microvm qemu_purpose=''
}

find_qemu() {
	local given=${!qemu_variable:-} path
	local name=${given:-$qemu_name}
	path=$(command -v -- "$name") || {
		[[ -z $given ]] || host_lacks "$qemu_variable: no program '$name'"
		[[ -n $qemu_purpose ]] || host_lacks "no $name on this host; Debian's package qemu-system-x86 brings it"
		host_lacks "no $name on this host; install it: $(dirname -- "${BASH_SOURCE[0]}")/../setup.sh --for $qemu_purpose"
	}
	# `command -v` also answers with the name of a function or of a built-in.
	[[ $path == */* && -x $path ]] || host_lacks "'$name' is not a program file"
	printf '%s\n' "$(cd -- "$(dirname -- "$path")" && pwd)/$(basename -- "$path")"
}

file_descriptor() { # FLAG VALUE
	# QEMU refuses to be handed 0, 1 and 2.
	whole_number "$1" "$2" 3 1048576
}

parse_options() {
	kernel='' initrd='' memory=128M cpus=1 accel=tcg name='' append='' purpose=start tsc_khz='' balloon=off
	console_fd='' channel_fd='' qmp_fd='' verbose=no print=no
	rootfs=initramfs root='' firmware=$(own_firmware) devices='' untuned=no
	incoming=no memory_file='' memory_share=off generation_id=no
	qemu=full files_fd='' files_socket='' messages=no trace_fd='' trace_at=''
	while (($#)); do
		case $1 in
		--help | -h)
			vm_help
			exit 0
			;;
		--verbose-kernel)
			verbose=yes
			shift
			continue
			;;
		--kernel-messages)
			messages=yes
			shift
			continue
			;;
		--print)
			print=yes
			shift
			continue
			;;
		--untuned)
			untuned=yes
			shift
			continue
			;;
		--incoming)
			incoming=yes
			shift
			continue
			;;
		--generation-id)
			generation_id=yes
			shift
			continue
			;;
		--qemu | --kernel | --initrd | --memory | --cpus | --accel | --name | --append | --for | --tsc-khz | --balloon | --console-fd | --channel-fd | --qmp-fd | \
			--rootfs | --root | --files-fd | --files-socket | --trace-fd | --trace-at | --firmware | --devices | --memory-file | --memory-share)
			need_value "$1" "$@"
			;;
		*) unknown_flag "$1" ;;
		esac
		case $1 in
		--kernel) kernel=$2 ;;
		--qemu)
			one_of "$1" "$2" full lean
			qemu=$2
			;;
		--initrd) initrd=$2 ;;
		--root) root=$2 ;;
		--rootfs)
			one_of "$1" "$2" virtio-blk 9p virtiofs
			rootfs=$2
			;;
		--files-socket)
			files_socket=$2
			[[ $files_socket == /* ]] || files_socket=$PWD/$files_socket
			;;
		--trace-at)
			[[ $2 =~ ^0x[0-9a-f]{1,16}(,0x[0-9a-f]{1,16})*$ ]] || wrong_use "$1: must be addresses like 0xfffffff0, not '$2'"
			trace_at=$2
			;;
		--firmware)
			one_of "$1" "$2" qboot seabios ovmf
			firmware=$2
			;;
		--devices)
			[[ $2 =~ ^(net|rng)(,(net|rng))*$ ]] || wrong_use "$1: only net and rng are known, not '$2'"
			devices=$2
			;;
		--memory)
			[[ $2 =~ ^[1-9][0-9]{0,6}[MG]$ ]] || wrong_use "$1: must be like 128M or 1G, not '$2'"
			memory=$2
			;;
		--cpus)
			whole_number "$1" "$2" 1 255
			cpus=$2
			;;
		--accel)
			one_of "$1" "$2" tcg kvm
			accel=$2
			;;
		--name)
			[[ $2 =~ ^[A-Za-z0-9._-]{1,64}$ ]] || wrong_use "$1: letters, digits and . _ - only, not '$2'"
			name=$2
			;;
		--append)
			# The kernel gives what follows -- to /init, and QEMU appends its virtio-mmio devices at the very end.
			[[ " $2 " != *' -- '* ]] || wrong_use "$1: the word -- would hide the devices from the kernel"
			append=$2
			;;
		--for)
			one_of "$1" "$2" start density
			purpose=$2
			;;
		--balloon)
			one_of "$1" "$2" off on reporting
			balloon=$2
			;;
		--tsc-khz)
			whole_number "$1" "$2" 100000 20000000
			tsc_khz=$2
			;;
		--memory-file)
			memory_file=$2
			[[ $memory_file == /* ]] || memory_file=$PWD/$memory_file
			;;
		--memory-share)
			one_of "$1" "$2" on off
			memory_share=$2
			;;
		--console-fd | --channel-fd | --qmp-fd | --files-fd | --trace-fd)
			file_descriptor "$1" "$2"
			case $1 in
			--files-fd) files_fd=$2 ;;
			--trace-fd) trace_fd=$2 ;;
			--console-fd) console_fd=$2 ;;
			--channel-fd) channel_fd=$2 ;;
			--qmp-fd) qmp_fd=$2 ;;
			esac
			;;
		esac
		shift 2
	done
	[[ -n $kernel ]] || wrong_use "--kernel is missing"
	if [[ $qemu == lean ]]; then
		[[ $(virtio_bus) == device && $untuned == no ]] || wrong_use "--qemu lean is for the machine microvm"
		[[ $accel == kvm ]] || wrong_use "--qemu lean needs --accel kvm: it is built without software emulation"
		choose_lean_qemu
	fi
	readable_file --kernel "$kernel"
	[[ -z $initrd ]] || readable_file --initrd "$initrd"
	case $rootfs in
	virtio-blk) readable_file --root "$root" ;;
	9p) [[ -d $root ]] || host_lacks "--root: no folder at '$root'" ;;
	virtiofs)
		[[ -n $files_fd$files_socket ]] || wrong_use "--rootfs virtiofs needs --files-fd or --files-socket"
		[[ $memory_share == on || -z $memory_file ]] || wrong_use "--rootfs virtiofs needs memory that is shared with its server"
		;;
	esac
	[[ -z $trace_fd$trace_at || (-n $trace_fd && -n $trace_at) ]] || wrong_use "--trace-fd and --trace-at belong together"
	[[ -z $trace_fd || $accel == tcg ]] || wrong_use "--trace-fd: only tcg translates"
	# Whoever executes a printed vector may stand in another folder.
	[[ $kernel == /* ]] || kernel=$PWD/$kernel
	[[ -z $initrd || $initrd == /* ]] || initrd=$PWD/$initrd
	[[ -z $root || $root == /* ]] || root=$PWD/$root
	[[ "$root$initrd$kernel" != *,* ]] || wrong_use "QEMU takes a comma in a path for the end of an option"
	[[ $incoming == no || -n $qmp_fd ]] || wrong_use "--incoming needs --qmp-fd: only a QMP client can say what to load"
	[[ $memory_share == off || -n $memory_file ]] || wrong_use "--memory-share on needs --memory-file"
}

check_kernel() {
	[[ $generation_id == no || $(virtio_bus) == pci ]] ||
		wrong_use "--generation-id: this machine has no ACPI, by which a guest would find it"
	if is_elf "$kernel"; then
		[[ $firmware != ovmf ]] || wrong_use "--firmware ovmf starts a bzImage only, not '$kernel'"
		[[ $untuned == no ]] || wrong_use "--untuned starts a bzImage, not '$kernel'"
	elif ! is_bzimage "$kernel"; then
		wrong_use "--kernel: '$kernel' is neither a vmlinux nor a bzImage"
	fi
}

check_accel() {
	[[ $accel == kvm ]] || return 0
	[[ -e /dev/kvm ]] || host_lacks "--accel kvm: there is no /dev/kvm; switch virtualization on, or use --accel tcg"
	[[ -r /dev/kvm && -w /dev/kvm ]] ||
		host_lacks "--accel kvm: no permission for /dev/kvm; join its group: sudo usermod -aG kvm \"\$USER\", then log in again"
}

is_elf() {
	[[ $(head -c 4 -- "$1" | od -An -tx1) == ' 7f 45 4c 46' ]]
}

is_bzimage() {
	[[ $(tail -c +515 -- "$1" | head -c 4) == HdrS ]]
}

# Sets `firmware_options`, empty where QEMU itself takes this firmware.
find_firmware() {
	local file data=/usr/share
	firmware_options=()
	[[ $firmware != "$(own_firmware)" ]] || return 0
	case $firmware in
	qboot)
		for file in "$data"/qemu/qboot.rom "$data"/qboot/qboot.rom "$data"/qemu/bios-microvm.bin; do
			[[ -r $file ]] || continue
			firmware_options=(-bios "$file")
			return
		done
		;;
	seabios)
		# The one for machines without PCI. Some distributions give its name to qboot.
		for file in "$data"/seabios/bios-microvm.bin "$data"/qemu/bios-microvm.bin "$data"/qemu-kvm/bios-microvm.bin; do
			[[ -r $file && $(readlink -f -- "$file") != *qboot* ]] || continue
			firmware_options=(-bios "$file")
			return
		done
		;;
	ovmf)
		for file in ${UNLADEN_OVMF:+"$UNLADEN_OVMF"} "$data"/OVMF/OVMF_CODE{_4M,}.fd "$data"/edk2/ovmf/OVMF_CODE.fd \
			"$data"/edk2/x64/OVMF_CODE{.4m,}.fd "$data"/edk2-ovmf/x64/OVMF_CODE.fd; do
			[[ -r $file ]] || continue
			firmware_options=(-drive "if=pflash,unit=0,format=raw,readonly=on,file=$file")
			return
		done
		host_lacks "no OVMF on this host; install the package ovmf (Debian, Ubuntu) or edk2-ovmf"
		;;
	esac
	host_lacks "no $firmware for this machine in $data; QEMU's packages usually bring it"
}

kernel_words() {
	if [[ $untuned == yes ]]; then
		# All that is needed to see the kernel, and that a panic ends.
		printf '%s' "console=ttyS0 panic=-1${trace_at:+ nokaslr}${append:+ $append}"
		return
	fi
	# With reboot=t a reboot is a triple fault, which -no-reboot turns into an end within milliseconds; through the
	# keyboard controller, which microvm lacks, it takes seconds. no_timer_check skips a self-test of the timer that
	# a busy host makes fail. noreplace-smp leaves the lock prefixes where they are: patching thousands of them out
	# for a single processor takes QEMU about a tenth of the boot.
	local words=(console=ttyS0 reboot=t panic=-1 no_timer_check noreplace-smp cryptomgr.notests)
	if [[ $verbose == yes ]]; then
		words+=(ignore_loglevel earlyprintk=ttyS0)
	elif [[ $messages == yes ]]; then
		words+=(loglevel=7 earlyprintk=ttyS0)
	else
		# These three are obeyed one after the other. The early console, coming to life at level 6, prints the
		# kernel's banner, which is the mark `kernel`; from `quiet` on only errors come out.
		words+=(loglevel=6 earlyprintk=ttyS0 quiet)
	fi
	[[ -z $trace_at ]] || words+=(nokaslr)
	if [[ -n $tsc_khz ]]; then
		words+=("tsc_early_khz=$tsc_khz" tsc=reliable)
	fi
	# Calibrating the local APIC's timer takes two tenths of a second, which a short start need not spend. Without
	# that timer ticks come from the periodic PIT, and an idle guest never sleeps: not for density.
	if [[ $purpose == start ]]; then
		words+=(nolapic_timer)
	fi
	# With an initial file system it is for that to mount the root.
	if [[ -z $initrd ]]; then
		case $rootfs in
		virtio-blk) words+=(root=/dev/vda rootfstype=ext4) ;;
		9p) words+=(root=unladen rootfstype=9p "rootflags=trans=virtio,version=9p2000.L") ;;
		virtiofs) words+=(root=unladen rootfstype=virtiofs) ;;
		esac
		words+=(ro init=/init)
	fi
	printf '%s' "${words[*]}${append:+ $append}"
}

# The machine, what executes it, and its memory.
machine_part() {
	local accel_options=$accel machine
	machine=$(machine_options)
	if [[ $untuned == yes ]]; then
		machine=${machine%%,*}
	elif [[ $accel == tcg ]]; then
		# The default buffer for translated code grows with the host; this one is enough for a boot, and the smaller
		# one is what an idle guest keeps.
		if [[ $purpose == density ]]; then
			accel_options+=,tb-size=16
		else
			accel_options+=,tb-size=32
		fi
	fi
	[[ $untuned == yes ]] || vector+=(-nodefaults)
	vector+=(-no-user-config -display none -no-reboot)
	# A comma within an option's value is written twice.
	if [[ -n $memory_file ]]; then
		vector+=(-object "memory-backend-file,id=ram,size=$memory,mem-path=${memory_file//,/,,},share=$memory_share")
		machine+=,memory-backend=ram
	elif [[ $rootfs == virtiofs ]]; then
		# The server reads and writes the guest's memory itself.
		vector+=(-object "memory-backend-memfd,id=ram,size=$memory,share=on")
		machine+=,memory-backend=ram
	fi
	vector+=(-M "$machine" -accel "$accel_options")
	# Without this KVM warns about features of QEMU's default model which the host lacks.
	[[ $accel == tcg || $untuned == yes ]] || vector+=(-cpu host)
	vector+=(-m "$memory" -smp "$cpus" ${firmware_options[@]+"${firmware_options[@]}"})
	# A guest that goes on does not boot again (-no-reboot), so its kernel need not be read.
	[[ $incoming == no ]] || return 0
	vector+=(-kernel "$kernel")
	[[ -z $initrd ]] || vector+=(-initrd "$initrd")
	vector+=(-append "$(kernel_words)")
}

files_socket() {
	if [[ -n $files_fd ]]; then
		printf 'fd=%s' "$files_fd"
	else
		printf 'path=%s' "${files_socket//,/,,}"
	fi
}

# The root file system and the devices on the virtio bus.
virtio_part() {
	local bus
	bus=$(virtio_bus)
	case $rootfs in
	virtio-blk)
		vector+=(-drive "if=none,id=root,format=raw,readonly=on,file=$root" -device "virtio-blk-$bus,drive=root")
		;;
	9p)
		vector+=(-fsdev "local,id=root,path=$root,security_model=none,readonly=on,multidevs=remap")
		vector+=(-device "virtio-9p-$bus,fsdev=root,mount_tag=unladen")
		;;
	esac
	if [[ $rootfs == virtiofs ]]; then
		vector+=(-chardev "socket,id=files,$(files_socket)" -device "vhost-user-fs-$bus,chardev=files,tag=unladen")
		# In memory, QEMU's virtio devices speak the protocol of before version 1.0, which no server does.
		[[ $bus == pci ]] || vector+=(-global virtio-mmio.force-legacy=false)
	fi
	if [[ ,$devices, == *,net,* ]]; then
		vector+=(-netdev "user,id=net" -device "virtio-net-$bus,netdev=net")
		# Nothing here starts from the network, and the image for that is read at every start.
		[[ $bus != pci ]] || vector[-1]+=,romfile=
	fi
	if [[ ,$devices, == *,rng,* ]]; then
		vector+=(-device "virtio-rng-$bus")
	fi
}

# What a machine has of its own for the chardev `channel` and for its end.
own_devices() {
	# The second line of a PC, at its usual place: every kernel finds it without a driver of its own.
	vector+=(-device "isa-serial,index=1,iobase=0x2f8,irq=3,chardev=channel")
	# The lean build does not know it: there a guest ends by a reset.
	[[ $qemu == lean ]] || vector+=(-device "isa-debug-exit,iobase=$debug_exit_port,iosize=0x2")
}

argument_vector() {
	local console channel firmware_options
	vector=("$(find_qemu)")
	[[ -z $name ]] || vector+=(-name "$name")
	find_firmware
	machine_part
	virtio_part
	if [[ -n $console_fd ]]; then
		# append=on: QEMU would otherwise cut the file to length zero, which a pipe refuses.
		vector+=(-add-fd "fd=$console_fd,set=1")
		console=file,id=console,path=/dev/fdset/1,append=on
	else
		console=stdio,id=console,signal=on
	fi
	if [[ -n $channel_fd ]]; then
		channel=socket,id=channel,fd=$channel_fd
	else
		channel=null,id=channel
	fi
	vector+=(-chardev "$console" -serial chardev:console)
	vector+=(-chardev "$channel")
	own_devices
	if [[ $balloon != off ]]; then
		# A machine without PCI has its virtio devices in memory.
		local bus=pci reporting=off
		[[ $(machine_options) != microvm* ]] || bus=device
		[[ $balloon != reporting ]] || reporting=on
		vector+=(-device "virtio-balloon-$bus,free-page-reporting=$reporting")
	fi
	if [[ -n $qmp_fd ]]; then
		vector+=(-chardev "socket,id=qmp,fd=$qmp_fd" -mon "chardev=qmp,mode=control")
	fi
	if [[ -n $trace_fd ]]; then
		# `+1` is the length of each range.
		vector+=(-d in_asm -dfilter "${trace_at//,/+1,}+1" -D "/dev/fd/$trace_fd")
	fi
	[[ $generation_id == no ]] || vector+=(-device "vmgenid,guid=auto")
	[[ $incoming == no ]] || vector+=(-incoming defer)
}

vm_main() {
	local vector=()
	parse_options "$@"
	check_accel
	check_kernel
	argument_vector
	if [[ $print == yes ]]; then
		printf '%s\n' "${vector[@]}"
		exit 0
	fi
	exec "${vector[@]}"
}
