package show

import (
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Explain finds what an id means (app, instance, volume or node, in this order) and says why it is as it is.
func Explain(st *state.State, id string, now time.Time) (*client.Explanation, error) {
	app := state.AppID("/" + strings.Trim(id, "/"))
	if a := st.Apps[app]; a != nil {
		return explainApp(st, a, now), nil
	}
	if i := st.Instances[state.InstanceID(id)]; i != nil {
		return explainInstance(st, i, now), nil
	}
	if inst, _, ok := state.ParseTaskID(state.TaskID(id)); ok && st.Instances[inst] != nil {
		return explainInstance(st, st.Instances[inst], now), nil
	}
	v, err := FindVolume(st, id)
	if err == nil {
		return explainVolume(st, v, now), nil
	}
	if fault.Is(err, fault.Conflict) {
		return nil, err
	}
	for _, n := range Nodes(st) {
		if n.UID == id || n.Agent == id || n.Hostname == id {
			return explainNode(n, now), nil
		}
	}
	return nil, fault.New(fault.NotFound, "no app, instance, volume or node is called %q", id)
}

// FindVolume gives the volume with that uid, driver/name, or name if only one driver has it (else fault.Conflict).
func FindVolume(st *state.State, id string) (*state.Volume, error) {
	if v := st.Volumes[state.VolumeUID(id)]; v != nil {
		return v, nil
	}
	if cut := strings.LastIndexByte(id, '/'); cut > 0 {
		if v := st.VolumeByRef(volume.Ref{Driver: id[:cut], Name: id[cut+1:]}); v != nil {
			return v, nil
		}
		return nil, fault.New(fault.NotFound, "volume %s does not exist", id)
	}
	var found *state.Volume
	for _, v := range st.Volumes {
		if v.Ref.Name != id {
			continue
		}
		if found != nil {
			return nil, fault.New(fault.Conflict, "volume name %s is ambiguous: %s and %s have it", id, found.Ref, v.Ref)
		}
		found = v
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "volume %s does not exist", id)
	}
	return found, nil
}

func explainApp(st *state.State, a *state.App, now time.Time) *client.Explanation {
	app := App(st, a)
	e := &client.Explanation{Kind: "app", ID: app.ID, App: &app, Instances: Instances(st, a.ID)}
	line(e, "app %s: %d of %d instances run (%d starting, %d waiting, %d stopping)", app.ID, app.Running, app.Instances, app.Staged, app.Waiting, app.Stopping)
	if app.Removed {
		line(e, "  it is being removed; its volumes %s", map[bool]string{true: "are removed too", false: "stay"}[a.Wipe])
	}
	if d := st.Deployments[a.Deployment]; d != nil {
		line(e, "  deployment %s is at step %d of %d, for %s%s", d.ID, d.Step+1, len(d.Steps), ago(now, d.CreatedAt), map[bool]string{true: ", paused"}[d.Paused])
	}
	if text := scheduler.Progress(st, a.ID); text != "" {
		e.Waiting = true
		line(e, "  update: %s", text)
	}
	if f := app.LastFailure; f != nil {
		line(e, "  last failure: %s on %s %s ago: %s %s", f.Instance, f.Host, ago(now, f.At), f.State, f.Message)
	}
	for _, i := range st.InstancesOf(a.ID) {
		if asWanted(i) {
			continue
		}
		e.Waiting = true
		describe(e, st, i, now, "  ")
	}
	e.Summary = fmt.Sprintf("%d of %d running", app.Running, app.Instances)
	if app.Status != "running" {
		e.Summary += "; " + app.Status
	}
	if !e.Waiting && app.Running < app.Instances {
		e.Waiting = true
	}
	if !e.Waiting {
		line(e, "  every instance runs")
	}
	if r := st.Hold.Why(); r.Code != "" {
		line(e, "  %s", reasonLine(r, now))
	}
	return e
}

func explainInstance(st *state.State, i *state.Instance, now time.Time) *client.Explanation {
	inst := Instance(st, i)
	e := &client.Explanation{Kind: "instance", ID: inst.ID, Instances: []client.Instance{inst}, Waiting: !asWanted(i)}
	describe(e, st, i, now, "")
	for _, v := range inst.Volumes {
		rec := st.Volumes[state.VolumeUID(v.UID)]
		if rec == nil {
			line(e, "  volume %s/%s is not recorded yet", v.Driver, v.Name)
			continue
		}
		line(e, "  volume %s", volumeLine(st, rec, now))
	}
	e.Summary = strings.TrimPrefix(e.Lines[0], inst.ID+" is ")
	return e
}

// describe writes what is known about one instance.
func describe(e *client.Explanation, st *state.State, i *state.Instance, now time.Time, indent string) {
	head := fmt.Sprintf("%s%s is %s for %s", indent, i.ID, i.Phase, ago(now, i.Since))
	if i.Goal == state.GoalStop {
		head += ", to be stopped"
	}
	if r := i.Run; r != nil && r.Hostname != "" {
		head += " on " + r.Hostname
	}
	w := st.WhyOf(i.ID)
	if w != nil && w.Summary != "" {
		head += ": " + w.Summary
	}
	line(e, "%s", head)
	if i.KillReason != "" {
		line(e, "%s  stopped because: %s", indent, i.KillReason)
	}
	if r := i.Run; r != nil && r.Message != "" {
		line(e, "%s  %s: %s", indent, r.MesosState, r.Message)
	}
	for _, r := range i.Away {
		line(e, "%s  its run %s on %s is out of reach for %s and was replaced; it is forgotten in %s", indent, r.Task, r.Hostname, ago(now, r.LostAt), span(r.ForgetAt.Sub(now)))
	}
	if w == nil {
		return
	}
	for _, r := range w.Reasons {
		line(e, "%s  - %s", indent, reasonLine(r, now))
	}
	for _, a := range w.Agents {
		texts := make([]string, len(a.Reasons))
		for k, r := range a.Reasons {
			texts[k] = reasonLine(r, now)
		}
		line(e, "%s  - %s: %s", indent, nonEmpty(a.Hostname, string(a.Agent)), strings.Join(texts, "; "))
	}
	if next := nextStep(i, w); next != "" {
		line(e, "%s  what to do: %s", indent, next)
	}
}

func reasonLine(r state.Reason, now time.Time) string {
	text := nonEmpty(r.Text, r.Code)
	if !r.Until.IsZero() && r.Until.After(now) {
		text += " (in " + span(r.Until.Sub(now)) + ")"
	}
	return text
}

func nonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func volumeLine(st *state.State, v *state.Volume, now time.Time) string {
	text := fmt.Sprintf("%s is %s", v.Ref, v.Phase)
	if v.Error != "" {
		text += ": " + v.Error
	}
	if !v.RetryAt.IsZero() && v.RetryAt.After(now) {
		text += ", tried again in " + span(v.RetryAt.Sub(now))
	}
	c := st.Claims[v.UID]
	if c == nil {
		return text
	}
	if full := fullText(st, v); full != "" {
		text += "; " + full
	}
	switch c.State {
	case "free":
		text += fmt.Sprintf("; its claim is free since epoch %d", c.Epoch)
	default:
		text += fmt.Sprintf("; its claim is %s by %s on %s at epoch %d", c.State, nonEmpty(c.Owner, "?"), nonEmpty(hostOf(st, c.Node, c.Agent), string(c.Node)), c.Epoch)
		if !c.Since.IsZero() {
			text += ", for " + ago(now, c.Since)
		}
	}
	if c.Revoke {
		text += ", revoked"
	}
	if n := st.Nodes[c.Node]; n != nil && c.State != "free" && !n.FreeBy.IsZero() && n.FreeBy.After(now) {
		text += ", free by itself in " + span(n.FreeBy.Sub(now)) + " at the latest"
	}
	return text
}

func explainVolume(st *state.State, v *state.Volume, now time.Time) *client.Explanation {
	vol := Volume(st, v)
	e := &client.Explanation{Kind: "volume", ID: vol.UID, Volume: &vol}
	line(e, "volume %s", volumeLine(st, v, now))
	if want := wantedSize(st, v); want > 0 {
		line(e, "  its app asks for %s now; a volume that exists grows by: holdfast volume resize %s %s", want, v.Ref, want)
	}
	if full := fullText(st, v); full != "" {
		line(e, "  it is %s", full)
	}
	for _, text := range operationsOf(st, v) {
		line(e, "  %s", text)
	}
	owner := "app " + vol.App
	if vol.App == "" {
		owner = "no app; the first that names it takes it"
	}
	if vol.Instance != "" {
		owner = "instance " + vol.Instance
	}
	use := "nothing uses it now"
	if vol.InUse {
		use = "in use"
	}
	line(e, "  it belongs to %s (%s)", owner, use)
	if vol.Size != "" {
		line(e, "  size %s, policy %s", vol.Size, vol.Policy)
	}
	e.Waiting = v.Phase != state.VolumeReady
	if i := st.Instances[v.Instance]; i != nil {
		describe(e, st, i, now, "  ")
	}
	e.Summary = strings.TrimPrefix(e.Lines[0], "volume "+v.Ref.String()+" is ")
	return e
}

func explainNode(n client.Node, now time.Time) *client.Explanation {
	e := &client.Explanation{Kind: "node", ID: nonEmpty(n.UID, n.Agent), Node: &n, Waiting: n.State != "alive"}
	line(e, "node %s is %s", n.Hostname, n.State)
	if !n.SuspectSince.IsZero() {
		line(e, "  its lease was not renewed for %s", ago(now, n.SuspectSince))
	}
	if !n.FreeBy.IsZero() && n.FreeBy.After(now) {
		line(e, "  its lease will have run out in %s", span(n.FreeBy.Sub(now)))
	}
	if !n.LostAt.IsZero() {
		line(e, "  its agent was lost %s ago", ago(now, n.LostAt))
	}
	if o := n.Order; o != nil {
		line(e, "  %s for %s%s%s", o.State, ago(now, o.Since), labelled(" by ", o.By), labelled(": ", o.Reason))
	}
	if m := n.Maintenance; m != nil {
		line(e, "  maintenance is planned from %s%s", m.Start.UTC().Format(time.RFC3339), labelled(" for ", lasting(m.DurationSeconds)))
	}
	if n.Leaving != "" {
		line(e, "  it is being emptied: %s", n.Leaving)
	}
	for _, i := range n.Waits {
		line(e, "  - %s: %s", i.Instance, i.Text)
	}
	for _, d := range n.Drivers {
		if !d.Ready {
			line(e, "  driver %s is not ready: %s", d.Name, d.Because)
		}
	}
	line(e, "  instances: %s", nonEmpty(strings.Join(n.Instances, ", "), "none"))
	line(e, "  claims: %d", n.Claims)
	e.Summary = n.State
	return e
}

// labelled is a text after a label, "" without a text.
func labelled(label, text string) string {
	if text == "" {
		return ""
	}
	return label + text
}

func lasting(seconds float64) string {
	if seconds <= 0 {
		return ""
	}
	return span(time.Duration(seconds * float64(time.Second)))
}

func line(e *client.Explanation, format string, args ...any) {
	e.Lines = append(e.Lines, fmt.Sprintf(format, args...))
}

// ago prints how long something lasts, as people say it.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "some time"
	}
	return span(now.Sub(then))
}

func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
