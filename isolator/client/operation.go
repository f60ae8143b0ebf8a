package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// The kinds of operations. Those that only ask answer at once; the others are kept on the node's disk, outlive caller and isolator, and
// asking for the same again joins them.
const (
	OpSnapshot       = "snapshot"
	OpRemoveSnapshot = "remove-snapshot"
	OpSnapshots      = "snapshots" // asks
	OpClone          = "clone"
	OpResize         = "resize"
	OpUsage          = "usage" // asks
	OpCheck          = "check"
	OpBin            = "bin" // asks
	OpUndelete       = "undelete"
	OpPurge          = "purge"
	OpBackup         = "backup"
	OpRestore        = "restore"
	OpBackups        = "backups" // asks
	OpRemoveBackup   = "remove-backup"
)

// The states of an Operation.
const (
	OperationRunning = "running"
	OperationDone    = "done"
	OperationFailed  = "failed"
)

// OperationRequest asks for an operation on a volume.
type OperationRequest struct {
	// ID is chosen by whoever wants to be sure that asking twice is asking once; "" has the isolator choose. An operation of the same words
	// that is under way is joined then.
	ID     string `json:"id,omitempty"`
	Kind   string `json:"kind"`
	Driver string `json:"driver,omitempty"`
	Name   string `json:"name,omitempty"`
	// UID is the uid that the volume must have; "" asks for no check. Undelete and purge: which of those in the bin.
	UID       string `json:"uid,omitempty"`
	Snapshot  string `json:"snapshot,omitempty"`
	SizeBytes int64  `json:"sizeBytes,omitempty"` // resize
	// Repair (check) repairs what it finds. Verify (backup, restore) reads everything once more and compares.
	Repair bool `json:"repair,omitempty"`
	Verify bool `json:"verify,omitempty"`
	// Target is the volume that clone, restore and undelete make.
	Target *TargetVolume `json:"target,omitempty"`
	// Repository and Backup name where a backup is; "latest" is the newest of the volume.
	Repository string `json:"repository,omitempty"`
	Backup     string `json:"backup,omitempty"`
}

// TargetVolume is a volume that is to be made. It has the driver of the request.
type TargetVolume struct {
	Name string `json:"name"`
	// UID is that of a claim which is there already; "" has the isolator make both.
	UID       string            `json:"uid,omitempty"`
	SizeBytes int64             `json:"sizeBytes,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	User      string            `json:"user,omitempty"`
	Mode      string            `json:"mode,omitempty"`
}

// Operation is one operation and how far it is.
type Operation struct {
	ID      string           `json:"id"`
	Request OperationRequest `json:"request"`
	State   string           `json:"state"`
	// Doing says in words what is done now; Because why it is repeated.
	Doing   string `json:"doing,omitempty"`
	Because string `json:"because,omitempty"`
	// DoneBytes of TotalBytes; both 0 where nobody can tell.
	DoneBytes  int64 `json:"doneBytes,omitempty"`
	TotalBytes int64 `json:"totalBytes,omitempty"`
	Cancelled  bool  `json:"cancelled,omitempty"`
	// MadeUID is the uid of the volume that it makes, recorded before that is begun; Made says that it is there by this operation's hand.
	MadeUID string           `json:"madeUid,omitempty"`
	Made    bool             `json:"made,omitempty"`
	Result  *OperationResult `json:"result,omitempty"`
	Code    string           `json:"code,omitempty"` // fault class of a failure
	Message string           `json:"message,omitempty"`
	Created time.Time        `json:"created"`
	Ended   time.Time        `json:"ended,omitzero"`
}

// Over tells whether the operation has come to its end.
func (o Operation) Over() bool { return o.State == OperationDone || o.State == OperationFailed }

// Err is the failure of an operation, nil when it is under way or went well.
func (o Operation) Err() error {
	if o.State != OperationFailed {
		return nil
	}
	class := fault.Class(o.Code)
	if class == "" {
		class = fault.Internal
	}
	return fault.New(class, "%s", o.Message)
}

// OperationResult is what an operation came to; which fields are there depends on its kind.
type OperationResult struct {
	Outcome   string          `json:"outcome,omitempty"`
	Snapshot  *Snapshot       `json:"snapshot,omitempty"`
	Snapshots []Snapshot      `json:"snapshots,omitempty"`
	Volume    *Volume         `json:"volume,omitempty"` // of clone, restore, undelete
	Growth    *Growth         `json:"growth,omitempty"`
	Usage     *Usage          `json:"usage,omitempty"`
	Clean     *bool           `json:"clean,omitempty"` // check
	Report    string          `json:"report,omitempty"`
	Bin       []RemovedVolume `json:"bin,omitempty"`
	Backup    *Backup         `json:"backup,omitempty"`
	Backups   []Backup        `json:"backups,omitempty"`
}

// Snapshot is a volume's content of one instant.
type Snapshot struct {
	Driver    string    `json:"driver"`
	Volume    string    `json:"volume"`
	UID       string    `json:"uid,omitempty"` // of the volume
	Name      string    `json:"name"`
	Created   time.Time `json:"created,omitzero"`
	SizeBytes int64     `json:"sizeBytes,omitempty"`
	Ready     bool      `json:"ready"`
	// Frozen says that the file system was mounted, and frozen meanwhile.
	Frozen bool `json:"frozen,omitempty"`
}

// Growth is what became of a resize. Pending is what the next mount will bring.
type Growth struct {
	SizeBytes    int64  `json:"sizeBytes"`
	PendingBytes int64  `json:"pendingBytes,omitempty"`
	Because      string `json:"because,omitempty"`
}

// Usage is how full a volume is. Size 0: nothing limits it but the storage below.
type Usage struct {
	SizeBytes      int64  `json:"sizeBytes,omitempty"`
	UsedBytes      int64  `json:"usedBytes"`
	AvailableBytes int64  `json:"availableBytes"`
	InodesUsed     uint64 `json:"inodesUsed,omitempty"`
	Inodes         uint64 `json:"inodes,omitempty"`
	Complaint      string `json:"complaint,omitempty"` // what the storage says of a volume that it calls ill
}

// RemovedVolume is a volume in the bin.
type RemovedVolume struct {
	Driver    string    `json:"driver"`
	Name      string    `json:"name"`
	UID       string    `json:"uid,omitempty"`
	Removed   time.Time `json:"removed"`
	Until     time.Time `json:"until,omitzero"`
	SizeBytes int64     `json:"sizeBytes,omitempty"`
}

// Backup is one backup in a repository.
type Backup struct {
	ID         string    `json:"id"`
	Repository string    `json:"repository"`
	Driver     string    `json:"driver"`
	Volume     string    `json:"volume"`
	UID        string    `json:"uid,omitempty"`
	Snapshot   string    `json:"snapshot,omitempty"`
	Cluster    string    `json:"cluster,omitempty"`
	Time       time.Time `json:"time"`
	VolumeSize int64     `json:"volumeSizeBytes,omitempty"` // of the volume that it was made from
	TotalBytes int64     `json:"totalBytes,omitempty"`
	AddedBytes int64     `json:"addedBytes,omitempty"` // what this one added to the repository
	Files      int64     `json:"files,omitempty"`
	Verified   bool      `json:"verified,omitempty"`
}

// Operate asks for an operation and waits for its end as long as ctx lives; it goes on without its caller. An operation that failed is an error.
func (c *Client) Operate(ctx context.Context, r OperationRequest, seen func(Operation)) (Operation, error) {
	var o Operation
	if err := c.call(ctx, http.MethodPost, "/v1/"+r.Kind+"?wait=0", r, &o); err != nil {
		return o, err
	}
	for !o.Over() {
		if seen != nil {
			seen(o)
		}
		next, err := c.Operation(ctx, o.ID, 5*time.Second)
		if err != nil {
			if ctx.Err() != nil {
				return o, fault.New(fault.Unknown, "%s goes on on the node without its caller; it is operation %s", r.Kind, o.ID)
			}
			return o, err
		}
		o = next
	}
	return o, o.Err()
}

// Operation gives an operation, once it is over or the time to wait is.
func (c *Client) Operation(ctx context.Context, id string, wait time.Duration) (Operation, error) {
	var o Operation
	err := c.call(ctx, http.MethodGet, "/v1/operations/"+url.PathEscape(id)+"?wait="+strconv.FormatFloat(wait.Seconds(), 'f', -1, 64), nil, &o)
	return o, err
}

// Operations lists the operations under way and those that ended lately, newest first.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	var a struct{ Operations []Operation }
	err := c.call(ctx, http.MethodGet, "/v1/operations", nil, &a)
	return a.Operations, err
}

// CancelOperation ends an operation early; what it had made is undone.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/operations/"+url.PathEscape(id), nil, nil)
}
