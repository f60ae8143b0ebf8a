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
	instances *prometheus.GaugeVec
	connected prometheus.Gauge
	observed  time.Time
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
		instances: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "holdfast_instances", Help: "Instances by phase."}, []string{"phase"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_master_connected", Help: "1 while subscribed to a Mesos master."}),
	}
	if r != nil {
		r.MustRegister(m.events, m.batches, m.sizes, m.commits, m.commitDur, m.instances, m.connected)
	}
	return m
}

func (m *Metrics) event(e scheduler.Event) { m.events.WithLabelValues(eventName(e)).Inc() }

func (m *Metrics) batch(events int, d time.Duration) {
	m.batches.Observe(d.Seconds())
	m.sizes.Observe(float64(events))
}

func (m *Metrics) commit(_ int, d time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = string(fault.ClassOf(err))
	}
	m.commits.WithLabelValues(result).Inc()
	m.commitDur.Observe(d.Seconds())
}

// observe counts instances, at most once a second: it looks at all of them. The caller holds the lock of the view.
func (m *Metrics) observe(view *state.State) {
	now := time.Now()
	if now.Sub(m.observed) < time.Second {
		return
	}
	m.observed = now
	counts := map[state.Phase]int{}
	for _, i := range view.Instances {
		counts[i.Phase]++
	}
	m.instances.Reset()
	for p, n := range counts {
		m.instances.WithLabelValues(string(p)).Set(float64(n))
	}
	connected := 0.0
	if view.Session.Connected {
		connected = 1
	}
	m.connected.Set(connected)
}
