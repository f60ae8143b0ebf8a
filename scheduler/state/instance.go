package state

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// Goal is what is wanted of an instance. Only users' orders and deployments change it.
type Goal string

// The goals.
const (
	GoalRun  Goal = "run"  // keep it running
	GoalStop Goal = "stop" // scaled away or app removed: stop; the record goes when nothing runs and no claim is ours
)

// Phase is how far an instance is. Observations and the scheduler's own steps move it.
//
//	waiting -> preparing -> granting -> launching -> staging -> running
//	   ^                                                |          |
//	   +---- (claims free, backoff over) ---- ended <---+----------+---> killing, lost
type Phase string

// The phases.
const (
	// PhaseWaiting: no task; looks for an offer (or waits for backoff, volumes, claims: see Why).
	PhaseWaiting Phase = "waiting"
	// PhasePreparing: volumes are being created or adopted by a node, asked and committed.
	PhasePreparing Phase = "preparing"
	// PhaseGranting: an offer is held, the grants of its exclusive volumes are asked for (L1).
	PhaseGranting Phase = "granting"
	// PhaseLaunching: committed as launched with its task id; ACCEPT was or will be sent. Reconciliation decides after a crash.
	PhaseLaunching Phase = "launching"
	// PhaseStaging: the agent has it (TASK_STAGING, TASK_STARTING).
	PhaseStaging Phase = "staging"
	// PhaseRunning: TASK_RUNNING was seen.
	PhaseRunning Phase = "running"
	// PhaseKilling: a kill was ordered; repeated until a terminal status is seen.
	PhaseKilling Phase = "killing"
	// PhaseLost: unreachable, gone or unknown. An exclusive instance stays here until its claims are free.
	PhaseLost Phase = "lost"
	// PhaseEnded: the task is terminal; its claims are not all free yet.
	PhaseEnded Phase = "ended"
	// PhaseStopped: nothing runs, nothing is claimed, and GoalStop.
	PhaseStopped Phase = "stopped"
)

// Instance is the record instances/<2 hex>/<id>.
type Instance struct {
	ID      InstanceID `json:"id"`
	App     AppID      `json:"app"`
	Ordinal int        `json:"ordinal"`

	Goal Goal `json:"goal"`
	// Version is the definition that the current or next run uses; a rollout raises it.
	Version string `json:"version"`
	// RestartSeen is the App.Restart that the current run satisfies.
	RestartSeen uint64 `json:"restartSeen,omitempty"`
	// Avoid are agents the next launch stays away from (instance move); cleared at launch.
	Avoid []AgentID `json:"avoid,omitempty"`

	// Paused: a person repairs its data; its run is an idle command with the same volumes at the same place (Pin). It is not up.
	Paused bool    `json:"paused,omitempty"`
	Pin    AgentID `json:"pin,omitempty"`

	Phase Phase     `json:"phase"`
	Since time.Time `json:"since"` // of this phase
	// Incarnation counts launch attempts; the next task id has Incarnation+1.
	Incarnation uint64 `json:"incarnation"`
	Run         *Run   `json:"run,omitempty"` // nil before the first grant and after an end was dealt with
	// Away are earlier runs, of a stateless instance, that are out of reach and were replaced, but are not forgotten yet (unreachableStrategy).
	Away []*Run `json:"away,omitempty"`
	// Moving is the agent that a planned move took it away from, until it runs again.
	Moving AgentID `json:"moving,omitempty"`
	// KillReason says why it was or is being killed, for display.
	KillReason string `json:"killReason,omitempty"`
	// KillAfter is the time before which no other KILL is sent.
	KillAfter time.Time `json:"killAfter,omitempty"`

	// DrainUntil is when the first KILL is sent; until then the instance is only out of service discovery. Zero when there is nothing to wait for.
	DrainUntil time.Time `json:"drainUntil,omitzero"`

	// WakeAt is when time alone makes a step of it due; zero when it waits for events only.
	WakeAt time.Time `json:"wakeAt,omitzero"`

	Failures     int       `json:"failures,omitempty"` // in a row, for backoff
	BackoffUntil time.Time `json:"backoffUntil,omitempty"`
	// Failovers are its latest, oldest first; the last may go on.
	Failovers []*Failover `json:"failovers,omitempty"`
	CreatedAt time.Time   `json:"createdAt"`
	Rev       uint64      `json:"rev"`
}

// Failover is what became of an instance whose run was lost: the times by which it got from there to running again. A time that is zero has not come,
// or was not needed.
type Failover struct {
	// Task is the run that was lost, on Hostname; Why what was said of it.
	Task     TaskID  `json:"task"`
	Agent    AgentID `json:"agent"`
	Node     NodeUID `json:"node,omitempty"`
	Hostname string  `json:"hostname"`
	Why      string  `json:"why,omitempty"`

	LostAt time.Time `json:"lostAt"`
	// RevokedAt is when its claims were asked back (L6).
	RevokedAt time.Time `json:"revokedAt,omitzero"`
	// DeadAt is when the node's lease was declared over (L4), by the taker's clock.
	DeadAt time.Time `json:"deadAt,omitzero"`
	// FreeAt is when the last of its claims was seen free, FreedBy the point that freed it (L3: the node gave it back; L4: its lease ran out; L7: an operator's word).
	FreeAt  time.Time `json:"freeAt,omitzero"`
	FreedBy string    `json:"freedBy,omitempty"`

	// The next run. Attempts counts the offers that were tried for it.
	NextTask     TaskID    `json:"nextTask,omitempty"`
	NextHostname string    `json:"nextHostname,omitempty"`
	Attempts     int       `json:"attempts,omitempty"`
	OfferedAt    time.Time `json:"offeredAt,omitzero"`  // an offer was taken, and the claims asked for
	LaunchedAt   time.Time `json:"launchedAt,omitzero"` // ACCEPT
	HeldAt       time.Time `json:"heldAt,omitzero"`     // its node had the last claim (L2) and mounted, by that node's clock
	RunningAt    time.Time `json:"runningAt,omitzero"`
	UpAt         time.Time `json:"upAt,omitzero"` // healthy and ready, where there are checks

	// End is how it ended, "" while it goes on: FailoverMoved and so on. EndAt is when.
	End   string    `json:"end,omitempty"`
	EndAt time.Time `json:"endAt,omitzero"`
}

// The ends of a Failover.
const (
	FailoverMoved     = "moved"      // the next run is up
	FailoverReturned  = "returned"   // the run came back
	FailoverLostAgain = "lost-again" // the next run was lost before it was up
	FailoverFailed    = "failed"     // the next run ended before it was up
	FailoverStopped   = "stopped"    // nobody wants the instance any more
)

// Run is one launch of an instance, from the grant on.
type Run struct {
	Task     TaskID  `json:"task"`
	Version  string  `json:"version"`
	Agent    AgentID `json:"agent"`
	Node     NodeUID `json:"node,omitempty"`
	Hostname string  `json:"hostname"`
	AgentURL string  `json:"agentUrl,omitempty"` // http://host:port of the agent's endpoint
	Region   string  `json:"region,omitempty"`
	Zone     string  `json:"zone,omitempty"`
	// Attributes of the agent that the app's constraints look at.
	Attributes map[string]string `json:"attributes,omitempty"`
	Ports      []int             `json:"ports,omitempty"` // host ports in the order of Spec.Ports
	// Offer is the offer held for it while granting; not used after a restart.
	Offer  string  `json:"offer,omitempty"`
	Claims []Grant `json:"claims,omitempty"`
	// Local are its local persistent volumes.
	Local []RunVolume `json:"local,omitempty"`
	// Pod are the containers of a pod's run, in the order of Spec.Containers; the fields below say what they come to together.
	Pod []ContainerRun `json:"pod,omitempty"`

	MesosState string `json:"mesosState,omitempty"` // TASK_…, the newest seen
	Reason     string `json:"reason,omitempty"`
	Message    string `json:"message,omitempty"`
	Healthy    *bool  `json:"healthy,omitempty"` // all checks together; nil: no check or no result yet
	// Native is what Mesos's check says and Probed what the framework's own do, where an app has both.
	Native *bool `json:"native,omitempty"`
	Probed *bool `json:"probed,omitempty"`
	// Ready: its readiness checks have passed.
	Ready bool `json:"ready,omitempty"`
	// WasUp: it was up (running, healthy, ready) at least once.
	WasUp bool `json:"wasUp,omitempty"`
	// Idle: it runs the idle command of a paused instance, not its app.
	Idle        bool      `json:"idle,omitempty"`
	ContainerIP string    `json:"containerIp,omitempty"`
	StagedAt    time.Time `json:"stagedAt"`
	StartedAt   time.Time `json:"startedAt,omitempty"`
	LostAt      time.Time `json:"lostAt,omitempty"`

	// ForgetAt is, for one of Instance.Away, when it is forgotten. Unwanted says why it is killed should it come back before; "": killSelection decides.
	ForgetAt time.Time `json:"forgetAt,omitzero"`
	Unwanted string    `json:"unwanted,omitempty"`
}

// RunVolume is a local persistent volume of a run.
type RunVolume struct {
	ID            string `json:"id"` // persistence id
	ContainerPath string `json:"containerPath"`
}

// Grant is one exclusive volume of a run.
type Grant struct {
	Volume VolumeUID    `json:"volume"`
	Epoch  volume.Epoch `json:"epoch"`
	Nonce  string       `json:"nonce"`
	// Done says that the authority has confirmed the grant (L1).
	Done bool `json:"done,omitempty"`
	// Freed says that the claim of this epoch was seen free, or at a higher epoch, in the authority.
	Freed bool `json:"freed,omitempty"`
}

// VolumePhase is how far a volume is.
type VolumePhase string

// The phases of a volume.
const (
	VolumePlanned  VolumePhase = "planned"  // recorded, nobody asked yet
	VolumeCreating VolumePhase = "creating" // a node was asked
	VolumeReady    VolumePhase = "ready"    // exists; from now on nothing may create it
	VolumeFailed   VolumePhase = "failed"   // creation was refused for good; Error says why; tried again with backoff
	VolumeRemoving VolumePhase = "removing" // a person asked for it, committed
)

// Volume is the record volumes/<2 hex>/<uid>.
type Volume struct {
	UID VolumeUID  `json:"uid"`
	Ref volume.Ref `json:"ref"`
	App AppID      `json:"app"`
	// Instance is the one it belongs to, "" for a shared volume. It stays when the instance is scaled away.
	Instance InstanceID        `json:"instance,omitempty"`
	Size     volume.Bytes      `json:"size,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Encrypt  bool              `json:"encrypt,omitempty"` // as in Mount
	Class    string            `json:"class,omitempty"`
	Shared   bool              `json:"shared,omitempty"`
	User     string            `json:"user,omitempty"`
	Source   *VolumeSource     `json:"source,omitempty"` // what it began as a copy of
	Policy   string            `json:"policy"`
	Phase    VolumePhase       `json:"phase"`
	Adopted  bool              `json:"adopted,omitempty"`
	// AdoptOnly: it is to be there already, and is never created.
	AdoptOnly bool `json:"adoptOnly,omitempty"`
	// RemoveNow: its removal goes past the driver's bin.
	RemoveNow bool    `json:"removeNow,omitempty"`
	Scope     string  `json:"scope,omitempty"` // cluster, zone, node: as the driver said at creation
	Node      NodeUID `json:"node,omitempty"`  // the node asked, or the one it is pinned to by scope
	Op        string  `json:"op,omitempty"`    // id of the request under way
	// MadeBy is the operation (clone, restore, undelete) that makes the volume; "" once it is made.
	MadeBy   string    `json:"madeBy,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
	RetryAt  time.Time `json:"retryAt,omitempty"`
	Error    string    `json:"error,omitempty"`
	// Epoch is the highest epoch the framework has asked for.
	Epoch     volume.Epoch `json:"epoch"`
	CreatedAt time.Time    `json:"createdAt"`
	Rev       uint64       `json:"rev"`
}

// Claim is the framework's cache of a claim register of the authority; it is not stored.
type Claim struct {
	Volume         VolumeUID
	Ref            volume.Ref
	State          string // free, granted, held
	Epoch          volume.Epoch
	Nonce          string
	Agent          AgentID
	Node           NodeUID
	NodeGeneration uint64
	Policy         string
	MinGrade       string
	Fence          string
	Revoke         bool
	Owner          string
	Since          time.Time
	Tombstone      bool
	FreedBy        string
	// WordBy, WordWhy and WordAt tell of the latest operator's word on it; "" when there was none.
	WordBy, WordWhy string
	WordAt          time.Time
}

// Node is the framework's cache of a node record; it is not stored.
type Node struct {
	UID        NodeUID
	Generation uint64
	BootID     string
	Alive      bool
	// Suspect since: when its lease was last seen to stand still; zero while it renews.
	SuspectSince time.Time
	// FreeBy is when the lease will have run out at the latest (display; the taker decides).
	FreeBy time.Time
	// Kept says why this node is never declared dead, whatever its lease does: its constants need a longer W than the taker's. "" for others.
	Kept          string
	Hostname      string
	Agent         AgentID
	AgentHostname string
	Zone, Region  string
	Grade         string
	Draining      bool
	Version       string
	Drivers       map[string]Driver
	Repositories  []string                     // for backups
	Full          map[VolumeUID]VolumeFullness // volumes on it that are nearly full
	DeadAt        time.Time
}

// Away tells whether the node is dead, or its lease stands still. The node may be nil.
func (n *Node) Away() bool { return n != nil && (!n.Alive || !n.SuspectSince.IsZero()) }

// Driver is what a node says of one of its volume drivers.
type Driver struct {
	Name        string
	Scope       string
	Exclusive   bool
	MultiAttach bool
	AttachLimit int
	Ready       bool
	Because     string // why it is not ready
	Snapshots   bool
	Clones      bool
	Grows       string // online, offline, or "" for never
}

// Deployment is the record deployments/<id>.
type Deployment struct {
	ID        DeploymentID     `json:"id"`
	Version   string           `json:"version"`
	CreatedAt time.Time        `json:"createdAt"`
	Apps      []AppID          `json:"apps"`
	Steps     []DeploymentStep `json:"steps"`
	Step      int              `json:"step"` // index of the current one
	// From and To per app: what is changed, for rollback and for display.
	Changes []AppChange `json:"changes"`
	Paused  bool        `json:"paused,omitempty"`
	Rev     uint64      `json:"rev"`
}

// DeploymentStep has actions that go on side by side.
type DeploymentStep struct {
	Actions []DeploymentAction `json:"actions"`
}

// DeploymentAction is Marathon's: StartApplication, ScaleApplication, RestartApplication, StopApplication.
type DeploymentAction struct {
	Action string `json:"action"`
	App    AppID  `json:"app"`
}

// AppChange is one app's part in a deployment. An empty FromVersion means that the app is new, an empty ToVersion that it goes.
type AppChange struct {
	App           AppID  `json:"app"`
	FromVersion   string `json:"fromVersion,omitempty"`
	FromInstances int    `json:"fromInstances"`
	ToVersion     string `json:"toVersion,omitempty"`
	ToInstances   int    `json:"toInstances"`
	ToRestart     uint64 `json:"toRestart,omitempty"`
	// Light: the new definition differs only in how the app is changed, so that no instance need be restarted; Repartition: but other
	// numbers are to have the old version.
	Light       bool `json:"light,omitempty"`
	Repartition bool `json:"repartition,omitempty"`
	// FromBase and FromSkip are what a rollback puts back.
	FromBase string `json:"fromBase,omitempty"`
	FromSkip []int  `json:"fromSkip,omitempty"`
}

// AppGroup is the record groups/<id>: what a group of apps has of its own. Groups that only hold apps need none.
type AppGroup struct {
	ID AppID `json:"id"` // "/" is the root
	// Dependencies are apps and groups that every app below this group needs.
	Dependencies []AppID `json:"dependencies,omitempty"`
	Version      string  `json:"version"`
	EnforceRole  *bool   `json:"enforceRole,omitempty"` // kept and printed only
	Rev          uint64  `json:"rev"`
}

// Framework is the record meta/framework.
type Framework struct {
	Cluster string `json:"cluster"` // UUID minted once; reservation labels and authority keys carry it
	ID      string `json:"id"`      // Mesos framework id, "" before the first SUBSCRIBED
	// Reserves says that there ever was a reservation: offers are then looked through for leftovers now and then.
	Reserves bool `json:"reserves,omitempty"`
	// Teardown says that an operator has ended the framework; nil while it is wanted.
	Teardown *Teardown `json:"teardown,omitempty"`
	Rev      uint64    `json:"rev"`
}

// Teardown is the end of a framework at the master, as an operator ordered it.
type Teardown struct {
	By string    `json:"by,omitempty"`
	At time.Time `json:"at"`
	// Done says that the master has confirmed it: nothing registers any more.
	Done bool `json:"done,omitempty"`
}
