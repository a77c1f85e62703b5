# shellcheck shell=bash
# The distribution's package manager behind a few functions. Sourced after lib.sh, never run.

is_installed() { # FAMILY PACKAGE
	case $1 in
	debian | ubuntu)
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$2" 2>/dev/null) == installed* ]] ||
			# Any awk will do.
			{ [[ $2 == mawk ]] && have awk; }
		;;
	fedora) rpm -q --quiet --whatprovides "$2" ;;
	arch) pacman -T "$2" >/dev/null 2>&1 ;;
	esac
}

install_command() { # FAMILY PACKAGE...
	local family=$1
	shift
	case $family in
	# The timeout waits for another apt that holds the lock, such as a nightly upgrade.
	debian | ubuntu) echo "apt-get -o DPkg::Lock::Timeout=600 install --yes --no-install-recommends $*" ;;
	fedora) echo "dnf --assumeyes --setopt=install_weak_deps=False install $*" ;;
	arch) echo "pacman --sync --needed --noconfirm $*" ;;
	esac
}

# The names of all installed packages, sorted, one a line.
list_packages() { # FAMILY
	case $1 in
	debian | ubuntu) dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' ;;
	fedora) rpm -qa --queryformat '%{NAME}\n' ;;
	arch) pacman -Qq ;;
	esac | sort -u
}

# Leaves in `as_root` the words that make a command root's.
find_root() { # WHAT IT IS FOR
	as_root=()
	((EUID != 0)) || return 0
	# With a password cached or not asked for, sudo works anywhere; else only where somebody can type it. sudo reads
	# from the terminal itself.
	if have sudo && sudo -n true 2>/dev/null; then
		as_root=(sudo -n)
	elif have sudo && [[ -t 2 ]]; then
		as_root=(sudo)
	else
		host_lacks "$1"
	fi
}

# Installs packages, or ends with what is to be done by hand.
install_packages() { # FAMILY PACKAGE...
	local family=$1 command words still=() package
	shift
	command=$(install_command "$family" "$@")
	case $family in
	debian | ubuntu) find_root "installing needs root; run as root: apt-get update && $command" ;;
	*) find_root "installing needs root; run as root: $command" ;;
	esac
	say "installing: $*"
	if [[ $family == debian || $family == ubuntu ]]; then
		# A fresh container has no lists at all. Old ones may do, so a failure here is not the end.
		${as_root[@]+"${as_root[@]}"} apt-get -q update >&2 || say "the package lists could not be brought up to date; trying with the old ones"
		as_root+=(env DEBIAN_FRONTEND=noninteractive "SYSTEMD_OFFLINE=${SYSTEMD_OFFLINE:-}")
	fi
	# The words of the command are package names and options, without spaces of their own.
	read -r -a words <<<"$command"
	${as_root[@]+"${as_root[@]}"} "${words[@]}" >&2 || host_lacks "the package manager failed; the command was: $command"
	for package in "$@"; do
		is_installed "$family" "$package" || still+=("$package")
	done
	((${#still[@]} == 0)) || host_lacks "installed, yet not found: ${still[*]}"
}
