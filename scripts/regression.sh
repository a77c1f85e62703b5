#!/usr/bin/env bash
#help
# regression.sh [--spec SPEC] [--runs N] [--out DIR] [--threshold PERCENT] BASE NEW
#
# Is the program NEW slower or heavier than the program BASE? Both are `unladen` commands, built from two revisions.
# They measure in turns on this host, so that both see the same neighbours, and their runs are compared as two sets.
#
#   --spec SPEC          profile or spec file that both run (default: smoke)
#   --runs N             runs of each, 1 to 50 (default: 5)
#   --out DIR            new folder for the runs, under base/ and new/ (default: results/regression)
#   --threshold PERCENT  ignore regressions that may be no larger than this (default: 5)
#   --help               this text
#
# Prints the comparison. Exit: 0 no regression shown, 4 a regression, 2 wrong use, 3 the host lacks something, else the
# exit code of the run that failed.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
exec </dev/null

spec=smoke runs=5 out=results/regression threshold=5 programs=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--spec)
		need_value "$1" "$@"
		spec=$2
		shift
		;;
	--runs)
		need_value "$1" "$@"
		whole_number "$1" "$2" 1 50
		runs=$2
		shift
		;;
	--out)
		need_value "$1" "$@"
		out=$2
		shift
		;;
	--threshold)
		need_value "$1" "$@"
		threshold=$2
		shift
		;;
	-*) unknown_flag "$1" ;;
	*) programs+=("$1") ;;
	esac
	shift
done
((${#programs[@]} == 2)) || wrong_use "two programs are needed, the base and the new one"
for program in "${programs[@]}"; do
	runnable "$program"
done
[[ ! -e $out ]] || wrong_use "--out: '$out' exists; runs of another day would be mixed in"
mkdir -p -- "$out/base" "$out/new"

# measure SIDE PROGRAM NUMBER
measure() {
	say "$1, run $3 of $runs"
	measured "$2" run "$spec" --no-report --out "$out/$1/$3"
}

for ((number = 1; number <= runs; number++)); do
	# Neither is always first.
	if ((number % 2)); then
		measure base "${programs[0]}" "$number"
		measure new "${programs[1]}" "$number"
	else
		measure new "${programs[1]}" "$number"
		measure base "${programs[0]}" "$number"
	fi
done
exec "${programs[1]}" compare "$out/base" "$out/new" --threshold "$threshold" --fail-on-regression
