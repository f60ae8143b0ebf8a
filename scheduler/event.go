// Package scheduler decides. Step takes the state, one event, the time and an entropy seed, and returns what to write
// and what to call. It does no I/O, reads no clock, starts no goroutine and logs nothing: same arguments, same answer. The framework
// commits Plan.Writes in one transaction before any of Plan.Calls leaves; when the commit fails it reloads the state and forgets the calls.
package scheduler

import (
	"encoding/json"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Event is something that happened. The types below are all there are.
type Event interface{ event() }

// From the Mesos master.
type (
	// Loaded is always the first: the durable state was read. Step checks it and plans what a crash left half done.
	Loaded struct{}
	// Subscribed comes after each successful SUBSCRIBE. The framework id is committed before any offer counts.
	// Silent says that the master does not tell of the end of operations (Mesos before 1.8).
	Subscribed struct {
		FrameworkID, Master string
		Silent              bool
	}
	// Disconnected: the stream ended; offers are void.
	Disconnected struct{ Reason string }
	// Stopped: this process is not to register again ("Framework has been removed", "Framework failed over", not authorized). Over: the master
	// said that the framework itself is no more; otherwise another scheduler may live on under its id.
	Stopped struct {
		Reason string
		Over   bool
	}
	// Offers brings new offers.
	Offers struct{ Offers []*state.Offer }
	// Rescinded takes one back.
	Rescinded struct{ Offer string }
	// Status is a task status update (also the answer to a reconciliation: UUID nil then, not to be acknowledged).
	Status struct {
		Task        state.TaskID
		Agent       state.AgentID
		State       string // TASK_RUNNING …
		Source      string
		Reason      string
		Message     string
		UUID        []byte
		Healthy     *bool
		ContainerIP string
		At          time.Time
		// Unreachable time as the master gives it, zero when absent.
		UnreachableAt time.Time
	}
	// OperationStatus is UPDATE_OPERATION_STATUS (also the answer to a reconciliation: UUID nil then, as for refused ones).
	OperationStatus struct {
		ID, State, Message string
		Agent              state.AgentID
		Provider           string
		UUID               []byte
	}
	// AgentLost is FAILURE with an agent id and no executor id.
	AgentLost struct{ Agent state.AgentID }
	// InverseOffers ask to leave agents, for a maintenance window; InverseRescinded takes one back.
	InverseOffers    struct{ Offers []*state.InverseOffer }
	InverseRescinded struct{ ID string }
	// CallFailed: the master refused a call (4xx) or it could not be sent. Unknown says that it may have arrived.
	CallFailed struct {
		Call    Call
		Error   string
		Unknown bool
	}
)

// From the lease authority, through framework/nodes.
type (
	// NodesSeen replaces everything known about nodes.
	NodesSeen struct{ Nodes []*state.Node }
	// ClaimsSeen brings claims that changed; All says that it is the whole set (others are gone).
	ClaimsSeen struct {
		Claims []*state.Claim
		All    bool
	}
	// AuthorityLost: the authority cannot be read since then; what is known of claims and nodes is stale.
	AuthorityLost struct{ Reason string }
	// GrantResult answers Grant. OK: the claim is granted(Epoch, Nonce) now (or was already, by the same nonce). Not OK: it is not, for Reason;
	// Claim is what stands there, when known. There is never a result for an unknown outcome: framework/nodes finds out first.
	GrantResult struct {
		Volume state.VolumeUID
		Epoch  volume.Epoch
		Nonce  string
		OK     bool
		Reason string
		Claim  *state.Claim
	}
	// RequestResult answers CreateVolume and RemoveVolume.
	RequestResult struct {
		Op      string
		Volume  state.VolumeUID
		Node    state.NodeUID
		OK      bool
		Outcome string // created, adopted, removed, absent
		Class   string // fault class when not OK
		Error   string
		Scope   string
		// Result is what an operation came to, and Size the volume's size after it where the result tells.
		Result json.RawMessage
		Size   volume.Bytes
		// Gone: the node died or was removed before it answered; the outcome is unknown and another node must find out.
		Gone bool
	}
)

// From people and programs, through the API. Each is answered by Plan.Reply.
type (
	// PutApp creates or updates apps in one deployment. Each Def is validated and has a version that is new for its app.
	// Instances is the number wanted. Force replaces a deployment that is in the way.
	PutApp struct {
		Changes []AppPut
		Force   bool
		// Create refuses (Exists) an app that is there.
		Create bool
		// Dry only answers with the steps.
		Dry bool
	}
	// ScaleApp changes the number of instances only. Kill names instances that are to go instead of the highest numbers; then there are as
	// many fewer as it names, and Instances says nothing.
	ScaleApp struct {
		App       state.AppID
		Instances int
		Kill      []state.InstanceID
		Force     bool
	}
	// RestartApp restarts every instance under the app's upgrade strategy.
	RestartApp struct {
		App   state.AppID
		Force bool
	}
	// RemoveApp stops every instance and then removes the app. Volumes stay unless Wipe.
	RemoveApp struct {
		App   state.AppID
		Force bool
		Wipe  bool
	}
	// RestartInstance kills the current run; the next keeps number and volumes. Wipe destroys its local volumes and gives its reservation
	// back in between; external volumes stay.
	RestartInstance struct {
		Instance state.InstanceID
		Wipe     bool
	}
	// ReleaseReservation destroys the local volumes of a reservation that no run uses and gives it back. ID may be that of a
	// leftover (state.LeftoverID). Forget drops the record of one that was left behind or whose agent does not come back.
	ReleaseReservation struct {
		ID     state.ReservedID
		Forget bool
	}
	// MoveInstance is RestartInstance that avoids the agent it is on.
	MoveInstance struct{ Instance state.InstanceID }
	// PauseInstance stops the current run and starts an idle command in its place, with the same volumes on the same agent, so that a person
	// can repair the data; or, with Resume, ends that.
	PauseInstance struct {
		Instance state.InstanceID
		Resume   bool
	}
	// ReplaceInstance is MoveInstance for one whose volumes can follow it. One with local volumes gets new, empty ones, which Discard has to
	// allow.
	ReplaceInstance struct {
		Instance state.InstanceID
		Discard  bool
	}
	// RemoveVolume deletes a volume and its data. Refused while an instance that wants to run uses it.
	RemoveVolume struct {
		Volume state.VolumeUID
		Now    bool // past the driver's bin
	}
	// PutGroup changes apps and groups in one deployment, in the order of their dependencies: Changes are created or updated, Remove are
	// stopped and removed (Wipe: with their volumes), Groups and RemoveGroups are the groups' own records. What is as wanted already
	// is left alone. Dry only answers with the steps.
	PutGroup struct {
		Changes      []AppPut
		Remove       []state.AppID
		Groups       []*state.AppGroup
		RemoveGroups []state.AppID
		Force        bool
		Wipe         bool
		Dry          bool
	}
	// CancelDeployment rolls a deployment back (Force: abandons it).
	CancelDeployment struct {
		Deployment state.DeploymentID
		Force      bool
	}
	// PauseDeployment keeps a deployment from going on, or lets it. What it has begun goes on.
	PauseDeployment struct {
		Deployment state.DeploymentID
		Resume     bool
	}
	// OrderNode says what is wanted of a node: state.WantCordon, WantDrain, WantDecommission, or "" for nothing any more. Node is a node's uid, an
	// agent's id, or a host name that only one of them has.
	OrderNode struct {
		Node, Want, Reason, By string
	}
	// ForgetNode takes the record of a node away that is dead and on which nothing of ours is left, and the order for it.
	ForgetNode struct{ Node, By string }
	// Freeze stops everything from being started, moved or killed, for a time (0: until Thaw). Thaw ends that, and releases the brake.
	Freeze struct {
		Reason, By string
		For        time.Duration
	}
	Thaw struct{ By string }
	// Teardown ends the framework at the master (TEARDOWN), for good. Refused while there is an app, a reservation or a task: the master would kill tasks,
	// and leave reservations that nobody owns. Force goes on all the same.
	Teardown struct {
		By    string
		Force bool
	}
	// StartOver forgets the framework id of a framework that the master has ended, so that it registers as a new one. Runs that were the old one's count
	// as lost; claims, volumes and reservations stay.
	StartOver struct{ By string }
	// ResetDelay ends an app's backoff now (DELETE /v2/queue/{id}/delay).
	ResetDelay struct{ App state.AppID }
)

// AppPut is one app of PutApp.
type AppPut struct {
	Def       *state.Def
	Instances int
}

// Health is what the framework's own checks say of a run, told only when it decides something: they are asked often, and hardly ever say
// anything new.
type Health struct {
	Task state.TaskID
	// Healthy is what its health checks say together; nil: as before.
	Healthy *bool
	// Ready: its readiness checks have passed.
	Ready bool
	// Kill says why the run is to be ended, "" for not at all.
	Kill string
}

// Tick asks for what time alone makes due. The loop sends one at Plan.Wake and at least every few seconds.
type Tick struct{}

func (Loaded) event()           {}
func (Subscribed) event()       {}
func (Disconnected) event()     {}
func (Stopped) event()          {}
func (Offers) event()           {}
func (Rescinded) event()        {}
func (Status) event()           {}
func (AgentLost) event()        {}
func (CallFailed) event()       {}
func (NodesSeen) event()        {}
func (ClaimsSeen) event()       {}
func (AuthorityLost) event()    {}
func (GrantResult) event()      {}
func (RequestResult) event()    {}
func (PutApp) event()           {}
func (ScaleApp) event()         {}
func (RestartApp) event()       {}
func (RemoveApp) event()        {}
func (RestartInstance) event()  {}
func (MoveInstance) event()     {}
func (RemoveVolume) event()     {}
func (PutGroup) event()         {}
func (CancelDeployment) event() {}
func (Teardown) event()         {}
func (StartOver) event()        {}
func (ResetDelay) event()       {}
func (Health) event()           {}
func (PauseDeployment) event()  {}
func (PauseInstance) event()    {}
func (ReplaceInstance) event()  {}
func (OrderNode) event()        {}
func (ForgetNode) event()       {}
func (Freeze) event()           {}
func (Thaw) event()             {}
func (InverseOffers) event()    {}
func (InverseRescinded) event() {}
func (Tick) event()             {}
