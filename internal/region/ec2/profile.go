package ec2

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var associationFields = filter.Fields[*ec2api.IamInstanceProfileAssociation]{
	By: map[string]func(*ec2api.IamInstanceProfileAssociation) []string{
		"instance-id": func(v *ec2api.IamInstanceProfileAssociation) []string { return filter.One(v.InstanceId) },
		"state":       func(v *ec2api.IamInstanceProfileAssociation) []string { return filter.One(v.State) },
	},
}

// DescribeIamInstanceProfileAssociations tells which instance has which profile.
func (s *Service) DescribeIamInstanceProfileAssociations(ctx context.Context, in *ec2api.DescribeIamInstanceProfileAssociationsRequest) (*ec2api.DescribeIamInstanceProfileAssociationsResult, error) {
	out := &ec2api.DescribeIamInstanceProfileAssociationsResult{}
	q := query[ec2api.IamInstanceProfileAssociation]{ids: in.AssociationIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, fields: associationFields,
		id: func(v *ec2api.IamInstanceProfileAssociation) string { return v.AssociationId },
		missing: func(id string) error {
			return wire.Errorf("InvalidAssociationID.NotFound", "The association ID '%.64s' does not exist", id)
		}}
	var err error
	s.view(func(tx *state.Tx) {
		all := map[string]*ec2api.IamInstanceProfileAssociation{}
		for _, i := range s.instances.All(tx) {
			if i.Profile != nil && i.State != terminated {
				all[i.Profile.Assoc] = &ec2api.IamInstanceProfileAssociation{AssociationId: i.Profile.Assoc, InstanceId: i.ID, State: "associated", Timestamp: new(i.Profile.Since), IamInstanceProfile: &ec2api.IamInstanceProfile{Arn: i.Profile.ARN, Id: i.Profile.ID}}
			}
		}
		out.IamInstanceProfileAssociations, out.NextToken, err = q.run(sorted(all), func(id string) *ec2api.IamInstanceProfileAssociation { return all[id] })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
