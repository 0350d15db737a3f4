# Runs Puppet's agent against the company's server. All that belongs to the
# agent is below $DIR, which sealing removes: keys, certificate, token, cache.
log=$DIR/puppet.log
conf=$DIR/puppet/conf
umask 077
mkdir -p "$conf" "$DIR/puppet/ssl" "$DIR/modules"
cp -R "$DIR/inputs/modules/." "$DIR/modules/"

# Where no name server knows the server, its address is given, for the bake only.
if [ -n "$ADDRESS" ]; then
	sed '/# dayfly$/d' /etc/hosts >"$DIR/hosts"
	printf '%s %s # dayfly\n' "$ADDRESS" "$SERVER" >>"$DIR/hosts"
	cat "$DIR/hosts" >/etc/hosts
fi

# Can it be reached at all, and do both sides agree on the time? Puppet's own
# words for either come late and are hard to read.
reached=
for wait in 1 2 4 8 15 15 15 0; do
	set +e
	curl -ksS -o /dev/null -D "$DIR/headers" --connect-timeout 10 --max-time "$PATIENCE" "https://$SERVER:$PORT/status/v1/simple" 2>"$DIR/unreached"
	code=$?
	set -e
	if [ $code -eq 0 ]; then reached=yes; break; fi
	if [ $wait -gt 0 ] && [ "$PATIENCE" -gt 5 ]; then
		echo "the Puppet server $SERVER:$PORT was not reached, once more in $wait s: $(cat "$DIR/unreached")"
		sleep $wait
	fi
done
if [ -z "$reached" ]; then
	case $code in
	6) why="its name is not known here; give image.puppet.address, or a name server that knows it" ;;
	7) why="it refuses connections or cannot be routed to: is it running, and does its firewall let builders in?" ;;
	28) why="it is too slow: no answer within $PATIENCE s" ;;
	35 | 52 | 56) why="what listens there does not speak Puppet's TLS" ;;
	*) why="curl's exit code $code" ;;
	esac
	echo "puppet: the Puppet server $SERVER:$PORT was not reached: $why ($(cat "$DIR/unreached"))"
	exit 1
fi
theirs=$(sed -n 's/^[Dd][Aa][Tt][Ee]: *//p' "$DIR/headers" | tr -d '\r' | head -n 1)
if [ -n "$theirs" ] && theirs=$(date -d "$theirs" +%s 2>/dev/null); then
	skew=$((theirs - $(date +%s)))
	if [ ${skew#-} -gt "$SKEW" ]; then
		echo "puppet: the clocks differ: the Puppet server $SERVER is ${skew#-} s $([ $skew -gt 0 ] && echo ahead of || echo behind) this builder, and certificates would seem not yet valid or over; set the time on both (NTP)"
		exit 1
	fi
fi

# The token, read with this machine's own role and deleted there, once: a builder
# that goes on after a failure has asked already. The token is never in an
# argument; curl gets its credentials by standard input.
if [ ! -s "$DIR/puppet/ssl/certs/$CERTNAME.pem" ] && [ ! -s "$conf/csr_attributes.yaml" ]; then
imds=http://169.254.169.254/latest
session=$(curl -fsS --retry 5 --retry-connrefused -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/api/token")
meta() { printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$session" | curl -fsS --retry 5 -K - "$imds/meta-data/$1"; }
instance=$(meta instance-id)
profile=$(meta iam/security-credentials/)
creds=$(meta "iam/security-credentials/$profile")
field() { printf '%s' "$creds" | tr -d '\n' | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; }
if [ -n "${AWS_ENDPOINT_URL:-}" ]; then
	url=$AWS_ENDPOINT_URL/$BUCKET/$KEY
else
	url=https://$BUCKET.s3.$REGION.amazonaws.com/$KEY
fi
object() {
	printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' "$(field AccessKeyId)" "$(field SecretAccessKey)" "$(field Token)" |
		curl -fsS --retry 5 -K - --aws-sigv4 "aws:amz:$REGION:s3" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@" "$url"
}
if ! token=$(object); then
	echo "puppet: the one-time token could not be read: it was read before, or this machine's role may not"
	exit 1
fi
object -X DELETE
cat >"$conf/csr_attributes.yaml" <<YAML
---
custom_attributes:
  1.2.840.113549.1.9.7: "$token"
extension_requests:
  pp_instance_id: "$instance"
  pp_image_name: "$IMAGE"
  pp_role: "$ROLE"
  pp_environment: "$ENVIRONMENT"
YAML
token= creds=
fi
cat >"$conf/puppet.conf" <<CONF
[main]
vardir = $DIR/puppet/var
ssldir = $DIR/puppet/ssl
rundir = $DIR/puppet/run
logdir = $DIR/puppet/log
lastrunfile = $DIR/puppet/var/state/last_run_summary.yaml
[agent]
server = $SERVER
serverport = $PORT
certname = $CERTNAME
environment = $ENVIRONMENT
strict_environment_mode = true
report = true
CONF
if [ -n "$FINGERPRINT" ]; then echo "ca_fingerprint = $FINGERPRINT" >>"$conf/puppet.conf"; fi
umask 022

# once SECONDS is one run.
once() {
	timeout "$1" puppet agent --onetime --no-daemonize --no-splay --no-usecacheonfailure --detailed-exitcodes --environment "$ENVIRONMENT" \
		--waitforcert 10 --maxwaitforcert "$SIGN" --color false --log_level notice --logdest console --confdir "$conf"
}
