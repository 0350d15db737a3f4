# The team's own Puppet code.
node default {
  package { 'busybox':
    ensure          => installed,
    install_options => ['--no-install-recommends'],
  }
  group { 'NAME': ensure => present, system => true }
  user { 'NAME':
    ensure => present,
    system => true,
    gid    => 'NAME',
    home   => '/srv/NAME',
    shell  => '/usr/sbin/nologin',
  }
  file { ['/srv/NAME', '/srv/NAME/releases']:
    ensure => directory,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }
}
