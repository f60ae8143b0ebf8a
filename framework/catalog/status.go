package catalog

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// The states of a Status.
const (
	StateStarting = "starting" // nothing was compared yet
	StateStandby  = "standby"  // this framework does not lead
	StateSynced   = "synced"   // Consul is as it should be
	StatePartial  = "partial"  // it is, but for what Refused tells
	StateFailing  = "failing"  // Error tells why; it is tried again and again
)

// Status tells how the registrar is doing.
type Status struct {
	State string `json:"state"`
	// Since is when it came into this state.
	Since      time.Time   `json:"since"`
	Address    string      `json:"address"`
	Datacenter string      `json:"datacenter,omitempty"`
	Error      string      `json:"error,omitempty"`
	Class      fault.Class `json:"class,omitempty"`
	// Services and Nodes count the entries of the last comparison that succeeded, Pending those still to be written or removed in one under way.
	Services int `json:"services"`
	Nodes    int `json:"nodes"`
	Pending  int `json:"pending"`
	// Refused are services that Consul did not accept, at most maxRefused of them; RefusedCount is how many there are.
	Refused      []Refused `json:"refused,omitempty"`
	RefusedCount int       `json:"refusedCount"`
	// SyncedAt is when Consul was last known to be as it should, ReadAt when all of it was last read.
	SyncedAt time.Time `json:"syncedAt,omitzero"`
	ReadAt   time.Time `json:"readAt,omitzero"`
	// Calls and Failures count since the start.
	Calls    uint64 `json:"calls"`
	Failures uint64 `json:"failures"`
}

// Refused is one service that Consul did not accept.
type Refused struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Node    string `json:"node"`
	Error   string `json:"error"`
}

const maxRefused = 20

// status keeps a Status, and logs each change of its state once.
type status struct {
	mu  sync.Mutex
	now Status
}

// Status tells how things are. It may be called from any goroutine.
func (r *Registrar) Status() Status {
	r.status.mu.Lock()
	defer r.status.mu.Unlock()
	now := r.status.now
	now.Calls = r.consul.calls.Load()
	return now
}

func (s *status) init(c Config) {
	s.now = Status{State: StateStarting, Since: time.Now(), Address: c.Address, Datacenter: c.Datacenter}
}

// enter moves to a state and says whether that, or the class of the error, is new. s.mu is held.
func (s *status) enter(state string, class fault.Class) bool {
	fresh := s.now.State != state || s.now.Class != class
	if s.now.State != state {
		s.now.Since = time.Now()
	}
	s.now.State, s.now.Class = state, class
	return fresh
}

func (s *status) failed(err error, log *zap.Logger, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Failures++
	s.now.Error = err.Error()
	if s.enter(StateFailing, fault.ClassOf(err)) {
		log.Warn("services in Consul are not kept up to date; tried again until it works", zap.String("consul", address), zap.Error(err))
	}
}

func (s *status) standby(log *zap.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Error, s.now.Pending = "", 0
	if s.enter(StateStandby, "") {
		log.Debug("services in Consul are left to the leader")
	}
}

func (s *status) pending(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Pending = n
}

func (s *status) synced(services, nodes int, refused []Refused, read time.Time, log *zap.Logger) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Services, s.now.Nodes, s.now.ReadAt, s.now.SyncedAt = services, nodes, read, time.Now()
	s.now.Error, s.now.Pending, s.now.RefusedCount = "", 0, len(refused)
	s.now.Refused = refused[:min(len(refused), maxRefused)]
	if len(refused) == 0 {
		if s.enter(StateSynced, "") {
			log.Info("services in Consul are up to date", zap.Int("services", services), zap.Int("nodes", nodes))
		}
		return
	}
	s.now.Error = refused[0].Service + ": " + refused[0].Error
	if s.enter(StatePartial, fault.Denied) {
		log.Warn("Consul does not accept some services; they are tried again when everything is read anew", zap.Int("services", len(refused)), zap.Any("first", refused[0]))
	}
}

var (
	stateDesc    = prometheus.NewDesc("holdfast_consul_state", "1 for the state that the registration in Consul is in: starting, standby, synced, partial, failing.", []string{"state"}, nil)
	servicesDesc = prometheus.NewDesc("holdfast_consul_services", "Services of ours in Consul after the last successful comparison.", nil, nil)
	pendingDesc  = prometheus.NewDesc("holdfast_consul_pending", "Services still to be written or removed in the comparison under way.", nil, nil)
	refusedDesc  = prometheus.NewDesc("holdfast_consul_refused", "Services that Consul does not accept.", nil, nil)
	callsDesc    = prometheus.NewDesc("holdfast_consul_calls_total", "Calls made to Consul.", nil, nil)
	failuresDesc = prometheus.NewDesc("holdfast_consul_failures_total", "Comparisons that failed and were made again.", nil, nil)
	syncedDesc   = prometheus.NewDesc("holdfast_consul_synced_timestamp_seconds", "When Consul was last known to be as it should; 0 for never.", nil, nil)
)

var _ prometheus.Collector = (*Registrar)(nil)

// Describe implements prometheus.Collector.
func (r *Registrar) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(r, out) }

// Collect implements prometheus.Collector.
func (r *Registrar) Collect(out chan<- prometheus.Metric) {
	s := r.Status()
	for _, state := range []string{StateStarting, StateStandby, StateSynced, StatePartial, StateFailing} {
		v := 0.
		if s.State == state {
			v = 1
		}
		out <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, v, state)
	}
	synced := 0.
	if !s.SyncedAt.IsZero() {
		synced = float64(s.SyncedAt.UnixMilli()) / 1000
	}
	for d, v := range map[*prometheus.Desc]float64{servicesDesc: float64(s.Services), pendingDesc: float64(s.Pending), refusedDesc: float64(s.RefusedCount), syncedDesc: synced} {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	out <- prometheus.MustNewConstMetric(callsDesc, prometheus.CounterValue, float64(s.Calls))
	out <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(s.Failures))
}
