# Arms the hand-off: the last resource of the catalog. It installs nothing and
# starts nothing; the agent fires the hand-off at the boot of an instance.
class dayfly::handoff (
  String $settings = '/usr/lib/dayfly/handoff.json',
) {
  file { '/etc/dayfly':
    ensure => directory,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }
  file { '/etc/dayfly/handoff.json':
    ensure => file,
    owner  => 'root',
    group  => 'root',
    mode   => '0644',
    source => $settings,
  }
}
