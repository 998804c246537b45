#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the Debian root filesystem that the image starts from where no registry can be reached.
#
#   image/rootfs.sh OUTPUT.tar [SUITE]
#
# Packages come from mmdebstrap's default archive, or from what these name:
#   TRADEWIND_APT_SOURCES  a deb822 file (*.sources) with the archive to use while building
#   TRADEWIND_APT_CONF     an apt.conf file with options to use while building
# Neither is left in the result: its own sources are mmdebstrap's default archive with the suite, its
# updates and its security updates. SOURCE_DATE_EPOCH, where set, bounds the files' times.
set -euo pipefail

readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# Reads one-line apt sources and writes them as deb822, one stanza for each archive.
deb822() {
  awk -v keyring="$KEYRING" '
    $1 == "deb" {
      sub(/\[[^]]*\]/, "")
      if (!($2 in suites)) order[++count] = $2
      suites[$2] = suites[$2] " " $3
      components = ""
      for (i = 4; i <= NF; i++) components = components " " $i
      wanted[$2] = components
    }
    END {
      for (i = 1; i <= count; i++) {
        uri = order[i]
        printf "%sTypes: deb\nURIs: %s\nSuites:%s\nComponents:%s\nSigned-By: %s\n",
          (i > 1 ? "\n" : ""), uri, suites[uri], wanted[uri], keyring
      }
    }'
}

# mmdebstrap has written its default sources and fetched nothing yet.
on_setup() {
  local root=$1 work=$2
  deb822 <"$root/etc/apt/sources.list" >"$work/debian.sources"
  if [[ -n ${TRADEWIND_APT_SOURCES:-} ]]; then
    : >"$root/etc/apt/sources.list"
    cp -- "$TRADEWIND_APT_SOURCES" "$root/etc/apt/sources.list.d/build.sources"
  fi
}

# Everything is installed: leave only what a user of the image should see.
on_customize() {
  local root=$1 work=$2
  rm -f "$root/etc/apt/sources.list" "$root/etc/apt/sources.list.d/build.sources" \
    "$root/etc/apt/apt.conf.d/99mmdebstrap"
  install -m 0644 "$work/debian.sources" "$root/etc/apt/sources.list.d/debian.sources"
  [[ -e $root$KEYRING ]] || { echo "rootfs.sh: the suite's keyring is not at $KEYRING" >&2; exit 1; }
}

case ${1:-} in
  --on-setup) on_setup "$2" "$3"; exit ;;
  --on-customize) on_customize "$2" "$3"; exit ;;
  "" | -*) echo "usage: rootfs.sh OUTPUT.tar [SUITE]" >&2; exit 2 ;;
esac

output=$1
suite=${2:-trixie}
self=$(realpath -- "${BASH_SOURCE[0]}")
if ! command -v mmdebstrap >/dev/null; then
  echo "rootfs.sh: mmdebstrap is missing: apt-get install mmdebstrap" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
options=()
if [[ -n ${TRADEWIND_APT_CONF:-} ]]; then
  options+=("--aptopt=$TRADEWIND_APT_CONF")
fi
# mmdebstrap runs a hook in a shell of its own, with the root's path as $1.
hook() {
  # shellcheck disable=SC2016  # that shell's $1
  printf '%q --on-%s "$1" %q' "$self" "$1" "$work"
}

# The excludes stay in the image as a dpkg setting: what a user adds is pruned in the same way.
mmdebstrap --variant=minbase --format=tar \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/lintian/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-include=/usr/share/locale/locale.alias' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --aptopt='Acquire::Languages "none"' \
  --setup-hook="$(hook setup)" \
  --customize-hook="$(hook customize)" \
  "${options[@]}" "$suite" "$output"
