package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/operation"
)

// Engine makes and reads backups. It may be used concurrently.
type Engine struct {
	program  string
	cache    string
	repos    map[string]Repository
	names    []string
	lockWait time.Duration
}

var _ operation.Repositories = (*Engine)(nil)

// Open makes an engine; dir is where restic may keep its cache.
func Open(c Config, dir string) (*Engine, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	e := &Engine{program: c.Restic, cache: dir, repos: map[string]Repository{}, lockWait: 2 * time.Minute}
	if e.program == "" {
		e.program = "restic"
	}
	for _, r := range c.Repositories {
		e.repos[r.Name] = r
		e.names = append(e.names, r.Name)
	}
	slices.Sort(e.names)
	return e, nil
}

// Names names the repositories, sorted.
func (e *Engine) Names() []string { return e.names }

func (e *Engine) repo(name string) (Repository, error) {
	r, ok := e.repos[name]
	if !ok {
		return r, fault.New(fault.NotFound, "there is no repository %q; there are %v", name, e.names)
	}
	return r, nil
}

// Everything of ours carries this tag, and one host name, so that backups of a volume are found from whatever node they were made.
const (
	tagOurs = "holdfast"
	host    = "holdfast"
)

// content is what restic is to read: all that is in the directory. restic makes no backup of nothing (a new volume): that is a file
// with a word in it and a tag, and Restore writes nothing then.
func content(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "look at the content")
	}
	defer d.Close()
	switch _, err := d.Readdirnames(1); {
	case errors.Is(err, io.EOF):
		return []string{"--tag", tagEmpty + "=yes", "--stdin", "--stdin-filename", tagEmpty}, nil
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "look at the content")
	}
	return []string{"."}, nil
}

// tagEmpty marks a backup of a volume in which there was nothing.
const tagEmpty = "empty"

// tags are what a backup is found by. A comma would end one.
func tags(b operation.BackupSpec, root fs.FileInfo) []string {
	out := []string{tagOurs, "op=" + b.Op, "driver=" + b.Driver, "volume=" + b.Volume, "uid=" + b.UID, "snapshot=" + b.Snapshot, "cluster=" + b.Cluster,
		"size=" + strconv.FormatInt(int64(b.Size), 10)}
	if st, ok := root.Sys().(*syscall.Stat_t); ok {
		out = append(out, fmt.Sprintf("root=%d:%d:%o", st.Uid, st.Gid, st.Mode&0o7777))
	}
	return out
}

// listed is a line of restic's list.
type listed struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	Tags []string  `json:"tags"`
}

func (l listed) tag(name string) string {
	for _, t := range l.Tags {
		if v, ok := strings.CutPrefix(t, name+"="); ok {
			return v
		}
	}
	return ""
}

func (l listed) backup(repository string) client.Backup {
	size, _ := strconv.ParseInt(l.tag("size"), 10, 64)
	return client.Backup{ID: l.ID, Repository: repository, Driver: l.tag("driver"), Volume: l.tag("volume"), UID: l.tag("uid"), Snapshot: l.tag("snapshot"),
		Cluster: l.tag("cluster"), Time: l.Time.UTC(), VolumeSize: size}
}

// list gives our backups with all of some tags, newest first.
func (e *Engine) list(ctx context.Context, r Repository, with ...string) ([]listed, error) {
	raw, err := e.run(ctx, call{repo: r, args: []string{"snapshots", "--json", "--no-lock", "--tag", strings.Join(append([]string{tagOurs}, with...), ",")}})
	if err != nil {
		return nil, err
	}
	var all []listed
	if err := decode(raw, "list of backups", &all); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b listed) int { return b.Time.Compare(a.Time) })
	return all, nil
}

func volumeTags(ref volume.Ref) (with []string) {
	if ref.Driver != "" {
		with = append(with, "driver="+ref.Driver)
	}
	if ref.Name != "" {
		with = append(with, "volume="+ref.Name)
	}
	return with
}

// List gives the backups of a volume, or all, newest first.
func (e *Engine) List(ctx context.Context, repository string, ref volume.Ref) ([]client.Backup, error) {
	r, err := e.repo(repository)
	if err != nil {
		return nil, err
	}
	all, err := e.list(ctx, r, volumeTags(ref)...)
	if r.Create && fault.Is(err, fault.NotFound) {
		err = nil // the first backup will make it
	}
	out := make([]client.Backup, 0, len(all))
	for _, l := range all {
		out = append(out, l.backup(repository))
	}
	return out, err
}

// Find gives one backup by its id or the beginning of it; "latest" is the newest of a volume.
func (e *Engine) Find(ctx context.Context, repository, id string, ref volume.Ref) (client.Backup, error) {
	l, err := e.find(ctx, repository, id, ref)
	return l.backup(repository), err
}

func (e *Engine) find(ctx context.Context, repository, id string, ref volume.Ref) (listed, error) {
	r, err := e.repo(repository)
	if err != nil {
		return listed{}, err
	}
	if id == "latest" && ref.Name == "" {
		return listed{}, fault.New(fault.Invalid, "the latest backup of which volume? give its driver and name, or a backup's id")
	}
	var with []string
	if id == "latest" {
		with = volumeTags(ref)
	}
	all, err := e.list(ctx, r, with...)
	if err != nil {
		return listed{}, err
	}
	var found []listed
	for _, l := range all {
		if id == "latest" || strings.HasPrefix(l.ID, id) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 0 && id == "latest":
		return listed{}, fault.New(fault.NotFound, "repository %s has no backup of volume %s", repository, ref)
	case len(found) == 0:
		return listed{}, fault.New(fault.NotFound, "repository %s has no backup %s", repository, id)
	case len(found) > 1 && id != "latest":
		return listed{}, fault.New(fault.Invalid, "repository %s has %d backups whose id begins with %s", repository, len(found), id)
	}
	return found[0], nil
}

// message is a line of restic's progress.
type message struct {
	Type       string `json:"message_type"`
	TotalBytes int64  `json:"total_bytes"`
	BytesDone  int64  `json:"bytes_done"`
	DataAdded  int64  `json:"data_added"`
	Files      int64  `json:"total_files_processed"`
	Processed  int64  `json:"total_bytes_processed"`
	SnapshotID string `json:"snapshot_id"`
}

// Backup copies a directory. The content lies at the backup's root, so that it is the same wherever the snapshot was mounted; the backup before is
// named as parent, so that what has not changed is not read again.
func (e *Engine) Backup(ctx context.Context, repository string, b operation.BackupSpec, p operation.Progress) (client.Backup, error) {
	r, err := e.repo(repository)
	if err != nil {
		return client.Backup{}, err
	}
	p("reaching the repository", 0, 0)
	before, err := e.list(ctx, r, volumeTags(volume.Ref{Driver: b.Driver, Name: b.Volume})...)
	if fault.Is(err, fault.NotFound) {
		err = e.create(ctx, r, err)
	}
	if err != nil {
		return client.Backup{}, err
	}
	for _, l := range before { // an attempt before was killed after it
		if l.tag("op") == b.Op {
			return e.verified(ctx, r, l.backup(repository), b.Verify, p)
		}
	}
	root, err := os.Stat(b.Path)
	if err != nil {
		return client.Backup{}, fault.Wrap(fault.Unavailable, err, "look at the content")
	}
	args := []string{"backup", "--json", "--host", host}
	if len(before) > 0 {
		args = append(args, "--parent", before[0].ID)
	}
	for _, t := range tags(b, root) {
		args = append(args, "--tag", t)
	}
	var sum message
	what, err := content(b.Path)
	if err != nil {
		return client.Backup{}, err
	}
	_, err = e.run(ctx, call{repo: r, args: append(args, what...), dir: b.Path, in: tagEmpty, line: func(line []byte) {
		var m message
		if json.Unmarshal(line, &m) != nil {
			return
		}
		switch m.Type {
		case "status":
			p("backing up", m.BytesDone, m.TotalBytes)
		case "summary":
			sum = m
		}
	}})
	if err != nil {
		return client.Backup{}, err
	}
	made, err := e.list(ctx, r, "op="+b.Op)
	if err != nil {
		return client.Backup{}, err
	}
	if len(made) == 0 {
		return client.Backup{}, fault.New(fault.Internal, "restic made backup %s, and does not list it", sum.SnapshotID)
	}
	out := made[0].backup(repository)
	out.TotalBytes, out.AddedBytes, out.Files = sum.Processed, sum.DataAdded, sum.Files
	return e.verified(ctx, r, out, b.Verify, p)
}

// verified reads all of a backup back, through its checksums, where that is asked for.
func (e *Engine) verified(ctx context.Context, r Repository, b client.Backup, verify bool, p operation.Progress) (client.Backup, error) {
	if !verify {
		return b, nil
	}
	p("verifying", 0, b.TotalBytes)
	if _, err := e.run(ctx, call{repo: r, args: []string{"check", "--no-lock"}, discard: true}); err != nil {
		return b, fault.Op(err, "backup %.8s was made, but", b.ID)
	}
	if _, err := e.run(ctx, call{repo: r, args: []string{"dump", "--no-lock", "--archive", "tar", b.ID, "/"}, discard: true}); err != nil {
		return b, fault.Op(err, "backup %.8s was made, but cannot be read back", b.ID)
	}
	b.Verified = true
	return b, nil
}

// Restore writes a backup's content into a directory, and gives the directory the owner and mode that the volume's root had.
func (e *Engine) Restore(ctx context.Context, repository, id, path string, verify bool, p operation.Progress) error {
	l, err := e.find(ctx, repository, id, volume.Ref{})
	if err != nil {
		return err
	}
	r := e.repos[repository]
	total := int64(0)
	if raw, err := e.run(ctx, call{repo: r, args: []string{"stats", "--json", "--no-lock", "--mode", "restore-size", l.ID}}); err == nil {
		var s struct {
			TotalSize int64 `json:"total_size"`
		}
		if decode(raw, "statistics", &s) == nil {
			total = s.TotalSize
		}
	}
	p("restoring", 0, total)
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watch(done, path, func(have int64) { p("restoring", min(have, total), total) })
	}()
	args := []string{"restore", l.ID, "--target", path}
	if verify {
		args = append(args, "--verify")
	}
	if l.tag(tagEmpty) == "" {
		_, err = e.run(ctx, call{repo: r, args: args, dir: path, discard: true})
	}
	close(done)
	<-watched
	if err != nil {
		return err
	}
	p("flushing", total, total)
	if err := rootOf(path, l.tag("root")); err != nil {
		return err
	}
	return flush(path)
}

// watch measures a directory now and then.
func watch(done <-chan struct{}, path string, tell func(int64)) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		timer := time.NewTimer(pause)
		select {
		case <-done:
			timer.Stop()
			return
		case <-timer.C:
		}
		var sum int64
		_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
			select {
			case <-done:
				return fs.SkipAll
			default:
			}
			if err == nil && d.Type().IsRegular() {
				if fi, err := d.Info(); err == nil {
					sum += fi.Size()
				}
			}
			return nil
		})
		tell(sum)
	}
}

// rootOf gives the volume's root its owner and mode back, which restic does not keep for it.
func rootOf(path, tag string) error {
	var uid, gid int
	var mode uint32
	if n, err := fmt.Sscanf(tag, "%d:%d:%o", &uid, &gid, &mode); err != nil || n != 3 {
		return nil // made without it
	}
	if err := os.Lchown(path, uid, gid); err != nil && os.Geteuid() == 0 {
		return fault.Wrap(fault.Unknown, err, "owner of the volume's root")
	}
	return fault.Wrap(fault.Unknown, syscall.Chmod(path, mode&0o7777), "mode of the volume's root")
}

func flush(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "flush")
	}
	defer d.Close()
	return fault.Wrap(fault.Unknown, unix.Syncfs(int(d.Fd())), "flush")
}

// Remove forgets a backup and gives the room back that nothing else needs.
func (e *Engine) Remove(ctx context.Context, repository, id string) error {
	l, err := e.find(ctx, repository, id, volume.Ref{})
	if err != nil {
		return err
	}
	_, err = e.run(ctx, call{repo: e.repos[repository], args: []string{"forget", "--prune", l.ID}, discard: true})
	return err
}
