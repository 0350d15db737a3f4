package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	keepActivities = 500           // of one group
	keepDeleted    = 2 * time.Hour // of groups that are gone
)

func (s *Service) indexActivities() {
	s.c.DB.View(func(tx *state.Tx) {
		for id, a := range s.activities.All(tx) {
			s.byGroup[a.Group] = append(s.byGroup[a.Group], id)
		}
		for _, ids := range s.byGroup {
			slices.SortFunc(ids, func(a, b string) int {
				x, _ := s.activities.Get(tx, a)
				y, _ := s.activities.Get(tx, b)
				return x.Start.Compare(y.Start)
			})
		}
	})
}

// begin records a new activity and returns its id.
func (s *Service) begin(tx *state.Tx, g *group, id, description, cause string, p place, status string, start time.Time) string {
	a := activity{ID: s.ids.UUID(), Group: g.Name, GroupARN: g.ARN, Cause: cause, Description: description,
		Start: start, Status: status, Progress: 20, Instance: id}
	if p.Subnet != "" {
		a.Details = fmt.Sprintf(`{"Subnet ID":%q,"Availability Zone":%q}`, p.Subnet, p.Zone)
	} else {
		a.Details = fmt.Sprintf(`{"Availability Zone":%q}`, p.Zone)
	}
	s.activities.Put(tx, a.ID, a)
	ids := append(s.byGroup[g.Name], a.ID)
	for len(ids) > keepActivities {
		s.activities.Delete(tx, ids[0])
		ids = ids[1:]
	}
	s.byGroup[g.Name] = ids
	return a.ID
}

func (s *Service) progress(tx *state.Tx, id, status string, percent int64) {
	if a, ok := s.activities.Get(tx, id); ok && a.End == nil {
		a.Status, a.Progress = status, percent
		s.activities.Put(tx, id, a)
	}
}

func (s *Service) endActivity(tx *state.Tx, id, status, message string, now time.Time) {
	if a, ok := s.activities.Get(tx, id); ok && a.End == nil {
		a.Status, a.Message, a.Progress, a.End = status, message, 100, &now
		s.activities.Put(tx, id, a)
	}
}

// forget removes the activities of groups that went long ago.
func (s *Service) forget(tx *state.Tx, now time.Time) {
	for name, ids := range s.byGroup {
		if _, ok := s.groups.Get(tx, name); ok {
			continue
		}
		if len(ids) > 0 {
			if a, ok := s.activities.Get(tx, ids[len(ids)-1]); ok && now.Sub(a.Start) < keepDeleted {
				continue
			}
		}
		for _, id := range ids {
			s.activities.Delete(tx, id)
		}
		delete(s.byGroup, name)
	}
}

func (s *Service) activityOut(tx *state.Tx, a activity) *api.Activity {
	out := &api.Activity{
		ActivityId: a.ID, AutoScalingGroupARN: a.GroupARN, AutoScalingGroupName: a.Group, Cause: a.Cause,
		Description: a.Description, Details: a.Details, StartTime: new(a.Start), EndTime: a.End,
		Progress: new(a.Progress), StatusCode: a.Status, StatusMessage: a.Message,
	}
	if _, ok := s.groups.Get(tx, a.Group); !ok {
		out.AutoScalingGroupState = "Deleted"
	}
	return out
}

// DescribeScalingActivities returns activities, the newest first.
func (s *Service) DescribeScalingActivities(_ context.Context, in *api.DescribeScalingActivitiesType) (*api.ActivitiesType, error) {
	if len(in.Filters) > 0 {
		return nil, wire.Unrealised("filters of DescribeScalingActivities")
	}
	out := &api.ActivitiesType{Activities: []*api.Activity{}}
	var err error
	s.c.DB.View(func(tx *state.Tx) {
		_, exists := s.groups.Get(tx, in.AutoScalingGroupName)
		deleted := in.IncludeDeletedGroups != nil && *in.IncludeDeletedGroups
		if in.AutoScalingGroupName != "" && !exists && !(deleted && len(s.byGroup[in.AutoScalingGroupName]) > 0) {
			err = noGroup(in.AutoScalingGroupName)
			return
		}
		var ids []string
		switch {
		case len(in.ActivityIds) > 0:
			ids = in.ActivityIds
		case in.AutoScalingGroupName != "":
			ids = slices.Clone(s.byGroup[in.AutoScalingGroupName])
			slices.Reverse(ids)
		default:
			for name, list := range s.byGroup {
				if _, ok := s.groups.Get(tx, name); ok || deleted {
					ids = append(ids, list...)
				}
			}
			slices.SortFunc(ids, func(a, b string) int {
				x, _ := s.activities.Get(tx, a)
				y, _ := s.activities.Get(tx, b)
				if c := y.Start.Compare(x.Start); c != 0 {
					return c
				}
				return strings.Compare(a, b)
			})
		}
		var all []activity
		for _, id := range ids {
			if a, ok := s.activities.Get(tx, id); ok && (in.AutoScalingGroupName == "" || a.Group == in.AutoScalingGroupName) {
				all = append(all, a)
			}
		}
		var from, to int
		if from, to, out.NextToken, err = page(len(all), in.NextToken, in.MaxRecords, 100); err != nil {
			return
		}
		for _, a := range all[from:to] {
			out.Activities = append(out.Activities, s.activityOut(tx, a))
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
