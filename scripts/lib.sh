# shellcheck shell=bash
# What every script here shares: messages, exit codes, checks of values. Sourced, never run.
# Exit codes: 0 done, 2 wrong use, 3 the host lacks something. Data goes to stdout, everything for people to stderr.

# The same bytes and the same sorting in every locale.
export LC_ALL=C

say() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

wrong_use() {
	say "$*"
	printf "Try '%s --help'.\n" "$0" >&2
	exit 2
}

host_lacks() {
	say "$*"
	exit 3
}

unknown_flag() {
	wrong_use "unknown argument: $1"
}

# The text between the two marks of a script's own header is its help, so the two cannot drift apart.
print_help() {
	sed -n '/^#help$/,/^#end$/{ /^#help$/d; /^#end$/d; s/^# \{0,1\}//; p; }' "$0"
}

# need_value FLAG "$@": the flag stands first in "$@" and must be followed by a value.
need_value() {
	[[ $# -ge 3 ]] || wrong_use "$1 needs a value"
	[[ $3 != *$'\n'* ]] || wrong_use "$1: a value must be one line"
}

# whole_number FLAG VALUE LOW HIGH
whole_number() {
	[[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || wrong_use "$1: not a whole number: '$2'"
	((10#$2 >= $3 && 10#$2 <= $4)) || wrong_use "$1: must be from $3 to $4, not $2"
}

# one_of FLAG VALUE CHOICE...
one_of() {
	local flag=$1 value=$2 choice
	shift 2
	for choice in "$@"; do
		[[ $value != "$choice" ]] || return 0
	done
	wrong_use "$flag: must be one of $*, not '$value'"
}

# readable_file WHAT FILE
readable_file() {
	[[ -f $2 && -r $2 ]] || host_lacks "$1: no readable file at '$2'"
}

# runnable PROGRAM
runnable() {
	[[ -x $1 && ! -d $1 ]] || host_lacks "no program at '$1'"
}

# measured PROGRAM ARGUMENT...: a run of `unladen`. Cells that this host cannot run are skipped in every run (3), and
# failed trials are counted by the comparison (1); anything else ends the script.
measured() {
	local code=0
	"$@" >&2 || code=$?
	case $code in
	0 | 1 | 3) ;;
	*) exit "$code" ;;
	esac
}

have() {
	command -v -- "$1" >/dev/null 2>&1
}

# The family decides the package manager. It is read, not sourced: the file belongs to the distribution, and its
# variables would land among ours.
distro_family() {
	local file=${UNLADEN_OS_RELEASE:-/etc/os-release} ids=
	[[ -r $file ]] && ids=$(sed -n 's/^ID\(_LIKE\)\{0,1\}=//p' "$file" | tr -d "\"'" | tr '\n' ' ')
	case " $ids " in
	*' ubuntu '*) echo ubuntu ;;
	*' debian '*) echo debian ;;
	*' fedora '* | *' rhel '*) echo fedora ;;
	*' arch '*) echo arch ;;
	*) echo other ;;
	esac
}

cache_root() {
	local base=${XDG_CACHE_HOME:-}
	# A relative XDG_CACHE_HOME is to be ignored, says the base directory specification.
	if [[ $base != /* ]]; then
		[[ -n ${HOME:-} ]] || host_lacks "neither XDG_CACHE_HOME nor HOME is set: no place for the cache"
		base=$HOME/.cache
	fi
	printf '%s/unladen\n' "$base"
}
