# What every shop server needs: packages, a user, folders, a clean-up job.
class shop (
  Array[String] $packages,
  String $motd,
) {
  # Without what packages only recommend: cron would bring a mail server along.
  package { $packages:
    ensure          => installed,
    install_options => ['--no-install-recommends'],
  }

  group { 'shop': ensure => present, system => true }
  user { 'shop':
    ensure => present,
    system => true,
    gid    => 'shop',
    home   => '/srv/shop',
    shell  => '/usr/sbin/nologin',
  }

  file {
    default: ensure => directory, owner => 'root', group => 'root', mode => '0755';
    '/srv/shop': ;
    '/srv/shop/releases': ;
    '/srv/shop/data': owner => 'shop', group => 'shop', mode => '0750';
    '/etc/shop': ;
  }
  file { '/etc/shop/shop.conf':
    source => 'puppet:///modules/shop/shop.conf',
    mode   => '0644',
  }
  file { '/etc/motd': content => "${motd}\n" }
  file { '/etc/cron.d/shop':
    content => "17 * * * * shop find /srv/shop/data -name '*.tmp' -mmin +60 -delete\n",
    mode    => '0644',
    require => Package['cron'],
  }

  service { 'cron':
    ensure  => running,
    enable  => true,
    require => Package['cron'],
  }
}
