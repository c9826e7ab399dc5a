# Sourced by tools/demo and tools/test: a virtual environment in .venv with this project in it.
# On Debian and Ubuntu what is missing is installed with apt-get, with sudo unless run as root.

cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: no root rights and no sudo, cannot run: $*" >&2
        return 1
    fi
}

# install PACKAGE...: those that are not installed yet.
install() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" ||
            missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    echo "setup: installing$missing"
    command -v apt-get >/dev/null || { echo "setup: there is no apt-get here" >&2; return 1; }
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -qq -y --no-install-recommends $missing >/dev/null
}

# Prints the first Python that is 3.11 or later and can make virtual environments.
find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null && { command -v "$python"; return 0; }
    done
    return 1
}

# setup_venv EXTRA: makes .venv, or brings it up to date when pyproject.toml has changed.
setup_venv() {
    stamp=".venv/installed-$1"
    if [ -x .venv/bin/python ] && cmp -s pyproject.toml "$stamp"; then
        return 0
    fi
    if [ ! -x .venv/bin/python ]; then
        if ! python=$(find_python); then
            install python3 python3-venv
            python=$(find_python) || { install python3.11 python3.11-venv; python=$(find_python); } ||
                { echo "setup: Python 3.11 or later is needed" >&2; return 1; }
        fi
        "$python" -m venv .venv
    fi
    echo "setup: installing Workbench and the packages that it needs into .venv"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$2"
    cp pyproject.toml "$stamp"
}
