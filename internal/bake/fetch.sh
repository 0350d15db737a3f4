# Fetches the bake's inputs from S3 with plain curl and the instance's own role,
# and installs the agent. Credentials go to curl by its standard input: they are
# never in an argument list.
umask 022
imds=http://169.254.169.254/latest
token=$(curl -fsS --retry 5 --retry-connrefused -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/api/token")
meta() { printf 'header = "X-aws-ec2-metadata-token: %s"\n' "$token" | curl -fsS --retry 5 -K - "$imds/meta-data/$1"; }
role=$(meta iam/security-credentials/)
creds=$(meta "iam/security-credentials/$role")
field() { printf '%s' "$creds" | tr -d '\n' | sed -n "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/p"; }
if [ -n "${AWS_ENDPOINT_URL:-}" ]; then
    url=$AWS_ENDPOINT_URL/$BUCKET/$KEY
else
    url=https://$BUCKET.s3.$REGION.amazonaws.com/$KEY
fi
# A builder that is taken over keeps what the Puppet server's CA gave it.
if [ -d "$DIR" ]; then find "$DIR" -mindepth 1 -maxdepth 1 ! -name puppet -exec rm -rf {} +; fi
if [ -d "$DIR/puppet" ]; then find "$DIR/puppet" -mindepth 1 -maxdepth 1 ! -name ssl ! -name conf -exec rm -rf {} +; fi
mkdir -p "$DIR/inputs"
chmod 700 "$DIR"
printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' "$(field AccessKeyId)" "$(field SecretAccessKey)" "$(field Token)" |
    curl -fsS --retry 5 -K - --aws-sigv4 "aws:amz:$REGION:s3" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -o "$DIR/inputs.tar" "$url"
tar -xf "$DIR/inputs.tar" -C "$DIR/inputs" --no-same-owner
rm -f "$DIR/inputs.tar"

mkdir -p "$SCRIPTS" /etc/systemd/system/multi-user.target.wants /etc/service/dayfly-agent
install -m 755 "$DIR/inputs/dayfly/dayfly-agent" "$AGENT"
install -m 644 "$DIR/inputs/dayfly/handoff.json" "$SETTINGS"
cp -R "$DIR/inputs/deploy/." "$SCRIPTS/"
install -m 644 "$DIR/inputs/dayfly/dayfly-agent.service" /etc/systemd/system/dayfly-agent.service
ln -sfn ../dayfly-agent.service /etc/systemd/system/multi-user.target.wants/dayfly-agent.service
# Under another name first: where services are supervised folders, a half
# written one must not be started.
install -m 755 "$DIR/inputs/dayfly/run" /etc/service/dayfly-agent/.run
mv /etc/service/dayfly-agent/.run /etc/service/dayfly-agent/run
