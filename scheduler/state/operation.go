package state

import (
	"encoding/json"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
)

// The kinds of operations, as nodes know them.
const (
	OpSnapshot       = "snapshot"
	OpRemoveSnapshot = "remove-snapshot"
	OpSnapshots      = "snapshots"
	OpClone          = "clone"
	OpResize         = "resize"
	OpUsage          = "usage"
	OpCheck          = "check"
	OpBin            = "bin"
	OpUndelete       = "undelete"
	OpPurge          = "purge"
	OpBackup         = "backup"
	OpRestore        = "restore"
	OpBackups        = "backups"
	OpRemoveBackup   = "remove-backup"
)

// OperationPhase is how far an operation is.
type OperationPhase string

// The phases of an operation.
const (
	OperationWaiting OperationPhase = "waiting" // no node was asked yet, or the one that was is gone: Because says what for
	OperationAsked   OperationPhase = "running" // Node was asked
	OperationDone    OperationPhase = "done"
	OperationFailed  OperationPhase = "failed"
)

// Operation is the record operations/<id>: something that is done to a volume beside mounting it, on whichever node may. It is kept for
// a day after its end; one that only asks for minutes.
type Operation struct {
	ID   string `json:"id"`        // also that of the request to the node
	Kind string `json:"operation"` // "kind" is the record's own
	// Ref is the volume; only its driver, or nothing, where the operation is about no volume that is there.
	Ref    volume.Ref `json:"ref"`
	Volume VolumeUID  `json:"volume,omitempty"`
	// Target is the volume that it makes.
	Target     *OperationTarget `json:"target,omitempty"`
	Snapshot   string           `json:"snapshot,omitempty"`
	Repository string           `json:"repository,omitempty"`
	Backup     string           `json:"backup,omitempty"`
	BinUID     string           `json:"binUid,omitempty"` // undelete, purge: which one in the bin
	Size       volume.Bytes     `json:"size,omitempty"`
	Repair     bool             `json:"repair,omitempty"`
	Verify     bool             `json:"verify,omitempty"`

	Phase    OperationPhase  `json:"phase"`
	Node     NodeUID         `json:"node,omitempty"`
	Attempts int             `json:"attempts,omitempty"`
	WakeAt   time.Time       `json:"wakeAt,omitzero"`
	Because  string          `json:"because,omitempty"`
	Progress json.RawMessage `json:"progress,omitempty"` // as the node tells it
	Outcome  string          `json:"outcome,omitempty"`
	Result   json.RawMessage `json:"result,omitempty"`
	Class    string          `json:"class,omitempty"`
	Error    string          `json:"error,omitempty"`

	CreatedAt time.Time `json:"createdAt"`
	EndedAt   time.Time `json:"endedAt,omitzero"`
	Rev       uint64    `json:"rev"`
}

// OperationTarget is the volume that an operation makes.
type OperationTarget struct {
	UID     VolumeUID         `json:"uid"`
	Name    string            `json:"name"`
	Size    volume.Bytes      `json:"size,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	User    string            `json:"user,omitempty"`
}

// Over tells whether the operation has come to its end.
func (o *Operation) Over() bool { return o.Phase == OperationDone || o.Phase == OperationFailed }

// Asks tells whether it changes nothing.
func (o *Operation) Asks() bool {
	switch o.Kind {
	case OpSnapshots, OpUsage, OpBin, OpBackups:
		return true
	}
	return false
}

// VolumeFullness is a volume that is nearly full, as its node has measured it.
type VolumeFullness struct {
	Level     string // "nearly-full", "full"
	Size      volume.Bytes
	Used      volume.Bytes
	Available volume.Bytes
}
