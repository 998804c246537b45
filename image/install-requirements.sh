#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs a project's requirements.txt into the image's environment. A requirement that would replace
# Airflow or a Tradewind component fails, and uv's message names both sides.
#
#   install-requirements FILE
#
# The build secret ca-bundle is used where the build gives it.
set -eu
[ -s "$1" ] || exit 0

if [ -s /run/secrets/ca-bundle ]; then
  export SSL_CERT_FILE=/run/secrets/ca-bundle
fi
export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1
uv pip install --constraint /etc/tradewind/constraints/essential.txt --requirement "$1"
uv pip check
python /usr/libexec/tradewind/compile_bytecode.py "$VIRTUAL_ENV"
rm -f "$VIRTUAL_ENV/.lock" # uv leaves it writable for everybody
