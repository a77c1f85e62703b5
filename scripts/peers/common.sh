# shellcheck shell=bash
# The systems to compare with, as a table: what each is made of, on each distribution. Sourced after lib.sh by setup.sh
# and teardown.sh, never run. Another system is another line in each table here, and nothing anywhere else.

# Every name, in the order in which they are set up.
peer_names() {
	echo runc crun bwrap unshare youki lxc nspawn runsc podman containerd docker
}

# The program by which a system is known.
peer_binary() { # NAME
	case $1 in
	lxc) echo lxc-execute ;;
	nspawn) echo systemd-nspawn ;;
	docker) echo dockerd ;;
	*) echo "$1" ;;
	esac
}

# The packages of the distribution that a system needs: those it is, or those with which its crate is built. Nothing
# where the distribution does not offer it.
peer_packages() { # FAMILY NAME
	case $1/$2 in
	*/runc) echo runc ;;
	*/crun) echo crun ;;
	*/bwrap) echo bubblewrap ;;
	*/unshare) echo util-linux ;;
	debian/youki | ubuntu/youki) echo gcc libc6-dev pkg-config libseccomp-dev ;;
	fedora/youki) echo gcc glibc-devel pkgconf-pkg-config libseccomp-devel ;;
	arch/youki) echo gcc glibc pkgconf libseccomp ;;
	*/lxc) echo lxc ;;
	arch/nspawn) echo systemd ;;
	*/nspawn) echo systemd-container ;;
	debian/runsc | ubuntu/runsc) echo runsc ;;
	# The last two hold the default filter and the policy without which it loads no image.
	debian/podman | ubuntu/podman) echo podman conmon runc golang-github-containers-common golang-github-containers-image ;;
	*/podman) echo podman conmon runc ;;
	*/containerd) echo containerd runc ;;
	debian/docker | ubuntu/docker) echo docker.io containerd runc ;;
	fedora/docker) echo moby-engine containerd runc ;;
	arch/docker) echo docker containerd runc ;;
	esac
}

# The arguments of `cargo install` for a system that is a crate; nothing for another.
peer_crate() { # NAME
	case $1 in
	# With its default features this version has neither version of cgroups and starts nothing.
	youki) echo youki --version 0.7.0 --locked --no-default-features --features v1,v2,seccomp ;;
	esac
}

peers_folder() {
	printf '%s/peers\n' "$(cache_root)"
}

# The folder of a crate's program. It is named by all that decides what is built.
crate_folder() { # NAME
	local recipe
	recipe=$(peer_crate "$1")
	printf '%s/%s-%s\n' "$(peers_folder)" "$1" "$(printf '%s\n' "$recipe" "$(uname -m)" | sha256sum | cut -c 1-16)"
}

# The program of a system: of a crate what setup.sh built, else what PATH has. Fails when there is none.
peer_program() { # NAME
	local program
	if [[ -n $(peer_crate "$1") ]]; then
		program=$(crate_folder "$1")/bin/$1
	else
		# An unprivileged user's PATH often lacks the folders of root's programs.
		program=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v -- "$(peer_binary "$1")") || return
	fi
	# The shell also names a file that nobody can execute.
	[[ -x $program ]] && printf '%s\n' "$program"
}

# Daemons that setup.sh can start beside the user's own, each with a socket and a folder of its own.
daemon_names() {
	echo docker-overlay2 docker-vfs containerd
}

daemon_folder() { # NAME
	printf '%s/daemons/%s\n' "$(peers_folder)" "$1"
}

# Folders that daemons make outside of their own, and leave: inner ones first. Control groups, too.
stray_folders() {
	local hierarchy
	printf '%s\n' /opt/containerd/{bin,lib,} /run/docker/{plugins,} /run/containerd/{runc,s,} /etc/docker
	for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
		[[ ! -e $hierarchy/cgroup.procs ]] || printf '%s\n' "$hierarchy/docker"
	done
}

# Where those are written down that were not there before the first daemon was started.
strays_record() {
	printf '%s/daemons/strays\n' "$(peers_folder)"
}

record_strays() {
	local path record
	record=$(strays_record)
	[[ ! -e $record ]] || return 0
	stray_folders | while read -r path; do
		[[ -e $path ]] || printf '%s\n' "${path%/}"
	done >"$record"
}

# Once the last daemon has ended: removes what they made, unless somebody else has put something there.
remove_strays() {
	local name path record
	record=$(strays_record)
	[[ -e $record ]] || return 0
	for name in $(daemon_names); do
		[[ ! -d $(daemon_folder "$name") ]] || return 0
	done
	while read -r path; do
		! stray_folders | grep -qxF -e "$path" -e "$path/" || rmdir -- "$path" 2>/dev/null || true
	done <"$record"
	rm -f -- "$record"
}

# The processes of a daemon that runs, the last one started first. A number may have been given to another process
# meanwhile, so its command line has to name the folder.
daemon_processes() { # NAME
	local folder pid
	folder=$(daemon_folder "$1")
	[[ -r $folder/daemon.pid ]] || return 0
	while read -r pid; do
		if [[ $pid =~ ^[0-9]+$ ]] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$folder/"; then
			printf '%s\n' "$pid"
		fi
	done < <(tac -- "$folder/daemon.pid") 2>/dev/null
}

# Ends a daemon and whatever of it is left, and removes its folder.
stop_daemon() { # NAME
	local folder pid waited point
	folder=$(daemon_folder "$1")
	for pid in $(daemon_processes "$1"); do
		waited=0
		kill -- "$pid" 2>/dev/null || true
		# A zombie has ended; who reaps it is not our business.
		while [[ -e /proc/$pid ]] && ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null; do
			((waited += 1))
			((waited < 300)) || kill -KILL -- "$pid" 2>/dev/null || true
			((waited < 400)) || {
				say "daemon $1 (process $pid) does not end"
				return 1
			}
			sleep 0.1
		done
	done
	[[ -d $folder ]] || return 0
	# Docker leaves its network namespace bound.
	while read -r point; do
		umount -- "$point" 2>/dev/null || umount -l -- "$point" 2>/dev/null || true
	done < <(awk -v folder="$folder/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
	if awk -v folder="$folder/" 'index($5, folder) == 1 { found = 1 } END { exit !found }' /proc/self/mountinfo; then
		say "something is still mounted in $folder; it stays"
		return 1
	fi
	rm -rf -- "$folder"
}

# What setup.sh made, one a line: `package NAME` or `folder PATH`.
peers_record() {
	printf '%s/record\n' "$(peers_folder)"
}
