# facts prints what makes this machine this one. Keys are digests of public
# halves where there are some: comments in them may differ.
facts_digest() { sha256sum | cut -c1-32; }
facts_file() { if [ -s "$2" ]; then echo "fact $1 sha256:$(facts_digest <"$2")"; fi; }
facts_all() {
	id=$(cat /etc/machine-id 2>/dev/null || true)
	case $id in "" | uninitialized) ;; *) echo "fact machine-id $id" ;; esac
	if [ -s /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
		dbus=$(cat /var/lib/dbus/machine-id)
		if [ "$dbus" != "$id" ]; then echo "fact dbus-machine-id $dbus"; fi
	fi
	name=$(uname -n)
	case $name in "" | localhost | localhost.localdomain | "(none)") ;; *) echo "fact hostname $name" ;; esac
	{
		for k in /etc/ssh/ssh_host_*_key; do if [ -e "$k" ]; then echo "$k"; fi; done
		cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null | sed -n 's/^[[:space:]]*[Hh][Oo][Ss][Tt][Kk][Ee][Yy][[:space:]]\{1,\}"\{0,1\}\([^"[:space:]]*\).*$/\1/p'
	} | sort -u | while IFS= read -r k; do
		if [ -s "$k.pub" ]; then
			echo "fact ssh-host-key:$k sha256:$(cut -d' ' -f1-2 "$k.pub" | facts_digest)"
		else
			facts_file "ssh-host-key:$k" "$k"
		fi
	done
	certname=
	for conf in /etc/puppet/puppet.conf /etc/puppetlabs/puppet/puppet.conf; do
		if [ -r $conf ]; then
			certname=$(sed -n 's/^[[:space:]]*certname[[:space:]]*=[[:space:]]*\([^[:space:]]*\).*$/\1/p' $conf | tail -n 1)
			if [ -n "$certname" ]; then break; fi
		fi
	done
	# Puppet's own default is the whole host name.
	if [ -z "$certname" ] && [ -n "$name" ]; then certname=$( (timeout 5 hostname -f 2>/dev/null || echo "$name") | tr 'A-Z' 'a-z'); fi
	case $certname in "" | localhost | localhost.localdomain) ;; *) echo "fact certname $certname" ;; esac
	for ssl in /etc/puppet/ssl /etc/puppetlabs/puppet/ssl /var/lib/puppet/ssl; do
		for f in $ssl/private_keys/*.pem; do facts_file "puppet-key:$f" "$f"; done
		for f in $ssl/certs/*.pem; do
			case $f in */ca.pem) ;; *) facts_file "puppet-certificate:$f" "$f" ;; esac
		done
	done
	for f in /etc/ssl/private/* /etc/wireguard/*.conf /etc/wireguard/*.key /var/lib/systemd/random-seed /var/lib/systemd/credential.secret \
		/var/lib/urandom/random-seed /var/lib/NetworkManager/secret_key /etc/hostid /etc/iscsi/initiatorname.iscsi; do
		if [ -f "$f" ]; then facts_file "file:$f" "$f"; fi
	done
}
facts() { facts_all | head -c "$FACTS_LIMIT"; }
