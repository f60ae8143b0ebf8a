package isolator

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/journal"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/operation"
)

// measured is how full a mounted volume was when last looked at.
type measured struct {
	uid   string
	usage client.Usage
	level operation.Level
	said  client.Usage // when it came to that level: what the node's record says
}

const (
	measureLimit = 10 * time.Second
	// fullMost bounds how many nearly full volumes a node's record names; the fullest are.
	fullMost = 100
)

// measure looks now and then how full the mounted volumes are, and publishes which have come to, or left, a level.
func (s *Service) measure(ctx context.Context) {
	for {
		before := s.fullest()
		s.measureAll(ctx)
		if now := s.fullest(); !reflect.DeepEqual(before, now) {
			s.keeper.Publish(func(n *lease.Node) { n.Full = now })
		}
		if !sleep(ctx, s.o.Limits.Measure) {
			return
		}
	}
}

func (s *Service) measureAll(ctx context.Context) {
	mounted := map[volume.Ref]bool{}
	for _, v := range s.journal.Volumes() {
		if v.Phase != journal.Mounted || ctx.Err() != nil {
			continue
		}
		d, err := s.driver(v.Ref.Driver)
		m, ok := d.(driver.Measurer)
		if err != nil || !ok {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, measureLimit)
		u, err := m.Usage(limit, v.Ref.Name)
		cancel()
		mounted[v.Ref] = true
		if err != nil {
			continue // what was known stays; the mount has its own watchers
		}
		s.noteUsage(v, operation.UsageOf(u))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref := range s.usages {
		if !mounted[ref] {
			delete(s.usages, ref)
		}
	}
}

func (s *Service) noteUsage(v journal.Volume, u client.Usage) {
	s.mu.Lock()
	old := s.usages[v.Ref]
	if old.uid != v.UID {
		old = measured{}
	}
	next := measured{uid: v.UID, usage: u, level: operation.LevelOf(old.level, u), said: old.said}
	changed := next.level != old.level
	if changed {
		next.said = u
	}
	s.usages[v.Ref] = next
	s.mu.Unlock()
	if changed {
		s.log.Warn("a volume's fullness has changed", zap.Stringer("volume", v.Ref), zap.String("level", cmp.Or(string(next.level), "enough room")),
			zap.Float64("percent", operation.Percent(u)))
	}
}

// usageOf gives how full a volume was when last looked at.
func (s *Service) usageOf(ref volume.Ref) (client.Usage, operation.Level, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.usages[ref]
	return m.usage, m.level, ok
}

// fullest lists the volumes that are nearly full, the fullest first.
func (s *Service) fullest() []lease.VolumeFull {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []lease.VolumeFull
	for _, m := range s.usages {
		if m.level != operation.LevelNone {
			out = append(out, lease.VolumeFull{Volume: m.uid, Level: string(m.level), Size: m.said.SizeBytes, Used: m.said.UsedBytes, Available: m.said.AvailableBytes})
		}
	}
	slices.SortFunc(out, func(a, b lease.VolumeFull) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Available, b.Available), cmp.Compare(a.Volume, b.Volume))
	})
	return out[:min(len(out), fullMost)]
}
