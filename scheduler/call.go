package scheduler

import (
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/reserve"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Call is an effect to ask for once the writes are committed. Every call may be repeated, and may be lost in a crash: Loaded, a
// reconciliation or Tick asks for it again.
type Call interface{ call() }

// To the Mesos master.
type (
	// Accept uses offers of one agent and one role: operations on resources, then one LAUNCH with these tasks.
	Accept struct {
		Offers []string
		Agent  state.AgentID
		// Operations come before the launches.
		Operations []reserve.Op
		Launches   []Launch
		// Refuse is for how long Mesos keeps what is left of the offers from us.
		Refuse time.Duration
	}
	// Decline gives offers back.
	Decline struct {
		Offers []string
		Refuse time.Duration
	}
	// Kill ends a task. Grace 0 leaves it to the task's own kill policy.
	Kill struct {
		Task  state.TaskID
		Agent state.AgentID
		Grace time.Duration
	}
	// Acknowledge ends the repetition of a status whose meaning is committed.
	Acknowledge struct {
		Task  state.TaskID
		Agent state.AgentID
		UUID  []byte
	}
	// Reconcile asks for the state of tasks; none means all (implicit).
	Reconcile struct{ Tasks []ReconcileTask }
	// AcknowledgeOperation ends the repetition of an operation's status whose meaning is committed.
	AcknowledgeOperation struct {
		ID, Provider string
		Agent        state.AgentID
		UUID         []byte
	}
	// ReconcileOperations asks what became of operations.
	ReconcileOperations struct{ Operations []ReconcileOperation }
	// Revive asks for offers again, for these roles; none means all.
	Revive struct{ Roles []string }
	// Suppress says that no offers are needed, of these roles; none means all.
	Suppress struct{ Roles []string }
	// EndFramework is TEARDOWN: the master kills what tasks there are, and the framework id is over.
	EndFramework struct{}
	// AcceptInverse tells the master that nothing of ours is left on the agents that it asked to leave, DeclineInverse that something stays; it
	// asks again after Refuse.
	AcceptInverse  struct{ IDs []string }
	DeclineInverse struct {
		IDs    []string
		Refuse time.Duration
	}
)

// ReconcileTask names a task to reconcile.
type ReconcileTask struct {
	Task  state.TaskID
	Agent state.AgentID
}

// ReconcileOperation names an operation to reconcile.
type ReconcileOperation struct {
	ID    string
	Agent state.AgentID
}

// Launch is one task to launch; framework/mesos makes the TaskInfo of it.
type Launch struct {
	Instance *state.Instance
	Run      *state.Run
	Def      *state.Def
	// Resources are taken from the offers, exactly as they must stand in the TaskInfo.
	Resources []state.Resource
	Volumes   []TaskVolume
}

// TaskVolume is one external volume of a task: a DOCKER_VOLUME.
type TaskVolume struct {
	Ref           volume.Ref
	ContainerPath string
	ReadOnly      bool
	// Options are the user's, with ours (volume.Grant) added where the volume is managed.
	Options map[string]string
	// Managed says that the agent's isolator mounts it.
	Managed bool
}

// To the lease authority, through framework/nodes.
type (
	// Grant asks for L1. Answered by GrantResult.
	Grant struct {
		Volume state.VolumeUID
		Ref    volume.Ref
		Epoch  volume.Epoch
		Nonce  string
		Agent  state.AgentID
		Node   state.NodeUID
		Policy string
		Owner  string // task id
	}
	// CancelGrant asks for L5: a granted claim that will not be used. Idempotent; seen in ClaimsSeen.
	CancelGrant struct {
		Volume state.VolumeUID
		Epoch  volume.Epoch
		Nonce  string
	}
	// Revoke asks for L6.
	Revoke struct {
		Volume state.VolumeUID
		Epoch  volume.Epoch
	}
	// RetireNode marks a dead node's record as forgotten; NodesSeen leaves it out then. Refused when it lives or holds anything.
	RetireNode struct {
		Node       state.NodeUID
		Generation uint64
		By         string
	}
	// HoldTaker stops the declaring of nodes as dead and the freeing of what they held, for a reason; "" lets it go on. Unlike the other
	// calls it takes effect at once, and holds for the time of leadership.
	HoldTaker struct{ Reason string }
	// CreateVolume makes the claim record (free) when there is none, then asks a node to create or adopt the volume.
	// Answered by RequestResult.
	CreateVolume struct {
		Op     string
		Node   state.NodeUID
		Volume *state.Volume
	}
	// RemoveVolumeData asks a node to delete a volume whose removal is committed, then makes its claim a tombstone.
	// Answered by RequestResult.
	RemoveVolumeData struct {
		Op     string
		Node   state.NodeUID
		Volume *state.Volume
	}
	// ForgetRequest removes an answered request from the authority, after the commit of its result.
	ForgetRequest struct {
		Op   string
		Node state.NodeUID
	}
)

func (Accept) call()           {}
func (Decline) call()          {}
func (Kill) call()             {}
func (Acknowledge) call()      {}
func (Reconcile) call()        {}
func (Revive) call()           {}
func (EndFramework) call()     {}
func (Suppress) call()         {}
func (Grant) call()            {}
func (CancelGrant) call()      {}
func (Revoke) call()           {}
func (RetireNode) call()       {}
func (HoldTaker) call()        {}
func (AcceptInverse) call()    {}
func (DeclineInverse) call()   {}
func (CreateVolume) call()     {}
func (RemoveVolumeData) call() {}
func (ForgetRequest) call()    {}
