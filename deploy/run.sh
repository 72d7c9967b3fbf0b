#!/usr/bin/env bash
# The main job on a fresh machine: set everything up, replay pcaps/, capture on the interface of the default
# route where that may be, show a live table, serve metrics.
#
#   deploy/run.sh            until Ctrl-C or SIGTERM; metrics on http://127.0.0.1:9464/metrics
#   deploy/run.sh --once     end after the replay and print the incidents; nothing is captured
#
# Further arguments are those of "poolwatch run"; --interface NAME captures there instead.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ -x "$venv/bin/poolwatch" ] && compgen -G "$venv/.poolwatch-*" >/dev/null || setup requirements.lock
cd "$root"

# Field 2 of a route is its destination, 8 its mask: both are zero in the default route.
interface=$(awk '$2 == "00000000" && $8 == "00000000" { print $1; exit }' /proc/net/route 2>/dev/null || true)
if [ -n "$interface" ]; then
    exec "$venv/bin/poolwatch" run --try-interface "$interface" "$@"
fi
case " $* " in
    *" --once "* | *" --interface"*) ;;
    *) say "nothing is captured: no default route; --interface NAME says where" ;;
esac
exec "$venv/bin/poolwatch" run "$@"
