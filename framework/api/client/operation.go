package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	node "github.com/holdfast-io/holdfast/isolator/client"
)

// Operation is something that is done to a volume beside mounting it, in GET /v1/operations.
type Operation struct {
	ID         string `json:"id"`
	Kind       string `json:"kind"` // snapshot, remove-snapshot, clone, resize, check, backup, restore, undelete, purge, remove-backup; and those that ask
	Driver     string `json:"driver,omitempty"`
	Name       string `json:"name,omitempty"`
	Volume     string `json:"volume,omitempty"` // uid
	Snapshot   string `json:"snapshot,omitempty"`
	Repository string `json:"repository,omitempty"`
	Backup     string `json:"backup,omitempty"`
	SizeBytes  int64  `json:"sizeBytes,omitempty"`
	// Target is the volume that it makes, TargetUID its uid.
	Target    string `json:"target,omitempty"`
	TargetUID string `json:"targetUid,omitempty"`
	Phase     string `json:"phase"` // waiting, running, done, failed
	Node      string `json:"node,omitempty"`
	Hostname  string `json:"hostname,omitempty"`
	// Because says what a waiting operation waits for, or why a running one is repeated; Doing what is being done.
	Because    string `json:"because,omitempty"`
	Doing      string `json:"doing,omitempty"`
	DoneBytes  int64  `json:"doneBytes,omitempty"`
	TotalBytes int64  `json:"totalBytes,omitempty"`
	Outcome    string `json:"outcome,omitempty"`
	// Result is what the node answers: snapshot, growth, usage, report, backup, volume.
	Result    *node.OperationResult `json:"result,omitempty"`
	Code      string                `json:"code,omitempty"`
	Error     string                `json:"error,omitempty"`
	CreatedAt time.Time             `json:"createdAt"`
	EndedAt   time.Time             `json:"endedAt,omitzero"`
}

// Over tells whether it has come to its end.
func (o *Operation) Over() bool { return o.Phase == "done" || o.Phase == "failed" }

// Err is the failure, nil when it is under way or went well.
func (o *Operation) Err() error {
	if o.Phase != "failed" {
		return nil
	}
	class := fault.Class(o.Code)
	if class == "" {
		class = fault.Internal
	}
	return fault.New(class, "%s", o.Error)
}

// VolumeUsage says that a volume is nearly full, as its node has last measured it.
type VolumeUsage struct {
	Level          string `json:"level"` // nearly-full, full
	SizeBytes      int64  `json:"sizeBytes,omitempty"`
	UsedBytes      int64  `json:"usedBytes"`
	AvailableBytes int64  `json:"availableBytes"`
}

func volumePath(id, rest string) string { return "/v1/volumes/" + escapeID(id) + rest }

// operate begins an operation by a POST or DELETE of the API and gives it as it was begun.
func (c *Client) operate(ctx context.Context, method, path string, body any) (*Operation, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "encode the request")
		}
	}
	resp, err := c.send(ctx, c.http, method, path, raw, "application/json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := new(Operation)
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return nil, fault.Wrap(fault.Unknown, err, "read the answer to %s %s", method, path)
	}
	return out, nil
}

// Snapshot makes a snapshot of a volume; "" gives it a name with the time in it.
func (c *Client) Snapshot(ctx context.Context, volume, name string) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, volumePath(volume, "/snapshots"), map[string]string{"name": name})
}

// RemoveSnapshot removes one.
func (c *Client) RemoveSnapshot(ctx context.Context, volume, name string) (*Operation, error) {
	return c.operate(ctx, http.MethodDelete, volumePath(volume, "/snapshots/"+url.PathEscape(name)), nil)
}

// Snapshots lists those of a volume.
func (c *Client) Snapshots(ctx context.Context, volume string) ([]node.Snapshot, error) {
	var out node.OperationResult
	err := c.result(ctx, volumePath(volume, "/snapshots"), &out)
	return out.Snapshots, err
}

// CloneRequest is the body of a clone.
type CloneRequest struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot,omitempty"` // "" for the volume as it is now
	Size     string `json:"size,omitempty"`     // "" for the volume's
}

// Clone makes a volume that begins as a copy of another.
func (c *Client) Clone(ctx context.Context, volume string, r CloneRequest) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, volumePath(volume, "/clone"), r)
}

// Resize makes a volume larger.
func (c *Client) Resize(ctx context.Context, volume, size string) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, volumePath(volume, "/resize"), map[string]string{"size": size})
}

// Usage says how full a volume is.
func (c *Client) Usage(ctx context.Context, volume string) (*node.Usage, error) {
	var out node.OperationResult
	if err := c.result(ctx, volumePath(volume, "/usage"), &out); err != nil {
		return nil, err
	}
	if out.Usage == nil {
		return nil, fault.New(fault.Internal, "the node's answer has no usage")
	}
	return out.Usage, nil
}

// Check looks a volume's file system over, and repairs it where that is asked for.
func (c *Client) Check(ctx context.Context, volume string, repair bool) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, volumePath(volume, "/check"), map[string]bool{"repair": repair})
}

// BackupRequest is the body of a backup.
type BackupRequest struct {
	Repository string `json:"repository"`
	Snapshot   string `json:"snapshot,omitempty"` // "" has one made for it
	Verify     bool   `json:"verify,omitempty"`
}

// Backup copies a volume, or a snapshot of it, into a repository.
func (c *Client) Backup(ctx context.Context, volume string, r BackupRequest) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, volumePath(volume, "/backups"), r)
}

// Backups lists those in a repository ("" all), of a volume (driver/name) or all.
func (c *Client) Backups(ctx context.Context, repository, volume string) ([]node.Backup, error) {
	q := url.Values{}
	if repository != "" {
		q.Set("repository", repository)
	}
	if volume != "" {
		q.Set("volume", volume)
	}
	var out node.OperationResult
	err := c.result(ctx, "/v1/backups?"+q.Encode(), &out)
	return out.Backups, err
}

// RemoveBackup deletes one.
func (c *Client) RemoveBackup(ctx context.Context, repository, id string) (*Operation, error) {
	return c.operate(ctx, http.MethodDelete, "/v1/backups/"+url.PathEscape(repository)+"/"+url.PathEscape(id), nil)
}

// RestoreRequest is the body of a restore.
type RestoreRequest struct {
	Repository string `json:"repository"`
	Backup     string `json:"backup"`         // an id or the beginning of one, or "latest" of From
	From       string `json:"from,omitempty"` // driver/name
	Driver     string `json:"driver"`
	Name       string `json:"name"`
	Size       string `json:"size,omitempty"` // "" for that of the volume that was backed up
	User       string `json:"user,omitempty"`
	Verify     bool   `json:"verify,omitempty"`
}

// Restore makes a volume from a backup.
func (c *Client) Restore(ctx context.Context, r RestoreRequest) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, "/v1/restore", r)
}

// Bin lists removed volumes that can come back; of one driver, or of all of a node.
func (c *Client) Bin(ctx context.Context, driver string) ([]node.RemovedVolume, error) {
	q := url.Values{}
	if driver != "" {
		q.Set("driver", driver)
	}
	var out node.OperationResult
	err := c.result(ctx, "/v1/bin?"+q.Encode(), &out)
	return out.Bin, err
}

// BinRequest names a volume in the bin; UID where several have had its name.
type BinRequest struct {
	Driver string `json:"driver"`
	Name   string `json:"name"`
	UID    string `json:"uid,omitempty"`
}

// Undelete takes a volume out of the bin.
func (c *Client) Undelete(ctx context.Context, r BinRequest) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, "/v1/bin/undelete", r)
}

// Purge deletes a volume in the bin for good.
func (c *Client) Purge(ctx context.Context, r BinRequest) (*Operation, error) {
	return c.operate(ctx, http.MethodPost, "/v1/bin/purge", r)
}

// Operations lists the operations under way and those of the last day, newest first.
func (c *Client) Operations(ctx context.Context) ([]Operation, error) {
	var out struct {
		Operations []Operation `json:"operations"`
	}
	err := c.get(ctx, "/v1/operations", &out)
	return out.Operations, err
}

// Operation gives one, at its end or after the time to wait.
func (c *Client) Operation(ctx context.Context, id string, wait time.Duration) (*Operation, error) {
	out := new(Operation)
	return out, c.get(ctx, "/v1/operations/"+url.PathEscape(id)+"?wait="+strconv.Itoa(int(wait.Seconds())), out)
}

// CancelOperation ends one early; what it had made is undone.
func (c *Client) CancelOperation(ctx context.Context, id string) (*Operation, error) {
	return c.operate(ctx, http.MethodDelete, "/v1/operations/"+url.PathEscape(id), nil)
}

// result reads what a node answers to a question.
func (c *Client) result(ctx context.Context, path string, out *node.OperationResult) error {
	return c.get(ctx, path, out)
}
