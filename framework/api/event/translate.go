package event

import (
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api/desk"
	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Translator tells changes in Marathon's words.
type Translator struct {
	// Now is the clock, for timestamps.
	Now func() time.Time
	// View reads the state; for what a change does not say itself.
	View func(func(*state.State))
	// Groups prints the root group as it was before and as it is after a deployment; nil for plans without them.
	Groups func(*state.Deployment) (original, target json.RawMessage)

	// full counts the readers that want whole groups: they are printed only then.
	full atomic.Int32
}

// Translate gives the events of one change, in order; none for what Marathon does not tell.
func (t *Translator) Translate(n framework.Notice) []Event {
	switch {
	case n.Check != nil:
		return t.failed(n.Check)
	case n.Instance != nil:
		return t.instance(n)
	case n.Deployment != nil:
		return t.deployment(n)
	case n.App != nil:
		return t.app(n)
	case n.Session != nil:
		return t.session(n)
	case n.Strange != nil:
		return t.list("unknown_instance_terminated_event", fields{"instanceId": n.ID, "runSpecId": "", "condition": condition(n.Strange.State)})
	}
	return nil
}

func (t *Translator) list(kind string, f fields) []Event { return []Event{build(kind, t.Now(), f)} }

func (t *Translator) session(n framework.Notice) []Event {
	switch s := n.Session; {
	case !s.Connected:
		return t.list("scheduler_disconnected_event", fields{})
	case n.First:
		return t.list("scheduler_registered_event", fields{"frameworkId": s.FrameworkID, "master": s.Master})
	default:
		return t.list("scheduler_reregistered_event", fields{"master": s.Master})
	}
}

// condition is Marathon's name for a state of Mesos.
func condition(mesos string) string {
	if name := conditions[mesos]; name != "" {
		return name
	}
	return "Unknown"
}

var conditions = map[string]string{"TASK_ERROR": "Error", "TASK_FAILED": "Failed", "TASK_FINISHED": "Finished", "TASK_KILLED": "Killed", "TASK_KILLING": "Killing",
	"TASK_RUNNING": "Running", "TASK_STAGING": "Staging", "TASK_STARTING": "Starting", "TASK_UNREACHABLE": "Unreachable", "TASK_GONE": "Gone",
	"TASK_GONE_BY_OPERATOR": "Gone", "TASK_DROPPED": "Dropped", "TASK_LOST": "Unreachable"}

// conditionOf is Marathon's name for where an instance is; "" for none at all.
func conditionOf(i *state.Instance) string {
	if i == nil {
		return ""
	}
	switch i.Phase {
	case state.PhaseWaiting, state.PhasePreparing, state.PhaseGranting:
		return "Scheduled"
	case state.PhaseLaunching:
		return "Provisioned"
	case state.PhaseStaging:
		if i.Run != nil && i.Run.MesosState == "TASK_STARTING" {
			return "Starting"
		}
		return "Staging"
	case state.PhaseRunning:
		return "Running"
	case state.PhaseKilling:
		return "Killing"
	case state.PhaseLost:
		return "Unreachable"
	case state.PhaseEnded, state.PhaseStopped:
		if i.Run != nil {
			return condition(i.Run.MesosState)
		}
		return "Killed"
	}
	return "Unknown"
}

// instance tells of one instance: what the master said of its task, its new condition, its health.
func (t *Translator) instance(n framework.Notice) (out []Event) {
	before, now := n.Before, n.Instance
	if before == now { // it is gone; what it was last stands in before
		now = nil
	}
	if s := n.Status; s != nil && before.Run.MesosState != s.State {
		out = append(out, build("status_update_event", t.Now(), statusFields(before, s)))
		if s.Healthy != nil && !*s.Healthy && terminal(s.State) {
			out = append(out, build("unhealthy_instance_kill_event", t.Now(), fields{"appId": before.App, "taskId": s.Task, "instanceId": before.ID, "version": before.Run.Version,
				"reason": s.Message, "host": before.Run.Hostname, "slaveId": before.Run.Agent}))
		}
	}
	if n.Unhealthy != "" && before != nil && before.Run != nil {
		out = append(out, build("unhealthy_instance_kill_event", t.Now(), fields{"appId": before.App, "taskId": before.Run.Task, "instanceId": before.ID, "version": before.Run.Version,
			"reason": n.Unhealthy, "host": before.Run.Hostname, "slaveId": before.Run.Agent}))
	}
	was, is := conditionOf(before), conditionOf(now)
	last := now
	if now == nil {
		last, is = before, ending(n, was)
	} else if n.Status != nil && terminal(n.Status.State) && now.Run == nil {
		// Its end and what comes after were one step: both are told.
		if c := condition(n.Status.State); c != was {
			out = append(out, t.changed(before, c))
			was = c
		}
	}
	if is != was {
		out = append(out, t.changed(last, is))
	}
	return append(out, t.health(before, now)...)
}

// ending is the last condition of an instance that is no more.
func ending(n framework.Notice, was string) string {
	switch {
	case n.Status != nil && terminal(n.Status.State):
		return condition(n.Status.State)
	case was == "Scheduled", was == "Provisioned", was == "Killing":
		return "Killed"
	}
	return was
}

func terminal(mesos string) bool {
	switch mesos {
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR":
		return true
	}
	return false
}

type address struct {
	Address  string `json:"ipAddress"`
	Protocol string `json:"protocol"`
}

func statusFields(i *state.Instance, s *scheduler.Status) fields {
	r := i.Run
	ip := r.ContainerIP
	if s.ContainerIP != "" {
		ip = s.ContainerIP
	}
	addresses := []address{}
	if ip != "" {
		addresses = append(addresses, address{ip, desk.IPProtocol(ip)})
	}
	return fields{"slaveId": r.Agent, "taskId": s.Task, "taskStatus": s.State, "message": s.Message, "appId": i.App, "host": r.Hostname,
		"ipAddresses": addresses, "ports": append([]int{}, r.Ports...), "version": r.Version}
}

func (t *Translator) changed(i *state.Instance, condition string) Event {
	f := fields{"instanceId": i.ID, "condition": condition, "runSpecId": i.App, "agentId": nil, "host": nil, "runSpecVersion": i.Version}
	if r := i.Run; r != nil {
		f["agentId"], f["host"], f["runSpecVersion"] = r.Agent, r.Hostname, r.Version
	}
	return build("instance_changed_event", t.Now(), f)
}

// health tells when the health of one run has changed.
func (t *Translator) health(before, now *state.Instance) []Event {
	if now == nil || now.Run == nil || now.Run.Healthy == nil {
		return nil
	}
	alive, r := *now.Run.Healthy, now.Run
	if before != nil && before.Run != nil && before.Run.Task == r.Task && before.Run.Healthy != nil && *before.Run.Healthy == alive {
		return nil
	}
	out := []Event{
		build("health_status_changed_event", t.Now(), fields{"appId": now.App, "instanceId": now.ID, "taskId": r.Task, "version": r.Version, "alive": alive}),
		build("instance_health_changed_event", t.Now(), fields{"instanceId": now.ID, "runSpecId": now.App, "healthy": alive, "runSpecVersion": r.Version}),
	}
	if alive {
		return out
	}
	// The framework tells of each failure of its own checks (failed); of Mesos's only the change is known.
	for _, check := range t.healthChecks(now.App, r.Version, (*state.HealthCheck).Native) {
		out = append(out, build("failed_health_check_event", t.Now(), fields{"appId": now.App, "taskId": now.ID, "healthCheck": check}))
	}
	return out
}

// failed tells of one failed health check of the framework's own.
func (t *Translator) failed(c *probe.Failure) (out []Event) {
	at := -1
	for _, check := range t.healthChecks(c.App, c.Version, func(*state.HealthCheck) bool { at++; return at == c.Index }) {
		out = append(out, build("failed_health_check_event", t.Now(), fields{"appId": c.App, "taskId": c.Instance, "healthCheck": check}))
	}
	return out
}

// healthChecks gives the health checks of a definition that want lets through, as they are printed; nil lets all through.
func (t *Translator) healthChecks(app state.AppID, version string, want func(*state.HealthCheck) bool) []json.RawMessage {
	var d *state.Def
	t.View(func(st *state.State) { d = st.Def(app, version) })
	if d == nil || len(d.Spec.HealthChecks) == 0 {
		return nil
	}
	var source struct {
		HealthChecks []json.RawMessage `json:"healthChecks"`
	}
	if json.Unmarshal(d.Source, &source) != nil {
		return nil
	}
	out := source.HealthChecks[:0]
	for i := range d.Spec.HealthChecks {
		if i < len(source.HealthChecks) && (want == nil || want(&d.Spec.HealthChecks[i])) {
			out = append(out, source.HealthChecks[i])
		}
	}
	return out
}

func (t *Translator) app(n framework.Notice) (out []Event) {
	if n.Gone {
		if n.Def != nil && len(n.Def.Spec.HealthChecks) > 0 {
			out = append(out, t.list("remove_health_check_event", fields{"appId": n.App.ID})...)
		}
		return append(out, t.list("app_terminated_event", fields{"appId": n.App.ID})...)
	}
	if n.AppBefore != nil && n.AppBefore.Version == n.App.Version {
		return nil
	}
	for _, check := range t.healthChecks(n.App.ID, n.App.Version, nil) {
		out = append(out, build("add_health_check_event", t.Now(), fields{"appId": n.App.ID, "version": n.App.Version, "healthCheck": check}))
	}
	return out
}
