#!/usr/bin/env bash
# The main job on a fresh machine: set everything up, replay pcaps/, show a live table, serve metrics.
#
#   deploy/run.sh            until Ctrl-C or SIGTERM; metrics on http://127.0.0.1:9464/metrics
#   deploy/run.sh --once     end after the replay and print the incidents
#
# Further arguments are those of "poolwatch run".
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
[ -x "$venv/bin/poolwatch" ] && compgen -G "$venv/.poolwatch-*" >/dev/null || setup requirements.lock
cd "$root"
exec "$venv/bin/poolwatch" run "$@"
