# Removes everything that makes this machine this one; then looks whether
# anything of it is left. The order matters.
say() { echo "seal: $*"; }
facts # what no canary may have again
systemd=no
if [ -d /run/systemd/system ]; then systemd=yes; fi

# 1. Puppet: stopped, its identity and its memory gone.
if [ $systemd = yes ]; then systemctl stop puppet.service puppet-agent.service >/dev/null 2>&1 || true; fi
if [ -x /etc/init.d/puppet ]; then /etc/init.d/puppet stop >/dev/null 2>&1 || true; fi
for ssl in /etc/puppet/ssl /etc/puppetlabs/puppet/ssl /var/lib/puppet/ssl /var/lib/puppetlabs/puppet/ssl; do
	if [ -d $ssl ]; then find $ssl -mindepth 1 -delete; fi
done
for conf in /etc/puppet /etc/puppetlabs/puppet; do
	rm -f $conf/csr_attributes.yaml
	if [ -e $conf/puppet.conf ]; then sed -i '/^[[:space:]]*\(certname\|environment\)[[:space:]]*=/d' $conf/puppet.conf; fi
done
for var in /var/lib/puppet /var/cache/puppet /opt/puppetlabs/puppet/cache; do
	rm -rf $var/client_data $var/client_yaml $var/state $var/clientbucket $var/bucket $var/reports $var/client_catalog $var/catalog $var/yaml $var/public
done
rm -f /opt/puppetlabs/puppet/public/last_run_summary.yaml
rm -rf "$DIR"

# 2. cloud-init.
if command -v cloud-init >/dev/null 2>&1; then
	more=
	if cloud-init clean --help 2>&1 | grep -q -- --configs; then
		more='--configs all'
	else
		rm -f /etc/ssh/sshd_config.d/50-cloud-init.conf /etc/network/interfaces.d/50-cloud-init /etc/netplan/50-cloud-init.yaml
	fi
	cloud-init clean --logs --machine-id --seed $more >/dev/null
fi

# 3. Identity. An empty machine-id is filled in at boot; "uninitialized" would
# also make systemd preset units anew, those that Puppet disabled among them.
: >/etc/machine-id
if [ -e /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then rm -f /var/lib/dbus/machine-id; fi
: >/etc/hostname
if [ -e /etc/hosts ]; then sed '/# dayfly$/d' /etc/hosts >/etc/hosts.dayfly && cat /etc/hosts.dayfly >/etc/hosts && rm -f /etc/hosts.dayfly; fi
rm -f /etc/ssh/ssh_host_*
rm -f /etc/ssl/private/ssl-cert-snakeoil.key /etc/ssl/certs/ssl-cert-snakeoil.pem
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /dev \) -prune -o -type f -name 'authorized_keys*' -exec rm -f {} +
rm -f /var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/random-seed /var/lib/systemd/credential.secret
rm -f /var/lib/dhcp/*.lease* /var/lib/dhcpcd/* /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/secret_key 2>/dev/null || true

# 4. Traces of people and of the bake.
homes=$(cut -d: -f6 /etc/passwd | grep '^/.' | sort -u)
for home in /root /home/* $homes; do
	case $home in /proc* | /sys* | /dev* | /bin | /usr/* | /) continue ;; esac
	if [ ! -d "$home" ]; then continue; fi
	rm -rf "$home"/.*_history "$home"/.lesshst "$home"/.viminfo "$home"/.wget-hsts "$home"/.aws "$home"/.netrc "$home"/.cache "$home"/.ssh/known_hosts* "$home"/.puppet "$home"/.puppetlabs
done
rm -rf /var/log/journal/* /var/log/dayfly
find /var/log -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' -o -name '*.xz' \) -delete
find /var/log -type f -exec truncate -s 0 {} +
apt-get clean >/dev/null 2>&1 || true
rm -rf /var/cache/apt/archives/*.deb /var/cache/yum /var/cache/dnf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/cache/man/*
find /tmp /var/tmp -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' -exec rm -rf {} +
rm -rf "$STATE"/fired "$STATE"/report.json "$STATE"/suite-* /etc/dayfly/instance.env "$RUN"/boot.json

# 5. Nobody logs in as root.
if [ -e /etc/shadow ]; then
	usermod -p '!*' root >/dev/null 2>&1 || sed -i 's/^root:[^:]*:/root:!*:/' /etc/shadow
fi

# The proof: what must not be there, and of which kind it is. Contents are
# never shown.
bad=
left() { bad=yes; echo "seal: left behind: $1: $2"; }
none() {
	kind=$1
	shift
	for f in "$@"; do
		if [ -f "$f" ] && [ -s "$f" ]; then left "$f" "$kind"; fi
	done
}
none "an SSH host key" /etc/ssh/ssh_host_*
none "a login" /root/.aws/* /root/.netrc /root/.docker/config.json /root/.git-credentials /root/.pgpass /root/.my.cnf /home/*/.aws/* /home/*/.netrc /home/*/.docker/config.json /home/*/.git-credentials /home/*/.pgpass /home/*/.my.cnf
none "an SSH key" /root/.ssh/id_* /home/*/.ssh/id_*
none "a seed" /var/lib/systemd/random-seed /var/lib/urandom/random-seed
none "a token for the Puppet server" /etc/puppet/csr_attributes.yaml /etc/puppetlabs/puppet/csr_attributes.yaml
none "a DHCP lease" /var/lib/dhcp/*.lease*
none "a private key" /etc/ssl/private/*
for ssl in /etc/puppet/ssl /etc/puppetlabs/puppet/ssl /var/lib/puppet/ssl; do
	if [ -d $ssl ]; then for f in $(find $ssl -type f); do left "$f" "a Puppet certificate or key"; done; fi
done
for f in $(find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /dev \) -prune -o -type f -name 'authorized_keys*' -print); do left "$f" "keys that may log in"; done
# Puppet's own packages bring keys as test data below /opt/puppetlabs.
for f in $({ grep -rlsI -e 'PRIVATE KEY----[-]' /etc /root /home /srv /var/lib /var/www /usr/local || true; grep -rlsI --exclude-dir=puppetlabs -e 'PRIVATE KEY----[-]' /opt; } 2>/dev/null | sort -u | head -n 10); do left "$f" "a private key"; done
if [ -s /etc/machine-id ]; then left /etc/machine-id "a machine-id"; fi
if [ -e /etc/shadow ]; then
	for user in $(awk -F: '$2 !~ /^[!*]/ && !($1 != "root" && $2 == "x") {print $1}' /etc/shadow); do left /etc/shadow "a password of $user"; done
fi
for conf in /etc/puppet/puppet.conf /etc/puppetlabs/puppet/puppet.conf; do
	if [ -e $conf ] && grep -q '^[[:space:]]*\(certname\|environment\)[[:space:]]*=' $conf; then left $conf "certname or environment of the builder"; fi
done
if [ -d "$DIR" ]; then left "$DIR" "the bake's own files"; fi
if [ ! -s "$ARMED" ]; then
	bad=yes
	echo "seal: the hand-off is not armed: $ARMED is missing"
fi
if [ ! -x "$AGENT" ]; then
	bad=yes
	echo "seal: $AGENT is missing"
fi
if [ -e "$STATE/fired" ]; then left "$STATE/fired" "the hand-off was fired on the builder"; fi
if [ -n "$bad" ]; then
	echo "seal: no image is made of this: identity is born at boot, and what is secret comes at run time"
	exit 1
fi
"$AGENT" manifest
sync
say "nothing is left that makes this machine this one"
