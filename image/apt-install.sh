#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian packages and leaves no package list or cache behind.
#
#   install-packages --upgrade PACKAGE...   the named ones, after an upgrade of what is there
#   install-packages --file FILE            the names in a packages.txt: one a line, # starts a comment
#
# The build secrets apt-sources, apt-conf and ca-bundle are used where the build gives them.
set -eu
secrets=/run/secrets

upgrade=
case ${1:-} in
  --upgrade)
    upgrade=yes
    shift
    ;;
  --file)
    [ -s "$2" ] || exit 0
    # shellcheck disable=SC2046  # one word a package
    set -- $(sed 's/#.*//' "$2")
    ;;
  *)
    echo "usage: install-packages --upgrade PACKAGE... | --file FILE" >&2
    exit 2
    ;;
esac
[ $# -gt 0 ] || exit 0

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
chmod 0755 "$build" # apt's own unprivileged user reads the certificates
: >"$build/apt.conf"
if [ -s $secrets/apt-conf ]; then
  cat $secrets/apt-conf >>"$build/apt.conf"
fi
if [ -s $secrets/apt-sources ]; then
  install -m 0644 $secrets/apt-sources "$build/build.sources"
  printf 'Dir::Etc::SourceList "%s";\nDir::Etc::SourceParts "-";\n' "$build/build.sources" >>"$build/apt.conf"
fi
if [ -s $secrets/ca-bundle ]; then
  install -m 0644 $secrets/ca-bundle "$build/ca.crt"
  printf 'Acquire::https::CAInfo "%s";\n' "$build/ca.crt" >>"$build/apt.conf"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get -c "$build/apt.conf" -q update
if [ -n "$upgrade" ]; then
  apt-get -c "$build/apt.conf" -q -y upgrade
fi
apt-get -c "$build/apt.conf" -q -y --no-install-recommends install "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache
find /var/log -type f -delete
# A service that nobody logs in to needs no program that raises privileges.
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
