package isolator

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/mount"
)

// Get asks the driver.
func (s *Service) Get(ctx context.Context, ref volume.Ref) (driver.Info, error) {
	if err := ref.Check(); err != nil {
		return driver.Info{}, err
	}
	d, err := s.driver(ref.Driver)
	if err != nil {
		return driver.Info{}, err
	}
	info, err := d.Get(ctx, ref.Name)
	if v, ok := s.journal.Volume(ref); err == nil && ok && info.UID == "" {
		info.UID = v.UID
	}
	return info, err
}

// List asks the driver.
func (s *Service) List(ctx context.Context, driverName string) ([]driver.Info, error) {
	d, err := s.driver(driverName)
	if err != nil {
		return nil, err
	}
	return d.List(ctx)
}

// Path says where a volume is mounted here, "" when it is not: by the journal, and by the driver for what others have mounted.
func (s *Service) Path(ctx context.Context, ref volume.Ref) (string, error) {
	if err := ref.Check(); err != nil {
		return "", err
	}
	if v, ok := s.journal.Volume(ref); ok && v.Phase == journal.Mounted {
		return v.Path, nil
	}
	d, err := s.driver(ref.Driver)
	if err != nil {
		return "", err
	}
	if _, err := d.Get(ctx, ref.Name); err != nil {
		return "", err
	}
	if _, ours := d.(driver.Placer); ours {
		return "", nil // what this node has not mounted is not mounted here
	}
	return d.Path(ctx, ref.Name)
}

// Status tells everything about the node.
func (s *Service) Status() client.Status {
	s.mu.Lock()
	agent, draining := s.agent, s.draining
	s.mu.Unlock()
	out := client.Status{Node: s.nodeUID, Hostname: s.o.Hostname, BootID: s.o.BootID, AgentID: agent.ID, Version: s.o.Version,
		PID: os.Getpid(), Ready: s.isReady(), Generation: s.keeper.Generation(), Lease: s.leaseText(), Draining: draining,
		Problems: s.problemList(), Volumes: []client.VolumeStatus{}, Stuck: mount.Stuck(), Dir: s.o.Dir, AgentURL: s.o.AgentURL, Timings: timingsText(s.o.Timings), Grade: string(s.grade()), DeadMan: s.deadManStatus()}
	for _, v := range s.journal.Volumes() {
		vs, busy := s.volumeStatus(v)
		if !busy {
			out.Known++
			continue
		}
		out.Volumes = append(out.Volumes, vs)
	}
	sort.Slice(out.Volumes, func(i, j int) bool {
		a, b := out.Volumes[i], out.Volumes[j]
		return a.Driver+"/"+a.Name < b.Driver+"/"+b.Name
	})
	return out
}

func (s *Service) volumeStatus(v journal.Volume) (client.VolumeStatus, bool) {
	doing := append(s.queues.Doing(v.Ref), s.operations.Doing(v.Ref)...)
	s.mu.Lock()
	again, retrying := s.retries[v.Ref]
	if retrying {
		copied := *again
		again = &copied
	}
	s.mu.Unlock()
	vs := client.VolumeStatus{Driver: v.Ref.Driver, Name: v.Ref.Name, UID: v.UID, Phase: string(v.Phase), Epoch: uint64(v.Epoch), Task: v.Task,
		Owners: ownerNames(v.Owners), Since: v.MountedAt, Fence: string(s.gradeOf(v)), Shared: v.Shared, Doing: doing}
	if v.Phase == journal.Mounted || v.Phase == journal.Unmounting {
		vs.Path = v.Path
	}
	if u, level, ok := s.usageOf(v.Ref); ok {
		if vs.Usage, vs.Level = &u, string(level); u.Complaint != "" {
			vs.Because = "the storage says: " + u.Complaint
		}
	}
	if retrying {
		vs.Retry, vs.Next, vs.Because = again.attempts, again.next, again.because
	}
	quiet := v.Phase == journal.Known || v.Phase == journal.Removed
	return vs, !quiet || len(doing) > 0 || retrying
}

func (s *Service) isReady() bool {
	select {
	case <-s.ready:
		return s.keeper.MayMount(s.o.Clock.Now(), s.o.Timings.M) == nil
	default:
		return false
	}
}

func (s *Service) leaseText() string {
	d := s.keeper.Deadline()
	now := s.o.Clock.Now()
	switch {
	case d == 0:
		if err := s.keeper.MayMount(now, 0); err != nil {
			return err.Error()
		}
		return "no lease yet"
	case d <= now:
		return fmt.Sprintf("ran out %s ago", (now - d).Round(time.Millisecond))
	}
	return fmt.Sprintf("held for another %s", (d - now).Round(time.Millisecond))
}

func timingsText(t lease.Timings) string {
	return fmt.Sprintf("renews every %s (a call at most %s), stops the users of volumes %s after the last renewal, within %s", t.P, t.R, t.F, t.S)
}

// Health says whether mounts are taken.
func (s *Service) Health() client.Health {
	h := client.Health{Ready: s.isReady() && !s.isDraining(), Problems: s.problemList()}
	if !h.Ready && len(h.Problems) == 0 {
		h.Problems = []string{s.whyNotReady()}
	}
	return h
}

// Capabilities gives the facts of this node's drivers.
func (s *Service) Capabilities() []client.Capability {
	var out []client.Capability
	for _, f := range s.driverFacts() {
		out = append(out, client.Capability{Driver: f.Name, Scope: f.Scope, FlushOnUnmount: f.FlushOnUnmount, SelfAttach: f.SelfAttach,
			Exclusive: f.Exclusive, MultiAttach: f.MultiAttach, AttachLimit: f.AttachLimit, Verify: f.Verify, Snapshots: f.Snapshots, Clones: f.Clones, Encrypts: f.Encrypts, Grows: f.Grows, Ready: f.Ready, Because: f.NotReadyBecause})
	}
	return out
}

// Version gives the program's version.
func (s *Service) Version() string { return s.o.Version }

func factsText(f []lease.DriverFacts) string {
	raw, err := json.Marshal(f)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "encode facts").Error()
	}
	return string(raw)
}
