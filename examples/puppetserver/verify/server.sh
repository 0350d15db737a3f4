#!/bin/sh
# The server is there, does not run yet, and has no CA.
set -eu
[ -e /usr/share/puppetserver/puppetserver.jar ] || { echo "puppetserver is missing"; exit 1; }
for d in /var/lib/puppet/ssl /var/lib/puppetserver/ca /etc/puppet/puppetserver/ca; do
    [ ! -d "$d" ] || [ -z "$(find "$d" -type f)" ] || { echo "$d has keys or certificates: they are born at boot"; exit 1; }
done
if pgrep -f puppetserver.jar >/dev/null; then echo "puppetserver runs before the hand-off"; exit 1; fi
/usr/local/sbin/dayfly-autosign admin check --files
