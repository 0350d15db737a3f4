package bake

import (
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// The builder has no way in: no ingress, no key pair, no user data with a
// login; and its metadata needs a session token.
func TestBuilderHasNoWayIn(t *testing.T) {
	var doc struct {
		Resources map[string]struct {
			Type       string         `yaml:"Type"`
			Properties map[string]any `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	// Tags such as !Ref are of no interest here.
	if err := yaml.Unmarshal([]byte(strings.NewReplacer("!Ref", "", "!Sub", "", "!GetAtt", "", "!Select", "", "!GetAZs", "", "!If", "", "!Not", "", "!Equals", "").Replace(builderTemplate)), &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for name, r := range doc.Resources {
		seen[r.Type]++
		for key := range r.Properties {
			switch key {
			case "SecurityGroupIngress", "KeyName", "UserData":
				t.Errorf("%s has %s", name, key)
			}
		}
		switch r.Type {
		case "AWS::EC2::SecurityGroupIngress", "AWS::EC2::KeyPair", "AWS::EC2::EIP":
			t.Errorf("%s is a %s", name, r.Type)
		}
	}
	if seen["AWS::EC2::SecurityGroup"] != 1 || seen["AWS::EC2::Instance"] != 1 {
		t.Errorf("this is not the builder: %v", seen)
	}
	for _, word := range []string{"KeyName", "CidrIp", "authorized_keys", "password"} {
		if strings.Contains(builderTemplate, word) {
			t.Errorf("the template has %q", word)
		}
	}
	if !strings.Contains(builderTemplate, "HttpTokens: required") {
		t.Error("metadata without a session token")
	}
	// The instance uses that one group and no other.
	if !strings.Contains(builderTemplate, "SecurityGroupIds: [!Ref Access]") {
		t.Error("the builder is in other groups")
	}
}
