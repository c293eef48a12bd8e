#!/bin/bash
set -euo pipefail
export ECF_PORT=%ECF_PORT% ECF_HOST=%ECF_HOST% ECF_NAME=%ECF_NAME% ECF_PASS=%ECF_PASS% ECF_TRYNO=%ECF_TRYNO% ECF_RID=$$
PATH=%MOSAIC_BIN%:$PATH
cd "%MOSAIC_FOLDER%"
ecflow_client --init=$$
# Told once, and before the server loses sight of the task; by a signal, too.
trap 'status=$?; trap - EXIT; if [ $status -ne 0 ]; then ecflow_client --abort="status $status"; fi; exit $status' EXIT
trap 'if [ -n "${child:-}" ]; then kill -TERM "$child"; wait "$child" || exit $?; fi; exit 143' TERM
