package api

import (
	"math"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/holdfast-io/holdfast/scheduler/state"
)

// metrics answers /metrics: Marathon's JSON, or text for whoever asks for that, as Prometheus does.
func (s *server) metrics(from prometheus.Gatherer) http.HandlerFunc {
	text := promhttp.HandlerFor(from, promhttp.HandlerOpts{})
	return func(w http.ResponseWriter, r *http.Request) {
		accept := r.Header.Get("Accept")
		if !strings.Contains(accept, "json") && (strings.Contains(accept, "text/plain") || strings.Contains(accept, "openmetrics")) {
			text.ServeHTTP(w, r)
			return
		}
		families, err := from.Gather()
		if err != nil {
			s.Fail(w, r, err)
			return
		}
		m := newMetrics()
		for _, f := range families {
			m.family(f)
		}
		s.Core.View(m.marathons)
		s.JSON(w, r, http.StatusOK, m)
	}
}

type count struct {
	Count float64 `json:"count"`
}

type gauge struct {
	Value float64 `json:"value"`
}

// histogram has what Marathon's has; what buckets cannot tell exactly is the upper bound of the bucket.
type histogram struct {
	Count  float64 `json:"count"`
	Min    float64 `json:"min"`
	Mean   float64 `json:"mean"`
	Max    float64 `json:"max"`
	P50    float64 `json:"p50"`
	P75    float64 `json:"p75"`
	P95    float64 `json:"p95"`
	P98    float64 `json:"p98"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p999"`
	StdDev float64 `json:"stddev"`
}

// marathonMetrics is the shape of Marathon's /metrics.
type marathonMetrics struct {
	Version    string               `json:"version"`
	Counters   map[string]count     `json:"counters"`
	Gauges     map[string]gauge     `json:"gauges"`
	Histograms map[string]histogram `json:"histograms"`
	Meters     map[string]struct{}  `json:"meters"`
	Timers     map[string]struct{}  `json:"timers"`
}

func newMetrics() *marathonMetrics {
	return &marathonMetrics{Version: "4.0.0", Counters: map[string]count{}, Gauges: map[string]gauge{}, Histograms: map[string]histogram{},
		Meters: map[string]struct{}{}, Timers: map[string]struct{}{}}
}

// family takes one of our metrics in: name.label-value, as there are no labels in that shape.
func (m *marathonMetrics) family(f *dto.MetricFamily) {
	for _, one := range f.GetMetric() {
		name := f.GetName()
		for _, l := range one.GetLabel() {
			name += "." + l.GetValue()
		}
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			m.Counters[name] = count{finite(one.GetCounter().GetValue())}
		case dto.MetricType_GAUGE:
			m.Gauges[name] = gauge{finite(one.GetGauge().GetValue())}
		case dto.MetricType_HISTOGRAM:
			m.Histograms[name] = histogramOf(one.GetHistogram())
		}
	}
}

// finite: JSON has no other numbers, and Marathon prints 0 for NaN too.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

func histogramOf(h *dto.Histogram) histogram {
	out := histogram{Count: float64(h.GetSampleCount())}
	if h.GetSampleCount() == 0 {
		return out
	}
	out.Mean = finite(h.GetSampleSum() / out.Count)
	at := func(q float64) float64 {
		want := uint64(math.Ceil(q * out.Count))
		last := 0.0
		for _, b := range h.GetBucket() {
			if math.IsInf(b.GetUpperBound(), 0) {
				break
			}
			if last = b.GetUpperBound(); b.GetCumulativeCount() >= max(want, 1) {
				break
			}
		}
		return last
	}
	out.Min, out.P50, out.P75, out.P95, out.P98, out.P99, out.P999, out.Max = at(0), at(.5), at(.75), at(.95), at(.98), at(.99), at(.999), at(1)
	return out
}

// marathons are the gauges that dashboards for Marathon ask for.
func (m *marathonMetrics) marathons(st *state.State) {
	set := func(name string, n int) { m.Gauges["marathon."+name+".gauge"] = gauge{float64(n)} }
	groups := map[state.AppID]bool{"/": true}
	apps, staged, running := 0, 0, 0
	for id, a := range st.Apps {
		if a.Removed {
			continue
		}
		apps++
		for g := id; strings.LastIndexByte(string(g), '/') > 0; groups[g] = true {
			g = g[:strings.LastIndexByte(string(g), '/')]
		}
	}
	for id := range st.Groups {
		groups[id] = true
	}
	for _, i := range st.Instances {
		switch i.Phase {
		case state.PhaseLaunching, state.PhaseStaging:
			staged++
		case state.PhaseRunning:
			running++
		}
	}
	set("apps.active", apps)
	set("groups.active", len(groups))
	set("deployments.active", len(st.Deployments))
	set("instances.staged", staged)
	set("instances.running", running)
}
