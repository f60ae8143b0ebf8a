package operation

import (
	"cmp"
	"context"
	"slices"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

// What makes new volumes: clone, undelete, restore (in backup.go).

// make makes the target of the operation, whose uid is recorded before.
func (j *job) make(ctx context.Context, n New) (driver.Info, error) {
	t := j.op.Request.Target
	n.Ref = volume.Ref{Driver: j.op.Request.Driver, Name: t.Name}
	n.UID, n.Claimed, n.Options, n.Owner, n.Mode = t.UID, t.UID != "", t.Options, t.User, t.Mode
	n.Size = cmp.Or(volume.Bytes(t.SizeBytes), n.Size)
	record := func(uid string) error {
		return j.record(func(o *client.Operation) { o.MadeUID = uid })
	}
	if n.UID == "" {
		if n.UID = j.now().MadeUID; n.UID == "" {
			n.UID = j.p.o.NewUID()
			if err := record(n.UID); err != nil {
				return driver.Info{}, err
			}
		}
	}
	j.p.o.Crash("make.recorded")
	info, err := j.p.o.Node.Make(ctx, n, record)
	if err != nil {
		return info, err
	}
	return info, j.record(func(o *client.Operation) { o.Made = true })
}

func (j *job) made(info driver.Info) *client.Volume {
	uid := j.now().MadeUID
	if t := j.op.Request.Target; uid == "" && t != nil {
		uid = t.UID
	}
	return &client.Volume{Driver: j.op.Request.Driver, Name: info.Name, UID: uid, SizeBytes: int64(info.Size), Created: info.Created}
}

// clone makes a volume that begins as a copy of another, or of one of its snapshots. Of a volume that is mounted a snapshot is cloned, which is
// made for it and removed again.
func (j *job) clone(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, facts, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	if !facts.Clones {
		return nil, cannot(d, "clone volumes")
	}
	var info driver.Info
	if r.Snapshot != "" {
		info, err = j.cloneOf(ctx, r.UID, r.Snapshot)
	} else {
		err = j.p.o.Node.WithVolume(ctx, Wanted{Ref: j.ref(), UID: r.UID, Verb: r.Kind, Op: j.op.ID}, func(ctx context.Context, h Held) error {
			if h.Shared {
				return fault.New(fault.Conflict, "it is shared, and may be written to elsewhere: make a snapshot first, and clone that")
			}
			if !h.Mounted {
				info, err = j.cloneOf(ctx, h.UID, "")
				return err
			}
			info, err = j.cloneMounted(ctx, d, facts, h)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "cloned", Volume: j.made(info)}, nil
}

func (j *job) cloneMounted(ctx context.Context, d driver.Driver, facts driver.Facts, h Held) (driver.Info, error) {
	sn, ok := d.(driver.Snapshotter)
	if !ok || !facts.Snapshots {
		return driver.Info{}, fault.New(fault.Conflict, "it is mounted at %s, and driver %s cannot make snapshots: stop what uses it first", h.Path, d.Name())
	}
	name := "clone-" + j.op.ID
	if _, err := j.takeSnapshot(ctx, sn, facts.Freeze, h, name); err != nil {
		return driver.Info{}, err
	}
	info, err := j.cloneOf(ctx, h.UID, name)
	if rerr := sn.RemoveSnapshot(context.WithoutCancel(ctx), h.Ref.Name, name); err == nil && rerr != nil && !fault.Is(rerr, fault.NotFound) {
		j.p.o.Log("the snapshot that was made for a clone stays", j.now(), rerr)
	}
	return info, err
}

func (j *job) cloneOf(ctx context.Context, uid, snapshot string) (driver.Info, error) {
	return j.make(ctx, New{Source: &driver.Source{Volume: j.op.Request.Name, UID: uid, Snapshot: snapshot}})
}

// undelete takes a volume out of the bin. Its old uid is over for good, so it comes back with a new one.
func (j *job) undelete(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	d, _, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	b, ok := d.(driver.Binner)
	if !ok {
		return nil, cannot(d, "undelete: it has no bin")
	}
	if _, ok := d.(driver.Adopter); !ok {
		return nil, cannot(d, "undelete: what comes back must get a new uid")
	}
	old := r.UID
	if old == "" {
		if old = j.now().Request.UID; old == "" {
			gone, err := inBin(ctx, b, r.Name, "")
			if err != nil {
				return nil, err
			}
			old = gone.UID
			// Which one is meant is recorded: at a second attempt the bin may hold others of that name.
			if err := j.record(func(o *client.Operation) { o.Request.UID = old }); err != nil {
				return nil, err
			}
		}
	}
	if j.op.Request.Target == nil {
		j.op.Request.Target = &client.TargetVolume{Name: r.Name}
	}
	info, err := j.make(ctx, New{Undelete: old})
	if err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "undeleted", Volume: j.made(info)}, nil
}

// answer gives what only asks.
func (p *Operator) answer(ctx context.Context, r client.OperationRequest) (*client.OperationResult, error) {
	var out *client.OperationResult
	var err error
	switch r.Kind {
	case client.OpUsage:
		out, err = p.usage(ctx, r)
	case client.OpSnapshots:
		out, err = p.snapshots(ctx, r)
	case client.OpBin:
		out, err = p.bin(ctx, r)
	case client.OpBackups:
		out, err = p.backups(ctx, r)
	}
	if r.Driver != "" && r.Name != "" {
		err = fault.Op(err, "%s volume %s/%s", words[r.Kind], r.Driver, r.Name)
	}
	return out, err
}

func (p *Operator) usage(ctx context.Context, r client.OperationRequest) (*client.OperationResult, error) {
	d, _, err := p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	m, ok := d.(driver.Measurer)
	if !ok {
		return nil, cannot(d, "say how full its volumes are")
	}
	u, err := m.Usage(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	wire := UsageOf(u)
	return &client.OperationResult{Usage: &wire}, nil
}

// UsageOf gives a driver's answer as it goes over the wire.
func UsageOf(u driver.Usage) client.Usage {
	return client.Usage{SizeBytes: int64(u.Size), UsedBytes: int64(u.Used), AvailableBytes: int64(u.Available), InodesUsed: u.InodesUsed, Inodes: u.Inodes, Complaint: u.Complaint}
}

func (p *Operator) snapshots(ctx context.Context, r client.OperationRequest) (*client.OperationResult, error) {
	d, facts, err := p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	sn, ok := d.(driver.Snapshotter)
	if !ok || !facts.Snapshots {
		return nil, cannot(d, "make snapshots")
	}
	all, err := sn.Snapshots(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	out := &client.OperationResult{Snapshots: []client.Snapshot{}}
	for _, i := range all {
		out.Snapshots = append(out.Snapshots, shown(r.Driver, i, false))
	}
	return out, nil
}

// bin lists what the bins of the drivers hold, the newest first. A driver without a bin is an error only when it is named.
func (p *Operator) bin(ctx context.Context, r client.OperationRequest) (*client.OperationResult, error) {
	names := p.o.Node.Drivers()
	if r.Driver != "" {
		names = []string{r.Driver}
	}
	out := &client.OperationResult{Bin: []client.RemovedVolume{}}
	for _, name := range names {
		d, _, err := p.o.Node.Driver(ctx, name)
		if err != nil {
			return nil, err
		}
		b, ok := d.(driver.Binner)
		if !ok {
			if r.Driver != "" {
				return nil, cannot(d, "list a bin: it has none")
			}
			continue
		}
		all, err := b.Bin(ctx)
		if err != nil {
			return nil, fault.Op(err, "look into the bin of driver %s", name)
		}
		for _, v := range all {
			out.Bin = append(out.Bin, client.RemovedVolume{Driver: name, Name: v.Name, UID: v.UID, Removed: v.At, Until: v.Until, SizeBytes: int64(v.Size)})
		}
	}
	slices.SortFunc(out.Bin, func(a, b client.RemovedVolume) int { return b.Removed.Compare(a.Removed) })
	return out, nil
}
