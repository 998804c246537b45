#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The builder stage: makes the virtual environment in two parts, so that a release of ours moves a small
# layer. $VIRTUAL_ENV keeps the third-party packages; /out/tradewind gets what our wheels add, and the
# facts about the image.
#
#   install-venv.sh BUILD_FOLDER      holds uv, default.txt, wheels/, *.py
set -eu
build=$1
overlay=/out/tradewind

if [ -s /run/secrets/ca-bundle ]; then
  export SSL_CERT_FILE=/run/secrets/ca-bundle
fi
export UV_CACHE_DIR=/var/cache/uv UV_LINK_MODE=copy UV_NO_CONFIG=1 UV_PYTHON_DOWNLOADS=never

"$build/uv" venv --quiet --python /usr/bin/python3 "$VIRTUAL_ENV"
"$build/uv" pip install --no-deps --require-hashes --only-binary :all: --requirement "$build/default.txt"
python "$build/compile_bytecode.py" "$VIRTUAL_ENV"
find "$VIRTUAL_ENV" ! -type d | LC_ALL=C sort >"$build/third-party.list"

# By name: uv would note the path of a wheel that is named by its path. It notes the wheel's time in any
# case, which would make two builds of the same sources differ.
for wheel in "$build"/wheels/*.whl; do
  name=${wheel##*/}
  "$build/uv" pip install --quiet --no-cache --no-deps --no-index --find-links "$build/wheels" "${name%%-*}"
done
find "$VIRTUAL_ENV" -path '*/tradewind_*.dist-info/uv_cache.json' -delete
find "$VIRTUAL_ENV" -path '*/tradewind_*.dist-info/RECORD' -exec sed -i '/uv_cache\.json/d' {} +
"$build/uv" pip check
python "$build/compile_bytecode.py" "$VIRTUAL_ENV"
python "$build/describe.py" "$overlay/etc/tradewind"
find "$VIRTUAL_ENV" ! -type d | LC_ALL=C sort >"$build/all.list"
LC_ALL=C comm -13 "$build/third-party.list" "$build/all.list" >"$build/ours.list"
sed 's|^/||' "$build/ours.list" | tar -c -C / -T - | tar -x -C "$overlay"
tr '\n' '\0' <"$build/ours.list" | xargs -0 rm
find "$VIRTUAL_ENV" -type d -empty -delete
rm -f "$VIRTUAL_ENV/.lock" # uv leaves it writable for everybody
