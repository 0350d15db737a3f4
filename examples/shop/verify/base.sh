#!/bin/sh
# Every image of the company: what Puppet promised is there.
set -eu
for p in jq cron; do
    dpkg -s "$p" >/dev/null 2>&1 || { echo "the package $p is missing"; exit 1; }
done
id shop >/dev/null || { echo "the user shop is missing"; exit 1; }
grep -q 'lives for a day' /etc/motd || { echo "/etc/motd is not ours"; exit 1; }
pgrep -x cron >/dev/null || { echo "cron does not run"; exit 1; }
