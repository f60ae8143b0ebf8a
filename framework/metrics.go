package framework

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// Metrics are what the loop measures.
type Metrics struct {
	events    *prometheus.CounterVec
	batches   prometheus.Histogram
	sizes     prometheus.Histogram
	commits   *prometheus.CounterVec
	commitDur prometheus.Histogram

	registry prometheus.Registerer
}

// NewMetrics registers the metrics with r; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	latency := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_events_total", Help: "Events the scheduler has stepped through, by type."}, []string{"type"}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_loop_seconds", Buckets: latency,
			Help: "Time of one turn of the loop: planning, commit, handing over calls."}),
		sizes: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_loop_events", Buckets: prometheus.ExponentialBuckets(1, 2, 9),
			Help: "Events in one turn of the loop."}),
		commits:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_commits_total", Help: "Commits to the state store, by result (ok or fault class)."}, []string{"result"}),
		commitDur: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_commit_seconds", Buckets: latency, Help: "Time of one commit."}),
		registry:  r,
	}
	if r != nil {
		r.MustRegister(m.events, m.batches, m.sizes, m.commits, m.commitDur)
	}
	return m
}

func (m *Metrics) event(e scheduler.Event) { m.events.WithLabelValues(eventName(e)).Inc() }

func (m *Metrics) batch(events int, d time.Duration) {
	m.batches.Observe(d.Seconds())
	m.sizes.Observe(float64(events))
}

func (m *Metrics) commit(d time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = string(fault.ClassOf(err))
	}
	m.commits.WithLabelValues(result).Inc()
	m.commitDur.Observe(d.Seconds())
}

// watch adds what is counted in the state whenever somebody asks.
func (m *Metrics) watch(core Core) {
	if m.registry != nil {
		m.registry.MustRegister(census{core})
	}
}

// census counts what is in the committed state.
type census struct{ core Core }

var (
	instancesDesc = prometheus.NewDesc("holdfast_instances", "Instances by phase.", []string{"phase"}, nil)
	appsDesc      = prometheus.NewDesc("holdfast_apps", "Apps.", nil, nil)
	volumesDesc   = prometheus.NewDesc("holdfast_volumes", "Volumes by phase.", []string{"phase"}, nil)
	offersDesc    = prometheus.NewDesc("holdfast_offers_held", "Offers that are held now.", nil, nil)
	holdDesc      = prometheus.NewDesc("holdfast_hold", "1 while nothing is started, moved or killed, by kind: frozen (a person's word) or brake.", []string{"kind"}, nil)
	fullDesc      = prometheus.NewDesc("holdfast_volumes_full", "Volumes that are nearly full (85 %) or full (95 %), as their nodes measure.", []string{"level"}, nil)
	operatingDesc = prometheus.NewDesc("holdfast_operations", "Operations on volumes by phase, of the last day.", []string{"phase"}, nil)
	leavingDesc   = prometheus.NewDesc("holdfast_nodes_ordered", "Nodes that are cordoned, draining, drained, decommissioning or decommissioned.", []string{"state"}, nil)
	connectedDesc = prometheus.NewDesc("holdfast_master_connected", "1 while subscribed to a Mesos master.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c census) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c census) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	instances, volumes := map[state.Phase]int{}, map[state.VolumePhase]int{}
	orders := map[string]int{}
	full := map[string]int{"nearly-full": 0, "full": 0}
	operations := map[state.OperationPhase]int{}
	var apps, offers, connected int
	var frozen, brake bool
	c.core.View(func(s *state.State) {
		apps, offers = len(s.Apps), len(s.Offers)
		for _, i := range s.Instances {
			instances[i.Phase]++
		}
		for _, v := range s.Volumes {
			volumes[v.Phase]++
		}
		if s.Session.Connected {
			connected = 1
		}
		if h := s.Hold; h != nil {
			frozen, brake = h.Freeze != nil, h.Brake != nil
		}
		for _, n := range s.Nodes {
			for _, v := range n.Full {
				full[v.Level]++
			}
		}
		for _, o := range s.Operations {
			if !o.Asks() {
				operations[o.Phase]++
			}
		}
		for _, o := range s.Orders {
			orders[o.State()]++
		}
	})
	for p, n := range instances {
		gauge(instancesDesc, n, string(p))
	}
	for p, n := range volumes {
		gauge(volumesDesc, n, string(p))
	}
	for level, n := range full {
		gauge(fullDesc, n, level)
	}
	for p, n := range operations {
		gauge(operatingDesc, n, string(p))
	}
	for o, n := range orders {
		gauge(leavingDesc, n, o)
	}
	one := map[bool]int{true: 1}
	gauge(holdDesc, one[frozen], state.ReasonFrozen)
	gauge(holdDesc, one[brake], state.ReasonBrake)
	gauge(appsDesc, apps)
	gauge(offersDesc, offers)
	gauge(connectedDesc, connected)
}
