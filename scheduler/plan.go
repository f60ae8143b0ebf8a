package scheduler

import (
	"time"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Plan is the answer of Step.
type Plan struct {
	// Writes are applied to the state and committed in one transaction, before any call leaves.
	Writes []state.Write
	// Calls leave after the commit, in order per receiver (master, authority).
	Calls []Call
	// Wake is when Tick is due at the latest; zero for "nothing waits for time".
	Wake time.Time
	// Reply answers a command event; nil for other events.
	Reply *Reply
}

// Reply tells the caller of the API what became of a command. It is given out after the commit.
type Reply struct {
	// Err refuses the command (fault class and details); nothing was written then.
	Err        error
	Deployment state.DeploymentID
	Version    string
	// Steps are what PutGroup would do; Dry says that it did not.
	Steps []state.DeploymentStep
	Dry   bool
	// Operation that was begun, joined or cancelled.
	Operation string
	// Volumes named in the answer, e.g. of RemoveVolume.
	Volumes []state.VolumeUID
}

// Env is what Step may know besides state and event.
type Env struct {
	Now time.Time
	// Entropy makes ids and nonces: Step derives as many as it needs from it, deterministically. The loop gives a fresh
	// random value to each Step.
	Entropy [32]byte
	Config  Config
}

// Config are the operator's settings that decide.
type Config struct {
	Role string
	// Roles are all roles that offers come in, when there are others beside Role: an app's role picks one of them. Nil for Role alone.
	Roles []string
	// Principal of the framework, for reservations.
	Principal string
	// DefaultPolicy for claims of classless volumes: "lease" or "operator".
	DefaultPolicy string
	// MinGrade accepted by policy lease: "reset" or "soft".
	MinGrade string
	// DeclineFor is the filter for offers that nothing wants. HoldFor bounds how long an offer may be held for a grant.
	DeclineFor, HoldFor time.Duration
	// Drain is how long an instance that is in use is out of service discovery before it is killed, where its app does not say.
	Drain time.Duration
	// KillRetry is how long after a KILL it is sent again.
	KillRetry time.Duration
	// LaunchTokens bounds how many launches begin within TokensEvery, MaxPerOffer how many at a time on one agent's offers; 0 for no bound.
	LaunchTokens, MaxPerOffer int
	TokensEvery               time.Duration
	// MaxDeployments bounds how many deployments may be under way; 0 for no bound.
	MaxDeployments int
	// MaxVersions is how many definitions of an app are kept. Default 50.
	MaxVersions int
	// BrakeShare, BrakeMin: when more than this share of all nodes (default a half; 1: never), and at least so many (default 3), vanish within
	// BrakeWindow (default 5 minutes), nothing is moved until they are back, a person says so, or BrakeFor is over (default 15 minutes; negative: a
	// person has to).
	BrakeShare            float64
	BrakeMin              int
	BrakeWindow, BrakeFor time.Duration
	// LeaveAhead is how long before a maintenance window its agent is emptied (default 10 minutes). Nothing is placed there from then on.
	LeaveAhead time.Duration
	// ReconcileMin and ReconcileMax bound the backoff between reconciliation rounds.
	ReconcileMin, ReconcileMax time.Duration
}
