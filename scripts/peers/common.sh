# shellcheck shell=bash
# The systems to compare with, as a table: what each is made of, on each distribution. Sourced after lib.sh by setup.sh
# and teardown.sh, never run. Another system is another line in each table here, and nothing anywhere else.

# Every name, in the order in which they are set up.
peer_names() {
	echo runc crun bwrap unshare youki
}

# The packages of the distribution that a system needs: those it is, or those with which its crate is built.
peer_packages() { # FAMILY NAME
	case $1/$2 in
	*/runc) echo runc ;;
	*/crun) echo crun ;;
	*/bwrap) echo bubblewrap ;;
	*/unshare) echo util-linux ;;
	debian/youki | ubuntu/youki) echo gcc libc6-dev pkg-config libseccomp-dev ;;
	fedora/youki) echo gcc glibc-devel pkgconf-pkg-config libseccomp-devel ;;
	arch/youki) echo gcc glibc pkgconf libseccomp ;;
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
	local folder
	if [[ -n $(peer_crate "$1") ]]; then
		folder=$(crate_folder "$1")
		[[ -x $folder/bin/$1 ]] && printf '%s\n' "$folder/bin/$1"
	else
		# An unprivileged user's PATH often lacks the folders of root's programs.
		PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v -- "$1"
	fi
}

# What setup.sh made, one a line: `package NAME` or `folder PATH`.
peers_record() {
	printf '%s/record\n' "$(peers_folder)"
}
