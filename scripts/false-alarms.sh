#!/usr/bin/env bash
#help
# false-alarms.sh [--spec SPEC] [--runs N] [--out DIR] [--allow PERCENT] PROGRAM [-- FLAG...]
#
# Does `unladen compare` find differences where there are none? The program PROGRAM measures the same again and
# again, and every run is compared with every later one. Whatever is named as a difference is a false alarm.
#
#   --spec SPEC      profile or spec file to run (default: smoke)
#   --runs N         how many runs, 2 to 50 (default: 10)
#   --out DIR        folder for the runs (default: results/false-alarms); runs that it holds already are compared
#                    as they are and not measured again
#   --allow PERCENT  share of the pairs of runs that may have a false alarm (default: 5)
#   FLAG...          further arguments of `unladen run` (default for smoke, whose own rounds are too few for any verdict:
#                    --rounds 12 --backend process --backend container)
#   --help           this text
#
# Prints each false alarm with its two runs, then how many verdicts of each kind there were. Exit: 0 no more false
# alarms than allowed, 4 more, or no verdict at all, 2 wrong use, 3 the host lacks something, else the exit code of what failed.
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"
exec </dev/null

spec=smoke runs=10 out=results/false-alarms allow=5 program=''
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
		whole_number "$1" "$2" 2 50
		runs=$2
		shift
		;;
	--out)
		need_value "$1" "$@"
		out=$2
		shift
		;;
	--allow)
		need_value "$1" "$@"
		whole_number "$1" "$2" 0 100
		allow=$2
		shift
		;;
	--)
		shift
		break
		;;
	-*) unknown_flag "$1" ;;
	*)
		[[ -z $program ]] || wrong_use "one program is compared with itself, not '$program' with '$1'"
		program=$1
		;;
	esac
	shift
done
[[ -n $program ]] || wrong_use "no program is named"
runnable "$program"
if [[ $spec == smoke ]] && ! (($#)); then
	set -- --rounds 12 --backend process --backend container
fi
mkdir -p -- "$out"

for ((number = 1; number <= runs; number++)); do
	run=$out/$(printf '%02d' "$number")
	[[ ! -e $run/manifest.json ]] || continue
	say "run $number of $runs"
	measured "$program" run "$spec" --no-report --out "$run" "$@"
done

pairs=0 alarmed=0 named=0 unnamed=0 withheld=0
count() {
	grep -Ec "┆ ($1)" <<<"$table" || true
}
for ((first = 1; first < runs; first++)); do
	for ((second = first + 1; second <= runs; second++)); do
		base=$(printf '%02d' "$first") new=$(printf '%02d' "$second")
		table=$("$program" compare "$out/$base" "$out/$new")
		alarms=$(count 'faster|slower|less|more')
		pairs=$((pairs + 1))
		named=$((named + alarms))
		unnamed=$((unnamed + $(count 'no difference')))
		withheld=$((withheld + $(count 'withheld')))
		if ((alarms)); then
			alarmed=$((alarmed + 1))
			printf 'false alarm, runs %s and %s:\n' "$base" "$new"
			grep -E '┆ (faster|slower|less|more)' <<<"$table"
		fi
	done
done
printf '%d pairs of %d runs: a difference was named in %d pairs (%d of %d verdicts), none shown in %d, %d withheld\n' \
	"$pairs" "$runs" "$alarmed" "$named" $((named + unnamed + withheld)) "$unnamed" "$withheld"
if ((named + unnamed == 0)); then
	say "no verdict was given at all: more rounds are needed (-- --rounds N)"
	exit 4
fi
((alarmed * 100 <= allow * pairs)) || exit 4
