package operation

import (
	"context"
	"slices"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
)

var errNoRepositories = fault.New(fault.Unavailable, "this node has no repository for backups: start its isolator with --backup-config FILE")

func (p *Operator) repositories(name string) (Repositories, error) {
	if p.o.Repositories == nil {
		return nil, errNoRepositories
	}
	if name != "" && !slices.Contains(p.o.Repositories.Names(), name) {
		return nil, fault.New(fault.NotFound, "this node has no repository %q for backups; it has %v", name, p.o.Repositories.Names())
	}
	return p.o.Repositories, nil
}

// owner is who uses a volume that is mounted for the operation.
func (j *job) owner() string { return "operation:" + j.op.ID }

// backup copies a snapshot's content into a repository. Without a snapshot of that name one is made for it, and removed at the end. Where the driver
// has none, the volume itself is read, if nobody else uses it.
func (j *job) backup(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	repos, err := j.p.repositories(r.Repository)
	if err != nil {
		return nil, err
	}
	d, facts, err := j.p.o.Node.Driver(ctx, r.Driver)
	if err != nil {
		return nil, err
	}
	info, err := d.Get(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	cluster, err := j.p.o.Node.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	spec := BackupSpec{Op: j.op.ID, Driver: r.Driver, Volume: r.Name, UID: info.UID, Snapshot: r.Snapshot, Cluster: cluster, Size: info.Size, Verify: r.Verify}
	var made client.Backup
	read := func(ctx context.Context, path string) (err error) {
		spec.Path = path
		j.p.o.Crash("backup.mounted")
		made, err = repos.Backup(ctx, r.Repository, spec, j.progress)
		return err
	}
	if sn, ok := d.(driver.Snapshotter); ok && facts.Snapshots {
		err = j.backupSnapshot(ctx, d, sn, facts.Freeze, read)
	} else if r.Snapshot != "" {
		err = cannot(d, "make snapshots")
	} else {
		err = j.withMount(ctx, j.ref(), read)
		if fault.Is(err, fault.Conflict) {
			err = fault.Op(err, "driver %s as it is set up here cannot make snapshots, so it can be backed up while nobody uses it", d.Name())
		}
	}
	if err != nil {
		return nil, err
	}
	made.VolumeSize = int64(spec.Size)
	return &client.OperationResult{Outcome: "backed-up", Backup: &made}, nil
}

// backupSnapshot reads a snapshot: the one of that name, or one that is made for it.
func (j *job) backupSnapshot(ctx context.Context, d driver.Driver, sn driver.Snapshotter, freeze bool, read func(context.Context, string) error) error {
	r := j.op.Request
	name := r.Snapshot
	if name == "" {
		name = "backup-" + j.op.ID
		j.progress("making a snapshot", 0, 0)
		err := j.p.o.Node.WithVolume(ctx, Wanted{Ref: j.ref(), UID: r.UID, Verb: r.Kind, Op: j.op.ID}, func(ctx context.Context, h Held) error {
			_, err := j.takeSnapshot(ctx, sn, freeze, h, name)
			return err
		})
		if err != nil {
			return err
		}
		j.p.o.Crash("backup.snapshot")
		defer func() {
			if j.p.life.Err() != nil {
				return // the next start goes on with this snapshot
			}
			if err := sn.RemoveSnapshot(context.WithoutCancel(ctx), r.Name, name); err != nil && !fault.Is(err, fault.NotFound) {
				j.p.o.Log("the snapshot that was made for a backup stays", j.now(), err)
			}
		}()
	}
	if reader, ok := d.(driver.SnapshotReader); ok {
		return j.readSnapshot(ctx, reader, name, read)
	}
	return j.readClone(ctx, name, read)
}

func (j *job) readSnapshot(ctx context.Context, reader driver.SnapshotReader, name string, read func(context.Context, string) error) error {
	r := j.op.Request
	path, err := reader.MountSnapshot(ctx, r.Name, name, j.op.ID)
	if err != nil {
		return err
	}
	err = read(ctx, path)
	if uerr := reader.UnmountSnapshot(context.WithoutCancel(ctx), r.Name, name, j.op.ID); err == nil {
		err = uerr
	}
	return err
}

// readClone reads a snapshot through a volume that is made of it for that, and removed again.
func (j *job) readClone(ctx context.Context, name string, read func(context.Context, string) error) error {
	r := j.op.Request
	j.op.Request.Target = &client.TargetVolume{Name: "backup-" + j.op.ID}
	if _, err := j.make(ctx, New{Source: &driver.Source{Volume: r.Name, UID: r.UID, Snapshot: name}}); err != nil {
		return err
	}
	ref := volume.Ref{Driver: r.Driver, Name: j.op.Request.Target.Name}
	err := j.withMount(ctx, ref, read)
	if j.p.life.Err() != nil {
		return err
	}
	if rerr := j.p.o.Node.Remove(context.WithoutCancel(ctx), ref); err == nil && rerr != nil && !fault.Is(rerr, fault.NotFound) {
		err = rerr
	}
	return err
}

// withMount runs f while a volume is mounted for the operation alone.
func (j *job) withMount(ctx context.Context, ref volume.Ref, f func(ctx context.Context, path string) error) error {
	path, err := j.p.o.Node.Mount(ctx, ref, j.owner())
	if err != nil {
		if fault.Is(err, fault.Unknown) && j.p.life.Err() == nil {
			_ = j.p.o.Node.Unmount(context.WithoutCancel(ctx), ref, j.owner()) // it may come yet
		}
		return err
	}
	err = f(ctx, path)
	if j.p.life.Err() != nil {
		return err // the next start joins its own mount
	}
	if uerr := j.p.o.Node.Unmount(context.WithoutCancel(ctx), ref, j.owner()); err == nil {
		err = uerr
	}
	return err
}

// restore makes a volume and fills it from a backup. The volume is mounted for the operation until it is whole; when it cannot be made whole it
// is removed again.
func (j *job) restore(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	repos, err := j.p.repositories(r.Repository)
	if err != nil {
		return nil, err
	}
	from, err := repos.Find(ctx, r.Repository, r.Backup, j.ref())
	if err != nil {
		return nil, err
	}
	info, err := j.make(ctx, New{Size: volume.Bytes(from.VolumeSize)})
	if err != nil {
		return nil, err
	}
	j.p.o.Crash("restore.made")
	ref := volume.Ref{Driver: r.Driver, Name: r.Target.Name}
	err = j.withMount(ctx, ref, func(ctx context.Context, path string) error {
		j.p.o.Crash("restore.mounted")
		return repos.Restore(ctx, r.Repository, from.ID, path, r.Verify, j.progress)
	})
	if err != nil && j.p.life.Err() == nil && (j.cancelled() || !fault.Is(err, fault.Unknown)) {
		if rerr := j.p.o.Node.Remove(context.WithoutCancel(ctx), ref); rerr != nil && !fault.Is(rerr, fault.NotFound) {
			return nil, fault.Op(err, "volume %s is not whole and could not be removed (%v): remove it", ref, rerr)
		}
	}
	if err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "restored", Volume: j.made(info), Backup: &from}, nil
}

func (j *job) removeBackup(ctx context.Context) (*client.OperationResult, error) {
	r := j.op.Request
	repos, err := j.p.repositories(r.Repository)
	if err != nil {
		return nil, err
	}
	if err := repos.Remove(ctx, r.Repository, r.Backup); err != nil {
		return nil, err
	}
	return &client.OperationResult{Outcome: "removed"}, nil
}

// backups lists a repository, or all of them.
func (p *Operator) backups(ctx context.Context, r client.OperationRequest) (*client.OperationResult, error) {
	repos, err := p.repositories(r.Repository)
	if err != nil {
		return nil, err
	}
	names := repos.Names()
	if r.Repository != "" {
		names = []string{r.Repository}
	}
	out := &client.OperationResult{Backups: []client.Backup{}}
	for _, name := range names {
		all, err := repos.List(ctx, name, volume.Ref{Driver: r.Driver, Name: r.Name})
		if err != nil {
			return nil, fault.Op(err, "list the backups in repository %s", name)
		}
		out.Backups = append(out.Backups, all...)
	}
	slices.SortFunc(out.Backups, func(a, b client.Backup) int { return b.Time.Compare(a.Time) })
	return out, nil
}
