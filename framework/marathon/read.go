package marathon

import (
	"github.com/holdfast-io/holdfast/framework/marathon/definition"
	"github.com/holdfast-io/holdfast/framework/marathon/document"
	"github.com/holdfast-io/holdfast/framework/marathon/rule"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// App is an app definition on its way through the stages. After Read every field that has a default is set.
type App struct{ definition.App }

// Options are what the rules need to know of the framework.
type Options = rule.Options

// AbsoluteID gives an id as Marathon keeps it: absolute against the root, without empty, "." and ".." segments.
func AbsoluteID(id string) string { return rule.AbsoluteID(id) }

// The messages of the two kinds of refusal, as Marathon has them.
const (
	messageShape = "Invalid JSON"
	messageRules = "Object is not valid"
)

// Read reads a whole app. A text that is not JSON is a *document.SyntaxError; JSON that is no app is fault.Invalid with its
// paths. Warnings say what was accepted but means nothing.
func Read(v *document.Value, o Options) (a *App, warnings []string, err error) {
	a, warnings, err = read(v, true)
	if err != nil {
		return nil, warnings, err
	}
	more, err := a.complete(o)
	return a, append(warnings, more...), err
}

// Parse is document.Parse and Read.
func Parse(data []byte, o Options) (*App, []string, error) {
	v, err := document.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	return Read(v, o)
}

func read(v *document.Value, whole bool) (*App, []string, error) {
	run := &document.Run{}
	a := &App{*definition.Decode(run, v, whole)}
	if err := run.Problems.Err(messageShape); err != nil {
		return nil, run.Warnings, err
	}
	var p document.Problems
	a.checkOld(&p)
	if err := p.Err(messageRules); err != nil {
		return nil, run.Warnings, err
	}
	if d := a.Docker(); d != nil && a.ContainerType() == definition.TypeMesos && definition.Or(d.Privileged, false) {
		run.Warnings = append(run.Warnings, "container.docker.privileged means nothing for containers of type MESOS and is dropped")
		d.Privileged = nil
	}
	a.migrate()
	return a, run.Warnings, nil
}

// complete checks an app whose old forms are migrated, and fills in the defaults.
func (a *App) complete(o Options) (warnings []string, err error) {
	var p document.Problems
	if len(a.PortDefinitions) > 0 && !a.HostNetwork() {
		warnings = append(warnings, "ports and portDefinitions mean nothing on a container network but how many ports there are; use portMappings")
	}
	a.portsToMappings()
	a.lookUpClasses(o)
	rule.Given(&p, &a.App, o)
	if err := p.Err(messageRules); err != nil {
		return warnings, err
	}
	warnings = append(warnings, a.setDefaults(o)...)
	for i, v := range a.Volumes() {
		warnings = append(warnings, volumeWarnings(i, v, a.Image() != "")...)
	}
	rule.Whole(&p, &a.App, o)
	return warnings, p.Err(messageRules)
}

// lookUpClasses notes what the classes of volumes say. Who names a class need not say who provides it.
func (a *App) lookUpClasses(o Options) {
	for _, v := range a.Volumes() {
		e := v.External
		if e == nil || e.Class == nil {
			continue
		}
		if e.Provider == nil {
			e.Provider = definition.Ptr("dvdi")
		}
		if e.FromClass = nil; o.Class != nil {
			e.FromClass = o.Class(*e.Class)
		}
	}
}

// Update holds the fields of an app that replace those of another.
type Update struct{ app *App }

// ReadUpdate reads the shape of an update. Its rules are checked when it is applied.
func ReadUpdate(v *document.Value) (*Update, []string, error) {
	a, warnings, err := read(v, false)
	if err != nil {
		return nil, warnings, err
	}
	return &Update{a}, warnings, nil
}

// ID as given, absolute; "" when not given.
func (u *Update) ID() string {
	if u.app.ID == "" {
		return ""
	}
	return rule.AbsoluteID(u.app.ID)
}

// Version asks for a rollback when it is not "".
func (u *Update) Version() string { return definition.Or(u.app.Version, "") }

// Instances as given; nil when not.
func (u *Update) Instances() *int { return u.app.Instances }

// Apply replaces fields of base, which it uses up, checks the result and fills in defaults. The id stays base's.
// A field replaces the whole old one; executorResources and resourceLimits are reset when not given.
func (u *Update) Apply(base *App, o Options) (a *App, warnings []string, err error) {
	n := u.app
	base.ExecutorResources, base.ResourceLimits = n.ExecutorResources, n.ResourceLimits
	u.applyCommand(base)
	u.applyPlacement(base)
	u.applyContainer(base)
	replace(&base.BackoffFactor, n.BackoffFactor)
	replace(&base.BackoffSeconds, n.BackoffSeconds)
	replace(&base.MaxLaunchDelaySeconds, n.MaxLaunchDelaySeconds)
	replace(&base.Check, n.Check)
	replace(&base.KillSelection, n.KillSelection)
	replace(&base.TaskKillGracePeriodSeconds, n.TaskKillGracePeriodSeconds)
	replace(&base.UnreachableStrategy, n.UnreachableStrategy)
	replace(&base.Residency, n.Residency)
	replace(&base.Unprotected, n.Unprotected)
	replace(&base.Order, n.Order)
	replace(&base.Partition, n.Partition)
	replace(&base.MinInstances, n.MinInstances)
	replace(&base.MaxInstances, n.MaxInstances)
	replace(&base.DrainSeconds, n.DrainSeconds)
	replace(&base.Primary, n.Primary)
	if n.HealthChecks != nil {
		base.HealthChecks = n.HealthChecks
	}
	if n.ReadinessChecks != nil {
		base.ReadinessChecks = n.ReadinessChecks
	}
	if n.Dependencies != nil {
		base.Dependencies = n.Dependencies
	}
	warnings, err = base.complete(o)
	return base, warnings, err
}

func replace[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func (u *Update) applyCommand(base *App) {
	n := u.app
	if n.Cmd != nil {
		base.Cmd = n.Cmd
		base.Args = nil
	}
	if n.Args != nil {
		base.Args = n.Args
		if n.Cmd == nil && len(n.Args) > 0 {
			base.Cmd = nil
		}
	}
	replace(&base.User, n.User)
	replace(&base.Executor, n.Executor)
	replace(&base.TTY, n.TTY)
	if n.Env != nil {
		base.Env = n.Env
	}
	if n.Labels != nil {
		base.Labels = n.Labels
	}
	if n.Secrets != nil {
		base.Secrets = n.Secrets
	}
	if n.Fetch != nil {
		base.Fetch = n.Fetch
	}
}

func (u *Update) applyPlacement(base *App) {
	n := u.app
	replace(&base.CPUs, n.CPUs)
	replace(&base.Mem, n.Mem)
	replace(&base.Disk, n.Disk)
	replace(&base.GPUs, n.GPUs)
	replace(&base.Instances, n.Instances)
	replace(&base.Role, n.Role)
	if n.AcceptedResourceRoles != nil {
		base.AcceptedResourceRoles = n.AcceptedResourceRoles
	}
	if n.Constraints != nil {
		base.Constraints = n.Constraints
	}
}

// applyContainer replaces container, networks, ports and strategies, which hang together: what followed by default
// from the old ones is forgotten when they change.
func (u *Update) applyContainer(base *App) {
	n := u.app
	needed := base.Resident() || base.HasExternal()
	if n.Container != nil {
		mappings := []definition.PortMapping(nil)
		if base.Container != nil {
			mappings = base.Container.PortMappings
		}
		base.Container = n.Container
		if n.Container.PortMappings == nil && n.Networks == nil {
			base.Container.PortMappings = mappings
		}
	}
	if n.Networks != nil {
		base.Networks = n.Networks
		if base.HostNetwork() {
			if base.Container != nil {
				base.Container.PortMappings = nil
			}
		} else {
			base.PortDefinitions = nil
		}
	}
	if n.PortDefinitions != nil {
		base.PortDefinitions = n.PortDefinitions
	}
	replace(&base.RequirePorts, n.RequirePorts)
	replace(&base.UpgradeStrategy, n.UpgradeStrategy)
	if now := base.Resident() || base.HasExternal(); n.UpgradeStrategy == nil && now && !needed {
		base.UpgradeStrategy = nil // the default is another one with volumes
	}
	if n.UnreachableStrategy == nil && base.Resident() && !needed {
		base.UnreachableStrategy = nil
	}
	if !base.Resident() && n.Residency == nil {
		base.Residency = nil
	}
}

// Stored reads back what JSON printed. Its errors are ours, not a user's.
func Stored(source []byte) (*App, error) {
	v, err := document.Parse(source)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read a stored app definition")
	}
	a, _, err := read(v, true)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "read a stored app definition")
	}
	return a, nil
}
