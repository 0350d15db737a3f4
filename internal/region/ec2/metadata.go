package ec2

import (
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func checkMeta(m *ec2api.InstanceMetadataOptionsRequest) error {
	if m == nil {
		return nil
	}
	one := func(name, v string, of ...string) error {
		if v != "" && !slices.Contains(of, v) {
			return wire.Errorf("InvalidParameterValue", "Value (%.32s) for parameter %s is invalid", v, name)
		}
		return nil
	}
	if m.HttpPutResponseHopLimit != nil && (*m.HttpPutResponseHopLimit < 1 || *m.HttpPutResponseHopLimit > 64) {
		return wire.Errorf("InvalidParameterValue", "The HTTP PUT response hop limit is between 1 and 64")
	}
	if m.HttpProtocolIpv6 == "enabled" {
		return unsupported("instance metadata over IPv6")
	}
	for _, err := range []error{
		one("httpTokens", m.HttpTokens, "optional", "required"), one("httpEndpoint", m.HttpEndpoint, "enabled", "disabled"),
		one("instanceMetadataTags", m.InstanceMetadataTags, "enabled", "disabled"), one("httpProtocolIpv6", m.HttpProtocolIpv6, "disabled"),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// applyMeta lays options over those that are there.
func applyMeta(m metadata, in *ec2api.InstanceMetadataOptionsRequest) metadata {
	if in == nil {
		return m
	}
	if in.HttpTokens != "" {
		m.Required = in.HttpTokens == "required"
	}
	if in.HttpEndpoint != "" {
		m.Off = in.HttpEndpoint == "disabled"
	}
	if in.InstanceMetadataTags != "" {
		m.Tags = in.InstanceMetadataTags == "enabled"
	}
	if in.HttpPutResponseHopLimit != nil {
		m.Hops = *in.HttpPutResponseHopLimit
	}
	return m
}

// checkMetaTags refuses tag keys that cannot be a part of a metadata path.
func checkMetaTags(tags map[string]string) error {
	for k := range tags {
		if strings.ContainsAny(k, " /") || k == "." || k == ".." || k == "_index" {
			return wire.Errorf("InvalidParameterValue", "'%.128s' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{1,255}), and must not be a reserved name ('.', '..', '_index')", k)
		}
	}
	return nil
}
