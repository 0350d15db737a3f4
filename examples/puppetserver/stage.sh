#!/bin/sh
# Makes copies of blueprints that can be baked here.
#
#   stage.sh server BOX DIR           this one, with dayfly-autosign from bin/
#   stage.sh shop BOX ADDRESS DIR     examples/shop, baked against the Puppet server at ADDRESS
#
# BOX is the address of the box, such as http://100.64.0.9.
set -eu
usage() { sed -n 's/^#   //p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
name=puppet.corp.example
case ${1:-} in
server)
    [ $# = 3 ] || usage
    mkdir -p "$3"
    (cd "$here" && cp -R dayfly.yaml foundation.yaml fleet.yaml puppet deploy verify "$3/")
    cp "$here/../../bin/dayfly-autosign" "$3/puppet/modules/puppetserver/files/"
    sed -i "s#http://100.64.0.9/#$2/#" "$3/dayfly.yaml"
    ;;
shop)
    [ $# = 4 ] || usage
    mkdir -p "$4/verify"
    (cd "$here/../shop" && cp -R dayfly.yaml foundation.yaml fleet.yaml deploy verify suites "$4/")
    cp "$here/shop.yaml" "$4/verify/server.yaml"
    sed -i -e "s#http://100.64.0.9/#$2/#" \
        -e "s#^  puppet: .*#  puppet: { server: $name, address: $3, environment: production, role: web, version_url: \"$2/control/VERSION\" }#" \
        -e 's#^  verify: \[#&verify/server.yaml, #' "$4/dayfly.yaml"
    ;;
*) usage ;;
esac
