package event

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// deployment tells of a deployment: its beginning, each step done, its end.
func (t *Translator) deployment(n framework.Notice) (out []Event) {
	d, old := n.Deployment, n.DeploymentBefore
	light := planOf(d)
	full := light
	if t.Groups != nil && t.full.Load() > 0 {
		full.Original, full.Target = t.Groups(d)
	}
	add := func(kind string, f fields) { out = append(out, buildPlan(kind, t.Now(), f, light, full)) }
	from := d.Step
	switch {
	case n.Gone && n.Cancelled:
		if d.Step < len(d.Steps) {
			add("deployment_step_failure", fields{"currentStep": light.Steps[d.Step]})
		}
		add("deployment_failed", fields{"id": d.ID, "reason": "the deployment was cancelled, or replaced by another one"})
		return out
	case old != nil:
		from = old.Step
	}
	to := d.Step
	if n.Gone {
		to = len(d.Steps)
	}
	if old == nil && len(d.Steps) > 0 {
		from = 0
		add("deployment_info", fields{"currentStep": light.Steps[0]})
	}
	for s := from; s < to; s++ {
		add("deployment_step_success", fields{"currentStep": light.Steps[s]})
		if s+1 < len(d.Steps) {
			add("deployment_info", fields{"currentStep": light.Steps[s+1]})
		}
	}
	if n.Gone {
		add("deployment_success", fields{"id": d.ID})
	}
	return out
}

type plan struct {
	ID       state.DeploymentID     `json:"id"`
	Original json.RawMessage        `json:"original,omitempty"`
	Target   json.RawMessage        `json:"target,omitempty"`
	Steps    []state.DeploymentStep `json:"steps"`
	Version  string                 `json:"version"`
}

func planOf(d *state.Deployment) plan {
	p := plan{ID: d.ID, Steps: d.Steps, Version: d.Version}
	if p.Steps == nil {
		p.Steps = []state.DeploymentStep{}
	}
	// Here, and nowhere else, Marathon prints no more of a second than there is.
	if at, err := time.Parse(time.RFC3339Nano, d.Version); err == nil {
		p.Version = at.Format(time.RFC3339Nano)
	}
	return p
}

// buildPlan makes an event with a plan, in both formats.
func buildPlan(kind string, at time.Time, f fields, light, full plan) Event {
	whole := maps.Clone(f)
	f["plan"], whole["plan"] = light, full
	e := build(kind, at, f)
	if full.Target != nil {
		e.Full = build(kind, at, whole).Data
	}
	return e
}
