# A Puppet server with its certificate authority and Dayfly's policy autosign.
# The CA's keys are not made here: identity is born at boot.
class puppetserver (
  String $heap = '512m',
) {
  # Debian starts the service when it is installed; it would make a CA, which
  # then were in the image. The deploy script makes this file.
  file { '/etc/systemd/system/puppetserver.service.d':
    ensure => directory,
  }
  file { '/etc/systemd/system/puppetserver.service.d/dayfly.conf':
    source => 'puppet:///modules/puppetserver/unit.conf',
    notify  => Exec['systemd reads units'],
    before  => Package['puppetserver'],
  }
  exec { 'systemd reads units':
    command     => '/bin/systemctl daemon-reload',
    refreshonly => true,
  }
  Exec['systemd reads units'] -> Package['puppetserver']

  # Java's packages link manual pages, which small base images have no folder for.
  file { ['/usr/share/man', '/usr/share/man/man1']:
    ensure => directory,
    before => Package['puppetserver'],
  }

  package { ['puppetserver', 'curl']:
    ensure          => installed,
    install_options => ['--no-install-recommends'],
  }

  file {
    default:
      require => Package['puppetserver'];
    '/etc/default/puppetserver':
      content => template('puppetserver/default.erb');
    '/etc/puppet/puppet.conf':
      source => 'puppet:///modules/puppetserver/puppet.conf';
    '/etc/puppet/puppetserver/conf.d/puppetserver.conf':
      source => 'puppet:///modules/puppetserver/puppetserver.conf';
    # Code comes with the control repo's releases.
    ['/srv/control', '/etc/puppet/code', '/etc/puppet/code/environments']:
      ensure => directory;

    # The server's user must be able to execute it: what it cannot execute,
    # Puppet reads as a list of names that it then signs.
    '/usr/local/sbin/dayfly-autosign':
      source => 'puppet:///modules/puppetserver/dayfly-autosign',
      mode   => '0755';
    '/var/lib/dayfly-autosign':
      ensure => directory,
      owner  => 'puppet',
      group  => 'puppet',
      mode   => '0750';
    '/etc/systemd/system/dayfly-autosign-clean.service':
      source => 'puppet:///modules/puppetserver/dayfly-autosign-clean.service',
      notify => Exec['systemd reads units anew'];
    '/etc/systemd/system/dayfly-autosign-clean.timer':
      source => 'puppet:///modules/puppetserver/dayfly-autosign-clean.timer',
      notify => Exec['systemd reads units anew'];
  }
  exec { 'systemd reads units anew':
    command     => '/bin/systemctl daemon-reload',
    refreshonly => true,
  }
}
