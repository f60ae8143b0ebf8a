// Package framework is the running framework: it turns what happens (the master's events, the lease authority's
// records, people's orders, time) into scheduler events, one after the other, commits what Step wants written, and
// then makes the calls. Everything that decides is in package scheduler; everything here is plumbing that must not lose or reorder.
package framework

import (
	"context"

	"github.com/holdfast-io/holdfast/framework/probe"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Core is what the API needs of the running framework. *Framework implements it; tests of the API may use a smaller one.
// All methods may be called from any goroutine.
type Core interface {
	// View calls f with the current state under a read lock. f must not block, nor keep maps of the state (pointers to values may be kept).
	View(f func(*state.State))
	// Do hands a command to the loop and waits until it is committed, or refused. The error has a fault class: Unavailable while the
	// store or leadership is lost, Unknown when ctx ended while the commit was under way.
	Do(ctx context.Context, command scheduler.Event) (scheduler.Reply, error)
	// ReadLog reads a file of an instance's sandbox from its agent: up to 64 KiB from offset. offset -1 asks for the size alone,
	// which next then is. NotFound when there is no run or no such file, Unavailable when the agent does not answer.
	ReadLog(ctx context.Context, id state.InstanceID, file string, offset int64) (data []byte, next int64, err error)
	// Events gives everything that is worth telling a person, from now on, as it is committed; a slow reader loses events
	// and is told by a closed channel. Cancel ctx to end it.
	Events(ctx context.Context) <-chan Notice
	// Info is what /v2/info shows.
	Info() Info
}

// Notice is a change that people watch: an instance changed phase, a deployment step ended, a node was lost.
type Notice struct {
	Type       string            `json:"type"` // "instance", "volume", "app", "deployment", "node", "claim", "reservation"; "session", "strange", "check"; "node-order", "hold"
	Instance   *state.Instance   `json:"instance,omitempty"`
	Deployment *state.Deployment `json:"deployment,omitempty"`
	ID         string            `json:"id"`
	Gone       bool              `json:"gone,omitempty"`
	Before     *state.Instance   `json:"-"`

	// Status is the master's word on the task that led to this change of an instance, nil when something else did.
	Status *scheduler.Status `json:"-"`
	// DeploymentBefore is the record before; nil for a new one. Cancelled says that an order ended it, not its last step.
	DeploymentBefore *state.Deployment `json:"-"`
	Cancelled        bool              `json:"-"`
	App, AppBefore   *state.App        `json:"-"`
	// Def is what an app that is gone was.
	Def *state.Def `json:"-"`
	// Reserved is a reservation that changed its phase ("reservation").
	Reserved *state.Reserved `json:"reserved,omitempty"`
	// Session is the connection to the master, when it came or went ("session"); First at the first one of this process.
	Session *state.Session `json:"-"`
	First   bool           `json:"-"`
	// Strange is a task of ours that no instance claimed, and that is over now ("strange").
	Strange *state.StrangeTask `json:"-"`
	// Unhealthy says why the framework's own checks gave up an instance's run with this change, "" when they did not.
	Unhealthy string `json:"-"`
	// Check is a health check of the framework's own that failed ("check"); told each time.
	Check *probe.Failure `json:"-"`
}

// Info describes the running framework.
type Info struct {
	Name, Version, Cluster, FrameworkID, Master, Leader, Role, Hostname string
	Webui                                                               string
	FailoverTimeoutSeconds                                              float64
	Principal, User                                                     string
	HTTPAddress                                                         string
	Elected                                                             bool
	Store, Authority                                                    string
	// Roles are all roles, Role among them; nil for Role alone.
	Roles []string
}
