# A web server of the shop. $datacenter comes from the external node classifier, the motd
# from Hiera's level of the role.
class role::web {
  include shop
  file { '/etc/shop/datacenter': content => "${::datacenter}\n" }
}
