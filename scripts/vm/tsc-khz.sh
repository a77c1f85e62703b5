#!/usr/bin/env bash
#help
# tsc-khz.sh
#
# Prints the true frequency of this host's time stamp counter in kHz, for --tsc-khz of the machine scripts. Exits with 3
# and says why when it cannot be had reliably: a guest that is told a wrong number keeps wrong time.
#
# Sources, in this order: /sys/devices/system/cpu/cpu0/tsc_freq_khz (some kernels have it), then what the running kernel
# logged when it started (read with dmesg, or with journalctl where dmesg is not permitted). Neither the nominal
# frequency of /proc/cpuinfo nor CPUID is used: both are often off by a per mille or more.
#
#   --help     this text
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
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

[[ $(uname -m) == x86_64 ]] || host_lacks "a $(uname -m) host has no time stamp counter"

flags=" $(sed -n '/^flags/{ s/^[^:]*: //p; q; }' /proc/cpuinfo) "
for flag in constant_tsc nonstop_tsc; do
	[[ $flags == *" $flag "* ]] || host_lacks "this processor's time stamp counter is not steady: it lacks $flag"
done

# A source fit to be believed: a number of kHz between 0.1 and 20 GHz.
print_khz() {
	[[ $1 =~ ^[1-9][0-9]{5,7}$ ]] && ((10#$1 >= 100000 && 10#$1 <= 20000000)) || return 1
	printf '%s\n' "$1"
}

file=/sys/devices/system/cpu/cpu0/tsc_freq_khz
if [[ -r $file ]] && print_khz "$(<"$file")"; then
	exit 0
fi

# The kernel's own messages of this boot. A log that was overwritten, or that is not ours to read, has no line.
kernel_log() {
	dmesg 2>/dev/null || true
	journalctl -k -b -q --no-pager -o cat 2>/dev/null || true
}

log=$(kernel_log | grep -aiE 'tsc' || true)
[[ $log != *"Marking clocksource 'tsc"*unstable* && $log != *'Marking TSC unstable'* ]] ||
	host_lacks "the kernel found this host's time stamp counter unstable"

# The refined value, measured for a second after the start, replaces the first one in the kernel too.
for pattern in 'Refined TSC clocksource calibration: ' 'tsc: Detected '; do
	mhz=$(sed -n "s/.*$pattern\([0-9]\{1,5\}\.[0-9]\{3\}\) MHz.*/\1/p" <<<"$log" | tail -n 1)
	if [[ -n $mhz ]] && print_khz "$((10#${mhz%.*}))${mhz#*.}"; then
		exit 0
	fi
done
host_lacks "the kernel's log of this start cannot be read, or no longer has the line 'tsc: Detected ... MHz'; try as root"
