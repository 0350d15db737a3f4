package cloud

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

const (
	inlineTemplate = 51_200    // bytes that fit into CreateStack itself
	maxTemplate    = 1_048_576 // bytes that CloudFormation takes from S3
)

// CreateStack begins a stack and returns its id without waiting for it.
func (d *Driver) CreateStack(ctx context.Context, in Intent, s StackInput) (id string, err error) {
	const op = "cloudformation:CreateStack"
	if len(s.Template) > maxTemplate {
		return "", &fault.Error{Kind: fault.Invalid, Op: op, Object: s.Name, Message: fmt.Sprintf("the template has %d bytes, CloudFormation takes %d", len(s.Template), maxTemplate)}
	}
	digested := s
	digested.Tags = stable(s.Tags)
	find := func(ctx context.Context) (string, bool, error) {
		there, err := d.Stack(ctx, s.Name)
		if isNotFound(err) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		if there.Tags[TagOwner] != d.cfg.Owner || there.Tags[TagIntent] != in.ID {
			return "", false, &fault.Error{Kind: fault.Conflict, Op: op, Object: s.Name, Code: "AlreadyExistsException", Message: "a stack of this name is there already, and this step did not make it"}
		}
		return there.ID, true, nil
	}
	return perform(ctx, d, in, action[string]{
		op: op, input: digested,
		find: func(ctx context.Context, _ *IntentRecord) (string, bool, error) { return find(ctx) },
		call: func(ctx context.Context, r *IntentRecord) (string, error) {
			input := &cloudformation.CreateStackInput{
				StackName: &s.Name, ClientRequestToken: &r.Token, Capabilities: []types.Capability{types.CapabilityCapabilityNamedIam},
				OnFailure: types.OnFailureRollback,
			}
			if s.KeepOnFailure {
				input.OnFailure = types.OnFailureDoNothing
			}
			for _, k := range slices.Sorted(maps.Keys(s.Parameters)) {
				input.Parameters = append(input.Parameters, types.Parameter{ParameterKey: &k, ParameterValue: new(s.Parameters[k])})
			}
			tags := d.marked(in, s.Tags)
			for _, k := range slices.Sorted(maps.Keys(tags)) {
				input.Tags = append(input.Tags, types.Tag{Key: &k, Value: new(tags[k])})
			}
			if len(s.Template) <= inlineTemplate {
				input.TemplateBody = &s.Template
			} else {
				url, err := d.uploadTemplate(ctx, s.Template)
				if err != nil {
					return "", err
				}
				input.TemplateURL = &url
			}
			out, err := d.cfn.CreateStack(ctx, input)
			if err == nil {
				return aws.ToString(out.StackId), nil
			}
			err = translate(op, s.Name, err)
			if fault.CodeOf(err) == "AlreadyExistsException" { // a retry below us, or another's stack
				if id, found, ferr := find(ctx); found || ferr != nil {
					return id, ferr
				}
			}
			if input.TemplateURL != nil {
				if f, ok := err.(*fault.Error); ok && f.Hint == "" {
					f.Hint = fmt.Sprintf("the template has more than %d bytes and went by S3: a region that does not take TemplateURL needs a smaller one", inlineTemplate)
				}
			}
			return "", err
		},
	})
}

// uploadTemplate puts a template under the name of its content.
func (d *Driver) uploadTemplate(ctx context.Context, template string) (url string, err error) {
	sum := sha256.Sum256([]byte(template))
	key := "templates/" + hex.EncodeToString(sum[:])
	bucket, err := d.ensureBucket(ctx)
	if err != nil {
		return "", err
	}
	if err := d.put(ctx, bucket, key, bytes.NewReader([]byte(template)), int64(len(template)), nil); err != nil {
		return "", err
	}
	if d.cfg.Endpoint != "" {
		return d.cfg.Endpoint + "/" + bucket + "/" + key, nil
	}
	return fmt.Sprintf("https://%s.s3.%s.amazonaws.com/%s", bucket, d.cfg.Region, key), nil
}

// DeleteStack begins the deletion; a stack that is not there is a success. A
// group in it whose instances are protected from scale-in has to be deleted
// before (DeleteGroup), or CloudFormation waits for it in vain.
func (d *Driver) DeleteStack(ctx context.Context, in Intent, name string) error {
	const op = "cloudformation:DeleteStack"
	gone := func(ctx context.Context) (bool, error) {
		s, err := d.Stack(ctx, name)
		switch {
		case isNotFound(err):
			return true, nil
		case err != nil:
			return false, err
		case s.Tags[TagOwner] != d.cfg.Owner:
			return false, notOurs(op, name)
		}
		return s.Status == string(types.StackStatusDeleteComplete), nil
	}
	_, err := perform(ctx, d, in, action[bool]{
		op: op, input: name,
		find: func(ctx context.Context, _ *IntentRecord) (bool, bool, error) {
			done, err := gone(ctx)
			return done, done, err
		},
		call: func(ctx context.Context, r *IntentRecord) (bool, error) {
			if done, err := gone(ctx); done || err != nil {
				return done, err
			}
			_, err := d.cfn.DeleteStack(ctx, &cloudformation.DeleteStackInput{StackName: &name, ClientRequestToken: &r.Token})
			return true, translate(op, name, err)
		},
	})
	return err
}

// Stack reads one by name or id; a deleted one only by id.
func (d *Driver) Stack(ctx context.Context, name string) (Stack, error) {
	const op = "cloudformation:DescribeStacks"
	ctx, cancel := limit(ctx)
	defer cancel()
	out, err := d.cfn.DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	if err != nil {
		return Stack{}, translate(op, name, err)
	}
	if len(out.Stacks) == 0 {
		return Stack{}, missing(op, name)
	}
	return stackOf(out.Stacks[0]), nil
}

// Stacks reads all that are ours.
func (d *Driver) Stacks(ctx context.Context) ([]Stack, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []Stack
	for p := cloudformation.NewDescribeStacksPaginator(d.cfn, &cloudformation.DescribeStacksInput{}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("cloudformation:DescribeStacks", "", err)
		}
		for _, s := range page.Stacks {
			if s := stackOf(s); s.Tags[TagOwner] == d.cfg.Owner {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

func stackOf(s types.Stack) Stack {
	out := Stack{
		ID: aws.ToString(s.StackId), Name: aws.ToString(s.StackName), Status: string(s.StackStatus), Reason: aws.ToString(s.StackStatusReason),
		Created: aws.ToTime(s.CreationTime), Outputs: map[string]string{}, Tags: map[string]string{},
	}
	for _, o := range s.Outputs {
		out.Outputs[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	for _, t := range s.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return out
}

// StackEvents reads a stack's history, the oldest line first.
func (d *Driver) StackEvents(ctx context.Context, name string) ([]StackEvent, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []StackEvent
	for p := cloudformation.NewDescribeStackEventsPaginator(d.cfn, &cloudformation.DescribeStackEventsInput{StackName: &name}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("cloudformation:DescribeStackEvents", name, err)
		}
		for _, e := range page.StackEvents {
			all = append(all, StackEvent{
				Time: aws.ToTime(e.Timestamp), Resource: aws.ToString(e.LogicalResourceId), Type: aws.ToString(e.ResourceType),
				Status: string(e.ResourceStatus), Reason: aws.ToString(e.ResourceStatusReason),
			})
		}
	}
	slices.Reverse(all)
	return all, nil
}

// StackResources reads what a stack holds.
func (d *Driver) StackResources(ctx context.Context, name string) ([]StackResource, error) {
	ctx, cancel := limit(ctx)
	defer cancel()
	var all []StackResource
	for p := cloudformation.NewListStackResourcesPaginator(d.cfn, &cloudformation.ListStackResourcesInput{StackName: &name}); p.HasMorePages(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, translate("cloudformation:ListStackResources", name, err)
		}
		for _, r := range page.StackResourceSummaries {
			all = append(all, StackResource{
				Logical: aws.ToString(r.LogicalResourceId), Type: aws.ToString(r.ResourceType), Physical: aws.ToString(r.PhysicalResourceId), Status: string(r.ResourceStatus),
			})
		}
	}
	return all, nil
}

// missing is the fault for a read that found nothing.
func missing(op, object string) error {
	return &fault.Error{Kind: fault.NotFound, Op: op, Object: object, Message: ErrNotFound.Error(), Err: ErrNotFound}
}

// ours tells whether tags prove that Dayfly made a thing: its own tag, or the
// stack that CloudFormation says it is of.
func (d *Driver) ours(ctx context.Context, tags map[string]string) (bool, error) {
	if owner, ok := tags[TagOwner]; ok {
		return owner == d.cfg.Owner, nil
	}
	stack := tags["aws:cloudformation:stack-id"]
	if stack == "" {
		stack = tags["aws:cloudformation:stack-name"]
	}
	if strings.TrimSpace(stack) == "" {
		return false, nil
	}
	s, err := d.Stack(ctx, stack)
	if isNotFound(err) {
		return false, nil
	}
	return s.Tags[TagOwner] == d.cfg.Owner, err
}
