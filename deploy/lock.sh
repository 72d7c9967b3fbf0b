#!/usr/bin/env bash
# Renew the two lock files from pyproject.toml (needs uv: pip install uv).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=${UV:-uv}
common=(--universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -q)
"$uv" pip compile pyproject.toml "${common[@]}" -o deploy/requirements.lock
"$uv" pip compile pyproject.toml --group test "${common[@]}" -o deploy/requirements-test.lock
