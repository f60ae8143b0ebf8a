package isolator

import (
	"context"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

// Docker knows a volume by its name alone and this isolator as one driver; behind it there are several. What follows finds the driver
// of a name: what is spelled out, what this node has had, what the configured drivers have, and what the authority knows.

// Named is a volume and the driver that has it.
type Named struct {
	Ref volume.Ref
	driver.Info
}

// DefaultDriver is the first of the configured drivers, "" when there is none: volumes go there whose maker names no other.
func (s *Service) DefaultDriver() string {
	if len(s.o.Drivers) == 0 {
		return ""
	}
	return s.o.Drivers[0].Name()
}

// Find gives the volume that a bare name, or driver/name, means on this node. NotFound when no driver of this node has it; Conflict,
// naming them, when several have: then driver/name says which.
func (s *Service) Find(ctx context.Context, name string) (volume.Ref, error) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		ref := volume.Ref{Driver: name[:i], Name: name[i+1:]}
		return ref, ref.Check()
	}
	if err := volume.CheckName(name); err != nil {
		return volume.Ref{}, err
	}
	if err := s.waitReady(ctx); err != nil {
		return volume.Ref{}, err
	}
	if known := s.journalled(name); len(known) > 0 {
		return oneOf(name, known)
	}
	found, err := s.searched(ctx, name)
	if err != nil {
		return volume.Ref{}, err
	}
	if len(found) == 0 {
		return volume.Ref{}, fault.New(fault.NotFound, "no such volume: %s", name)
	}
	return oneOf(name, found)
}

func oneOf(name string, found []volume.Ref) (volume.Ref, error) {
	if len(found) == 1 {
		return found[0], nil
	}
	words := make([]string, 0, len(found))
	for _, r := range found {
		words = append(words, r.String())
	}
	slices.Sort(words)
	return volume.Ref{}, fault.New(fault.Conflict, "volume %s: several drivers of this node have one of that name; say which: %s", name, strings.Join(words, ", "))
}

// journalled gives the volumes of a name that this node has had and that nobody has removed since.
func (s *Service) journalled(name string) []volume.Ref {
	var out []volume.Ref
	for _, v := range s.journal.Volumes() {
		if v.Ref.Name == name && v.Phase != journal.Removed {
			out = append(out, v.Ref)
		}
	}
	return out
}

// searched asks the configured drivers and the authority. Installed plugins are not asked themselves: their volumes are Docker's without us. A
// driver that cannot answer makes the whole answer an error: it may have the volume.
func (s *Service) searched(ctx context.Context, name string) ([]volume.Ref, error) {
	var out []volume.Ref
	for _, d := range s.o.Drivers {
		_, err := d.Get(ctx, name)
		switch {
		case err == nil:
			out = append(out, volume.Ref{Driver: d.Name(), Name: name})
		case !fault.Is(err, fault.NotFound):
			return nil, fault.Op(err, "look for volume %s", name)
		}
	}
	if len(out) > 0 || s.o.Discover == nil {
		return out, nil
	}
	for _, plugin := range s.o.Discover() {
		ref := volume.Ref{Driver: plugin, Name: name}
		switch _, err := s.auth.ClaimByRef(ctx, ref); {
		case err == nil:
			out = append(out, ref)
		case !fault.Is(err, fault.NotFound):
			return nil, fault.Op(err, "look for volume %s", name)
		}
	}
	return out, nil
}

// Named lists the volumes of the configured drivers, and those of other drivers that this node has had. A driver that does not
// answer is left out and shown as a problem.
func (s *Service) Named(ctx context.Context) ([]Named, error) {
	if err := s.waitReady(ctx); err != nil {
		return nil, err
	}
	var out []Named
	listed := map[string]bool{}
	for _, d := range s.o.Drivers {
		listed[d.Name()] = true
		infos, err := d.List(ctx)
		if err != nil {
			s.problem("list "+d.Name(), err.Error())
			continue
		}
		s.problem("list "+d.Name(), "")
		for _, i := range infos {
			out = append(out, Named{Ref: volume.Ref{Driver: d.Name(), Name: i.Name}, Info: i})
		}
	}
	for _, v := range s.journal.Volumes() {
		if v.Phase != journal.Removed && v.Phase != journal.Creating && !listed[v.Ref.Driver] {
			out = append(out, Named{Ref: v.Ref, Info: driver.Info{Name: v.Ref.Name, UID: v.UID}})
		}
	}
	slices.SortFunc(out, func(a, b Named) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	return out, nil
}

// InUse tells where a volume is mounted on this node and for whom: "" and nobody when it is not.
func (s *Service) InUse(ref volume.Ref) (path string, owners []string) {
	v, ok := s.journal.Volume(ref)
	if !ok || v.Phase != journal.Mounted {
		return "", nil
	}
	return v.Path, ownerNames(v.Owners)
}

// Claim reads the authority's word on a volume, for display: NotFound when it was never claimed.
func (s *Service) Claim(ctx context.Context, ref volume.Ref) (lease.Claim, error) {
	c, err := s.auth.ClaimByRef(ctx, ref)
	return c.Claim, err
}
