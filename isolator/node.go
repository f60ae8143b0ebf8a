package isolator

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/lease"
)

func randomID() string { return uuid.NewString() }
func timeID() string   { return uuid.Must(uuid.NewV7()).String() }

// EnsureNodeUID gives the uid of the node whose state is in dir, minting it at the first start.
func EnsureNodeUID(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "open isolator directory")
	}
	return nodeUID(dir, timeID)
}

// nodeUID reads the node's uid or mints it. A file that is there but unreadable is an error: a node with a new uid would not
// know what it holds.
func nodeUID(dir string, mint func() string) (string, error) {
	name := filepath.Join(dir, "node-uid")
	raw, err := os.ReadFile(name)
	if err == nil {
		id := strings.TrimSpace(string(raw))
		if _, perr := uuid.Parse(id); perr != nil {
			return "", fault.New(fault.Conflict, "%s does not hold a uid; if this node is to be a new one, remove the whole directory", name)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fault.Wrap(fault.Unavailable, err, "read node uid")
	}
	id := mint()
	if err := writeFileDurably(name, []byte(id+"\n")); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "write node uid")
	}
	return id, nil
}

func writeFileDurably(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if serr := f.Sync(); err == nil {
		err = serr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func kernelBootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw)), fault.Wrap(fault.Unavailable, err, "read boot id")
}

// agentIdentity is the Mesos agent beside this isolator, as it says itself.
type agentIdentity struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
}

const (
	agentPollFast = time.Second // while unknown, and soon after it changed
	agentPollSlow = 10 * time.Second
)

// pollAgent keeps the agent's id in the node's record current. An agent that does not answer keeps its last id: tasks run on.
func (s *Service) pollAgent(ctx context.Context) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	fast := 0
	for {
		id, err := askAgent(ctx, client, s.o.AgentURL)
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

// askAgent asks a Mesos agent for its id and host name: by GET_AGENT, which is short, or, from one that does not know that call, by
// GET /state, which lists every task.
func askAgent(ctx context.Context, client *http.Client, base string) (agentIdentity, error) {
	base = strings.TrimSuffix(base, "/")
	var got struct {
		GetAgent struct {
			Info struct {
				ID       struct{ Value string }
				Hostname string
			} `json:"agent_info"`
		} `json:"get_agent"`
	}
	err := agentCall(ctx, client, http.MethodPost, base+"/api/v1", `{"type":"GET_AGENT"}`, &got)
	if info := got.GetAgent.Info; err == nil && info.ID.Value != "" {
		return agentIdentity{ID: info.ID.Value, Hostname: info.Hostname}, nil
	}
	var a agentIdentity
	err = agentCall(ctx, client, http.MethodGet, base+"/state", "", &a)
	return a, err
}

func agentCall(ctx context.Context, client *http.Client, verb, url, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, verb, url, strings.NewReader(body))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "agent URL")
	}
	req.Header.Set("Accept", "application/json")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "ask the Mesos agent")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fault.New(fault.Unavailable, "ask the Mesos agent: %s answered status %d", url, resp.StatusCode)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(into)
	return fault.Wrap(fault.Unavailable, err, "ask the Mesos agent: %s", url)
}

// describe is what the Keeper publishes of this node.
func (s *Service) describe() lease.Node {
	s.mu.Lock()
	agent, draining := s.agent, s.draining
	s.mu.Unlock()
	return lease.Node{
		V: 1, UID: s.nodeUID, BootID: s.o.BootID, Grade: s.grade(), Hostname: s.o.Hostname,
		AgentID: agent.ID, AgentHostname: agent.Hostname, Zone: s.o.Zone, Region: s.o.Region, Attributes: s.o.Attributes,
		Drivers: s.driverFacts(), Version: s.o.Version, Draining: draining, StartedAt: s.started,
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
		Exclusive: f.Exclusive, MultiAttach: f.MultiAttach, AttachLimit: f.AttachLimit, Verify: f.Verify, Ready: err == nil}
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
