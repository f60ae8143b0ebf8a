#!/bin/sh
# After the package's files are there. It starts nothing: what runs on a machine is the administrator's choice.
set -e
if ! getent group holdfast >/dev/null 2>&1; then
  groupadd --system holdfast
fi
if ! getent passwd holdfast >/dev/null 2>&1; then
  useradd --system --gid holdfast --home-dir /var/lib/holdfast --no-create-home --shell /usr/sbin/nologin holdfast
fi
# The framework's user reads its settings; nobody else does.
chgrp holdfast /etc/holdfast/framework.yaml 2>/dev/null || true
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
