#!/bin/sh
# Before the package's files go; $1 is "remove" or 0 when it is not an upgrade. An isolator that holds volumes is never stopped by this: taking its program
# away under it would leave nobody who can give them up.
set -e
case "$1" in
  remove|0) ;;
  *) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
if systemctl is-active --quiet holdfast-isolator.service; then
  echo "holdfast: the isolator is running. Drain this node first (holdfast node drain), then: systemctl disable --now holdfast-isolator" >&2
  exit 1
fi
systemctl disable --now holdfast-framework.service >/dev/null 2>&1 || true
