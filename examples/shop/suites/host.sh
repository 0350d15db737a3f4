#!/bin/sh
. "$(dirname "$0")/junit.sh"
check "the shop does not run as root" equal "$(ps -o user= -C shop | sort -u)" shop
check "the release is the one that was asked for" test -d "/srv/shop/releases/$(basename "$(readlink /srv/shop/current)")"
check "no key is on the machine" sh -c '! find /root /home -name "id_*" -o -name authorized_keys | grep -q .'
check "the machine has an id of its own" sh -c '[ -s /etc/machine-id ] && ! grep -q uninitialized /etc/machine-id'
finish
