# A web server of the shop; its motd comes from Hiera's level of the role.
class role::web {
  include shop
}
