// Package client is what a Go program needs to talk to a running framework: the types of the /v1 answers, and a small
// client for them and for the parts of Marathon's /v2 that the command line uses. The server uses the same types, so
// that the two cannot drift apart. It is a leaf: it knows nothing of the scheduler.
package client

import (
	"encoding/json"
	"time"
)

// App is one app in GET /v1/apps: what is wanted and what there is of it.
type App struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	// Instances is how many are wanted; the counts below say what became of them.
	Instances int `json:"instances"`
	Running   int `json:"running"`
	Staged    int `json:"staged"`
	Waiting   int `json:"waiting"` // everything that neither runs nor starts nor was told to stop
	Stopping  int `json:"stopping"`
	Healthy   int `json:"healthy"`
	Unhealthy int `json:"unhealthy"`
	// Removed: the app is being deleted.
	Removed    bool        `json:"removed,omitempty"`
	Deployment string      `json:"deployment,omitempty"` // id of the one under way
	CPUs       float64     `json:"cpus"`
	MemMB      float64     `json:"mem"`
	DiskMB     float64     `json:"disk"`
	Cmd        string      `json:"cmd,omitempty"`
	Image      string      `json:"image,omitempty"`
	Volumes    []AppVolume `json:"volumes,omitempty"`
	// Status is one line for people: "running", or what the first instance that does not run waits for.
	Status      string       `json:"status"`
	LastFailure *TaskFailure `json:"lastTaskFailure,omitempty"`
	ScaledAt    time.Time    `json:"lastScalingAt,omitzero"`
	ChangedAt   time.Time    `json:"lastConfigChangeAt,omitzero"`
}

// AppVolume is a volume as an app asks for it, for all its instances.
type AppVolume struct {
	Kind          string `json:"kind"` // external, persistent, host
	Driver        string `json:"driver,omitempty"`
	Name          string `json:"name,omitempty"` // the name or its pattern
	ContainerPath string `json:"containerPath"`
	ReadOnly      bool   `json:"readOnly,omitempty"`
	Shared        bool   `json:"shared,omitempty"`
	Class         string `json:"class,omitempty"`
	Size          string `json:"size,omitempty"` // as people write it, "5GiB"; "" for the driver's default
}

// TaskFailure is the last failure of any task of an app.
type TaskFailure struct {
	Instance string    `json:"instance"`
	Task     string    `json:"task"`
	State    string    `json:"state"`
	Message  string    `json:"message"`
	Host     string    `json:"host"`
	At       time.Time `json:"at"`
}

// Instance is one instance in GET /v1/instances.
type Instance struct {
	ID      string    `json:"id"`
	App     string    `json:"app"`
	Ordinal int       `json:"ordinal"`
	Goal    string    `json:"goal"`  // run, stop
	Phase   string    `json:"phase"` // waiting, preparing, granting, launching, staging, running, killing, lost, ended, stopped
	Since   time.Time `json:"since"` // of this phase
	Version string    `json:"version"`
	// Incarnation counts the launches so far.
	Incarnation  uint64    `json:"incarnation"`
	Failures     int       `json:"failures,omitempty"`
	BackoffUntil time.Time `json:"backoffUntil,omitzero"`
	KillReason   string    `json:"killReason,omitempty"`
	CreatedAt    time.Time `json:"createdAt,omitzero"`
	// Paused: a person repairs its data.
	Paused bool `json:"paused,omitempty"`

	// Of the current run; empty when there is none.
	Task        string    `json:"task,omitempty"`
	Agent       string    `json:"agent,omitempty"`
	Node        string    `json:"node,omitempty"`
	Hostname    string    `json:"hostname,omitempty"`
	Region      string    `json:"region,omitempty"`
	Zone        string    `json:"zone,omitempty"`
	Ports       []int     `json:"ports,omitempty"`
	ContainerIP string    `json:"containerIp,omitempty"`
	MesosState  string    `json:"mesosState,omitempty"`
	Message     string    `json:"message,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Healthy     *bool     `json:"healthy,omitempty"` // nil: no check, or no result yet
	Ready       bool      `json:"ready,omitempty"`   // its readiness checks have passed
	Idle        bool      `json:"idle,omitempty"`    // it runs the idle command of a paused instance
	StagedAt    time.Time `json:"stagedAt,omitzero"`
	StartedAt   time.Time `json:"startedAt,omitzero"`

	Volumes []InstanceVolume `json:"volumes,omitempty"`
	// Away are earlier runs that are out of reach and were replaced.
	Away []AwayRun `json:"away,omitempty"`
	// Moving is the agent that a planned move takes it away from.
	Moving string `json:"moving,omitempty"`
	// Why says what it waits for; nil when it is where it should be.
	Why *Why `json:"why,omitempty"`
}

// AwayRun is a run of a stateless instance that is out of reach and was replaced. It is forgotten at ForgetAt, and killed should it come back then;
// before, the app's killSelection decides which of the two stays.
type AwayRun struct {
	Task     string    `json:"task"`
	Agent    string    `json:"agent"`
	Hostname string    `json:"hostname"`
	LostAt   time.Time `json:"lostAt"`
	ForgetAt time.Time `json:"forgetAt"`
}

// InstanceVolume is a volume of an instance.
type InstanceVolume struct {
	UID           string `json:"uid"` // "" while it is not recorded yet
	Driver        string `json:"driver"`
	Name          string `json:"name"`
	ContainerPath string `json:"containerPath,omitempty"`
	Phase         string `json:"phase"` // planned, creating, ready, failed, removing
	Epoch         uint64 `json:"epoch,omitempty"`
}

// Why tells what an instance waits for: one summary, causes that hold for all of it, and one "no" per agent looked at.
type Why struct {
	Since   time.Time     `json:"since,omitzero"`
	At      time.Time     `json:"at,omitzero"`
	Summary string        `json:"summary"`
	Reasons []Reason      `json:"reasons,omitempty"`
	Agents  []AgentReason `json:"agents,omitempty"`
}

// Reason is one cause. The codes are the Reason… constants of scheduler/state: words like resources, constraint, claim, fencing.
type Reason struct {
	Code  string    `json:"code"`
	Text  string    `json:"text"`
	Until time.Time `json:"until,omitzero"` // when it ends by itself, zero when unknown
}

// AgentReason is why one agent did not do.
type AgentReason struct {
	Agent    string   `json:"agent"`
	Hostname string   `json:"hostname"`
	Reasons  []Reason `json:"reasons"`
}

// Volume is one volume in GET /v1/volumes.
type Volume struct {
	UID    string `json:"uid"`
	Driver string `json:"driver"`
	Name   string `json:"name"`
	App    string `json:"app"`
	// Instance is the one it belongs to, "" for a shared volume. It stays when the instance is scaled away or its app removed.
	Instance  string            `json:"instance,omitempty"`
	Phase     string            `json:"phase"` // planned, creating, ready, failed, removing
	Size      string            `json:"size,omitempty"`
	SizeBytes int64             `json:"sizeBytes,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Class     string            `json:"class,omitempty"`
	Shared    bool              `json:"shared,omitempty"`
	Adopted   bool              `json:"adopted,omitempty"`
	Scope     string            `json:"scope,omitempty"`
	Node      string            `json:"node,omitempty"`
	Policy    string            `json:"policy"`
	Attempts  int               `json:"attempts,omitempty"`
	RetryAt   time.Time         `json:"retryAt,omitzero"`
	Error     string            `json:"error,omitempty"`
	Epoch     uint64            `json:"epoch"`
	CreatedAt time.Time         `json:"createdAt,omitzero"`
	// InUse: an instance that wants to run uses it (it cannot be removed then).
	InUse bool   `json:"inUse"`
	Claim *Claim `json:"claim,omitempty"`
	// MadeBy is the operation that makes it; Usage is there when it is nearly full.
	MadeBy string       `json:"madeBy,omitempty"`
	Usage  *VolumeUsage `json:"usage,omitempty"`
}

// Claim is a claim register of the lease authority as the framework last saw it, in GET /v1/claims.
type Claim struct {
	Volume    string    `json:"volume"` // uid
	Driver    string    `json:"driver"`
	Name      string    `json:"name"`
	State     string    `json:"state"` // free, granted, held
	Epoch     uint64    `json:"epoch"`
	Agent     string    `json:"agent,omitempty"`
	Node      string    `json:"node,omitempty"`
	Hostname  string    `json:"hostname,omitempty"`
	Policy    string    `json:"policy,omitempty"`
	Fence     string    `json:"fence,omitempty"`
	Revoke    bool      `json:"revoke,omitempty"`
	Owner     string    `json:"owner,omitempty"` // task id
	Since     time.Time `json:"since,omitzero"`
	Tombstone bool      `json:"tombstone,omitempty"`
	FreedBy   string    `json:"freedBy,omitempty"`
	MinGrade  string    `json:"minGrade,omitempty"` // the weakest fence that policy lease accepts for it
	// WordBy, WordWhy and WordAt tell of the latest operator's word on it.
	WordBy  string    `json:"wordBy,omitempty"`
	WordWhy string    `json:"wordWhy,omitempty"`
	WordAt  time.Time `json:"wordAt,omitzero"`
	// Waits says what has to happen before a held or granted claim of a lost node is free; "" when nothing is waited for.
	Waits string    `json:"waits,omitempty"`
	Until time.Time `json:"until,omitzero"` // free by then at the latest, where that is known
}

// Node is one node in GET /v1/nodes: an isolator, the Mesos agent beside it, or an agent without isolator (UID "").
type Node struct {
	UID          string            `json:"uid,omitempty"`
	Hostname     string            `json:"hostname"`
	Agent        string            `json:"agent,omitempty"`
	State        string            `json:"state"` // alive, suspect, dead, agent-lost, no-isolator; cordoned, draining, drained, decommissioning, decommissioned
	Alive        bool              `json:"alive"`
	Generation   uint64            `json:"generation,omitempty"`
	SuspectSince time.Time         `json:"suspectSince,omitzero"`
	FreeBy       time.Time         `json:"freeBy,omitzero"`
	DeadAt       time.Time         `json:"deadAt,omitzero"`
	LostAt       time.Time         `json:"lostAt,omitzero"` // of the agent
	Region       string            `json:"region,omitempty"`
	Zone         string            `json:"zone,omitempty"`
	Grade        string            `json:"grade,omitempty"`
	Version      string            `json:"version,omitempty"`
	Attributes   map[string]string `json:"attributes,omitempty"`
	Drivers      []Driver          `json:"drivers,omitempty"`
	Instances    []string          `json:"instances,omitempty"` // with a run there
	Claims       int               `json:"claims"`              // granted or held there
	CPUs         float64           `json:"cpus,omitempty"`      // the most that one offer ever showed
	MemMB        float64           `json:"mem,omitempty"`
	DiskMB       float64           `json:"disk,omitempty"`
	LastOffer    time.Time         `json:"lastOffer,omitzero"`
	// Order is what an operator wants of it, nil for nothing.
	Order *NodeOrder `json:"order,omitempty"`
	// Maintenance is when it is planned not to be available.
	Maintenance *Maintenance `json:"maintenance,omitempty"`
	// Leaving says why it is being emptied, "" when it is not; Waits what each instance that is still there waits for.
	Leaving string        `json:"leaving,omitempty"`
	Waits   []LeavingWait `json:"waits,omitempty"`
}

// NodeOrder is an operator's order for a node.
type NodeOrder struct {
	Want    string    `json:"want"`  // cordon, drain, decommission
	State   string    `json:"state"` // cordoned, draining, drained, decommissioning, decommissioned
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"`
	Since   time.Time `json:"since"`
	EmptyAt time.Time `json:"emptyAt,omitzero"` // nothing of ours was left there since
}

// Maintenance is a window of the operator's maintenance schedule in Mesos.
type Maintenance struct {
	Start           time.Time `json:"start"`
	DurationSeconds float64   `json:"durationSeconds,omitempty"` // 0: without end
}

// LeavingWait is an instance that is still on a node that is being emptied.
type LeavingWait struct {
	Instance string `json:"instance"`
	Text     string `json:"text"`
}

// Hold says whether anything may be started, moved or killed.
type Hold struct {
	Held   bool      `json:"held"`
	Reason string    `json:"reason,omitempty"`
	Kind   string    `json:"kind,omitempty"` // frozen, brake
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"` // when it ends by itself
	// Of the brake: how many nodes vanished of how many, and the names of some.
	Vanished int      `json:"vanished,omitempty"`
	Total    int      `json:"total,omitempty"`
	Nodes    []string `json:"nodes,omitempty"`
}

// Driver is what a node says of one of its volume drivers.
type Driver struct {
	Name        string `json:"name"`
	Scope       string `json:"scope,omitempty"`
	Exclusive   bool   `json:"exclusive,omitempty"`
	MultiAttach bool   `json:"multiAttach,omitempty"`
	AttachLimit int    `json:"attachLimit,omitempty"`
	Ready       bool   `json:"ready"`
	Because     string `json:"because,omitempty"`
}

// Deployment is one deployment under way in GET /v1/deployments.
type Deployment struct {
	ID        string             `json:"id"`
	Version   string             `json:"version"`
	CreatedAt time.Time          `json:"createdAt"`
	Apps      []string           `json:"apps"`
	Step      int                `json:"step"` // from 1
	Steps     []DeploymentStep   `json:"steps"`
	Changes   []DeploymentChange `json:"changes"`
	Paused    bool               `json:"paused,omitempty"`
}

// PlannedChange is what a change with ?dryRun=true would make of one app.
type PlannedChange struct {
	App           string       `json:"app"`
	Action        string       `json:"action"` // create, update, scale, remove
	FromInstances int          `json:"fromInstances"`
	ToInstances   int          `json:"toInstances"`
	Differences   []Difference `json:"differences,omitempty"`
}

// Difference is one field of a definition that would change. From is absent where there was none, To where there would be none.
type Difference struct {
	Path string          `json:"path"`
	From json.RawMessage `json:"from,omitempty"`
	To   json.RawMessage `json:"to,omitempty"`
}

// DeploymentStep has actions that go on side by side.
type DeploymentStep struct {
	Actions []DeploymentAction `json:"actions"`
}

// DeploymentAction is Marathon's: StartApplication, ScaleApplication, RestartApplication, StopApplication.
type DeploymentAction struct {
	Action string `json:"action"`
	App    string `json:"app"`
}

// DeploymentChange is one app's part in a deployment. An empty FromVersion means that the app is new, an empty ToVersion that it goes.
type DeploymentChange struct {
	App           string `json:"app"`
	FromVersion   string `json:"fromVersion,omitempty"`
	FromInstances int    `json:"fromInstances"`
	ToVersion     string `json:"toVersion,omitempty"`
	ToInstances   int    `json:"toInstances"`
}

// Explanation answers GET /v1/explain/{id} for an app, an instance, a volume or a node.
type Explanation struct {
	Kind string `json:"kind"` // app, instance, volume, node
	ID   string `json:"id"`
	// Waiting: something wanted is not there yet.
	Waiting bool `json:"waiting"`
	// Summary is one line on the thing, without its name. Lines are the whole story for people, ready to print: they begin with the name and
	// what Summary says.
	Summary   string     `json:"summary"`
	Lines     []string   `json:"lines"`
	App       *App       `json:"app,omitempty"`
	Instances []Instance `json:"instances,omitempty"`
	Volume    *Volume    `json:"volume,omitempty"`
	Node      *Node      `json:"node,omitempty"`
}

// Event is one frame of GET /v1/events: what changed, as it is now.
type Event struct {
	Type       string      `json:"type"` // instance, volume, app, deployment, node, claim, reservation
	ID         string      `json:"id"`
	Gone       bool        `json:"gone,omitempty"`
	Instance   *Instance   `json:"instance,omitempty"`
	Deployment *Deployment `json:"deployment,omitempty"`
	// Reservation tells of a reservation that changed its state.
	Reservation *Reservation `json:"reservation,omitempty"`
}

// Info is GET /v1/info: the running framework and its connections.
type Info struct {
	Name        string `json:"name"`
	Version     string `json:"version"`
	Cluster     string `json:"cluster"`
	FrameworkID string `json:"frameworkId"`
	Master      string `json:"master"`
	Leader      string `json:"leader"`
	Elected     bool   `json:"elected"`
	Role        string `json:"role"`
	Hostname    string `json:"hostname"`
	HTTPAddress string `json:"httpAddress"`
	Store       string `json:"store"`
	Authority   string `json:"authority"`
	// Connected to the master, Reconciled since then, AuthoritySeen: the lease authority was read.
	Connected     bool   `json:"connected"`
	Reconciled    bool   `json:"reconciled"`
	AuthoritySeen bool   `json:"authoritySeen"`
	Stopped       string `json:"stopped,omitempty"` // why the framework gave up
	Apps          int    `json:"apps"`
	Instances     int    `json:"instances"`
	// EventReaders counts the streams of /v2/events that are open.
	EventReaders int `json:"eventReaders"`
	Running      int `json:"running"`
	Volumes      int `json:"volumes"`
	Nodes        int `json:"nodes"`
	Deployments  int `json:"deployments"`
	// Hold says why nothing is started, moved or killed, "" when everything may be.
	Hold string `json:"hold,omitempty"`
}

// Result answers a command.
type Result struct {
	Deployment string `json:"deploymentId,omitempty"`
	// Steps and Changes are the answer to a dry run.
	Steps   []DeploymentStep `json:"steps,omitempty"`
	Changes []PlannedChange  `json:"changes,omitempty"`
	Version string           `json:"version,omitempty"`
	// Volumes named in the answer, by uid.
	Volumes []string `json:"volumes,omitempty"`
	// Created: the app is new.
	Created bool `json:"-"`
	// Warnings are what the server accepted but wants to be seen: unknown fields, with "did you mean". Show them.
	Warnings []string `json:"-"`
	// App is the definition as the server stored it, when the answer held it.
	App json.RawMessage `json:"-"`
}

// Class is an operator's recipe for volumes.
type Class struct {
	Name    string            `json:"name"`
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
	Size    string            `json:"size,omitempty"`   // of volumes that ask for none
	Policy  string            `json:"policy,omitempty"` // lease, operator; "" the cluster's default
	Zones   []string          `json:"zones,omitempty"`
	Reclaim string            `json:"reclaim"` // keep, delete
	Encrypt bool              `json:"encrypt,omitempty"`

	UpdatedAt time.Time `json:"updatedAt,omitzero"`
}
