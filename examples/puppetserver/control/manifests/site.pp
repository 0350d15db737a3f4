# Nodes are told apart by what their certificate says, which the CA has checked;
# never by facts, which every machine may make up.
node default {
  case $trusted['extensions']['pp_role'] {
    'web': { include role::web }
    default: { fail("there is no role for ${trusted['certname']}: its certificate says pp_role ${trusted['extensions']['pp_role']}") }
  }
}
