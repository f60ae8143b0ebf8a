// Package lease says who may write to a volume. The truth is a handful of records in an authority
// (ZooKeeper, Consul, or the one embedded in `holdfast dev`): one claim per volume, one lease per node. Every change of
// a claim is a single compare-and-set transaction that also checks the root's generation and, when a node holds or
// is about to hold, that the node's lease is alive. docs/safety.md explains the protocol; L1 to L7 name
// its linearization points and are used in the comments of this package.
package lease

import (
	"encoding/json"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// Root is the register "root": which authority this is. A restored or migrated authority shows by another
// UUID or generation; a sealed one accepts nothing.
type Root struct {
	V          int    `json:"v"`
	UUID       string `json:"uuid"`
	Cluster    string `json:"cluster"`
	Generation uint64 `json:"generation"`
	Sealed     bool   `json:"sealed,omitempty"`
}

// Grade says how sure it is that a node that cannot renew stops writing by itself.
type Grade string

// The fence grades, strongest first.
const (
	GradeReset Grade = "reset" // a dead-man resets the machine
	GradeSoft  Grade = "soft"  // isolator or watchdog process kills and unmounts; both must not be dead or stuck
	GradeNone  Grade = "none"
)

// Policy says how a held claim may become free when its node is gone. It is copied into the claim at the
// grant: editing a class changes nothing that is held.
type Policy struct {
	// Mode is "lease" (the node's lease has run out, L4), "storage" (proof by the storage) or "operator" (a person's word, L7).
	Mode string `json:"mode"`
	// MinGrade is the weakest fence grade that Mode lease accepts: reset, or soft where the operator said so.
	MinGrade Grade `json:"minGrade,omitempty"`
}

// The modes of a Policy.
const (
	PolicyLease    = "lease"
	PolicyStorage  = "storage"
	PolicyOperator = "operator"
)

// ClaimState is where a claim stands.
type ClaimState string

// The states of a claim.
const (
	Free    ClaimState = "free"    // nobody may mount; Epoch is the last one used
	Granted ClaimState = "granted" // the node beside Agent may take it
	Held    ClaimState = "held"    // Node may have it mounted
)

// Claim is the register claims/<2 hex>/<volume uid>.
type Claim struct {
	V         int          `json:"v"`
	VolumeUID string       `json:"volume"`
	Ref       volume.Ref   `json:"ref"`
	State     ClaimState   `json:"state"`
	Epoch     volume.Epoch `json:"epoch"`
	Nonce     string       `json:"nonce,omitempty"`
	// Agent is the Mesos agent id the grant is for (granted), kept while held for display.
	Agent string `json:"agent,omitempty"`
	// Node is the uid of the node that holds it, or that a grant is bound to; NodeGeneration its lease generation at the hold.
	Node           string `json:"node,omitempty"`
	NodeGeneration uint64 `json:"nodeGeneration,omitempty"`
	Policy         Policy `json:"policy"`
	Fence          Grade  `json:"fence,omitempty"` // the node's grade when it took hold
	Revoke         bool   `json:"revoke,omitempty"`
	Owner          string `json:"owner,omitempty"` // task id or "docker:<id>", for display
	// Shared claims are never granted or held: the record only says that the volume exists.
	Shared bool `json:"shared,omitempty"`
	// Since is the writer's wall clock at the last transition, for display only.
	Since time.Time `json:"since"`
	// Tombstone says that the volume was removed. The record stays, so that the uid is never used again.
	Tombstone bool `json:"tombstone,omitempty"`
	// FreedBy says which point freed it last: "L3", "L4", "L5", "L7", for display and for checkers.
	FreedBy string `json:"freedBy,omitempty"`
	// Word is the latest operator's word (L7) on this claim, kept as a record.
	Word *Word `json:"word,omitempty"`
}

// Word tells of an operator's word: who gave it, why, and what it was bound to.
type Word struct {
	By         string       `json:"by"`
	Why        string       `json:"why"`
	At         time.Time    `json:"at"` // the writer's wall clock
	Epoch      volume.Epoch `json:"epoch"`
	Node       string       `json:"node"`
	Generation uint64       `json:"generation"`
	// Renewing says that the node was renewing its lease, and that the operator was told so.
	Renewing bool `json:"renewing,omitempty"`
}

// Timing are the node's published constants in seconds, from docs/safety.md.
type Timing struct {
	F float64 `json:"f"` // self-fence deadline, from the send time of the last acknowledged renewal
	S float64 `json:"s"` // bound of fence, verify, flush
	H float64 `json:"h"` // bound of a dead-man reset
	E float64 `json:"e"` // drain of I/O in flight after a reset
}

// Node is the register nodes/<node uid>: the node's lease, and what it says of itself. The node alone writes
// it, but for L4, which sets Alive to false.
type Node struct {
	V            int          `json:"v"`
	UID          string       `json:"uid"`
	Generation   uint64       `json:"generation"` // G: grows each time the node starts over with nothing mounted
	BootID       string       `json:"bootId"`
	Seq          uint64       `json:"seq"` // grows with every renewal
	Alive        bool         `json:"alive"`
	HighestEpoch volume.Epoch `json:"highestEpoch"`
	Timing       Timing       `json:"timing"`
	Grade        Grade        `json:"grade"`
	Hostname     string       `json:"hostname"`
	// AgentID and AgentHostname are those of the Mesos agent beside the isolator, asked from the agent's own
	// endpoint; they match an offer to a node.
	AgentID       string            `json:"agentId,omitempty"`
	AgentHostname string            `json:"agentHostname,omitempty"`
	Zone          string            `json:"zone,omitempty"`
	Region        string            `json:"region,omitempty"`
	Attributes    map[string]string `json:"attributes,omitempty"`
	Drivers       []DriverFacts     `json:"drivers,omitempty"`
	Repositories  []string          `json:"repositories,omitempty"` // for backups
	// Full are the volumes here that are nearly full; a volume comes and goes by its level only, so that the record seldom changes.
	Full      []VolumeFull `json:"full,omitempty"`
	Version   string       `json:"version"`
	Draining  bool         `json:"draining,omitempty"`
	StartedAt time.Time    `json:"startedAt"`
	RenewedAt time.Time    `json:"renewedAt"` // display only
	// DeadAt and DeadBy tell of L4.
	DeadAt *time.Time `json:"deadAt,omitempty"`
	DeadBy string     `json:"deadBy,omitempty"`
	// RetiredAt and RetiredBy say that an operator has forgotten the node. The record stays, so that a machine that comes back with this uid goes on
	// above the last generation; it is not retired any more then.
	RetiredAt *time.Time `json:"retiredAt,omitempty"`
	RetiredBy string     `json:"retiredBy,omitempty"`
}

// DriverFacts is what a node publishes of one of its drivers; the words are those of docs/safety.md.
type DriverFacts struct {
	Name            string `json:"name"`
	Scope           string `json:"scope"` // "cluster", "zone" or "node"
	FlushOnUnmount  bool   `json:"flushOnUnmount"`
	SelfAttach      bool   `json:"selfAttach"`
	Exclusive       bool   `json:"exclusive"`
	MultiAttach     bool   `json:"multiAttach"`
	AttachLimit     int    `json:"attachLimit,omitempty"` // 0: none known
	Verify          string `json:"verify"`                // "superblock" or "scan"
	Snapshots       bool   `json:"snapshots,omitempty"`   // these three: what operations it can do
	Clones          bool   `json:"clones,omitempty"`
	Encrypts        bool   `json:"encrypts,omitempty"`
	Grows           string `json:"grows,omitempty"` // "online", "offline" or ""
	Ready           bool   `json:"ready"`
	NotReadyBecause string `json:"notReadyBecause,omitempty"`
}

// VolumeFull is a volume that is nearly full, as measured when it came to that level.
type VolumeFull struct {
	Volume    string `json:"volume"`
	Level     string `json:"level"` // "nearly-full" (85 %), "full" (95 %)
	Size      int64  `json:"size"`
	Used      int64  `json:"used"`
	Available int64  `json:"available"`
}

// RequestKind says what the framework asks of a node.
type RequestKind string

// The kinds of Request.
const (
	RequestCreate  RequestKind = "create"  // Get first: there = adopted, absent = created
	RequestRemove  RequestKind = "remove"  // a person's intent to delete, committed before
	RequestRelease RequestKind = "release" // unmount what no task uses and give the claim back
	RequestFence   RequestKind = "fence"   // kill the users and give the claim back
	// RequestOperation asks for the operation that Request.Operation says (isolator/client.OperationRequest).
	RequestOperation RequestKind = "operation"
)

// Request is the register requests/<node uid>/<op>. The framework writes it with State pending; the node writes the
// outcome into the same record; the framework removes it after it has committed the outcome. Op is chosen by the
// framework before its commit, so that asking twice is asking once.
type Request struct {
	V         int               `json:"v"`
	Op        string            `json:"op"`
	Kind      RequestKind       `json:"kind"`
	VolumeUID string            `json:"volume"`
	Ref       volume.Ref        `json:"ref"`
	SizeBytes int64             `json:"sizeBytes,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Encrypt   bool              `json:"encrypt,omitempty"` // it must be encrypted; Options say so to the driver, too
	User      string            `json:"user,omitempty"`    // owner of a created volume's root directory
	Source    *RequestSource    `json:"source,omitempty"`
	Mode      string            `json:"mode,omitempty"` // its octal mode
	Epoch     volume.Epoch      `json:"epoch,omitempty"`
	Nonce     string            `json:"nonce,omitempty"`
	// AdoptOnly refuses to create, NewOnly refuses to adopt.
	AdoptOnly bool `json:"adoptOnly,omitempty"`
	NewOnly   bool `json:"newOnly,omitempty"`
	// Now removes past the driver's bin.
	Now bool `json:"now,omitempty"`
	// Operation is what RequestOperation asks for; Progress is how far it is, Result what it came to.
	Operation json.RawMessage `json:"operation,omitempty"`
	Progress  json.RawMessage `json:"progress,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`

	State   RequestState `json:"state"`
	Outcome string       `json:"outcome,omitempty"` // "created", "adopted", "removed", "absent", "released"
	Class   string       `json:"class,omitempty"`   // internal/fault class of a failure
	Error   string       `json:"error,omitempty"`
	Created time.Time    `json:"created"`
	Done    *time.Time   `json:"done,omitempty"`
}

// RequestSource is what a created volume begins as a copy of: a snapshot.
type RequestSource struct {
	Volume   string `json:"volume"`
	UID      string `json:"uid,omitempty"` // that the source must be labelled with; "" asks for no check
	Snapshot string `json:"snapshot"`
}

// RequestState is where a request stands.
type RequestState string

// The states of a request. Unknown outcomes stay pending: the node finds out.
const (
	RequestPending RequestState = "pending"
	RequestDone    RequestState = "done"
	RequestFailed  RequestState = "failed"
)
