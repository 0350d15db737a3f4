package inventory

import (
	"reflect"
	"testing"
)

func TestDiff(t *testing.T) {
	a := Inventory{
		Packages: []Package{{Name: "cron", Version: "3.0", Arch: "amd64"}, {Name: "jq", Version: "1.6", Arch: "amd64"}, {Name: "same", Version: "1", Arch: "all"}},
		Files:    []File{{Path: "/etc/motd", Mode: "-rw-r--r--", Digest: "aaaaaaaaaaaaaaaaaaaa"}, {Path: "/etc/old", Mode: "-rw-r--r--", Digest: "b"}, {Path: "/etc/localtime", Link: "UTC"}},
	}
	b := Inventory{
		Packages: []Package{{Name: "cron", Version: "3.1", Arch: "amd64"}, {Name: "nginx", Version: "1.22", Arch: "amd64"}, {Name: "same", Version: "1", Arch: "all"}},
		Files:    []File{{Path: "/etc/motd", Mode: "-rw-r--r--", Digest: "cccccccccccccccccccc"}, {Path: "/etc/new", Mode: "-rw-------", Digest: "d"}, {Path: "/etc/localtime", Link: "CET"}},
	}
	want := []Difference{
		{"package", "cron:amd64", "changed", "3.0", "3.1"}, {"package", "jq:amd64", "removed", "1.6", ""}, {"package", "nginx:amd64", "added", "", "1.22"},
		{"file", "/etc/localtime", "changed", "→ UTC", "→ CET"}, {"file", "/etc/motd", "changed", "-rw-r--r-- aaaaaaaaaaaa", "-rw-r--r-- cccccccccccc"},
		{"file", "/etc/new", "added", "", "-rw------- d"}, {"file", "/etc/old", "removed", "-rw-r--r-- b", ""},
	}
	if got := Diff(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := Diff(a, a); len(got) != 0 {
		t.Errorf("the same differs: %+v", got)
	}
}

const report = `--- !ruby/object:Puppet::Transaction::Report
host: x
logs:
- File[/not/a/resource]: !ruby
resource_statuses:
  Package[cron]: !ruby/object:Puppet::Resource::Status
    title: cron
  'File[/etc/motd]': !ruby/object:Puppet::Resource::Status
    events:
    - property: content
  Schedule[daily]: !ruby/object:Puppet::Resource::Status
  Dayfly::Handoff[it's]: !ruby/object:Puppet::Resource::Status
corrective_change: false
other:
  Package[no]: !ruby/object:Puppet::Resource::Status
`

func TestResources(t *testing.T) {
	if got, want := Names([]byte(report)), []string{"Dayfly::Handoff[it's]", "File[/etc/motd]", "Package[cron]"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	less := []byte("\nresource_statuses:\n  Package[cron]: !ruby/x\n  User[shop]: !ruby/x\n")
	got := Resources([]byte(report), less)
	want := []Difference{{"resource", "Dayfly::Handoff[it's]", "removed", "", ""}, {"resource", "File[/etc/motd]", "removed", "", ""}, {"resource", "User[shop]", "added", "", ""}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := Resources(nil, []byte("nonsense")); got != nil {
		t.Errorf("%+v", got)
	}
}
