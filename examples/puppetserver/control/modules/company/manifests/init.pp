# What every machine of the company gets. No manifest includes it: the external
# node classifier assigns it, with $datacenter. The words are Hiera's.
class company (
  String $words,
) {
  $said = $trusted['extensions']
  file { '/etc/company':
    content => @("END")
      datacenter ${::datacenter}
      words ${words}
      environment ${environment}
      role ${said['pp_role']} in ${said['pp_environment']}, image ${said['pp_image_name']}
      | END
  }
}
