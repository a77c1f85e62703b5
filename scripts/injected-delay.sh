#!/usr/bin/env bash
#help
# injected-delay.sh [--percent P] [--rounds N] [--workload NAME] [--out DIR] PROGRAM
#
# Does `unladen compare` find a difference that is there? A hidden switch of PROGRAM makes the starts of one container
# cell longer by P per cent of their own median. Two runs are made, one without and one with it. The second has to show
# the slow cell against its twin without the delay, round by round; and against the first run.
#
#   --percent P      how much slower, 1 to 100 (default: 10)
#   --rounds N       trials of each cell (default: 400)
#   --workload NAME  what the containers do (default: exit, the shortest start there is)
#   --out DIR        new folder for the two runs (default: results/injected-delay)
#   --help           this text
#
# Prints both comparisons and, where the delay was not found, what could have been. Exit: 0 both found it, 4 one did
# not, 2 wrong use, 3 the host lacks something, else the exit code of the run that failed.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
exec </dev/null

percent=10 rounds=400 workload=exit out=results/injected-delay program=''
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--percent)
		need_value "$1" "$@"
		whole_number "$1" "$2" 1 100
		percent=$2
		shift
		;;
	--rounds)
		need_value "$1" "$@"
		whole_number "$1" "$2" 6 10000
		rounds=$2
		shift
		;;
	--workload)
		need_value "$1" "$@"
		[[ $2 =~ ^[a-z]+(=[0-9]+)?$ ]] || wrong_use "$1: no workload: '$2'"
		workload=$2
		shift
		;;
	--out)
		need_value "$1" "$@"
		out=$2
		shift
		;;
	-*) unknown_flag "$1" ;;
	*)
		[[ -z $program ]] || wrong_use "one program is tested, not '$program' and '$1'"
		program=$1
		;;
	esac
	shift
done
[[ -n $program ]] || wrong_use "no program is named"
runnable "$program"
[[ ! -e $out ]] || wrong_use "--out: '$out' exists"
mkdir -p -- "$out"

# Two containers that differ in the size of a limit only, which none of them reaches.
{
	printf 'title = "injected delay"\n[rounds]\nstartup = %s\n' "$rounds"
	cell() {
		printf '[[cells]]\nbackend = "%s"\nparams = { %s }\nstartup = ["%s"]\n' "$1" "$2" "$workload"
	}
	cell process ''
	cell process 'control = 1'
	cell container 'net = "none", pids = 62'
	cell container 'net = "none", pids = 63'
} >"$out/spec.toml"

say "without a delay"
"$program" run "$out/spec.toml" --no-report --out "$out/plain" >&2
say "with a delay of $percent % in the last cell"
UNLADEN_TEST_DELAY_PERCENT=$percent@4 "$program" run "$out/spec.toml" --no-report --out "$out/delayed" >&2

missed=0
# found FLAG...: whether the comparison names a regression.
found() {
	local code=0
	"$program" compare "$@" --fail-on-regression || code=$?
	case $code in
	4) ;;
	0) missed=1 ;;
	*) exit "$code" ;;
	esac
}
say "within the second run"
found "$out/delayed" --arms 'container net=none pids=63' 'container net=none pids=62'
say "the second run against the first"
found "$out/plain" "$out/delayed"
((missed == 0)) || exit 4
