package state

import "time"

// State is everything the scheduler decides on. The records (apps to the framework record) are durable: the store holds
// them. The rest is what was seen since the process became leader, and is built anew by events.
//
// Values are never changed in place: a Write carries a new value that replaces the old one, so that a pointer read
// under the lock stays a true picture of that moment for ever.
type State struct {
	Framework   *Framework
	Apps        map[AppID]*App
	Defs        map[AppID]map[string]*Def // by version
	Instances   map[InstanceID]*Instance
	Volumes     map[VolumeUID]*Volume
	Deployments map[DeploymentID]*Deployment
	Groups      map[AppID]*AppGroup
	Classes     map[string]*Class
	Reserved    map[ReservedID]*Reserved

	// Orders are what operators want of nodes, by NodeOrder.ID. Hold says whether anything may be started, moved or killed; nil: yes.
	Orders map[string]*NodeOrder
	Hold   *Hold
	// Operations on volumes, under way or ended lately.
	Operations map[string]*Operation
	// Seen, not stored.
	Session Session
	Offers  map[string]*Offer // by offer id, those we hold
	Agents  map[AgentID]*Agent
	Claims  map[VolumeUID]*Claim
	Nodes   map[NodeUID]*Node
	// Why tells, for each instance that is not running as wanted, what it waits for.
	Why map[InstanceID]*Why
	// Strange are tasks that the master reports and that are not a current run of an instance of ours: killed once they are known to be ours by framework.
	Strange map[TaskID]*StrangeTask
	// Refusals tells, for each group of waiting instances, why the agents looked at did not do. WhyOf puts it together with Why.
	Refusals map[Group]*Refusal
	// Unanswered are the tasks whose state the master was asked for (explicit reconciliation) and has not told yet.
	Unanswered map[TaskID]AgentID
	// Inverse are the master's requests to leave an agent that were not answered yet. Leaving tells how far nodes are that are being emptied.
	Inverse map[string]*InverseOffer
	Leaving map[AgentID]*Leaving
	// Todo are apps whose next batch of changes is due at once: a Step bounds how many instances it touches.
	Todo map[AppID]bool
	// Leftovers are reservations of our own labels that no record explains, by LeftoverID.
	Leftovers map[string]*Leftover
	// Shorts tells, for waiting instances with a reservation, why its agent's last offer did not do.
	Shorts map[InstanceID]*Short

	index index
}

// Session is the connection to the master.
type Session struct {
	Connected   bool
	FrameworkID string
	Master      string
	Since       time.Time
	// Reconciled says that the explicit reconciliation since Subscribed is complete.
	Reconciled bool
	// ReconcileAt is when the next round of reconciliation is due, ReconcileTries how many there were.
	ReconcileAt    time.Time
	ReconcileTries int
	// AuthoritySeen says that claims and nodes were read at least once since start. Before that nothing exclusive is placed or freed.
	AuthoritySeen bool
	Suppressed    bool
	// Quiet are the roles that are suppressed, with commas, where there are several.
	Quiet string
	// InterestAt is when REVIVE, SUPPRESS or TEARDOWN is to be sent again because the last one failed.
	InterestAt time.Time
	// ClaimsSeen and NodesSeen are the two halves of AuthoritySeen. AuthorityLost says why the authority cannot be read, "" while it can.
	ClaimsSeen, NodesSeen bool
	AuthorityLost         string
	// Launched counts the launches since the launch tokens were filled, TokensAt is when they are filled again.
	Launched int
	TokensAt time.Time
	// Stopped says why the framework gave up ("Framework has been removed"), "" while it goes on.
	Stopped string
	// Over says that the master has ended the framework itself, not only this process's use of it: its id may be forgotten (StartOver).
	Over bool
	// Apart says why there is no connection to a master, "" when nobody has said.
	Apart string
	// SweepUntil is how long offers are wanted only to find leftovers of our reservations; zero when not.
	SweepUntil time.Time
	// Silent says that the master does not tell of the end of operations (before Mesos 1.8).
	Silent bool
}

// Offer is a Mesos offer that is held.
type Offer struct {
	ID        string
	Agent     AgentID
	Hostname  string
	AgentURL  string
	Role      string // allocation role
	Region    string
	Zone      string
	Resources []Resource
	// Attributes as text, ranges and sets printed as Marathon prints them (`[1-2,5-6]`, `{a,b}`), scalars `0.###`.
	Attributes map[string]string
	// Unavailable is the agent's maintenance window, nil when none is planned.
	Unavailable *Window
	At          time.Time
	// HeldFor is the instance whose grant is under way, "" when the offer is free to use.
	HeldFor InstanceID
	// Bundle is set while launches that use this offer wait for their grants: the id of the first offer of the ACCEPT that is
	// being put together. Until is when the offer must be used or given back.
	Bundle string
	Until  time.Time
}

// Resource is one resource of an offer, as much of Mesos's as decides and as an ACCEPT must repeat.
type Resource struct {
	Name   string // cpus, mem, disk, gpus, ports
	Scalar float64
	Ranges []Range
	// AllocationRole is Resource.allocation_info.role.
	AllocationRole string
	// Reservations is the stack, outermost first; empty for unreserved.
	Reservations []Reservation
	// Disk is set for a disk with a source of its own, or a persistent volume; nil for others.
	Disk *Disk
	// Provider is the resource provider's id, "" for the agent's own resources. Shared is of shared persistent volumes.
	Provider string
	Shared   bool
	// Raw is the protobuf of the resource as offered; the encoder takes what the fields above do not say from it.
	Raw []byte
}

// Disk tells disks apart.
type Disk struct {
	// Persistence is the id of a persistent volume, "" for a plain disk; ContainerPath is where it appears, Principal who made it.
	Persistence, ContainerPath, Principal string
	// Source is PATH, MOUNT, BLOCK or RAW, "" for the agent's root disk.
	Source string
	// Root is the directory of a PATH or MOUNT source; ID, Profile and Vendor are a storage provider's.
	Root, ID, Profile, Vendor string
}

// Range is inclusive on both sides.
type Range struct{ Begin, End uint64 }

// Reservation is one level of a resource's reservation stack.
type Reservation struct {
	Role      string
	Dynamic   bool
	Principal string
	Labels    map[string]string
}

// Agent is what was seen of a Mesos agent in its offers and statuses.
type Agent struct {
	ID         AgentID
	Hostname   string
	URL        string
	Attributes map[string]string
	Region     string
	Zone       string
	LastOffer  time.Time
	// Total is the most that one offer of it ever showed, to tell "never fits" from "not now".
	Total Totals
	// Unavailable is when the agent is planned not to be available, nil when nothing is planned.
	Unavailable *Window
	// LostAt is when FAILURE or TASK_UNREACHABLE told of its loss; zero while it is there.
	LostAt time.Time
	// Silent says that the agent gives no feedback on operations: they are asked for without an id.
	Silent bool
}

// Totals are the scalar resources of an agent.
type Totals struct {
	CPUs, MemMB, DiskMB, GPUs float64
	Ports                     int
}

// StrangeTask is a task of our framework that no instance claims as its current run.
type StrangeTask struct {
	Task      TaskID
	Agent     AgentID
	State     string
	Reason    string // why it is to be killed
	KillAfter time.Time
}

// Why tells what an instance waits for: one summary and, where agents were looked at, a reason for each.
type Why struct {
	Instance InstanceID `json:"instance"`
	At       time.Time  `json:"at"`
	Since    time.Time  `json:"since"`
	// Summary is the one line to show first.
	Summary string `json:"summary"`
	// Reasons hold for the instance as a whole.
	Reasons []Reason `json:"reasons,omitempty"`
	// Agents says why each agent that was looked at did not do, sorted by host name.
	Agents []AgentReason `json:"agents,omitempty"`
}

// Reason is one cause.
type Reason struct {
	// Code is one of the Reason… constants.
	Code string `json:"code"`
	Text string `json:"text"`
	// Until is when it ends by itself, zero when unknown.
	Until time.Time `json:"until,omitzero"`
}

// Refusal is why no agent did for a group of waiting instances.
type Refusal struct {
	Group  Group
	At     time.Time
	Agents []AgentReason // sorted by host name; at most as many as a person reads
	// More counts agents that were looked at and are not in the list.
	More int
}

// Unanswered is a task that the master was asked about.
type Unanswered struct{ Agent AgentID }

// Todo marks an app whose next batch of changes is due.
type Todo struct{}

// AgentReason is one agent's "no".
type AgentReason struct {
	Agent    AgentID  `json:"agent"`
	Hostname string   `json:"hostname"`
	Reasons  []Reason `json:"reasons"`
}

// The reason codes.
const (
	ReasonNoMaster     = "no-master"          // not connected to a Mesos master
	ReasonNoAuthority  = "no-authority"       // the lease authority was not read yet or cannot be reached
	ReasonNoOffers     = "no-offers"          // no offer came yet
	ReasonResources    = "resources"          // cpus, mem, disk, gpus are short
	ReasonNeverFits    = "never-fits"         // no agent seen has ever had that much
	ReasonPorts        = "ports"              // ports are short or taken
	ReasonRole         = "role"               // acceptedResourceRoles do not match
	ReasonConstraint   = "constraint"         // which one, and what the agent has
	ReasonDriver       = "driver-missing"     // the node has no such volume driver, or it is not ready
	ReasonNoNode       = "no-isolator"        // no isolator is known beside that agent
	ReasonNodeDead     = "node-dead"          // its isolator's lease ran out
	ReasonAttachLimit  = "attach-limit"       //
	ReasonVolume       = "volume"             // being created, failed, pinned elsewhere
	ReasonClaim        = "claim"              // held by whom since when, epoch
	ReasonFencing      = "fencing"            // under way, free by
	ReasonBackoff      = "backoff"            // until when
	ReasonReconcile    = "reconciling"        // waiting for the master's word on its tasks
	ReasonAvoid        = "avoid"              // asked to move away from there
	ReasonDeployment   = "deployment"         // its turn has not come
	ReasonKilling      = "killing"            // the old run is being stopped
	ReasonGranting     = "granting"           // the claim was asked for
	ReasonDraining     = "draining"           //
	ReasonUnreachable  = "unreachable"        // the agent is unreachable
	ReasonTaskFailures = "task-failures"      // what the last run ended with
	ReasonStarting     = "starting"           // launched, not running yet
	ReasonUnhealthy    = "unhealthy"          // runs, health checks do not pass yet
	ReasonTokens       = "launch-tokens"      // too many launches in a short time
	ReasonOfferFull    = "offer-full"         // too many launches on one offer
	ReasonOrder        = "order"              // another instance of its serial app is starting
	ReasonPaused       = "paused"             // for repair
	ReasonReadiness    = "not-ready"          // runs, its readiness check has not passed yet
	ReasonCordoned     = "cordoned"           // an operator wants nothing new there
	ReasonMaintenance  = "maintenance"        // a maintenance window is near
	ReasonFrozen       = "frozen"             // nothing may be started, moved or killed: a person's word
	ReasonBrake        = "brake"              // too many nodes vanished at once
	ReasonReservation  = "reservation"        // the agent that has its reservation or volume, or an operation under way there
	ReasonNotSupported = "not-supported-here" // the app asks for what this version or engine cannot do
)

// Kind says what a Write writes.
type Kind string

// The kinds of Write. Durable ones are records of the store.
const (
	KindFramework  Kind = "framework"  // *Framework, ID ""
	KindApp        Kind = "app"        // *App, ID AppID
	KindDef        Kind = "def"        // *Def, ID "<app id> <version>"
	KindInstance   Kind = "instance"   // *Instance
	KindVolume     Kind = "volume"     // *Volume
	KindDeployment Kind = "deployment" // *Deployment
	KindGroup      Kind = "group"      // *AppGroup, ID AppID
	KindClass      Kind = "class"      // *Class, ID its name
	KindReserved   Kind = "reserved"   // *Reserved, ID ReservedID

	KindOrder Kind = "node-order" // *NodeOrder
	KindHold  Kind = "hold"       // *Hold, ID ""

	KindOperation Kind = "operation" // *Operation
	KindInverse   Kind = "inverse"   // *InverseOffer; not stored
	KindLeaving   Kind = "leaving"   // *Leaving, ID the agent's; not stored

	KindSession Kind = "session" // *Session
	KindOffer   Kind = "offer"   // *Offer
	KindAgent   Kind = "agent"   // *Agent
	KindClaim   Kind = "claim"   // *Claim
	KindNode    Kind = "node"    // *Node
	KindWhy     Kind = "why"     // *Why
	KindStrange Kind = "strange" // *StrangeTask

	KindRefusal    Kind = "refusal"    // *Refusal, ID "<app id> <version>"
	KindUnanswered Kind = "unanswered" // *Unanswered, ID the task id
	KindTodo       Kind = "todo"       // *Todo, ID the app id
	KindLeftover   Kind = "leftover"   // *Leftover, ID LeftoverID
	KindShort      Kind = "short"      // *Short, ID the instance id

	// KindAway is no kind of Write: it names the time at which an instance's run that is away is forgotten (Due).
	KindAway Kind = "away"
)

// Durable tells whether the store keeps it.
func (k Kind) Durable() bool {
	switch k {
	case KindFramework, KindApp, KindDef, KindInstance, KindVolume, KindDeployment, KindGroup, KindClass, KindOrder, KindHold, KindOperation, KindReserved:
		return true
	}
	return false
}

// Write replaces one value of the State, or removes it when Value is nil. Value is a pointer of the kind's type and
// must not be changed afterwards.
type Write struct {
	Kind  Kind
	ID    string
	Value any
}

// DefID is the Write.ID of a definition.
func DefID(app AppID, version string) string { return string(app) + " " + version }
