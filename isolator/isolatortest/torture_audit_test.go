package isolatortest_test

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/isolatortest"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// settle waits until the isolator has nothing left to do. Tasks of volumes that it waits to be free are ended.
func (r *rack) settle() {
	r.Helper()
	var last client.Status
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		st, err := r.client.Status(bg)
		if err != nil || !st.Ready {
			continue
		}
		last = st
		if r.quiet(st) {
			return
		}
	}
	r.Errorf("does not come to rest: %+v", last)
}

func (r *rack) quiet(st client.Status) bool {
	quiet := len(st.Problems) == 0
	for _, s := range st.Volumes {
		if s.Phase == "mounted" && len(s.Doing) == 0 && s.Retry == 0 {
			continue
		}
		quiet = false
		for _, v := range r.volumes {
			if v.ref.Name == s.Name && s.Phase == "unmounting" {
				v.disturb()
				v.stopTask()
			}
		}
	}
	if !quiet {
		return false
	}
	// A hold that was taken just before a kill is given back by and by.
	for _, c := range r.claims() {
		if c.State == lease.Held && !slices.ContainsFunc(st.Volumes, func(s client.VolumeStatus) bool { return s.UID == c.VolumeUID && s.Epoch == uint64(c.Epoch) }) {
			return false
		}
	}
	return true
}

func (r *rack) claims() []lease.ClaimVersion {
	all, err := r.auth.Claims(bg)
	if err != nil {
		r.Errorf("claims: %v", err)
	}
	return all
}

// points gives what is mounted of pool and plugin, by mountinfo alone.
func (r *rack) points() map[string]int {
	out := map[string]int{}
	for _, m := range r.mounts() {
		out[m.Point]++
	}
	for _, p := range r.pluginMounts() {
		out[p]++
	}
	return out
}

func (r *rack) pluginMounts() []string {
	all, err := mount.Under(filepath.Join(r.dir, "plug", "mnt"))
	if err != nil {
		r.Errorf("%v", err)
	}
	var out []string
	for _, m := range all {
		out = append(out, m.Point)
	}
	return out
}

// audit compares everything with everything, when all is at rest.
func (r *rack) audit() {
	r.Helper()
	if r.Failed() {
		return
	}
	st, err := r.client.Status(bg)
	if err != nil {
		r.Errorf("status: %v", err)
		return
	}
	points, up := r.points(), map[volume.Ref]client.VolumeStatus{}
	for _, s := range st.Volumes {
		up[volume.Ref{Driver: s.Driver, Name: s.Name}] = s
		if n := points[s.Path]; n != 1 {
			r.Errorf("%s/%s is mounted by its status, and %d times at %s by mountinfo", s.Driver, s.Name, n, s.Path)
		}
		delete(points, s.Path)
		if len(s.Owners) == 0 {
			r.Errorf("%s/%s is mounted for nobody", s.Driver, s.Name)
		}
	}
	for p, n := range points {
		r.Errorf("leaked: %d mounts at %s", n, p)
	}
	for _, c := range r.claims() {
		s, mounted := up[c.Ref]
		mounted = mounted && s.UID == c.VolumeUID && s.Epoch == uint64(c.Epoch)
		if held := c.State == lease.Held; held != mounted && !(c.Tombstone && !held) && (held || s.UID == c.VolumeUID) {
			r.Errorf("claim of %s is %s in epoch %d by node %s, and mounted: %+v", c.Ref, c.State, c.Epoch, c.Node, s)
		}
		if c.State == lease.Held && (c.Node != r.nodeUID() || c.NodeGeneration != st.Generation) {
			r.Errorf("claim of %s is held by %s generation %d", c.Ref, c.Node, c.NodeGeneration)
		}
	}
	r.auditJournal(up)
	for _, v := range r.volumes {
		v.audit(up[v.ref])
	}
}

// auditJournal reads a copy of the files, as the next start would.
func (r *rack) auditJournal(up map[volume.Ref]client.VolumeStatus) {
	dir, err := os.MkdirTemp(r.dir, "journal")
	if err != nil {
		r.Errorf("%v", err)
		return
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(r.node, "journal"))); err != nil {
		r.Errorf("copy the journal: %v", err)
		return
	}
	j, err := journal.Open(dir)
	if err != nil {
		r.Errorf("open the copied journal: %v", err)
		return
	}
	defer j.Close()
	if d := j.Damaged(); len(d) > 0 {
		r.Errorf("journal is damaged: %v", d)
	}
	for _, v := range j.Volumes() {
		_, mounted := up[v.Ref]
		if (v.Phase == journal.Mounted) != mounted || v.Phase != journal.Mounted && v.Phase != journal.Known && v.Phase != journal.Removed {
			r.Errorf("journal says that %s is %s in epoch %d, mounted %t", v.Ref, v.Phase, v.Epoch, mounted)
		}
	}
}

// audit looks at one volume: it is there with all that was written, and what must have stayed has.
func (v *life) audit(s client.VolumeStatus) {
	v.r.Helper()
	v.mu.Lock()
	expect, disturbed, cut, lines := v.expect, v.disturbed || v.lapsed, v.cut, v.lines
	v.mu.Unlock()
	running := v.running()
	if expect == "mounted" && !disturbed && !cut && s.Phase != "mounted" {
		v.r.Errorf("%s: the last mount succeeded, nothing ended it, and it is %q now", v.ref, s.Phase)
	}
	if v.task != nil && expect == "mounted" && !disturbed && !cut && !running {
		v.r.Errorf("%s: its task has ended: %v", v.ref, v.task.ProcessState)
	}
	if running && s.Phase != "mounted" {
		v.r.Errorf("%s: a task runs, and it is %q", v.ref, s.Phase)
	}
	if !v.made {
		return
	}
	info, err := v.r.client.Get(bg, client.VolumeRequest{Driver: v.ref.Driver, Name: v.ref.Name})
	if err != nil {
		v.r.Errorf("%s is lost: %v", v.ref, err)
		return
	}
	if c, err := v.r.auth.ClaimByRef(bg, v.ref); err != nil || info.UID != c.VolumeUID || v.granted && c.VolumeUID != v.uid {
		v.r.Errorf("%s: uid %s, claim %s %v, made as %s", v.ref, info.UID, c.VolumeUID, err, v.uid)
	}
	v.auditLines(s, lines)
}

// auditLines counts the lines where the driver keeps them, not where they are mounted; those of an image only while it is mounted.
func (v *life) auditLines(s client.VolumeStatus, lines int) {
	if lines == 0 {
		return
	}
	name := filepath.Join(v.r.pool, v.ref.Name, "data", "lines")
	switch {
	case v.ref.Driver == "plug":
		name = filepath.Join(v.r.dir, "plug", "data", v.ref.Name, "lines")
	case len(v.r.poolFlags) > 0 && s.Phase == "mounted":
		name = filepath.Join(s.Path, "lines")
	case len(v.r.poolFlags) > 0:
		return // the next task counts
	}
	f, err := os.Open(name)
	if err != nil {
		v.r.Errorf("%s: %d lines were written: %v", v.ref, lines, err)
		return
	}
	defer f.Close()
	have, _, err := isolatortest.CheckLines(f)
	if err != nil || have < lines {
		v.r.Errorf("%s: %d lines, %d were acknowledged: %v", v.ref, have, lines, err)
	}
}
