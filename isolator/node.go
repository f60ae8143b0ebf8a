package isolator

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/identity"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

func randomID() string { return uuid.NewString() }
func timeID() string   { return uuid.Must(uuid.NewV7()).String() }

const (
	agentPollFast = time.Second // while unknown, and soon after it changed
	agentPollSlow = 10 * time.Second
)

// pollAgent keeps the agent's id in the node's record current. An agent that does not answer keeps its last id: tasks run on.
func (s *Service) pollAgent(ctx context.Context) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	fast := 0
	for {
		id, err := identity.AskAgent(ctx, client, s.o.AgentURL)
		s.mu.Lock()
		before := s.agent
		if err == nil && id.ID != "" {
			s.agent = id
		}
		now := s.agent
		s.mu.Unlock()
		switch {
		case err != nil:
			s.problem("agent", err.Error())
			fast = 10
		case id.ID == "":
			s.problem("agent", "the Mesos agent at "+s.o.AgentURL+" is not registered with its master yet")
			fast = 10
		default:
			s.problem("agent", "")
		}
		if now != before {
			s.log.Info("the Mesos agent beside this isolator", zap.String("id", now.ID), zap.String("hostname", now.Hostname))
			s.keeper.Publish(func(n *lease.Node) { n.AgentID, n.AgentHostname = now.ID, now.Hostname })
		}
		wait := agentPollSlow
		if fast > 0 || now.ID == "" {
			wait, fast = agentPollFast, fast-1
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// describe is what the Keeper publishes of this node.
func (s *Service) describe() lease.Node {
	s.mu.Lock()
	agent, draining := s.agent, s.draining
	s.mu.Unlock()
	return lease.Node{
		V: 1, UID: s.nodeUID, BootID: s.o.BootID, Grade: s.grade(), Hostname: s.o.Hostname,
		AgentID: agent.ID, AgentHostname: agent.Hostname, Zone: s.o.Zone, Region: s.o.Region, Attributes: s.o.Attributes,
		Drivers: s.driverFacts(), Repositories: s.operations.Repositories(), Full: s.fullest(), Version: s.o.Version, Draining: draining, StartedAt: s.started,
	}
}

// driverFacts asks the configured drivers and those that are installed, all at once and briefly.
func (s *Service) driverFacts() []lease.DriverFacts {
	ctx, cancel := context.WithTimeout(s.life, 2*time.Second)
	defer cancel()
	all := slices.Clone(s.o.Drivers)
	if s.o.Discover != nil {
		for _, name := range s.o.Discover() {
			if d, err := s.driver(name); err == nil && !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	out := make([]lease.DriverFacts, len(all))
	var wg sync.WaitGroup
	for i, d := range all {
		wg.Add(1)
		go func() { defer wg.Done(); out[i] = s.factsFor(ctx, d) }()
	}
	wg.Wait()
	return out
}

func (s *Service) factsFor(ctx context.Context, d driver.Driver) lease.DriverFacts {
	f, err := s.factsOf(ctx, d)
	lf := lease.DriverFacts{Name: d.Name(), Scope: f.Scope, FlushOnUnmount: f.FlushOnUnmount, SelfAttach: f.SelfAttach,
		Exclusive: f.Exclusive, MultiAttach: f.MultiAttach, AttachLimit: f.AttachLimit, Verify: f.Verify, Snapshots: f.Snapshots, Clones: f.Clones, Encrypts: f.Encrypts, Grows: f.Grows, Ready: err == nil}
	if err != nil {
		lf.NotReadyBecause = err.Error()
	}
	return lf
}

// sleep waits and tells whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
