#!/usr/bin/env bash
#help
# peers/setup.sh [--check] [NAME...]
# peers/setup.sh --start [NAME...]
# peers/setup.sh --path NAME
#
# Installs other systems to compare with: runc, crun, bwrap, unshare, lxc, nspawn, runsc, podman, containerd and docker from
# the distribution (Debian and Ubuntu with apt, Fedora with dnf, Arch with pacman), youki from its crate, which takes some
# minutes once and needs a Rust toolchain. Without a NAME all that the distribution offers. Prints name and program of
# each, one a line. Installing packages needs root or sudo. What it installs it writes down in the cache folder, and
# peers/teardown.sh removes exactly that.
#
#   --check       install nothing: print the names of those that are missing, and exit with 3 if any is
#   --start       start daemons beside your own: docker (or docker-overlay2, docker-vfs: with this storage driver) and
#                 containerd; without a NAME both. Each has its socket and all of its files in a folder of the cache, makes
#                 no bridge and no firewall rule, and runs until peers/teardown.sh. Prints name and socket of each.
#                 Needs root.
#   --path NAME   print the program of this one and nothing else; exit with 3 if there is none
#   --help        this text
#end
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/../lib.sh"
# shellcheck source=scripts/packages.sh
source "$here/../packages.sh"
# shellcheck source=scripts/peers/common.sh
source "$here/common.sh"
exec </dev/null

read -r -a known <<<"$(peer_names)"
check=no start=no path='' names=()
while (($#)); do
	case $1 in
	--help | -h)
		print_help
		exit 0
		;;
	--check) check=yes ;;
	--start)
		start=yes
		read -r -a known <<<"docker $(daemon_names)"
		;;
	--path)
		need_value "$1" "$@"
		one_of "$1" "$2" "${known[@]}"
		path=$2
		shift
		;;
	-*) unknown_flag "$1" ;;
	*)
		one_of NAME "$1" "${known[@]}"
		names+=("$1")
		;;
	esac
	shift
done

# Starts a daemon with nothing of it outside of its folder, and waits until it answers.
start_daemon() { # NAME
	local folder tries=0 pids=()
	folder=$(daemon_folder "$1")
	if [[ -n $(daemon_processes "$1") ]] && answers "$1"; then
		return 0
	fi
	stop_daemon "$1" || host_lacks "an older daemon $1 is in the way"
	mkdir -p -- "$folder"
	chmod 700 -- "$folder"
	record_strays
	case $1 in
	docker-*)
		# A containerd of its own, too: it would use the host's where there is one. An empty file in place of the host's.
		start_containerd "$folder" "$folder/containerd.sock"
		docker_settings "$folder" >"$folder/daemon.json"
		setsid "$(peer_program docker)" --host "unix://$folder/daemon.sock" --containerd "$folder/containerd.sock" \
			--data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/docker.pid" --config-file "$folder/daemon.json" \
			--iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --bridge=none \
			--storage-driver "${1#docker-}" --exec-opt native.cgroupdriver=cgroupfs >"$folder/log" 2>&1 9>&- &
		pids+=("$!")
		;;
	containerd) start_containerd "$folder" "$folder/daemon.sock" ;;
	esac
	printf '%s\n' "${pids[@]}" >"$folder/daemon.pid"
	disown -a
	until answers "$1"; do
		((tries += 1))
		if ((tries > 300)) || [[ ! -e /proc/${pids[-1]} ]]; then
			tail -n 20 -- "$folder"/*log >&2
			stop_daemon "$1" || true
			host_lacks "daemon $1 did not start"
		fi
		sleep 0.1
	done
}

# Older ones make a key that they do not need, and have no flag that says where.
docker_settings() { # FOLDER
	local version
	version=$("$(peer_program docker)" --version)
	if [[ $version =~ \ version\ ([0-9]+)\. ]] && ((BASH_REMATCH[1] < 24)); then
		printf '{"deprecated-key-path": "%s/key.json"}\n' "$1"
	else
		echo '{}'
	fi
}

# Adds a containerd to `pids`, and waits until it answers.
start_containerd() { # FOLDER SOCKET
	local tries=0
	cat >"$1/containerd.toml" <<-EOF
		version = 2
		root = "$1/root"
		state = "$1/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri"]
		[plugins."io.containerd.internal.v1.opt"]
		  path = "$1/opt"
		[grpc]
		  address = "$2"
	EOF
	setsid "$(peer_program containerd)" --config "$1/containerd.toml" >"$1/containerd.log" 2>&1 9>&- &
	pids+=("$!")
	printf '%s\n' "${pids[@]}" >"$1/daemon.pid"
	until [[ -S $2 ]] || ((tries > 100)); do
		((tries += 1))
		sleep 0.1
	done
}

# Whether a daemon answers on its socket.
answers() { # NAME
	local socket
	socket=$(daemon_folder "$1")/daemon.sock
	[[ -S $socket ]] || return 1
	case $1 in
	docker-*) timeout 10 docker --host "unix://$socket" version >/dev/null 2>&1 ;;
	containerd) timeout 10 ctr --address "$socket" version >/dev/null 2>&1 ;;
	esac
}

if [[ $start == yes ]]; then
	((EUID == 0)) || host_lacks "daemons are started as root only"
	((${#names[@]})) || names=(docker containerd)
	mkdir -p -- "$(peers_folder)" || host_lacks "cannot create the folder '$(peers_folder)'"
	exec 9>"$(peers_folder)/lock"
	flock 9
	for name in "${names[@]}"; do
		[[ $name != docker ]] || name=docker-overlay2
		peer_program "${name%%-*}" >/dev/null || host_lacks "${name%%-*} is not installed; install it with: $0 ${name%%-*}"
		start_daemon "$name"
		printf '%s\t%s\n' "$name" "$(daemon_folder "$name")/daemon.sock"
	done
	exit 0
fi

asked=yes
((${#names[@]})) || { names=("${known[@]}") asked=no; }

if [[ -n $path ]]; then
	peer_program "$path" || host_lacks "$path is not installed; install it with: $0 $path"
	exit 0
fi

missing=()
for name in "${names[@]}"; do
	peer_program "$name" >/dev/null || missing+=("$name")
done
if [[ $check == yes ]]; then
	((${#missing[@]})) || exit 0
	printf '%s\n' "${missing[@]}"
	say "install with: $0 ${missing[*]}"
	exit 3
fi

family=$(distro_family)
# A package may start a daemon of its own, which nobody asked for.
export SYSTEMD_OFFLINE=1
folder=$(peers_folder)
record=$(peers_record)
if ((${#missing[@]})); then
	have flock || host_lacks "no flock on this host; install util-linux"
	mkdir -p -- "$folder" || host_lacks "cannot create the folder '$folder'"
	exec 9>"$folder/lock"
	flock 9
fi

# Adds packages, and whatever they bring along, and writes down the difference: also when it fails half-way.
add_packages() { # PACKAGE...
	local before status=0
	before=$(list_packages "$family")
	(install_packages "$family" "$@") || status=$?
	comm -13 <(printf '%s\n' "$before") <(list_packages "$family") | sed 's/^/package /' >>"$record"
	((status == 0)) || exit "$status"
}

# Ends a compilation together with this script.
child=''
clean_up() {
	if [[ -n $child ]]; then
		kill -- "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	rm -rf -- "${draft:-}"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
trap 'exit 129' HUP

# Builds a crate beside and renames it, so that nobody ever sees half of it.
build_crate() { # NAME
	local words status=0 final
	have cargo || host_lacks "no Rust toolchain: install one from https://rustup.rs, then run this again"
	final=$(crate_folder "$1")
	rm -rf -- "$folder"/.draft.*
	draft=$(mktemp -d -- "$folder/.draft.XXXXXX")
	read -r -a words <<<"$(peer_crate "$1")"
	say "building ${words[*]}; some minutes"
	# In the background, since bash obeys a signal only between foreground commands; in the project's folder, whose
	# toolchain is the one that is known to be new enough.
	set -m
	env -C "$here" CARGO_TARGET_DIR="$draft/target" cargo install --quiet --root "$draft/root" "${words[@]}" >"$draft/log" 2>&1 &
	child=$!
	set +m
	wait "$child" || status=$?
	child=''
	if ((status != 0)); then
		tail -n 30 -- "$draft/log" >&2
		host_lacks "building $1 failed"
	fi
	[[ -x $draft/root/bin/$1 ]] || host_lacks "the crate of $1 made no program of that name"
	printf 'folder %s\n' "$final" >>"$record"
	rm -rf -- "$final"
	mv -T -- "$draft/root" "$final"
	rm -rf -- "$draft"
}

for name in "${missing[@]}"; do
	# Somebody else may have made it while we waited for the lock.
	! peer_program "$name" >/dev/null || continue
	read -r -a packages <<<"$(peer_packages "$family" "$name")"
	if ((${#packages[@]} == 0)) && [[ $asked == no && $family != other ]]; then
		say "this distribution does not offer $name; left out"
		continue
	fi
	((${#packages[@]})) ||
		host_lacks "this distribution's package manager is not known here; install $name by hand (its own site says how), and have it in PATH"
	absent=()
	for package in "${packages[@]}"; do
		is_installed "$family" "$package" || absent+=("$package")
	done
	((${#absent[@]} == 0)) || add_packages "${absent[@]}"
	[[ -z $(peer_crate "$name") ]] || build_crate "$name"
	peer_program "$name" >/dev/null || host_lacks "installed $name, yet no program of that name is found"
done

for name in "${names[@]}"; do
	! program=$(peer_program "$name") || printf '%s\t%s\n' "$name" "$program"
done
