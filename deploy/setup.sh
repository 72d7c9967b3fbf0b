# Sourced by deploy/run.sh and tests/run.sh: a virtual environment in .venv that matches a lock file.
#
#   setup LOCK     makes .venv if need be, installs LOCK and this checkout; does nothing when both are as
#                  they were.  Python 3.11 or newer is taken from $PYTHON, else python3.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

say() { printf 'poolwatch: %s\n' "$*" >&2; }

make_venv() {
    local python=${PYTHON:-python3}
    command -v "$python" >/dev/null || { say "python3 was not found; set PYTHON"; exit 2; }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "Python 3.11 or newer is needed, $python is $("$python" --version 2>&1)"; exit 2; }
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian keeps venv in a package of its own.
        rm -rf "$venv"
        [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { say "install python3-venv"; exit 2; }
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
        "$python" -m venv "$venv"
    fi
}

setup() {
    local lock=$root/deploy/$1 stamp=$venv/.poolwatch-$1 wanted
    wanted=$(cat "$lock" "$root/pyproject.toml" | sha256sum)
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
    [ -x "$venv/bin/python" ] || make_venv
    say "installing packages of deploy/$1 into .venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "$lock"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -e "$root" 2>&1 |
        grep -v -e BuildBackendWarning -e '^ *!!' -e '\*\*\*' -e 'Please be careful' -e 'name as your' \
            -e 'with strategy' -e '^ *$' || true
    rm -f "$venv"/.poolwatch-*
    printf '%s' "$wanted" >"$stamp"
}
