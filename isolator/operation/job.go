package operation

import (
	"context"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// job is one operation under way.
type job struct {
	p  *Operator
	op client.Operation // as it was begun; see now for what was edited since
}

func (j *job) ref() volume.Ref {
	return volume.Ref{Driver: j.op.Request.Driver, Name: j.op.Request.Name}
}

func (j *job) now() client.Operation {
	o, _ := j.p.book.get(j.op.ID)
	return o
}

func (j *job) cancelled() bool { return j.now().Cancelled }

// edit changes what readers see.
func (j *job) edit(f func(*client.Operation)) {
	j.p.mu.Lock()
	defer j.p.mu.Unlock()
	o := j.now()
	f(&o)
	j.p.book.show(o)
}

// record is edit, made durable first.
func (j *job) record(f func(*client.Operation)) error {
	j.p.mu.Lock()
	defer j.p.mu.Unlock()
	o := j.now()
	f(&o)
	return j.p.book.put(o)
}

// progress shows how far a long operation is.
func (j *job) progress(doing string, done, total int64) {
	j.edit(func(o *client.Operation) { o.Doing, o.DoneBytes, o.TotalBytes, o.Because = doing, done, total, "" })
}

// finish records the outcome; false when that was not possible and must be tried again.
func (j *job) finish(result *client.OperationResult, err error) bool {
	werr := j.record(func(o *client.Operation) {
		o.State, o.Result, o.Ended, o.Doing, o.Because = client.OperationDone, result, j.p.o.Now().UTC(), "", ""
		if err != nil {
			o.State, o.Code, o.Message = client.OperationFailed, string(fault.ClassOf(err)), err.Error()
		}
	})
	if werr != nil {
		j.edit(func(o *client.Operation) { o.Because = werr.Error() })
		return false
	}
	j.p.o.Log("operation", j.now(), err)
	j.p.book.prune(j.p.o.Now())
	return true
}

// perform does the operation once.
func (j *job) perform(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	kinds := map[string]func(context.Context) (*client.OperationResult, error){
		client.OpSnapshot: j.snapshot, client.OpRemoveSnapshot: j.removeSnapshot, client.OpClone: j.clone, client.OpResize: j.resize,
		client.OpCheck: j.check, client.OpUndelete: j.undelete, client.OpPurge: j.purge,
		client.OpBackup: j.backup, client.OpRestore: j.restore, client.OpRemoveBackup: j.removeBackup,
	}
	f := kinds[r.Kind]
	if f == nil { // recorded by a newer version
		return nil, fault.New(fault.Invalid, "this isolator knows no operation %q", r.Kind)
	}
	result, err := f(ctx)
	if r.Driver != "" && r.Name != "" {
		return result, fault.Op(err, "%s volume %s/%s", words[r.Kind], r.Driver, r.Name)
	}
	return result, fault.Op(err, "%s", words[r.Kind])
}

// words are the verbs of people.
var words = map[string]string{
	client.OpSnapshot: "snapshot", client.OpRemoveSnapshot: "remove snapshot of", client.OpSnapshots: "list snapshots of", client.OpClone: "clone", client.OpResize: "resize",
	client.OpUsage: "measure", client.OpCheck: "check", client.OpBin: "look into the bin", client.OpUndelete: "undelete", client.OpPurge: "purge",
	client.OpBackup: "back up", client.OpRestore: "restore", client.OpBackups: "list backups of", client.OpRemoveBackup: "remove backup",
}

// cannot says that a driver has not the power that is asked for.
func cannot(d driver.Driver, what string) error {
	return fault.New(fault.Invalid, "driver %s as it is set up here cannot %s (docs/drivers.md); nothing was done", d.Name(), what)
}

func (j *job) snapshot(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, facts, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	sn, ok := d.(driver.Snapshotter)
	if !ok || !facts.Snapshots {
		return nil, cannot(d, "make snapshots")
	}
	var out client.Snapshot
	err = j.p.o.Node.WithVolume(ctx, Wanted{Ref: j.ref(), UID: r.UID, Verb: r.Kind, Op: j.op.ID}, func(ctx context.Context, h Held) error {
		out, err = j.takeSnapshot(ctx, sn, facts.Freeze, h, r.Snapshot)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "snapshotted", Snapshot: &out}, nil
}

// freezing is recorded before a file system is frozen, and taken away when the snapshot is known to be of one instant.
const freezing = "freezing"

// takeSnapshot makes a snapshot of a volume that this node has to itself. One that may not be of one instant is removed again.
func (j *job) takeSnapshot(ctx context.Context, sn driver.Snapshotter, freeze bool, h Held, name string) (client.Snapshot, error) {
	done, err := findSnapshot(ctx, sn, h, name)
	if err != nil {
		return client.Snapshot{}, err
	}
	if done != nil && j.now().Doing != freezing {
		return shown(h.Ref.Driver, *done, false), nil // made by an earlier attempt, or by somebody before
	}
	if done != nil {
		// The attempt that made it was killed meanwhile, and the file system thawed: nobody knows which came first.
		if err := sn.RemoveSnapshot(ctx, h.Ref.Name, name); err != nil && !fault.Is(err, fault.NotFound) {
			return client.Snapshot{}, err
		}
	}
	var info driver.SnapshotInfo
	take := func(ctx context.Context) (err error) {
		j.p.o.Crash("snapshot.frozen")
		info, err = sn.Snapshot(ctx, h.Ref.Name, h.UID, name)
		j.p.o.Crash("snapshot.driver")
		return err
	}
	if !h.Mounted || !freeze {
		err := take(ctx)
		return shown(h.Ref.Driver, info, false), err
	}
	if err := j.record(func(o *client.Operation) { o.Doing = freezing }); err != nil {
		return client.Snapshot{}, err
	}
	frozen, err := j.p.o.Node.Freeze(ctx, h, take)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if rerr := sn.RemoveSnapshot(undo, h.Ref.Name, name); rerr != nil && !fault.Is(rerr, fault.NotFound) {
			return client.Snapshot{}, fault.Wrap(fault.Unknown, err, "its snapshot %s is not to be used, and could not be removed (%v)", name, rerr)
		}
		return client.Snapshot{}, err
	}
	return shown(h.Ref.Driver, info, frozen), j.record(func(o *client.Operation) { o.Doing = "" })
}

// findSnapshot looks for a snapshot of that name.
func findSnapshot(ctx context.Context, sn driver.Snapshotter, h Held, name string) (*driver.SnapshotInfo, error) {
	all, err := sn.Snapshots(ctx, h.Ref.Name)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	for _, i := range all {
		if i.Name == name && (i.Volume == "" || i.Volume == h.Ref.Name) && (h.UID == "" || i.UID == "" || i.UID == h.UID) {
			return &i, nil
		}
	}
	return nil, nil
}

func shown(driverName string, i driver.SnapshotInfo, frozen bool) client.Snapshot {
	return client.Snapshot{Driver: driverName, Volume: i.Volume, UID: i.UID, Name: i.Name, Created: i.Created, SizeBytes: int64(i.Size), Ready: i.Ready, Frozen: frozen}
}

func (j *job) removeSnapshot(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, _, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	sn, ok := d.(driver.Snapshotter)
	if !ok {
		return nil, cannot(d, "make snapshots")
	}
	err = j.p.o.Node.WithVolume(ctx, Wanted{Ref: j.ref(), Verb: r.Kind, Op: j.op.ID, Turn: true}, func(ctx context.Context, _ Held) error {
		return sn.RemoveSnapshot(ctx, r.Name, r.Snapshot)
	})
	if err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "removed"}, nil
}

func (j *job) resize(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, facts, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	g, ok := d.(driver.Grower)
	if !ok || facts.Grows == "" {
		return nil, cannot(d, "grow volumes")
	}
	var out driver.Growth
	err = j.p.o.Node.WithVolume(ctx, Wanted{Ref: j.ref(), UID: r.UID, Verb: r.Kind, Op: j.op.ID}, func(ctx context.Context, h Held) error {
		info, err := d.Get(ctx, r.Name)
		if err != nil {
			return err
		}
		if want := volume.Bytes(r.SizeBytes); info.Size > want {
			return fault.New(fault.Invalid, "it has %s, and a volume is never made smaller (%s was asked for): restore a backup into a new one, or copy", info.Size, want)
		}
		j.p.o.Crash("resize.begun")
		out, err = g.Grow(ctx, r.Name, h.UID, volume.Bytes(r.SizeBytes))
		j.p.o.Crash("resize.driver")
		return err
	})
	if err != nil {
		return nil, err
	}
	word := "resized"
	if out.Pending != 0 {
		word = "pending"
	}
	return &client.OperationResult{Outcome: word, Growth: &client.Growth{SizeBytes: int64(out.Size), PendingBytes: int64(out.Pending), Because: out.Because}}, nil
}

func (j *job) check(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, _, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	c, ok := d.(driver.Checker)
	if !ok {
		return nil, cannot(d, "check volumes")
	}
	var clean bool
	var report string
	err = j.p.o.Node.WithVolume(ctx, Wanted{Ref: j.ref(), UID: r.UID, Verb: r.Kind, Op: j.op.ID}, func(ctx context.Context, h Held) (err error) {
		if h.Mounted {
			return fault.New(fault.Conflict, "it is mounted at %s; stop what uses it first", h.Path)
		}
		if h.Shared {
			return fault.New(fault.Conflict, "it is shared, and may be mounted anywhere; stop what uses it, and check it by hand")
		}
		clean, report, err = c.Check(ctx, r.Name, h.UID, r.Repair)
		return err
	})
	if err != nil {
		return nil, err
	}
	word := "clean"
	if !clean {
		word = "not-clean"
	}
	return &client.OperationResult{Outcome: word, Clean: &clean, Report: report}, nil
}

func (j *job) purge(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, _, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	b, ok := d.(driver.Binner)
	if !ok {
		return nil, cannot(d, "purge: it has no bin")
	}
	uid := r.UID
	if uid == "" {
		gone, err := inBin(ctx, b, r.Name, "")
		if err != nil {
			return nil, err
		}
		uid = gone.UID
	}
	if err := b.Purge(ctx, r.Name, uid); err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "purged"}, nil
}

// inBin finds a volume in the bin by name, and uid where several have had that name.
func inBin(ctx context.Context, b driver.Binner, name, uid string) (driver.Removed, error) {
	all, err := b.Bin(ctx)
	if err != nil {
		return driver.Removed{}, err
	}
	var found []driver.Removed
	for _, r := range all {
		if r.Name == name && (uid == "" || r.UID == uid) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return driver.Removed{}, fault.New(fault.NotFound, "the bin has no volume %s%s; it may have been emptied", name, withUID(uid))
	case 1:
		return found[0], nil
	}
	return driver.Removed{}, fault.New(fault.Conflict, "the bin has %d volumes %s; say which by its uid", len(found), name)
}

func withUID(uid string) string {
	if uid == "" {
		return ""
	}
	return " with uid " + uid
}
