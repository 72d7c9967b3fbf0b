#!/usr/bin/env bash
# The tests on a fresh machine: set everything up, then run them all.
#
#   tests/run.sh             as root also installs the Debian packages that some tests use
#   tests/run.sh --install   installs them with sudo
#
# Further arguments go to pytest.  Without the packages, and without ../shared, what needs them is skipped,
# and the summary says so.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../deploy/setup.sh"

declare -A serves=([tshark]=tshark [systemd-analyze]=systemd [promtool]=prometheus [softflowd]=softflowd [dnsmasq]=dnsmasq-base
    [amtool]=prometheus-alertmanager [java]=default-jre-headless [mvn]=maven)

install_tools() {
    local missing=() command sudo=
    for command in "${!serves[@]}"; do
        command -v "$command" >/dev/null || missing+=("${serves[$command]}")
    done
    [ ${#missing[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || sudo=sudo
    if { [ "$sudo" = "" ] || [ "$install" = 1 ]; } && command -v apt-get >/dev/null; then
        say "installing Debian packages: ${missing[*]}"
        $sudo apt-get update -qq &&
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                "${missing[@]}" >/dev/null && return
    fi
    say "not installed, what needs them is skipped: ${missing[*]}"
}

install=0
[ "${1:-}" = --install ] && { install=1; shift; }
setup requirements-test.lock
cd "$root"
# Tests with clocks should not wait for compilers: kernels first, while the rest is fetched.
"$venv/bin/python" -c 'import sys; from detector import app
app.warm_kernels(lambda text: print("poolwatch:", text, file=sys.stderr))' &
compiling=$!
install_tools
# Apache Kafka from Maven Central, once per machine.
"$venv/bin/python" tests/helpers/broker.py --fetch || say "what needs Kafka is skipped"
wait "$compiling" || say "not all kernels were compiled"
# Most of the slow tests wait for brokers and clocks: three at a time on two cores.
exec "$venv/bin/python" -m pytest -ra -n 3 --dist worksteal "$@"
