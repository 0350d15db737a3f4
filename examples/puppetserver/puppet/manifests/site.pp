node default {
  include puppetserver
}
