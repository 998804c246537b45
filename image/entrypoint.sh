#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Starts what the container was asked for: an Airflow command with or without `airflow` before it, or any
# other program as it is. It runs under tini, which reaps children and passes signals to all of them.
set -eu

# An arbitrary user ID has no entry in /etc/passwd, and its home is / then.
if ! id -un >/dev/null 2>&1; then
  export USER="${USER:-airflow}" LOGNAME="${LOGNAME:-airflow}"
fi
if [ ! -w "${HOME:-/}" ]; then
  export HOME="$AIRFLOW_HOME"
fi

case ${1:---help} in
  -*) exec airflow "$@" ;; # an option of Airflow's, or nothing: Airflow prints its usage
esac
if grep -qxFe "$1" /etc/tradewind/airflow-commands; then
  exec airflow "$@"
fi
if command -v "$1" >/dev/null; then
  exec "$@"
fi
exec airflow "$@" # whatever it was, Airflow's message lists what there is
