package ec2

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func (s *Service) templateView(tx *state.Tx) func(template) *ec2api.LaunchTemplate {
	return func(t template) *ec2api.LaunchTemplate {
		return &ec2api.LaunchTemplate{LaunchTemplateId: t.ID, LaunchTemplateName: t.Name, CreatedBy: t.CreatedBy, CreateTime: new(t.Created),
			DefaultVersionNumber: new(t.Default), LatestVersionNumber: new(t.Latest), Tags: s.tagList(tx, t.ID)}
	}
}

func versionView(t template, v templateVersion) *ec2api.LaunchTemplateVersion {
	return &ec2api.LaunchTemplateVersion{LaunchTemplateId: t.ID, LaunchTemplateName: t.Name, VersionNumber: new(v.Number), VersionDescription: v.Description,
		DefaultVersion: new(v.Number == t.Default), CreatedBy: v.CreatedBy, CreateTime: new(v.Created), LaunchTemplateData: convert[ec2api.ResponseLaunchTemplateData](v.Data)}
}

var templateFields = filter.Fields[*ec2api.LaunchTemplate]{
	Tags: func(v *ec2api.LaunchTemplate) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.LaunchTemplate) []string{
		"launch-template-name": func(v *ec2api.LaunchTemplate) []string { return filter.One(v.LaunchTemplateName) },
		"create-time":          func(v *ec2api.LaunchTemplate) []string { return []string{v.CreateTime.Format(timeForm)} },
	},
}

// timeForm is how EC2 writes times into texts.
const timeForm = "2006-01-02T15:04:05.000Z"

// DescribeLaunchTemplates lists templates.
func (s *Service) DescribeLaunchTemplates(ctx context.Context, in *ec2api.DescribeLaunchTemplatesRequest) (*ec2api.DescribeLaunchTemplatesResult, error) {
	out := &ec2api.DescribeLaunchTemplatesResult{}
	q := query[ec2api.LaunchTemplate]{ids: in.LaunchTemplateIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, least: 1, fields: templateFields,
		id: func(v *ec2api.LaunchTemplate) string { return v.LaunchTemplateId }, missing: noTemplateID}
	var err error
	s.view(func(tx *state.Tx) {
		for _, n := range in.LaunchTemplateNames {
			var t template
			if t, err = s.findTemplate(tx, "", n); err != nil {
				if n == "" {
					err = noTemplateName(n)
				}
				return
			}
			q.ids = append(q.ids[:len(q.ids):len(q.ids)], t.ID)
		}
		out.LaunchTemplates, out.NextToken, err = list(tx, q, s.templates, s.templateView(tx))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

var versionFields = filter.Fields[*ec2api.LaunchTemplateVersion]{
	By: map[string]func(*ec2api.LaunchTemplateVersion) []string{
		"create-time":        func(v *ec2api.LaunchTemplateVersion) []string { return []string{v.CreateTime.Format(timeForm)} },
		"image-id":           func(v *ec2api.LaunchTemplateVersion) []string { return filter.One(v.LaunchTemplateData.ImageId) },
		"instance-type":      func(v *ec2api.LaunchTemplateVersion) []string { return filter.One(v.LaunchTemplateData.InstanceType) },
		"is-default-version": func(v *ec2api.LaunchTemplateVersion) []string { return filter.Bool(v.DefaultVersion) },
	},
}

// DescribeLaunchTemplateVersions lists the versions of a template, the newest
// first; or, without a template, $Latest or $Default of all.
func (s *Service) DescribeLaunchTemplateVersions(ctx context.Context, in *ec2api.DescribeLaunchTemplateVersionsRequest) (*ec2api.DescribeLaunchTemplateVersionsResult, error) {
	bound := func(v string, none int64) (int64, error) {
		if v == "" {
			return none, nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, wire.Errorf("InvalidParameterValue", "The version %.32s is not a number", v)
		}
		return n, nil
	}
	least, err := bound(in.MinVersion, 1)
	if err != nil {
		return nil, err
	}
	most, err := bound(in.MaxVersion, 1<<62)
	if err != nil {
		return nil, err
	}
	if len(in.Versions) > 200 {
		return nil, wire.Errorf("InvalidParameterValue", "At most 200 versions may be named in one call")
	}
	out := &ec2api.DescribeLaunchTemplateVersionsResult{}
	q := query[ec2api.LaunchTemplateVersion]{filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, least: 1, most: 200, fields: versionFields,
		id: func(v *ec2api.LaunchTemplateVersion) string { // the newest first
			return v.LaunchTemplateId + fmt.Sprintf(":%012d", 1e12-1-*v.VersionNumber)
		}}
	s.view(func(tx *state.Tx) {
		var found []*ec2api.LaunchTemplateVersion
		add := func(t template, v templateVersion) {
			if v.Number >= least && v.Number <= most {
				found = append(found, versionView(t, v))
			}
		}
		if in.LaunchTemplateId == "" && in.LaunchTemplateName == "" {
			for _, x := range in.Versions {
				if x != "$Latest" && x != "$Default" {
					err = wire.Errorf("MissingParameter", "The request must contain the parameter launchTemplateId or launchTemplateName for version %.32s", x)
					return
				}
			}
			if len(in.Versions) == 0 {
				err = wire.Errorf("MissingParameter", "The request must contain the parameter launchTemplateId, launchTemplateName or versions")
				return
			}
			for _, t := range s.templates.All(tx) {
				for _, x := range in.Versions {
					if v, err := s.findVersion(tx, t, x); err == nil {
						add(t, v)
					}
				}
			}
		} else {
			var t template
			if t, err = s.findTemplate(tx, in.LaunchTemplateId, in.LaunchTemplateName); err != nil {
				return
			}
			if len(in.Versions) > 0 {
				for _, x := range in.Versions {
					var v templateVersion
					if v, err = s.findVersion(tx, t, x); err != nil {
						return
					}
					add(t, v)
				}
			} else {
				for n := t.Latest; n >= 1; n-- {
					if v, ok := s.versions.Get(tx, versionKey(t.ID, n)); ok {
						add(t, v)
					}
				}
			}
		}
		slices.SortFunc(found, func(a, b *ec2api.LaunchTemplateVersion) int { return strings.Compare(q.id(a), q.id(b)) })
		found = slices.CompactFunc(found, func(a, b *ec2api.LaunchTemplateVersion) bool { return q.id(a) == q.id(b) })
		out.LaunchTemplateVersions, out.NextToken, err = q.run(slices.Values(found), nil)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
