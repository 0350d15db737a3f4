package cfn

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/template"
)

const pageSize = 100

// page cuts a list; the token is the offset.
func page[T any](all []T, token string) (part []T, next string, err error) {
	from := 0
	if token != "" {
		if from, err = strconv.Atoi(token); err != nil || from < 0 || from > len(all) {
			return nil, "", invalid("NextToken %s is not valid", token)
		}
	}
	part = all[from:]
	if len(part) > pageSize {
		part, next = part[:pageSize], strconv.Itoa(from+pageSize)
	}
	return part, next, nil
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *Service) shape(st stack) *cloudformationapi.Stack {
	out := &cloudformationapi.Stack{
		StackId: st.ID, StackName: st.Name, StackStatus: st.Status, StackStatusReason: st.Reason, Description: st.Now.Description,
		CreationTime: when(st.Created), LastUpdatedTime: when(st.Updated), DeletionTime: when(st.Deleted),
		Capabilities: st.Now.Capabilities, RoleARN: st.RoleARN, ChangeSetId: st.ChangeSet,
		DisableRollback: new(st.OnFailure == "DO_NOTHING"), EnableTerminationProtection: new(st.Protect),
		DriftInformation:      &cloudformationapi.StackDriftInformation{StackDriftStatus: "NOT_CHECKED"},
		RollbackConfiguration: &cloudformationapi.RollbackConfiguration{},
		Parameters:            parametersOf(st.Now), Tags: tagsOf(st.Now.Tags),
	}
	if st.Timeout > 0 {
		out.TimeoutInMinutes = new(st.Timeout)
	}
	for _, o := range st.Outputs {
		out.Outputs = append(out.Outputs, &cloudformationapi.Output{OutputKey: o.Key, OutputValue: o.Value, Description: o.Description, ExportName: o.Export})
	}
	return out
}

func parametersOf(r revision) (out []*cloudformationapi.Parameter) {
	for _, name := range r.Names {
		v, ok := r.Values[name]
		if !ok {
			continue
		}
		x := &cloudformationapi.Parameter{ParameterKey: name, ParameterValue: v, ResolvedValue: r.Resolved[name]}
		if slices.Contains(r.NoEcho, name) {
			x.ParameterValue, x.ResolvedValue = "****", ""
		}
		out = append(out, x)
	}
	return out
}

func tagsOf(tags []tag) (out []*cloudformationapi.Tag) {
	for _, t := range tags {
		out = append(out, &cloudformationapi.Tag{Key: t.Key, Value: t.Value})
	}
	return out
}

// sorted are all stacks, the newest first.
func (s *Service) sorted(keep func(stack) bool) (out []stack) {
	s.c.DB.View(func(tx *state.Tx) {
		for _, st := range s.stacks.All(tx) {
			if keep(st) {
				out = append(out, st)
			}
		}
	})
	slices.SortStableFunc(out, func(a, b stack) int { return b.Created.Compare(a.Created) })
	return out
}

func (s *Service) one(name string) (st stack, err error) {
	ok := false
	s.c.DB.View(func(tx *state.Tx) { st, ok = s.find(tx, name) })
	if !ok {
		return st, missing(name)
	}
	return st, nil
}

// DescribeStacks describes one stack, deleted ones by id, or all live ones.
func (s *Service) DescribeStacks(_ context.Context, in *cloudformationapi.DescribeStacksInput) (*cloudformationapi.DescribeStacksOutput, error) {
	if in.StackName != "" {
		st, err := s.one(in.StackName)
		if err != nil {
			return nil, err
		}
		return &cloudformationapi.DescribeStacksOutput{Stacks: []*cloudformationapi.Stack{s.shape(st)}}, nil
	}
	part, next, err := page(s.sorted(stack.live), in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.DescribeStacksOutput{NextToken: next}
	for _, st := range part {
		out.Stacks = append(out.Stacks, s.shape(st))
	}
	return out, nil
}

// ListStacks lists stacks, deleted ones too.
func (s *Service) ListStacks(_ context.Context, in *cloudformationapi.ListStacksInput) (*cloudformationapi.ListStacksOutput, error) {
	part, next, err := page(s.sorted(func(st stack) bool {
		return len(in.StackStatusFilter) == 0 || slices.Contains(in.StackStatusFilter, st.Status)
	}), in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.ListStacksOutput{NextToken: next}
	for _, st := range part {
		out.StackSummaries = append(out.StackSummaries, &cloudformationapi.StackSummary{
			StackId: st.ID, StackName: st.Name, StackStatus: st.Status, StackStatusReason: st.Reason, TemplateDescription: st.Now.Description,
			CreationTime: when(st.Created), LastUpdatedTime: when(st.Updated), DeletionTime: when(st.Deleted),
			DriftInformation: &cloudformationapi.StackDriftInformationSummary{StackDriftStatus: "NOT_CHECKED"},
		})
	}
	return out, nil
}

// DescribeStackEvents lists a stack's events, the newest first.
func (s *Service) DescribeStackEvents(_ context.Context, in *cloudformationapi.DescribeStackEventsInput) (*cloudformationapi.DescribeStackEventsOutput, error) {
	st, err := s.one(in.StackName)
	if err != nil {
		return nil, err
	}
	var all []event
	s.c.DB.View(func(tx *state.Tx) {
		for _, e := range s.events.All(tx) {
			if e.Stack == st.ID {
				all = append(all, e)
			}
		}
	})
	slices.Reverse(all)
	part, next, err := page(all, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.DescribeStackEventsOutput{NextToken: next}
	for _, e := range part {
		x := &cloudformationapi.StackEvent{
			EventId: e.ID, StackId: e.Stack, StackName: e.StackName, LogicalResourceId: e.Logical, PhysicalResourceId: e.Physical,
			ResourceType: e.Type, ResourceStatus: e.Status, ResourceStatusReason: e.Reason, Timestamp: when(e.Time), ClientRequestToken: e.Token,
		}
		if e.Properties != nil {
			if b, err := json.Marshal(e.Properties); err == nil {
				x.ResourceProperties = string(b)
			}
		}
		out.StackEvents = append(out.StackEvents, x)
	}
	return out, nil
}

// shown are a stack's resources that AWS would list.
func (s *Service) shown(st stack) (out []resource) {
	s.c.DB.View(func(tx *state.Tx) { out = s.resourcesOf(tx, st.ID) })
	return slices.DeleteFunc(out, func(r resource) bool { return r.Status == "" })
}

func drift() *cloudformationapi.StackResourceDriftInformation {
	return &cloudformationapi.StackResourceDriftInformation{StackResourceDriftStatus: "NOT_CHECKED"}
}

// DescribeStackResources describes a stack's resources, or those of the stack
// that has a physical one.
func (s *Service) DescribeStackResources(_ context.Context, in *cloudformationapi.DescribeStackResourcesInput) (*cloudformationapi.DescribeStackResourcesOutput, error) {
	name := in.StackName
	switch {
	case name == "" && in.PhysicalResourceId == "":
		return nil, invalid("StackName or PhysicalResourceId must be specified.")
	case name != "" && in.PhysicalResourceId != "":
		return nil, invalid("StackName and PhysicalResourceId cannot both be specified.")
	case name == "":
		s.c.DB.View(func(tx *state.Tx) {
			for _, r := range s.resources.All(tx) {
				if r.ID == in.PhysicalResourceId && r.Status != deleteComplete {
					name = r.Stack
				}
			}
		})
		if name == "" {
			return nil, invalid("Stack for %s does not exist", in.PhysicalResourceId)
		}
	}
	st, err := s.one(name)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.DescribeStackResourcesOutput{}
	for _, r := range s.shown(st) {
		if in.LogicalResourceId != "" && r.Logical != in.LogicalResourceId || len(out.StackResources) == pageSize {
			continue
		}
		out.StackResources = append(out.StackResources, &cloudformationapi.StackResource{
			StackId: st.ID, StackName: st.Name, LogicalResourceId: r.Logical, PhysicalResourceId: r.ID, ResourceType: r.Type,
			ResourceStatus: r.Status, ResourceStatusReason: r.Reason, Timestamp: when(r.Changed), DriftInformation: drift(),
		})
	}
	if in.LogicalResourceId != "" && len(out.StackResources) == 0 {
		return nil, invalid("Resource %s does not exist for stack %s", in.LogicalResourceId, st.Name)
	}
	return out, nil
}

// DescribeStackResource describes one resource of a stack.
func (s *Service) DescribeStackResource(_ context.Context, in *cloudformationapi.DescribeStackResourceInput) (*cloudformationapi.DescribeStackResourceOutput, error) {
	st, err := s.one(in.StackName)
	if err != nil {
		return nil, err
	}
	r, ok := s.resource(st.ID, in.LogicalResourceId)
	if !ok || r.Status == "" {
		return nil, invalid("Resource %s does not exist for stack %s", in.LogicalResourceId, st.Name)
	}
	d := &cloudformationapi.StackResourceDetail{
		StackId: st.ID, StackName: st.Name, LogicalResourceId: r.Logical, PhysicalResourceId: r.ID, ResourceType: r.Type,
		ResourceStatus: r.Status, ResourceStatusReason: r.Reason, LastUpdatedTimestamp: when(r.Changed), DriftInformation: drift(),
	}
	if t, _ := template.Parse("template", []byte(st.Now.Template)); t != nil {
		if def := t.Resource(r.Logical); def != nil && def.Metadata != nil {
			if b, err := json.Marshal(def.Metadata.Value()); err == nil {
				d.Metadata = string(b)
			}
		}
	}
	return &cloudformationapi.DescribeStackResourceOutput{StackResourceDetail: d}, nil
}

// ListStackResources lists a stack's resources.
func (s *Service) ListStackResources(_ context.Context, in *cloudformationapi.ListStackResourcesInput) (*cloudformationapi.ListStackResourcesOutput, error) {
	st, err := s.one(in.StackName)
	if err != nil {
		return nil, err
	}
	part, next, err := page(s.shown(st), in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.ListStackResourcesOutput{NextToken: next}
	for _, r := range part {
		out.StackResourceSummaries = append(out.StackResourceSummaries, &cloudformationapi.StackResourceSummary{
			LogicalResourceId: r.Logical, PhysicalResourceId: r.ID, ResourceType: r.Type, ResourceStatus: r.Status,
			ResourceStatusReason: r.Reason, LastUpdatedTimestamp: when(r.Changed),
			DriftInformation: &cloudformationapi.StackResourceDriftInformationSummary{StackResourceDriftStatus: "NOT_CHECKED"},
		})
	}
	return out, nil
}

// GetTemplate returns a stack's or change set's template as it was given.
func (s *Service) GetTemplate(_ context.Context, in *cloudformationapi.GetTemplateInput) (*cloudformationapi.GetTemplateOutput, error) {
	body := ""
	if in.ChangeSetName != "" {
		c, err := s.changeSet(in.StackName, in.ChangeSetName)
		if err != nil {
			return nil, err
		}
		body = c.Next.Template
	} else {
		st, err := s.one(in.StackName)
		if err != nil {
			return nil, err
		}
		body = st.Now.Template
	}
	return &cloudformationapi.GetTemplateOutput{TemplateBody: body, StagesAvailable: []string{"Original", "Processed"}}, nil
}

// ValidateTemplate checks a template without values.
func (s *Service) ValidateTemplate(_ context.Context, in *cloudformationapi.ValidateTemplateInput) (*cloudformationapi.ValidateTemplateOutput, error) {
	if in.TemplateURL != "" {
		return nil, invalid("the local region reads templates from TemplateBody, not from TemplateURL")
	}
	t, err := s.parse(in.TemplateBody)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.ValidateTemplateOutput{Description: t.Description, DeclaredTransforms: t.Transforms}
	out.Capabilities, out.CapabilitiesReason = capabilities(t)
	for _, p := range t.Parameters {
		x := &cloudformationapi.TemplateParameter{ParameterKey: p.Name, Description: p.Description, NoEcho: new(p.NoEcho)}
		if p.Default != nil {
			x.DefaultValue = *p.Default
		}
		out.Parameters = append(out.Parameters, x)
	}
	return out, nil
}

func capabilities(t *template.Template) ([]string, string) {
	c, types := needed(t)
	if c == "" {
		return nil, ""
	}
	return []string{c}, "The following resource(s) require capabilities: [" + strings.Join(types, ", ") + "]"
}

// GetTemplateSummary tells about a template or a stack's.
func (s *Service) GetTemplateSummary(_ context.Context, in *cloudformationapi.GetTemplateSummaryInput) (*cloudformationapi.GetTemplateSummaryOutput, error) {
	body := in.TemplateBody
	switch {
	case in.TemplateURL != "" || in.StackSetName != "":
		return nil, invalid("the local region takes TemplateBody or StackName, not TemplateURL or StackSetName")
	case in.StackName != "":
		st, err := s.one(in.StackName)
		if err != nil {
			return nil, err
		}
		body = st.Now.Template
	}
	t, err := s.parse(body)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.GetTemplateSummaryOutput{Description: t.Description, Version: formatVersion(t), DeclaredTransforms: t.Transforms}
	out.Capabilities, out.CapabilitiesReason = capabilities(t)
	if t.Metadata != nil {
		if b, err := json.Marshal(t.Metadata.Value()); err == nil {
			out.Metadata = string(b)
		}
	}
	for _, r := range t.Resources {
		if !slices.Contains(out.ResourceTypes, r.Type) {
			out.ResourceTypes = append(out.ResourceTypes, r.Type)
		}
	}
	slices.Sort(out.ResourceTypes)
	for _, p := range t.Parameters {
		x := &cloudformationapi.ParameterDeclaration{
			ParameterKey: p.Name, ParameterType: p.Type, Description: p.Description, NoEcho: new(p.NoEcho),
			ParameterConstraints: &cloudformationapi.ParameterConstraints{AllowedValues: p.AllowedValues},
		}
		if p.Default != nil {
			x.DefaultValue = *p.Default
		}
		out.Parameters = append(out.Parameters, x)
	}
	return out, nil
}

func formatVersion(t *template.Template) string {
	if v := t.Root.Get("AWSTemplateFormatVersion"); v != nil {
		return v.Text
	}
	return ""
}
