# What the tests of this folder share. They are called with the build directory.
# shellcheck shell=bash
set -euo pipefail
source_dir=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
# shellcheck disable=SC2034 # used by those who read this
build=$(readlink -f "${1:?usage: $0 BUILD_DIR}")
cd "$source_dir"
work=$(mktemp -d /tmp/llu-package-XXXXXX)
trap 'rm -rf "$work"' EXIT

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

need() {
	local program
	for program in "$@"; do
		command -v "$program" >/dev/null || die "there is no $program (sudo ./bootstrap test installs it)"
	done
}
