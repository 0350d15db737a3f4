# The team's own Puppet code: it knows nothing of Dayfly.
node default {
  include shop
}
