package control

import (
	"context"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/chaos"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Harm implements server.Chaos. What goes wrong is written down before it does.
func (c *Control) Harm(ctx context.Context, h server.Harm) (chaos.Act, error) {
	a := h.Act
	refuse := func(kind fault.Kind, message, hint string) error {
		return &fault.Error{Kind: kind, Op: "chaos", Object: a.String(), Message: message, Hint: hint}
	}
	if !c.cfg.Chaos {
		return a, refuse(fault.Denied, "this server lets nothing go wrong on purpose", "dayfly server start --chaos allows it")
	}
	es, err := store.List[environment.Environment](ctx, c.store, environment.Kind, "")
	if err != nil {
		return a, err
	}
	var targets []chaos.Target
	for _, e := range es {
		if e.Phase != environment.Gone {
			targets = append(targets, chaos.Target{Name: e.Name, Production: chaos.ProductionLike(e.Name, e.Purpose, e.Standing)})
		}
	}
	if err := chaos.Allow(a, strings.Split(h.Named, ","), targets); err != nil {
		return a, err
	}
	var victim instance.Instance
	if a.Kind == chaos.KillInstance {
		all, err := store.List[instance.Instance](ctx, c.store, instance.Kind, a.Environment+"/")
		if err != nil {
			return a, err
		}
		for _, i := range all {
			if i.ID == a.Instance && i.State != instance.Gone {
				victim = i
			}
		}
		if victim.ID == "" {
			return a, refuse(fault.NotFound, "no such instance runs there", "dayfly instance list "+a.Environment)
		}
	}
	if h.Dry {
		return a, nil
	}
	kind, name := "chaos", string(a.Kind)
	if victim.ID != "" {
		kind, name = instance.Kind, victim.Name()
	}
	e := event.New(kind, name, "Chaos", event.Warning, "on purpose: %s", a.String())
	if e.By = access.Of(ctx).Name; h.Why != "" {
		e.Message += ": " + h.Why
	}
	if err := c.chronicle.Note(ctx, reconcile.Epoch(ctx), e); err != nil {
		return a, err
	}
	if victim.ID == "" {
		return a, nil
	}
	object := instance.Kind + "/" + victim.Name()
	return a, c.cloud.TerminateInstances(ctx, cloud.Intent{ID: object + "/chaos", Object: object}, victim.ID)
}
