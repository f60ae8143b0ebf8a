// Package check finds out how the embedded engine's tasks are doing: health checks, whose failures kill, and general checks, whose
// results are only told. Commands run beside the task, HTTP and TCP go to the loopback address, with Mesos's timing and defaults.
package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/process"
)

// UnknownGeneral is the type of a general check that says nothing.
const UnknownGeneral = mesos.CheckInfo_UNKNOWN

// Target is the task that is checked.
type Target struct {
	Proc *process.Process
	// Env builds the process of a command check: the task's user, directory and environment.
	Env func(mesos.CommandInfo) (process.Spec, error)
}

// HealthResult is one result that is worth telling: every failure, and the first success after a failure or the start.
type HealthResult struct {
	Healthy bool
	Message string // why not
	Kill    bool   // too many failures in a row
}

// Health checks until the returned function is called; report is called from one goroutine, and not any more after stop has
// returned unless it was running.
func Health(hc mesos.HealthCheck, t Target, report func(HealthResult)) (stop func()) {
	delay := seconds(hc.DelaySeconds, 15)
	interval := seconds(hc.IntervalSeconds, 10)
	timeout := seconds(hc.TimeoutSeconds, 20)
	grace := seconds(hc.GracePeriodSeconds, 10)
	limit := uint32(3)
	if hc.ConsecutiveFailures != nil {
		limit = *hc.ConsecutiveFailures
	}
	probe := healthProbe(hc, t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		begun := time.Now()
		fresh, failures := true, uint32(0)
		if !sleep(ctx, delay) {
			return
		}
		for {
			_, err := attempt(ctx, timeout, probe)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				if fresh || failures > 0 {
					report(HealthResult{Healthy: true})
				}
				fresh, failures = false, 0
			case fresh && time.Since(begun) <= grace: // a start may take its time
			default:
				failures++
				report(HealthResult{Message: err.Error(), Kill: failures >= limit})
			}
			if !sleep(ctx, interval) {
				return
			}
		}
	}()
	return cancel
}

// General checks until the returned function is called and reports every change of the result.
func General(ck mesos.CheckInfo, t Target, report func(mesos.CheckStatusInfo)) (stop func()) {
	delay := seconds(ck.DelaySeconds, 15)
	interval := seconds(ck.IntervalSeconds, 10)
	timeout := seconds(ck.TimeoutSeconds, 20)
	probe := generalProbe(ck, t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		last := "never"
		for pause := delay; sleep(ctx, pause); pause = interval {
			value, err := attempt(ctx, timeout, probe)
			if ctx.Err() != nil {
				return
			}
			result := Empty(ck)
			text := "unknown"
			if err == nil {
				text = strconv.Itoa(value)
				fill(result, value)
			}
			if text != last {
				report(*result)
			}
			last = text
		}
	}()
	return cancel
}

// Empty is the result of a general check before its first run: the type and nothing else.
func Empty(ck mesos.CheckInfo) *mesos.CheckStatusInfo {
	kind := ck.Type
	s := &mesos.CheckStatusInfo{Type: &kind}
	switch kind {
	case mesos.CheckInfo_COMMAND:
		s.Command = &mesos.CheckStatusInfo_Command{}
	case mesos.CheckInfo_HTTP:
		s.HTTP = &mesos.CheckStatusInfo_Http{}
	case mesos.CheckInfo_TCP:
		s.TCP = &mesos.CheckStatusInfo_Tcp{}
	}
	return s
}

func fill(s *mesos.CheckStatusInfo, value int) {
	switch {
	case s.Command != nil:
		v := int32(value)
		s.Command.ExitCode = &v
	case s.HTTP != nil:
		v := uint32(value)
		s.HTTP.StatusCode = &v
	case s.TCP != nil:
		v := value == 1
		s.TCP.Succeeded = &v
	}
}

// probe looks once. Its value is an exit code, an HTTP status, or 1 for an open port.
type probe func(ctx context.Context) (int, error)

func attempt(ctx context.Context, timeout time.Duration, p probe) (int, error) {
	if timeout > 0 { // zero is for ever, as in Mesos
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("timed out after %v", timeout))
		defer cancel()
	}
	return p(ctx)
}

// seconds reads a duration from outside; what is no sensible number counts as the default.
func seconds(v *float64, def float64) time.Duration {
	s := def
	if v != nil && *v >= 0 && !math.IsNaN(*v) {
		s = min(*v, 1e8)
	}
	return time.Duration(s * float64(time.Second))
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func healthProbe(hc mesos.HealthCheck, t Target) probe {
	switch {
	case hc.Type == mesos.HealthCheck_HTTP && hc.HTTP != nil:
		get := httpProbe(hc.HTTP.GetScheme(), address(hc.HTTP.Protocol, hc.HTTP.Port), hc.HTTP.GetPath())
		return func(ctx context.Context) (int, error) {
			code, err := get(ctx)
			if err == nil && (code < 200 || code >= 400) {
				//lint:ignore ST1005 Mesos's own text
				err = fmt.Errorf("Unexpected HTTP response code: %s", statusLine(code))
			}
			return code, err
		}
	case hc.Type == mesos.HealthCheck_TCP && hc.TCP != nil:
		at := address(hc.TCP.Protocol, hc.TCP.Port)
		return func(ctx context.Context) (int, error) { return 1, dial(ctx, at) }
	case hc.Command != nil: // COMMAND, and UNKNOWN of old frameworks
		run := commandProbe(*hc.Command, t)
		return func(ctx context.Context) (int, error) {
			code, err := run(ctx)
			if err == nil && code != 0 {
				//lint:ignore ST1005 Mesos's own text
				err = fmt.Errorf("Command exited with status %d", code)
			}
			return code, err
		}
	}
	return func(context.Context) (int, error) {
		return 0, errors.New("health check says neither command, http nor tcp")
	}
}

func generalProbe(ck mesos.CheckInfo, t Target) probe {
	switch {
	case ck.Type == mesos.CheckInfo_HTTP && ck.HTTP != nil:
		return httpProbe("http", address(nil, ck.HTTP.Port), ck.HTTP.GetPath())
	case ck.Type == mesos.CheckInfo_TCP && ck.TCP != nil:
		at := address(nil, ck.TCP.Port)
		return func(ctx context.Context) (int, error) {
			if dial(ctx, at) != nil {
				return 0, nil
			}
			return 1, nil
		}
	case ck.Type == mesos.CheckInfo_COMMAND && ck.Command != nil:
		return commandProbe(ck.Command.Command, t)
	}
	return func(context.Context) (int, error) { return 0, errors.New("check says neither command, http nor tcp") }
}

func commandProbe(cmd mesos.CommandInfo, t Target) probe {
	return func(ctx context.Context) (int, error) {
		spec, err := t.Env(cmd)
		if err != nil {
			return 0, err
		}
		out, err := t.Proc.RunIn(ctx, spec)
		if err != nil {
			return 0, err
		}
		if out.Exit.Signal != 0 {
			return 0, errors.New("Command " + out.Exit.Describe())
		}
		return out.Exit.Code, nil
	}
}

func address(p *mesos.NetworkInfo_Protocol, port uint32) string {
	host := "127.0.0.1"
	if p != nil && *p == mesos.IPv6 {
		host = "::1"
	}
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

func dial(ctx context.Context, at string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		return fmt.Errorf("TCP check: %w", err)
	}
	return conn.Close()
}

// client is shared by all HTTP checks: one connection a check, certificates are not looked at, as Mesos's checks do.
var client = sync.OnceValue(func() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, Proxy: nil, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the task's own port on this machine
	}}
})

func httpProbe(scheme, at, path string) probe {
	if scheme == "" {
		scheme = "http"
	}
	if path != "" && !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return func(ctx context.Context) (int, error) {
		if scheme != "http" && scheme != "https" {
			return 0, fmt.Errorf("unsupported scheme '%s'", scheme)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+at+path, nil)
		if err != nil {
			return 0, err
		}
		resp, err := client().Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
		return resp.StatusCode, nil
	}
}

func statusLine(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}
